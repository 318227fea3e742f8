"""What Slurm says as metrics: pure counting."""

import bisect
from collections import Counter

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

#: States of jobs that are over.
ENDED = {"boot_fail", "cancelled", "completed", "deadline", "failed", "launch_failed", "node_fail", "out_of_memory",
         "preempted", "reconfig_fail", "revoked", "timeout"}  # fmt: skip
#: States that are told of, with 0, where there is nothing in them.
JOB_STATES = ("pending", "running")
NODE_STATES = ("allocated", "down", "drained", "draining", "idle", "mixed")
#: Bounds in seconds, up to a week.
WAITS = (1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400, 259200, 604800)
LONGEST = 200  # characters of a reason

MAIN, BACKFILL = "Main schedule statistics (microseconds)", "Backfilling stats"
#: metric -> (help, labels, {values of the labels: (section, name in sdiag)}); those in seconds are microseconds there.
DIAGNOSTICS: dict[str, tuple[str, list, dict]] = {
    "slurm_server_threads": ("Threads of slurmctld that answer calls", [], {(): ("", "Server thread count")}),
    "slurm_agent_queue_size": ("Calls of slurmctld to nodes that wait", [], {(): ("", "Agent queue size")}),
    "slurm_agent_threads": ("Threads of slurmctld that call nodes", [], {(): ("", "Agent thread count")}),
    "slurm_dbd_agent_queue_size": (
        "Messages of slurmctld that wait for slurmdbd", [], {(): ("", "DBD Agent queue size")},
    ),
    "slurm_scheduler_jobs_total": (
        "Jobs by what happened to them, since slurmctld started or midnight UTC",
        ["event"],
        {(event,): ("", f"Jobs {event}") for event in ("submitted", "started", "completed", "canceled", "failed")},
    ),
    "slurm_scheduler_cycles_total": (
        "Runs of the scheduler, since slurmctld started or midnight UTC",
        ["scheduler"],
        {("main",): (MAIN, "Total cycles"), ("backfill",): (BACKFILL, "Total cycles")},
    ),
    "slurm_scheduler_last_cycle_seconds": (
        "How long the last run of the scheduler took",
        ["scheduler"],
        {("main",): (MAIN, "Last cycle"), ("backfill",): (BACKFILL, "Last cycle")},
    ),
    "slurm_scheduler_mean_cycle_seconds": (
        "How long a run of the scheduler takes in the mean",
        ["scheduler"],
        {("main",): (MAIN, "Mean cycle"), ("backfill",): (BACKFILL, "Mean cycle")},
    ),
    "slurm_scheduler_max_cycle_seconds": (
        "How long the longest run of the scheduler took",
        ["scheduler"],
        {("main",): (MAIN, "Max cycle"), ("backfill",): (BACKFILL, "Max cycle")},
    ),
    "slurm_scheduler_queue_length": (
        "Jobs that the last run of the scheduler looked at",
        ["scheduler"],
        {("main",): (MAIN, "Last queue length"), ("backfill",): (BACKFILL, "Last queue length")},
    ),
    "slurm_backfilled_jobs_total": (
        "Jobs that started by backfill, since slurmctld started",
        [],
        {(): (BACKFILL, "Total backfilled jobs (since last slurm start)")},
    ),
}  # fmt: skip


class History:
    """What adds up from one look at the queue to the next; the first one only says what there was before."""

    def __init__(self):
        self.begun = self.over = None
        self.waits, self.waited, self.ended = {}, Counter(), Counter()

    def add(self, jobs):
        """Count the jobs that started or ended since the last time."""
        begun = {(job.id, job.started): job for job in jobs if job.ran and job.started and job.eligible}
        over = {job.id: job for job in jobs if job.state in ENDED}
        for key in begun.keys() - (begun if self.begun is None else self.begun):
            job = begun[key]
            wait = max(job.started - job.eligible, 0)
            counts = self.waits.setdefault(job.partition, [0] * (len(WAITS) + 1))
            counts[bisect.bisect_left(WAITS, wait)] += 1
            self.waited[job.partition] += wait
        for key in over.keys() - (over if self.over is None else self.over):
            self.ended[over[key].partition, over[key].state] += 1
        self.begun, self.over = begun.keys(), over.keys()

    def families(self, partitions):
        """Yield the metrics; every partition has its histogram from the start."""
        waits = HistogramMetricFamily(
            "slurm_job_wait_seconds", "From when a job could start to its start", labels=["partition"]
        )
        for name in sorted(self.waits.keys() | set(partitions)):
            total, buckets = 0, []
            for bound, count in zip((*WAITS, "+Inf"), self.waits.get(name, [0] * (len(WAITS) + 1)), strict=True):
                total += count
                buckets.append((str(bound), total))
            waits.add_metric([name], buckets, self.waited[name])
        yield waits
        yield counter("slurm_jobs_ended_total", "Jobs that ended", ["partition", "state"], self.ended)


def gauge(name, text, labels, values):
    """Return a gauge of ``{values of the labels: number}``."""
    return filled(GaugeMetricFamily(name, text, labels=labels), values)


def counter(name, text, labels, values):
    """Return a counter of ``{values of the labels: number}``."""
    return filled(CounterMetricFamily(name, text, labels=labels), values)


def filled(family, values):
    """Return the family with its values in it."""
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def up(answers):
    """Return whether Slurm answers as a metric."""
    return gauge(
        "slurm_up", "Whether slurmctld answered the last time; without it there is nothing else", [], {(): answers}
    )


def jobs_families(jobs, partitions, now):
    """Yield the metrics of the jobs that wait or run; ``partitions`` is a list of all there are, ``now`` a time."""
    queue = Counter({(state, name): 0 for state in JOB_STATES for name in partitions})
    accounts, users = ({"jobs": Counter(), "cpus": Counter(), "memory": Counter()} for _ in range(2))
    reasons, oldest = Counter(), dict.fromkeys(((name,) for name in partitions), 0)
    for job in jobs:
        if job.state in ENDED:
            continue
        queue[job.state, job.partition] += job.tasks
        for counts, name in ((accounts, job.account), (users, job.user)):
            counts["jobs"][name, job.state] += job.tasks
            counts["cpus"][name, job.state] += job.tasks * job.cpus
            counts["memory"][name, job.state] += job.tasks * job.memory
        if job.state == "pending":
            reasons[job.partition, job.reason] += job.tasks
            if job.eligible:
                oldest[job.partition,] = max(oldest.get((job.partition,), 0), now - job.eligible)
    yield gauge("slurm_jobs", "Jobs that wait or run, each task of an array one", ["state", "partition"], queue)
    for label, counts in (("account", accounts), ("user", users)):
        labels = [label, "state"]
        yield gauge(f"slurm_{label}_jobs", f"Jobs by {label}, each task of an array one", labels, counts["jobs"])
        yield gauge(f"slurm_{label}_cpus", f"CPUs that jobs have or wait for, by {label}", labels, counts["cpus"])
        yield gauge(
            f"slurm_{label}_memory_bytes", f"Memory that jobs have or wait for, by {label}", labels, counts["memory"]
        )
    yield gauge("slurm_pending_jobs", "Jobs that wait, by what for", ["partition", "reason"], reasons)
    yield gauge(
        "slurm_pending_oldest_seconds",
        "How long the job has waited that could have started first",
        ["partition"],
        oldest,
    )


def nodes_families(nodes):
    """Yield the metrics of ``{name: Node}``."""
    partitions = {name for node in nodes.values() for name in node.partitions}
    states = Counter({(state,): 0 for state in NODE_STATES})
    by_partition = Counter({(name, state): 0 for name in partitions for state in NODE_STATES})
    cpus, gpus = Counter(), Counter()
    for node in nodes.values():
        states[node.shown,] += 1
        for name in node.partitions:
            by_partition[name, node.shown] += 1
            for state, number in node.cpus.items():
                cpus[name, state] += number
        for kind, (used, total) in node.gpus.items():
            gpus[kind, "allocated"] += used
            # As with CPUs: idle is what a job could have.
            gpus[kind, "idle"] += 0 if node.cpus["other"] else total - used
            gpus[kind, "other"] += total - used if node.cpus["other"] else 0
    yield gauge("slurm_nodes", "Nodes by state, as sinfo puts it", ["state"], states)
    yield gauge("slurm_partition_nodes", "Nodes of a partition by state", ["partition", "state"], by_partition)
    yield gauge("slurm_partition_cpus", "CPUs of a partition by state", ["partition", "state"], cpus)
    yield gauge("slurm_gpus", "GPUs by type and state", ["type", "state"], gpus)
    yield gauge("slurm_gpus_total", "GPUs of all types; 0 if there are none", [], {(): sum(gpus.values())})
    yield gauge(
        "slurm_node_info",
        "1 for each node, with its state and what else holds of it, such as drain,not_responding",
        ["node", "state", "flags"],
        {(name, node.state, ",".join(node.flags)): 1 for name, node in nodes.items()},
    )
    yield gauge(
        "slurm_node_reason_info",
        "1 for each node that is out of service for a reason",
        ["node", "reason"],
        {(name, node.reason[:LONGEST]): 1 for name, node in nodes.items() if node.reason},
    )


def statistics_families(statistics):
    """Yield the metrics of :class:`slurm.Statistics`; what this version of sdiag does not say is left out."""
    for name, (text, labels, sources) in DIAGNOSTICS.items():
        scale = 1e-6 if name.endswith("_seconds") else 1
        values = {
            key: statistics.values[source] * scale for key, source in sources.items() if source in statistics.values
        }
        yield (counter if name.endswith("_total") else gauge)(name, text, labels, values)
    calls = statistics.calls.items()
    yield counter(
        "slurm_rpc_total", "Calls that slurmctld answered, by type", ["type"], {(kind,): n for kind, (n, _) in calls}
    )
    yield counter(
        "slurm_rpc_seconds_total",
        "Time that slurmctld took for calls, by type",
        ["type"],
        {(kind,): seconds for kind, (_, seconds) in calls},
    )

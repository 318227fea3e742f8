"""
Checks of Slurm.
"""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

from .ask import command, connect
from .engine import Fault
from .nodes import count, tell

#: Of Slurm's node states: those in which a node gets jobs, or has them.
SERVES = ("idle", "mixed", "allocated", "completing", "planned", "reserved")


def slurm_conf(site):
    """Slurm's commands can read slurm.conf."""
    done = command("scontrol", "show", "hostnames", "localhost", check=False)
    if done.returncode:
        lines = [line.partition("error: ")[2] for line in done.stderr.splitlines()]
        raise Fault(*([line for line in lines if line] or [done.stderr.strip()]))
    return "can be read"


def slurmctld(site):
    """slurmctld answers."""
    done = command("scontrol", "ping", check=False)
    said = (done.stdout or done.stderr).strip().partition("\n")[0]  # in front of a banner of asterisks
    if done.returncode:
        raise Fault(said)
    return said


def configuration(site):
    """slurmctld runs the configuration that is in place, with the partitions that the pillar declares."""
    shown = dict(
        line.split("=", 1) for line in command("scontrol", "show", "config").stdout.splitlines() if "=" in line
    )
    loaded = {key.strip(): value.strip() for key, value in shown.items()}
    partitions = json.loads(command("scontrol", "--json", "show", "partition").stdout)["partitions"]
    wrong = not_loaded(
        loaded.get("HASH_VAL", ""), {each["name"] for each in partitions}, set(site.pillar["partitions"])
    )
    registered = json.loads(command("scontrol", "--json", "show", "node").stdout)["nodes"]
    declared = {name: site.pillar["nodes"][name].get("gres") for name in site.workers if name in site.pillar["nodes"]}
    wrong += unregistered({each["name"]: each["gres"] for each in registered}, declared)
    if wrong:
        raise Fault(*wrong)
    return f"is in force, with {len(partitions)} partition{'' if len(partitions) == 1 else 's'}"


def not_loaded(hash_value, running, declared):
    """Return lines about what slurmctld runs and what is declared: ``scontrol``'s HASH_VAL, and names of partitions."""
    lines = []
    if hash_value.startswith("Different"):
        lines.append("slurmctld has not loaded the slurm.conf that is in place")
    lines += [f"partition {name} is declared, slurmctld does not have it" for name in sorted(declared - running)]
    return lines + [f"slurmctld has the partition {name}, which is not declared" for name in sorted(running - declared)]


def unregistered(registered, declared):
    """Return lines about generic resources that nodes did not register as declared: both ``{node: gres}``."""
    lines = []
    for node, gres in sorted(declared.items()):
        if gres and node in registered:
            has, wanted = counts(registered[node]), counts(gres)
            if any(has.get(kind, 0) != count for kind, count in wanted.items()):
                lines.append(f"nodes.{node}.gres is {gres}, {node} has registered {registered[node] or 'none'}")
    return lines


def counts(gres):
    """Return Slurm's ``gpu:a100:2(S:0),shard:a100:4`` as ``{"gpu": 2, "gpu:a100": 2, "shard": 4, "shard:a100": 4}``."""
    totals: dict[str, int] = {}
    for entry in filter(None, re.sub(r"\([^)]*\)", "", gres).split(",")):
        kind, _, count = entry.rpartition(":")
        for name in {kind, kind.partition(":")[0]}:
            totals[name] = totals.get(name, 0) + int(count)
    return totals


def slurmdbd(site):
    """slurmdbd answers, and has the cluster."""
    name = site.pillar["cluster"]["name"]
    found = command("sacctmgr", "--noheader", "--parsable2", "show", "cluster", "format=cluster").stdout.split()
    if name not in found:
        raise Fault(
            f"the cluster {name} is not among {', '.join(found) or 'none'}",
            advice="salt-call state.apply slurm.accounting",
        )
    return f"has the cluster {name}"


def slurmd(site):
    """Each worker's slurmd listens."""
    port = site.settings("slurm")["config"]["SlurmdPort"]

    def refused(worker):
        try:
            connect((site.members[worker]["address"], port), timeout=3).close()
        except Fault as fault:
            return f"{worker}: {fault}"
        return None

    with ThreadPoolExecutor(64) as pool:
        answers = dict(zip(site.workers, pool.map(refused, site.workers), strict=True))
    tell({worker: answer for worker, answer in answers.items() if answer})
    return f"listens on {count(answers)}"


def nodes(site):
    """Each worker is in service."""
    out = command("sinfo", "--noheader", "--Node", "--format=%N|%T|%E").stdout
    wrong = out_of_service(out, site.workers)
    if wrong:
        advice = f"scontrol update nodename={','.join(sorted(wrong))} state=resume"
        raise Fault(*(wrong[node] for node in sorted(wrong)), nodes=wrong, advice=advice)
    off = f"; switched off until a job needs them: {', '.join(sorted(site.asleep))}" if site.asleep else ""
    return f"{count(site.workers)} in service{off}"


def out_of_service(sinfo, workers):
    """Return ``{worker: why}`` of those that get no jobs, after ``sinfo``'s lines ``node|state|reason``."""
    states = {name: rest for name, *rest in (line.split("|", 2) for line in sinfo.splitlines())}
    wrong = {}
    for worker in workers:
        state, reason = states.get(worker, ("not there", "none"))
        if state.rstrip("+~#!%$@^-") not in SERVES:
            wrong[worker] = f"{worker} is {state}" + ("" if reason.lower() == "none" else f": {reason}")
    return wrong


def is_open(partition):
    """Whether root may use a partition of the pillar: where only some accounts, groups or QOS may, it may not."""
    limits = {"accounts", "groups", "allow_qos"} & {key for key, value in partition.items() if value}
    return not limits and not any(key.lower().startswith(("allow", "deny")) for key in partition.get("config", {}))


def free(sinfo, workers):
    """Return ``{partition: an idle node}`` after ``sinfo``'s lines ``partition|node|state``."""
    rows = [line.split("|") for line in sinfo.splitlines()]
    return {partition: node for partition, node, state in reversed(rows) if state == "idle" and node in workers}


def jobs(site):
    """A job runs in each partition that has a free node and is open to everybody."""
    out = command("sinfo", "--noheader", "--Node", "--format=%R|%N|%T").stdout
    declared = site.pillar["partitions"]
    partitions = {name: node for name, node in free(out, site.workers).items() if is_open(declared.get(name, {}))}
    with ThreadPoolExecutor(8) as pool:
        ran = dict(zip(partitions, pool.map(run, partitions, partitions.values()), strict=True))
    wrong = [f"{partition}: {said}" for partition, (_, said) in ran.items() if said]
    if wrong:
        raise Fault(*wrong)
    site.notes["jobs"] = [job for job, _ in ran.values() if job]
    used = [partition for partition, (job, _) in ran.items() if job]
    others = sorted({line.split("|")[0] for line in out.splitlines()} - set(used))
    rest = f"; without free nodes, or not for root: {', '.join(others)}" if others else ""
    return f"ran in {', '.join(used) or 'none'}{rest}"


def run(partition, node):
    """Run a job as root; return ``(number, None)``, ``(None, None)`` if others have the node, else what Slurm said."""
    limits = ("--nodes=1", "--ntasks=1", "--mem=1", "--time=1", "--immediate=5", "--chdir=/", "--job-name=doctor")
    where = (f"--partition={partition}", f"--nodelist={node}")
    done = command("srun", "--quiet", *where, *limits, "sh", "-c", "echo $SLURM_JOB_ID", check=False, timeout=15)
    if done.returncode == 0:
        return done.stdout.strip(), None
    taken = command("sinfo", "--noheader", f"--nodes={node}", "--format=%T").stdout.strip() != "idle"
    return None, None if taken else " ".join(done.stderr.split())


def accounting(site):
    """The job that ran is in the accounting."""
    if not site.notes["jobs"]:
        return "no job to look for"
    job, deadline = site.notes["jobs"][0], time.monotonic() + 10
    while (state := command("sacct", "-X", "-n", "-P", "-j", job, "-o", "State").stdout.strip()) != "COMPLETED":
        if time.monotonic() > deadline:
            raise Fault(f"job {job} is {state or 'not there'} after 10 s")
        time.sleep(0.2)
    return f"has job {job}"

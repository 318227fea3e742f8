"""What the Slurm exporter makes of what Slurm 24.11 printed (tests/unit/slurm), and of what it might."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.conftest import ROOT

sys.path.insert(0, str(ROOT / "formulas/slurm_exporter/files"))
from qhub_slurm_exporter import metrics, slurm  # noqa: E402

HERE = ROOT / "tests/unit/slurm"
SEPARATOR = "|5e9a7a70|"
NOW = 1795630850


def printed(name):
    """Return what one of Slurm's programs printed."""
    return (HERE / f"{name}.txt").read_text()


@pytest.fixture(scope="module")
def jobs():
    return slurm.read_jobs(printed("squeue"), SEPARATOR)


@pytest.fixture(scope="module")
def nodes():
    return slurm.read_nodes(printed("sinfo"), SEPARATOR)


def shown(*families):
    """Return ``{(name, (label, value), ...): number}`` as Prometheus reads it."""
    registry = CollectorRegistry()

    class Once:
        def describe(self):
            return []

        def collect(self):
            return families

    registry.register(Once())
    text = generate_latest(registry).decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def job(**changes):
    """Return a job that runs."""
    common = {"id": "1", "tasks": 1, "state": "running", "partition": "main", "account": "physics", "user": "ada"}
    common |= {"cpus": 1, "memory": 1, "ran": True, "eligible": 100, "started": 110, "reason": "None"}
    return slurm.Job(**common | changes)


# What is asked


def test_names_of_jobs_are_not_asked_for():
    assert not {"name", "jobname", "comment", "command", "workdir"} & {field.lower() for field in slurm.JOB}


def test_a_field_is_printed_in_full():
    # A number after the colon would be its width.
    assert slurm.columns(("State", "Reason"), SEPARATOR) == "--Format=State:|5e9a7a70|,Reason:|5e9a7a70|"


# What is read


@pytest.mark.parametrize(
    ("text", "count"),
    [("N/A", 1), ("7", 1), ("1-10", 10), ("1-10%5", 10), ("2-10,20,22,24,26,28,30%5", 15), ("1-898:3%4", 300),
     ("0", 1), ("1-19:2", 10), ("3,5", 2), ("", 1)],
)  # fmt: skip
def test_tasks_of_an_array_are_counted(text, count):
    assert slurm.tasks(text) == count


@given(st.sets(st.integers(0, 5000), min_size=1, max_size=50))
def test_tasks_of_any_array_are_counted(indices):
    assert slurm.tasks(",".join(map(str, sorted(indices)))) == len(indices)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("gpu:a100:4", {"a100": 4}), ("gpu:4", {"untyped": 4}), ("gpu:a100:4(S:0-1),shard:8", {"a100": 4}),
     ("gpu:a100:2(IDX:0,2),gpu:t4:0(IDX:N/A)", {"a100": 2, "t4": 0}), ("gpu:3g.20gb:2", {"3g.20gb": 2}), ("", {}),
     ("(null)", {}), ("shard:gpu:4", {}), ("gpu:4,gpu:t4:2", {"untyped": 4, "t4": 2})],
)  # fmt: skip
def test_gpus_are_counted(text, expected):
    assert slurm.gpus(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("200M", 200 << 20), ("31.5G", 63 << 29), ("2", 2 << 20), ("0", 0)])
def test_sizes_are_bytes(text, expected):
    assert slurm.size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("ReqNodeNotAvail, UnavailableNodes:w[1,7]", "ReqNodeNotAvail"), ("Priority", "Priority"),
     ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority", "NodesUnavailable"),
     ("launch failed requeued held", "launch_failed_requeued_held"), ("job requeued in held state", "job"),
     ("", "Other"), ('"x', "Other"), ("ü", "Other")],
)  # fmt: skip
def test_a_reason_is_one_word(text, expected):
    assert slurm.reason_word(text) == expected


def test_the_queue_is_read(jobs):
    found = {each.id: each for each in jobs}
    assert len(found) == 10
    weird = "we ird|`a"
    assert found["9"] == slurm.Job(
        "9", 1, "running", "debug", "phys", "ada", 2, 1 << 20, True, 1795630840, 1795630842, "None"
    )
    assert found["3"][1:4] == (300, "pending", "gpu")
    assert (found["4"].tasks, found["4"].cpus, found["4"].memory) == (10, 4, 200 << 20)
    assert found["4"].partition == "big", "the first of those it may run in"
    assert {each.account for each in jobs if each.user == "bob"} == {weird}
    assert not found["10"].ran, "cancelled before its start"
    assert {each.reason for each in jobs} == {
        "None", "Priority", "Resources", "JobHeldUser", "ReqNodeNotAvail", "NodesUnavailable",
    }  # fmt: skip


def test_the_nodes_are_read(nodes):
    assert set(nodes) == {"n1", "n2", "n3", "n4", "slurm"}, "w9 is a part of a reason"
    assert nodes["slurm"] == slurm.Node(
        partitions=["debug", "gpu"],
        state="mixed",
        flags=[],
        shown="mixed",
        cpus={"allocated": 2, "idle": 62, "other": 0, "total": 64},
        gpus={"a100": (1, 4), "t4": (0, 2)},
        reason="",
    )
    assert nodes["n1"].partitions == ["big", "shy"], "hidden ones too"
    assert (nodes["n2"].state, nodes["n2"].flags, nodes["n2"].shown) == ("unknown", ["drain"], "drained")
    assert nodes["n2"].reason == 'bad "disk" |x; \\ ünïcode\nw9|main|idle'


def test_the_statistics_are_read():
    values, calls = slurm.read_statistics(printed("sdiag"))
    assert values["", "DBD Agent queue size"] == 0
    assert values["", "Jobs submitted"] == 319
    assert values["Main schedule statistics (microseconds)", "Total cycles"] > 0
    assert {"REQUEST_JOB_INFO", "REQUEST_NODE_INFO", "REQUEST_SUBMIT_BATCH_JOB"} <= set(calls)
    assert "ada" not in calls, "who asked is not told"
    assert calls["REQUEST_SUBMIT_BATCH_JOB"][0] == 9


def test_all_of_it_is_shown(jobs, nodes):
    history = metrics.History()
    history.add([])
    history.add(jobs)
    partitions = ["big", "debug", "gpu", "shy"]
    seen = shown(
        metrics.up(1),
        *metrics.jobs_families(jobs, partitions, NOW),
        *metrics.nodes_families(nodes),
        *metrics.statistics_families(slurm.read_statistics(printed("sdiag"))),
        *history.families(partitions),
    )
    account, user = ("account", "we ird|`a"), ("user", "ada")
    assert seen[("slurm_up",)] == 1
    assert seen["slurm_jobs", ("partition", "gpu"), ("state", "pending")] == 300
    assert seen["slurm_jobs", ("partition", "big"), ("state", "pending")] == 11
    assert seen["slurm_jobs", ("partition", "shy"), ("state", "running")] == 0
    assert seen["slurm_account_jobs", account, ("state", "pending")] == 2
    assert seen["slurm_account_memory_bytes", account, ("state", "pending")] == 32001 << 20
    assert seen["slurm_user_cpus", ("state", "pending"), user] == 2 * 2 + 1 + 300 + 10 * 4 + 1 + 1
    assert seen["slurm_user_cpus", ("state", "running"), user] == 2
    assert seen["slurm_pending_jobs", ("partition", "debug"), ("reason", "Priority")] == 3
    assert seen["slurm_pending_oldest_seconds", ("partition", "debug")] == 10
    assert seen["slurm_nodes", ("state", "unknown")] == 2
    assert seen["slurm_partition_cpus", ("partition", "big"), ("state", "other")] == 16
    assert seen["slurm_partition_nodes", ("partition", "debug"), ("state", "mixed")] == 1
    assert seen["slurm_gpus", ("state", "other"), ("type", "a100")] == 8
    assert seen[("slurm_gpus_total",)] == 22
    assert seen["slurm_node_info", ("flags", "drain"), ("node", "n2"), ("state", "unknown")] == 1
    assert seen["slurm_node_reason_info", ("node", "n2"), ("reason", nodes["n2"].reason)] == 1
    assert seen["slurm_rpc_total", ("type", "REQUEST_SUBMIT_BATCH_JOB")] == 9
    assert seen["slurm_scheduler_cycles_total", ("scheduler", "main")] > 0
    assert seen["slurm_job_wait_seconds_sum", ("partition", "debug")] == 2
    assert seen["slurm_jobs_ended_total", ("partition", "debug"), ("state", "cancelled")] == 1


TEXT = st.text().filter(lambda text: SEPARATOR not in text and "|5" not in text and not text.startswith("\n"))


@given(st.lists(st.tuples(*[TEXT] * len(slurm.NODE)), max_size=5))
def test_records_come_back_whatever_is_in_them(rows):
    text = "".join("".join(f"{field}{SEPARATOR}" for field in row) + "\n" for row in rows)
    assert slurm.records(text, SEPARATOR, slurm.NODE) == rows


@pytest.mark.parametrize("text", ["squeue: error", f"a{SEPARATOR}\n", f"a{SEPARATOR}b{SEPARATOR}c{SEPARATOR}rest"])
def test_other_fields_than_asked_for_are_refused(text):
    with pytest.raises(slurm.SlurmError, match="fields that were asked for"):
        slurm.records(text, SEPARATOR, ("one", "two", "three"))


def test_an_empty_queue_has_no_jobs():
    assert slurm.read_jobs("", SEPARATOR) == []


def test_statistics_that_are_none_are_refused():
    with pytest.raises(slurm.SlurmError, match="no statistics"):
        slurm.read_statistics("slurm_get_statistics: Unable to contact slurm controller\n")


# What is counted


def test_every_partition_and_state_is_told_of_though_there_is_nothing_in_it():
    seen = shown(
        *metrics.jobs_families([], ["main"], NOW), *metrics.nodes_families({}), *metrics.History().families(["main"])
    )
    assert seen["slurm_jobs", ("partition", "main"), ("state", "pending")] == 0
    assert seen["slurm_pending_oldest_seconds", ("partition", "main")] == 0
    assert seen["slurm_nodes", ("state", "down")] == 0
    assert seen[("slurm_gpus_total",)] == 0
    assert seen["slurm_job_wait_seconds_count", ("partition", "main")] == 0


def test_a_start_is_counted_once():
    history = metrics.History()

    def look(*jobs):
        history.add(jobs)
        return shown(*history.families([])).get(("slurm_job_wait_seconds_count", ("partition", "main")), 0)

    waits = job(id="2", state="pending", ran=False, started=None)
    assert look(job(), waits) == 0, "what ran before is not new"
    assert look(job(), waits._replace(ran=True, started=130)) == 1
    assert look(job(), waits._replace(ran=True, started=130)) == 1
    assert look(job(), waits._replace(ran=True, started=170)) == 2, "it was put back into the queue"
    assert look() == 2
    seen = shown(*history.families([]))
    assert seen["slurm_job_wait_seconds_sum", ("partition", "main")] == 30 + 70
    buckets = {float(dict(key[1:])["le"]): value for key, value in seen.items() if key[0].endswith("_bucket")}
    assert (buckets[15], buckets[60], buckets[300], buckets[float("inf")]) == (0, 1, 2, 2)


def test_an_end_is_counted_once():
    history = metrics.History()
    for jobs in (
        [job(id="0", state="failed"), job()],
        [job(state="completing")],
        [job(state="failed")] * 2,
        [job(state="failed")],
    ):
        history.add(jobs)
    seen = shown(*history.families([]))
    assert seen["slurm_jobs_ended_total", ("partition", "main"), ("state", "failed")] == 1


def test_a_job_cancelled_before_its_start_has_not_waited():
    history = metrics.History()
    history.add([])
    history.add([job(ran=False, state="cancelled")])
    assert not any(value for key, value in shown(*history.families(["main"])).items() if "wait" in key[0])


def test_only_who_has_jobs_is_told_of():
    seen = shown(*metrics.jobs_families([job(), job(id="2", user="bob", state="completed")], ["main"], NOW))
    assert {dict(key[1:])["user"] for key in seen if key[0] == "slurm_user_jobs"} == {"ada"}


def test_gpus_of_a_node_that_takes_no_jobs_are_not_idle():
    cpus = {"allocated": 2, "idle": 6, "other": 0, "total": 8}
    node = slurm.Node(["main"], "mixed", [], "mixed", cpus, {"a100": (1, 4)}, "")
    drained = node._replace(cpus={**cpus, "idle": 0, "other": 6})
    seen = shown(*metrics.nodes_families({"w1": node, "w2": drained}))
    states = {state: seen["slurm_gpus", ("state", state), ("type", "a100")] for state in ("allocated", "idle", "other")}
    assert states == {"allocated": 2, "idle": 3, "other": 3}
    assert seen[("slurm_gpus_total",)] == 8

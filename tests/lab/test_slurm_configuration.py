"""New configuration of Slurm: in force after one apply, or refused with Slurm's reason while Slurm runs on."""

import copy
import time

import pytest

from tests.lab.conftest import failures, parse
from tests.lab.harness import site
from tests.lab.harness.shell import wait_for

CONFIGURATION = ["slurm.config", "slurm.database", "slurm.controller", "slurm.accounting"]


@pytest.fixture
def pillar(lab, master):
    """Return a function that writes parts of the pillar; afterwards the lab's pillar is in force again."""
    yield lambda **parts: site.write(master, **parts)
    site.write_all(master)
    lab.apply("master", CONFIGURATION)


@pytest.fixture
def job(lab, master):
    """A running job of marie; afterwards the job has run through undisturbed."""
    submit = "sbatch --parsable --time=10 --output=/dev/null --wrap='sleep 600'"
    number = master.run(["runuser", "-l", "marie", "-c", submit]).stdout.strip()
    show = ["squeue", "--noheader", f"--jobs={number}", "--format=%T|%S|%N"]
    wait_for("the job runs", lambda: master.run(show).stdout.startswith("RUNNING"))
    before = master.run(show).stdout
    pids = master.run(["systemctl", "show", "-P", "ActiveEnterTimestamp", "slurmctld", "slurmdbd"]).stdout
    yield number
    assert master.run(show).stdout == before
    assert master.run(["systemctl", "show", "-P", "ActiveEnterTimestamp", "slurmctld", "slurmdbd"]).stdout == pids
    master.run(["scancel", number])


def with_long():
    """Return the lab's users and partitions with the QOS ``long`` and a partition of that QOS."""
    users, partitions = copy.deepcopy(site.USERS), copy.deepcopy(site.PARTITIONS)
    users["qos"] = {"long": {"max_wall": "7-00:00:00"}, "short": {}}
    partitions["partitions"]["long"] = {"features": ["highmem"], "qos": "long"}
    return users, partitions


def qos_of(master, partition):
    """Return the QOS of a partition of slurmctld, ``None`` if there is no such partition."""
    done = master.run(["scontrol", "--json", "show", "partition"])
    rows = {row["name"]: row for row in parse(done.stdout)["partitions"]}
    return rows[partition]["qos"]["assigned"] if partition in rows else None


@pytest.mark.usefixtures("job")
def test_a_qos_and_its_partition_are_in_force_after_one_apply(lab, master, pillar):
    users, partitions = with_long()
    pillar(users=users, partitions=partitions)
    lab.apply("master", CONFIGURATION)
    assert qos_of(master, "long") == "long"
    del users["qos"]["long"]
    pillar(users=users, partitions=site.PARTITIONS)
    states = lab.apply("master", CONFIGURATION)
    assert qos_of(master, "long") is None
    assert ["long"] not in lab.sacctmgr("qos", "format=name"), states
    master.run(["sacctmgr", "--immediate", "delete", "qos", "short"])


@pytest.mark.usefixtures("job")
def test_a_load_that_was_cut_off_is_made_up_for(lab, master, pillar):
    """As after a run that ended between the file and the reconfiguration."""
    master.run(["sh", "-c", "echo 'PartitionName=odd Nodes=ALL' >>/etc/slurm/slurm.conf && scontrol reconfigure"])
    assert qos_of(master, "odd") is not None
    master.run(["sed", "-i", "/PartitionName=odd/d", "/etc/slurm/slurm.conf"])
    lab.apply("master", CONFIGURATION)
    assert qos_of(master, "odd") is None


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize(
    ("part", "setting", "file", "reason"),
    [
        ("partitions", {"MaxCPUsPerNod": 1}, "slurm.conf", "unrecognized key: MaxCPUsPerNod"),
        ("config", {"SchedulerParameterz": "x"}, "slurm.conf", "unrecognized key: SchedulerParameterz"),
        ("config", {"PriorityType": "priority/none_such"}, "slurm.conf", "priority/none_such"),
        ("cgroup", {"ConstrainRAM": "yes"}, "cgroup.conf", "unrecognized key: ConstrainRAM"),
        ("database", {"StoragePath": "x"}, "slurmdbd.conf", "unrecognized key: StoragePath"),
    ],
    ids=["partition", "key", "plugin", "cgroup", "slurmdbd"],
)
def test_configuration_that_slurm_cannot_read_is_not_put_in_place(lab, master, pillar, part, setting, file, reason):  # noqa: PLR0917
    before = master.read(f"/etc/slurm/{file}")
    partitions, cluster = copy.deepcopy(site.PARTITIONS), copy.deepcopy(site.CLUSTER)
    if part == "partitions":
        partitions["partitions"]["main"]["config"] = setting
    elif part == "database":
        cluster["slurm"]["database"] = {"config": setting}
    else:
        cluster["slurm"][part] = {**cluster["slurm"][part], **setting}
    pillar(partitions=partitions, cluster=cluster)
    refused = master.run(["salt-run", "cluster.validate"], check=False)
    assert refused.returncode == 1
    assert reason in refused.stdout
    for _ in range(2):  # the next run tries again
        start = time.monotonic()
        errors = failures_of(lab.apply("master", CONFIGURATION, check=False))
        assert time.monotonic() - start < 60
        assert any(reason in error for error in errors), errors
        assert master.read(f"/etc/slurm/{file}") == before
        assert master.run(["sinfo", "--noheader"]).stdout
        master.run(["qhub-slurm-config", "running"])


def failures_of(states):
    """Return the comments and output of the states that failed."""
    assert failures(states)
    return [f"{s['comment']} {s.get('changes')}" for s in states.values() if s["result"] is False]


@pytest.fixture
def gpus(lab):
    """Two device files on w2 that stand for GPUs."""
    worker = lab.node("w2")
    for number in (0, 1):
        worker.run(["mknod", "-m", "666", f"/dev/qhub-gpu{number}", "c", "1", "3"])
    yield "/dev/qhub-gpu[0-1]"
    worker.run(["rm", "/dev/qhub-gpu0", "/dev/qhub-gpu1"])


def test_gpus_that_are_declared_are_registered_and_given_to_jobs(lab, master, pillar, gpus):
    nodes = site.nodes()
    nodes["nodes"]["w2"] |= {"gres": "gpu:a100:2,shard:4", "devices": {"gpu:a100": gpus}}
    pillar(nodes=nodes)
    lab.apply("master", CONFIGURATION)
    lab.apply("w2", ["slurm.worker"])
    show = ["sinfo", "--noheader", "--Node", "--nodes=w2", "--format=%T %G"]
    wait_for("w2 has GPUs", lambda: master.run(show).stdout.startswith("idle gpu:a100:2"))
    words = [
        "srun",
        "--quiet",
        "--gpus=a100:2",
        "--nodelist=w2",
        "--immediate=20",
        "sh",
        "-c",
        "echo $SLURM_GPUS_ON_NODE",
    ]
    assert master.run(words).stdout.strip() == "2"
    assert master.run(["srun", "--quiet", "--gpus=3", "true"], check=False).returncode
    assert master.run(["srun", "--quiet", "--gres=shard:1", "--nodelist=w2", "--immediate=20", "true"]).returncode == 0
    checks = parse(master.run(["salt-run", "--out=json", "doctor.examine", "only=[configuration]"]).stdout)["checks"]
    assert {check["state"] for check in checks} == {"ok"}
    site.write_all(master)
    lab.apply("master", CONFIGURATION)
    lab.apply("w2", ["slurm.worker"])

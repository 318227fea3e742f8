"""A cluster from nothing: jobs, accounts, and a second run that changes nothing."""

import pytest

from tests.lab.harness import settings


@pytest.mark.parametrize("worker", ["w1", "w2"])
def test_a_user_runs_a_job_on_each_worker(lab, worker):
    job, output = lab.job("ada", f"--nodelist={worker}", "hostname; id -un; pwd")
    assert output.split() == [worker, "ada", "/home/ada"]
    rows = lab.master.run(["sacct", "-X", "-n", "-P", "-j", job, "-o", "User,Account,NodeList,State"]).stdout
    assert rows.strip() == f"ada|physics|{worker}|COMPLETED"


def test_a_user_chooses_among_own_accounts(lab):
    job, _ = lab.job("marie", "--account=physics", "true")
    assert lab.master.run(["sacct", "-X", "-n", "-P", "-j", job, "-o", "Account"]).stdout.strip() == "physics"
    refused = lab.as_user("ada", ["sbatch", "--account=chemistry", "--wrap=true"], check=False)
    assert refused.returncode
    assert "Invalid account" in refused.stderr


def test_a_user_without_an_association_is_refused(lab):
    refused = lab.as_user("guest", ["sbatch", "--wrap=true"], check=False)
    assert refused.returncode
    assert "Invalid account" in refused.stderr


def test_partitions_follow_features(lab):
    partitions = dict(line.split() for line in lab.master.run(["sinfo", "-h", "-o", "%R %N"]).stdout.splitlines())
    assert partitions == {"main": "w[1-2]", "highmem": "w2"}


def test_a_worker_knows_every_name_and_person(lab):
    worker = lab.node("w1")
    for name in ("master", "w1", "w2", "w2.cluster.internal"):
        assert worker.run(["getent", "hosts", name]).stdout, name
    assert (
        worker.run(["getent", "passwd", "ada"]).stdout.strip() == "ada:x:20001:20001:Ada Lovelace:/home/ada:/bin/bash"
    )
    assert set(worker.run(["id", "-Gn", "marie"]).stdout.split()) == {"marie", "physics", "chemistry"}


def test_homes_are_private(lab):
    assert lab.master.run(["stat", "-c", "%U %a", "/home/ada"]).stdout.strip() == "ada 700"
    assert lab.as_user("marie", ["ls", "/home/ada"], check=False).returncode


@pytest.mark.parametrize("name", ["master", "w1", "w2"])
def test_a_second_highstate_changes_nothing(lab, name):
    states = lab.highstate(name)
    assert {key: state["changes"] for key, state in states.items() if state["changes"]} == {}
    would = lab.highstate(name, test=True)
    assert {key: state["comment"] for key, state in would.items() if state["result"] is not True} == {}


@pytest.mark.parametrize("name", ["master", "w1"])
def test_no_unit_has_failed(lab, name):
    failed = lab.node(name).run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).stdout
    assert failed == ""


def test_metrics_are_bound_to_the_cluster_network(lab):
    listening = lab.node("w1").run(["ss", "-tlnH", "sport", "=", ":9100"]).stdout.split()
    assert listening[3] == f"{settings.ADDRESSES['w1']}:9100"


def test_the_slurm_key_is_its_users_alone(lab):
    for node in (lab.master, *lab.workers):
        assert node.run(["stat", "-c", "%U %a", "/etc/slurm/slurm.key"]).stdout.strip() == "slurm 600"
    workers = lab.node("w1").run(["ls", "/etc/slurm"]).stdout.split()
    assert "slurm.conf" not in workers, "a worker holds the key, and slurmctld hands it the rest"

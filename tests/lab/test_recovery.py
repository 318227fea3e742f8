"""A service that is killed comes back by itself, and nothing is lost."""

import pytest

from tests.lab.harness.shell import wait_for

SERVICES = {
    "slurmctld": "master", "slurmdbd": "master", "mariadb": "master", "salt-master": "master",
    "salt-minion": "w1", "slurmd": "w1",
}  # fmt: skip


def main_pid(node, unit):
    return node.run(["systemctl", "show", "-P", "MainPID", unit]).stdout.strip()


@pytest.mark.parametrize("unit", SERVICES)
def test_a_killed_service_comes_back_and_no_job_is_lost(lab, master, unit):
    node = lab.node(SERVICES[unit])
    submit = ["sbatch", "--parsable", "--chdir=/tmp", "--nodelist=w1", "--mem=10", "--output=/dev/null"]
    running = lab.as_user("ada", [*submit, "--wrap=sleep 20"]).stdout.strip()
    wait_for(
        "the job runs", lambda: master.run(["squeue", "-h", "-j", running, "-o", "%T"]).stdout.strip() == "RUNNING"
    )
    # slurmctld writes its state every few seconds. One killed before that starts the job a second time, which the node
    # refuses ("Duplicate jobid"): Slurm's own limit, not tested here.
    started = int(master.run(["date", "+%s"]).stdout)
    wait_for("the job is in slurmctld's saved state", lambda: saved(master) > started, timeout=30)

    killed = main_pid(node, unit)
    node.run(["kill", "-9", killed])
    wait_for(f"{unit} is back", lambda: main_pid(node, unit) not in ("0", killed), timeout=60)
    wait_for("Slurm answers", lambda: not master.run(["scontrol", "ping"], check=False).returncode, timeout=60)

    def submitted():
        result = lab.as_user("ada", [*submit, "--wrap=true"], check=False)
        return result.stdout.strip() if not result.returncode else None

    after = wait_for("a job is taken", submitted, timeout=60)
    for job in (running, after):
        wait_for(f"job {job} is accounted", lambda job=job: accounted(lab, job) == "COMPLETED", timeout=90)


def saved(master):
    return int(master.run(["stat", "-c", "%Y", "/var/lib/slurm/slurmctld/job_state"]).stdout)


def accounted(lab, job):
    out = lab.master.run(["sacct", "-X", "-n", "-P", "-j", job, "-o", "State"], check=False).stdout.split()
    return out[0] if out else ""


def test_the_master_still_commands_its_minions(lab, master):
    def answers():
        return master.run(["salt", "--out=txt", "--timeout=5", "*", "test.ping"], check=False).stdout.split("\n")

    wait_for(
        "all minions answer",
        lambda: sorted(filter(None, answers())) == ["master: True", "w1: True", "w2: True"],
        timeout=90,
    )

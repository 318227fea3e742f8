"""A service that is killed comes back by itself, and nothing is lost."""

import pytest

from tests.lab.harness import lab as the_lab
from tests.lab.harness.shell import wait_for

#: Services that are no daemons of the cluster: systemd's own, sessions of people, and one that lives for one request.
OTHERS = ("console-getty", "container-getty", "dbus", "getty", "qhub-jobs@", "systemd-", "user@")
SERVICES = {
    "slurmctld": "master", "slurmdbd": "master", "mariadb": "master", "salt-master": "master",
    "salt-minion": "w1", "slurmd": "w1",
}  # fmt: skip


def main_pid(node, unit):
    return node.run(["systemctl", "show", "-P", "MainPID", unit]).stdout.strip()


@pytest.mark.parametrize("unit", SERVICES)
def test_a_killed_service_comes_back_and_no_job_is_lost(lab, master, unit):
    node = lab.node(SERVICES[unit])
    running = lab.running_job("w1", 20)
    killed = main_pid(node, unit)
    node.run(["kill", "-9", killed])
    wait_for(f"{unit} is back", lambda: main_pid(node, unit) not in ("0", killed), timeout=60)
    wait_for("Slurm answers", lambda: not master.run(["scontrol", "ping"], check=False).returncode, timeout=60)

    submit = ["sbatch", "--parsable", "--chdir=/tmp", "--nodelist=w1", "--mem=10", "--output=/dev/null"]

    def submitted():
        result = lab.as_user("ada", [*submit, "--wrap=true"], check=False)
        return result.stdout.strip() if not result.returncode else None

    after = wait_for("a job is taken", submitted, timeout=60)
    for job in (running, after):
        wait_for(f"job {job} is accounted", lambda job=job: lab.state(job) == "COMPLETED", timeout=90)


def running_pid(node, unit, killed=None):
    """Return the main process of a unit that is active again since one was killed; ``None`` if it is not."""
    active = node.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0
    pid = main_pid(node, unit)
    return pid if active and pid not in ("0", killed) else None


@pytest.mark.parametrize("name", ["master", "w1"])
def test_every_daemon_that_is_killed_comes_back(lab, master, name):
    node = lab.node(name)
    listed = ["systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend"]
    units = [line.split()[0] for line in node.run(listed).stdout.splitlines()]
    daemons = [unit for unit in units if not unit.startswith(OTHERS)]
    assert "salt-minion.service" in daemons
    for unit in daemons:
        # It may be starting again, after the end of a daemon that it depends on.
        killed = wait_for(f"{unit} runs", lambda unit=unit: running_pid(node, unit), timeout=90)
        node.run(["kill", "-9", killed])
        wait_for(f"{unit} is back", lambda unit=unit, pid=killed: running_pid(node, unit, pid), timeout=90)
    the_lab.healthy(master)


def test_the_master_still_commands_its_minions(lab, master):
    def answers():
        return master.run(["salt", "--out=txt", "--timeout=5", "*", "test.ping"], check=False).stdout.split("\n")

    wait_for(
        "all minions answer",
        lambda: sorted(filter(None, answers())) == ["master: True", "w1: True", "w2: True"],
        timeout=90,
    )

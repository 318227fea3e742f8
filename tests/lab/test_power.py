"""A machine without work is switched off, and on again for a job; nobody takes it for broken meanwhile."""

import json

import pytest

from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings, site
from tests.lab.harness.shell import wait_for
from tests.lab.power import Switch
from tests.lab.prometheus import ask

APPLIED = ["salt.master", "slurm.controller"]
ASKED = "/var/spool/qhub-power/asked"
EVENTS = "/tmp/power-events"


@pytest.fixture(scope="module")
def switch(lab, master):
    """A third machine that is switched off after some seconds without a job."""
    found = Switch(["w3"])

    def cluster(declared):
        power = {"resume": found.command("on"), "suspend": found.command("off"), "idle": 10,
                 "resume_timeout": 90, "suspend_timeout": 20}  # fmt: skip
        return declared | {"slurm": declared["slurm"] | {"power": power}}

    def nodes(_):
        table = site.nodes((*settings.NODES, "w3"))
        table["nodes"]["w3"]["power"] = True
        return table

    try:
        with lab.pillar(cluster=cluster, nodes=nodes):
            apply(lab)
            the_lab.add(master, the_lab.boot("w3"))
            yield found
            if "w3" in states(master):
                lab.orchestrate("orch.remove", check=False, node="w3")
    finally:
        found.close()
        the_lab.node("w3").destroy()
        apply(lab)


def apply(lab):
    """Have Slurm and the Salt master go by the pillar, the latter after its restart."""
    began = ["systemctl", "show", "-P", "ActiveEnterTimestamp", "salt-master"]
    before = lab.master.run(began).stdout
    lab.apply("master", APPLIED)
    wait_for("the Salt master runs anew", lambda: lab.master.run(began).stdout not in (before, "\n"), timeout=60)


def states(master):
    """Return ``{node: state}`` as sinfo has it."""
    return dict(line.split() for line in master.run(["sinfo", "-h", "-N", "-o", "%N %T"]).stdout.splitlines())


def is_off(master):
    return states(master)["w3"] == "idle~" and not the_lab.node("w3").supervisor


def said(master, since):
    """Return what the Salt master has logged."""
    return master.run(["journalctl", "-q", "-o", "cat", "-u", "salt-master", "--since", since]).stdout


def test_a_machine_without_work_is_off_and_comes_for_a_job(lab, master, switch):
    listen = f"timeout 300 salt-run --log-level=quiet state.event tagmatch='qhub/node/w3/*' count=4 >{EVENTS} 2>&1"
    master.run(["sh", "-c", f"setsid sh -c {json.dumps(listen)} </dev/null >/dev/null 2>&1 &"])
    wait_for("w3 is off", lambda: is_off(master), timeout=120)
    assert switch.asked == [("off", "w3")], "and nobody else"

    wait_for("Prometheus misses it", lambda: down(master), timeout=40)
    wait_for("no alert is on its way", lambda: not alerts_of_w3(master), timeout=40)
    doctor = master.run(["salt-run", "cluster.doctor"], check=False)
    assert not doctor.returncode, doctor.stdout
    assert "switched off until a job needs them: w3" in doctor.stdout

    assert lab.job("ada", "--nodelist=w3", "hostname", timeout=120)[1].split() == ["w3"]
    assert switch.asked == [("off", "w3"), ("on", "w3")]
    told = master.read(EVENTS)
    assert [told.count(f"qhub/node/w3/{what}\t") for what in ("suspend", "suspended", "resume", "resumed")] == [1] * 4
    master.run(["rm", EVENTS])


def alerts_of_w3(master):
    """Return alerts that fire, or would if what they are about stayed so."""
    return [each for each in ask(master, "alerts")["alerts"] if "w3" in each["labels"].values()]


def down(master):
    """Whether Prometheus finds that w3 does not answer."""
    found = ask(master, 'query?query=up{job="node",instance="w3"}')["result"]
    return bool(found) and found[0]["value"][1] == "0"


def test_what_is_forged_is_refused_and_nothing_is_lost_by_a_salt_master_that_stops(lab, master, switch):
    since = master.run(["date", "+%F %T"]).stdout.strip()
    switch.asked.clear()
    master.run(["systemctl", "stop", "salt-master"])
    try:
        for node in ("w1", "nobody"):
            master.run(["runuser", "-u", "slurm", "--", "ln", "-s", "suspend", f"{ASKED}/{node}"])
        master.run(["scontrol", "update", "nodename=w3", "state=power_down"])
        wait_for("Slurm has asked", lambda: "w3" in master.run(["ls", ASKED]).stdout.split(), timeout=30)
    finally:
        master.run(["systemctl", "start", "salt-master"])
    wait_for("w3 is off", lambda: is_off(master), timeout=120)
    refusals = [line for line in said(master, since).splitlines() if "Refused: 'suspend' of " in line]
    assert sorted(line.split(" of ")[1].split(",")[0] for line in refusals) == ["'nobody'", "'w1'"]
    assert switch.asked == [("off", "w3")]
    assert master.run(["find", "/var/spool/qhub-power", "-type", "l"]).stdout == "", "all is done"

    lab.orchestrate("orch.remove", node="w3")
    assert "w3" not in states(master)

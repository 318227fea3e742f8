"""The smallest cluster, one machine that is master and worker: made of an older release, then upgraded.

The older release is this one with older versions of Keycloak, Traefik, JupyterHub and Slurm. Of Slurm there is one
version to be had: what is older has a lower number and is the same (tests/lab/harness/older.py). Another worker joins
before the upgrade, which fails half-way for the first time.
"""

import copy
import json
import shutil
import time

import pytest

from tests.lab.conftest import parse
from tests.lab.harness import lab as the_lab
from tests.lab.harness import older, settings, site
from tests.lab.harness.node import Node
from tests.lab.harness.shell import step, wait_for
from tests.lab.watch import watched

DIRECTORY = settings.STATE / "alone"
ADDRESS = settings.ADDRESSES["w19"]
BOOTSTRAP = [f"{settings.CHECKOUT}/salt/bootstrap/master.sh", "--mirror", settings.MIRROR]
BROKEN = "/etc/apt/apt.conf.d/broken"
SLURM = ["dpkg-query", "--show", "--showformat=${source:Package} ${Version}\n"]
# Runs until slurmctld has been started anew, and a little longer.
SURVIVOR = """\
#!/bin/bash
boot() { timeout 10 scontrol show config | grep BOOT_TIME; }
was=$(boot)
until now=$(boot) && [ "$now" != "$was" ]; do sleep 1; done
sleep 5
"""


def release(*, of_before):
    """Have the cluster's machines find the release before, or this one."""
    older.checkout(DIRECTORY / "checkout", older=of_before)
    older.mirror(DIRECTORY / "mirror", older=of_before)


def machine(name, address, **more):
    """Return a machine of this cluster, with what its nodes share bound in."""
    shared = {path: DIRECTORY / path.strip("/").replace("/", "-") for path in site.SHARED}
    for path in shared.values():
        path.mkdir(parents=True, exist_ok=True)
    mirror = {settings.MIRROR: f"{DIRECTORY / 'mirror'}:ro", **older.BINDS}
    return Node(name, address, {**shared, **mirror, **more}, ("--system-call-filter=open_by_handle_at",))


@pytest.fixture(scope="module")
def alone(lab):
    """A bare machine, made a cluster of one by the older release; beside the lab, of which it knows nothing."""
    for name in ("checkout", "mirror"):
        (DIRECTORY / name).mkdir(parents=True, exist_ok=True)
    release(of_before=True)
    node = machine("alone", ADDRESS, **{settings.CHECKOUT: f"{DIRECTORY / 'checkout'}:ro"})
    try:
        node.boot()
        cluster = copy.deepcopy(site.CLUSTER)
        cluster["cluster"] |= {
            "name": "alone",
            "domain": "alone.internal",
            "master": {"id": "alone", "address": ADDRESS},
        }
        files = {"users": site.USERS, "monitoring": site.MONITORING}
        site.write(node, cluster=cluster, nodes={"nodes": {"alone": {"address": ADDRESS}}}, **files)
        the_lab.watched(node, ["salt-master", "slurmctld", "slurmd"], BOOTSTRAP, timeout=900)
        yield node
    finally:
        node.destroy()
        shutil.rmtree(DIRECTORY)


def test_all_is_well(alone):
    the_lab.healthy(alone)


def test_people_run_jobs_on_it(alone):
    told = alone.run(["runuser", "-l", "ada", "-c", "timeout 60 srun --account=physics sh -c 'hostname; pwd'"]).stdout
    assert told.split() == ["alone", "/home/ada"]


def slurm(node):
    """Return the versions (a set) of Slurm's packages on a node."""
    rows = (line.split() for line in node.run(SLURM).stdout.splitlines())
    return {version for source, version in rows if source == "slurm-wlm"}


def plan(alone):
    """Return what is to be upgraded."""
    return json.loads(alone.run(["salt-run", "--out=json", "upgrade.plan"]).stdout)


def people(alone):
    """Return whom Keycloak knows, ``{name: id}``; other ids would be other people."""
    words = ["psql", "-XAtF=", "-c", "SELECT username, id FROM user_entity WHERE username = 'ada'", "keycloak"]
    return alone.run(words, user="postgres").stdout


class Upgrade:
    """The upgrade to this release, which fails at the other worker for the first time; and how things were before."""

    def __init__(self, alone, other):
        self.master, self.other = alone, other
        self.people, self.jobs = people(alone), self.history()
        words = ["runuser", "-l", "ada", "-c", "sbatch --parsable --nodelist=w18 --mem=10 --output=/dev/null"]
        self.job = alone.run(words, input=SURVIVOR).stdout.strip()
        state = ["squeue", "--noheader", f"--jobs={self.job}", "--format=%T"]
        wait_for("the job runs", lambda: alone.run(state).stdout.strip() == "RUNNING")
        self.plan_before, self.slurm_before = plan(alone), slurm(other)
        other.write(BROKEN, 'DPkg::Pre-Invoke {"echo no way >&2; false";};\n')
        with watched(other, "alone.alone.internal") as away:
            with step("Stopping half-way"):
                self.failed = self.run()
            self.then = self.sight()
            other.run(["rm", BROKEN])
            with step("Going on"):
                self.passed = self.run()
            self.away = wait_for("all answers again", away, timeout=120, interval=2)
        with step("Once more"):
            self.again = self.run()

    def run(self):
        """Run the orchestration; return the ``CompletedProcess``."""
        words = ["salt-run", "--out=json", "state.orchestrate", "orch.upgrade", "pillar={batch: 2, timeout: 600}"]
        return self.master.run(words, check=False, timeout=900)

    def history(self):
        """Return ada's jobs that are over."""
        words = ["sacct", "-nX", "-u", "ada", "-S", "now-1days", "-E", "now", "-s", "CD", "-o", "JobID"]
        return self.master.run(words).stdout.split()

    def sight(self):
        """Return how the cluster is."""
        self.master.run(["runuser", "-l", "ada", "-c", "timeout 60 srun --account=physics --nodelist=alone true"])
        reason = self.master.run(["sinfo", "--noheader", "--Node", "--nodes=w18", "--format=%T %E"]).stdout.strip()
        return {"reason": reason, "plan": plan(self.master)}


@pytest.fixture(scope="module")
def upgrade(alone):
    """The machine, with another worker, brought to this release as the documentation says."""
    other = machine("w18", settings.ADDRESSES["w18"])
    try:
        other.boot()
        nodes = {"alone": {"address": ADDRESS}, "w18": {"address": other.address}}
        site.write(alone, nodes={"nodes": nodes})
        with step("Adding a worker"):
            the_lab.add(alone, other)
        release(of_before=False)
        started = time.monotonic()
        with step("Bootstrapping again"):
            alone.run(BOOTSTRAP, timeout=300)
        done = Upgrade(alone, other)
        print(f"the upgrade took {time.monotonic() - started:.0f} s; away, in seconds: {done.away}")
        yield done
    finally:
        other.destroy()


def steps(done):
    """Return ``{id: state}`` of an orchestration's run."""
    (states,) = parse(done.stdout)["data"].values()
    return {state["__id__"]: state for state in states.values()}


def test_the_plan_tells_what_comes(upgrade):
    today, before = json.loads((settings.REPOSITORY / "salt/artifacts.json").read_text()), older.artifacts()
    expected = {name: f"{before[name]['version']} -> {today[name]['version']}" for name in ("keycloak", "traefik")}
    services = upgrade.plan_before["services"]
    assert {name: said for name, said in services.items() if "->" in said} == {
        **expected,
        "jupyterhub": services["jupyterhub"],
    }
    assert services["jupyterhub"].startswith(f"{older.JUPYTERHUB['version']} -> ")
    assert {said.split(" -> ")[0] for said in upgrade.plan_before["slurm"].values()} == {older.SLURM}
    assert upgrade.plan_before["slurm"].keys() == {"alone", "w18"}


def test_it_stops_at_what_fails_and_the_cluster_works(upgrade):
    assert upgrade.failed.returncode != 0
    failed = {name for name, state in steps(upgrade.failed).items() if state["result"] is False}
    assert failed == {"Slurm is new on w18"}
    assert "no way" in upgrade.failed.stdout
    assert upgrade.then["reason"] == "drained not upgraded yet (orch.upgrade)"
    assert "->" not in upgrade.then["plan"]["slurm"]["alone"]
    assert "->" in upgrade.then["plan"]["services"]["keycloak"]


def test_it_goes_on_where_it_stopped(upgrade):
    assert upgrade.passed.returncode == 0, upgrade.passed.stdout
    ran = steps(upgrade.passed)
    assert "Backup is made" not in ran
    assert "No job runs on alone" not in ran
    print("\n".join(ran["All is well"]["changes"]["return"]))
    assert plan(upgrade.master)["summary"] == "nothing is to be upgraded"
    assert slurm(upgrade.master) == slurm(upgrade.other) != upgrade.slurm_before == {older.SLURM}
    for name in older.PROGRAMS:  # the older version is removed
        assert len(upgrade.master.run(["sh", "-c", f"ls -d /opt/qhub/{name}-*"]).stdout.split()) == 1, name


def test_jobs_and_people_are_still_there(upgrade):
    ended = ["sacct", "-nXP", "-j", upgrade.job, "-o", "State,Restarts,NodeList"]
    assert upgrade.master.run(ended).stdout.split() == ["COMPLETED|0|w18"]
    assert upgrade.jobs
    assert set(upgrade.jobs) <= set(upgrade.history())
    assert upgrade.people
    assert people(upgrade.master) == upgrade.people


def test_nothing_is_away_for_long(upgrade):
    print(f"away, in seconds: {upgrade.away}")
    assert set(upgrade.away) == {"sign-in", "hub", "conda-store", "gateway", "monitoring", "slurm"}
    assert max(seconds for name, seconds in upgrade.away.items() if name != "sign-in") < 60, upgrade.away
    assert upgrade.away["sign-in"] < 300, upgrade.away


def test_again_it_changes_nothing(upgrade):
    assert upgrade.again.returncode == 0, upgrade.again.stdout
    ran = steps(upgrade.again)
    assert ran.keys() == {"Upgrade is begun", "Other workers are as declared", "Master is as declared", "All is well"}
    for name in ("Other workers are as declared", "Master is as declared"):
        assert ran[name]["changes"] in ({}, None), name


def test_all_is_well_after_it(alone, upgrade, verifiers):
    the_lab.healthy(alone)
    alone.run(["sh", "-c", verifiers["single-node"]])

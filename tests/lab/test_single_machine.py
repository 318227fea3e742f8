"""The smallest cluster: one machine that is master and worker."""

import copy

import pytest

from tests.lab.conftest import parse
from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings, site
from tests.lab.harness.node import Node

pytestmark = pytest.mark.slow
ADDRESS = settings.ADDRESSES["w19"]


@pytest.fixture(scope="module")
def alone(lab):
    """A bare machine, made a cluster of one by the bootstrap; beside the lab, of which it knows nothing."""
    binds = {settings.MIRROR: f"{settings.CACHE / 'mirror'}:ro", settings.CHECKOUT: f"{settings.REPOSITORY}:ro"}
    machine = Node("alone", ADDRESS, binds, ("--system-call-filter=open_by_handle_at",))
    try:
        machine.boot()
        cluster = copy.deepcopy(site.CLUSTER)
        cluster["cluster"] |= {
            "name": "alone",
            "domain": "alone.internal",
            "master": {"id": "alone", "address": ADDRESS},
        }
        files = {"users": site.USERS, "monitoring": site.MONITORING}
        site.write(machine, cluster=cluster, nodes={"nodes": {"alone": {"address": ADDRESS}}}, **files)
        script = [f"{settings.CHECKOUT}/salt/bootstrap/master.sh", "--mirror", settings.MIRROR]
        the_lab.watched(machine, ["salt-master", "slurmctld", "slurmd"], script, timeout=900)
        yield machine
    finally:
        machine.destroy()


def test_all_is_well_and_stays_as_it_is(alone):
    the_lab.healthy(alone)
    words = ["salt", "--out=json", "--static", "--timeout=120", "alone", "state.apply", "queue=5"]
    states = parse(alone.run(words, timeout=300).stdout)["alone"]
    assert {name for name, state in states.items() if state["changes"] or state["result"] is not True} == set()


def test_what_kitchen_verifies_holds_here(alone, verifiers):
    alone.run(["sh", "-c", verifiers["single-node"]])


def test_people_run_jobs_on_it(alone):
    told = alone.run(["runuser", "-l", "ada", "-c", "timeout 60 srun --account=physics sh -c 'hostname; pwd'"]).stdout
    assert told.split() == ["alone", "/home/ada"]

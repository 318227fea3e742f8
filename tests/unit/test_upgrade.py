"""Upgrades: what there is to do, and that what cannot go well is refused before anything is touched."""

import json

import pytest
import yaml
from salt.exceptions import CommandExecutionError

from tests.unit.conftest import ROOT
from tests.unit.test_drift import load

membership = load("salt/_runners/membership.py", "membership_runner")
doctor = {"checks": [{"name": "jobs", "state": "ok", "nodes": [], "says": ["ran"]}]}
OLD, NEW = "24.11.5-4", "24.11.5-4+deb13u1"


def packages(installed, coming=NEW):
    return {"slurm-client": [installed, coming], "slurmd": [installed, coming]}


@pytest.fixture
def upgrade(tmp_path):
    """The runner, on a master with two workers of which one has the older Slurm, and the older Traefik."""
    module = load("salt/_runners/upgrade.py", "upgrade_runner")
    module.__opts__ = {"id": "master", "cachedir": str(tmp_path)}
    module.rows = {"w1": ("idle", "Unknown", "none"), "w2": ("mixed", "Unknown", "none")}
    module.found = doctor
    module.__salt__ = {
        "membership.reasons": lambda: module.rows,
        "membership.expect_absent": list,
        "doctor.examine": lambda only=None: module.found,
    }
    module.seen = {
        "services": {"traefik": ("3.7.13", "3.7.15"), "keycloak": ("26.7.3", "26.7.3")},
        "slurm": {"master": packages(NEW), "w1": packages(OLD), "w2": packages(NEW)},
        "salt": [], "workers": ["w1", "w2"], "away": [], "silent": {},
    }  # fmt: skip
    module._survey, module._stored, module._free = lambda: module.seen, lambda: 1, lambda: {"/var": 1}
    return module


def test_what_is_made_of_something_new_is_a_stage(upgrade):
    found = upgrade.preflight()
    assert [stage["name"] for stage in found["stages"]] == ["traefik"]
    assert found["backup"] is True


def test_only_workers_with_another_slurm_are_drained(upgrade):
    found = upgrade.preflight()
    assert [batch["nodes"] for batch in found["batches"]] == [["w1"]]
    assert found["others"] == ["w2"]


def test_where_nothing_is_new_the_states_are_applied_and_no_more(upgrade):
    upgrade.seen["services"]["traefik"] = ("3.7.15", "3.7.15")
    upgrade.seen["slurm"]["w1"] = packages(NEW)
    found = upgrade.preflight()
    assert (found["backup"], found["batches"], found["stages"]) == (False, [], [])
    assert found["others"] == ["w1", "w2"]


def test_one_that_was_interrupted_goes_on(upgrade):
    upgrade.begin()
    upgrade.seen["slurm"]["w1"] = packages(NEW)  # it was drained, it has its packages, and it has not run a job
    upgrade.rows["w1"] = ("drained", "now", upgrade.REASON)
    upgrade.found = {"checks": [{"name": "nodes", "state": "failed", "nodes": ["w1"], "says": ["w1 is drained"]}]}
    found = upgrade.preflight()
    assert found["batches"] == [{"nodes": ["w1"], "prove": ["w1"], "sls": []}]
    assert found["backup"] is False, "there is one of before it began"
    before = json.loads(upgrade._mark().read_text())
    upgrade.begin()
    assert json.loads(upgrade._mark().read_text()) == before


def test_the_reason_is_known_to_what_resumes_the_node(upgrade):
    assert upgrade.REASON.endswith(membership._OWN)


def test_who_was_drained_by_somebody_stays_so(upgrade):
    upgrade.rows["w1"] = ("drained", "now", "new disk")
    upgrade.found = {"checks": [{"name": "nodes", "state": "failed", "nodes": ["w1"], "says": ["w1 is drained"]}]}
    assert upgrade.preflight()["batches"] == [{"nodes": ["w1"], "prove": [], "sls": []}]


def test_who_is_away_is_left_out(upgrade):
    upgrade.seen["away"] = ["w2"]
    upgrade.seen["slurm"].pop("w2")
    upgrade.found = {"checks": [{"name": "minions", "state": "failed", "nodes": ["w2"], "says": ["w2: no answer"]}]}
    assert upgrade.preflight()["others"] == []


def test_all_that_is_in_the_way_is_told_at_once(upgrade):
    upgrade.found = {"checks": [{"name": "mariadb", "state": "failed", "nodes": [], "says": ["it does not answer"]}]}
    upgrade.seen["services"]["keycloak"] = ("26.7.3", "26.7.2")
    upgrade.seen["silent"] = {"w2": "no answer"}
    upgrade._stored = lambda: 2**21
    with pytest.raises(CommandExecutionError) as refused:
        upgrade.preflight()
    assert str(refused.value).splitlines() == [
        "w2: no answer",
        "keycloak: 26.7.3 is installed, and 26.7.2 is older: what it has stored does not go back",
        "/var: 0 MiB are free, and the databases are 2 MiB",
        "the doctor: mariadb: it does not answer",
    ]


@pytest.mark.parametrize(
    ("master", "worker", "said"),
    [
        (packages(OLD), packages(OLD), []),
        (packages("23.11.4-1"), packages("23.11.4-1"), []),
        (packages("24.11.5-4", "26.11.1-1"), packages(OLD, "26.11.1-1"),
         ["Slurm on master: 26.11.1-1 takes over nothing from 24.11.5-4", "Slurm on w1: 26.11.1-1 takes over nothing"]),
        (packages(NEW), packages(NEW, "25.05.1-1"), ["Slurm on w1: 25.05.1-1 would be newer than 24.11.5-4+deb13u1"]),
        (packages(NEW, OLD), {}, ["Slurm on master: 24.11.5-4+deb13u1 is installed, and 24.11.5-4 is older"]),
    ],
)  # fmt: skip
def test_slurm_goes_forward_and_not_too_far(upgrade, master, worker, said):
    found = upgrade.slurm_faults({"master": master, "w1": worker}, "master")
    assert len(found) == len(said)
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True))


def test_releases_are_numbered_without_a_gap(upgrade):
    releases = ("23.11", "24.05", "24.11", "25.05", "25.11", "26.05")
    numbers = [upgrade.release(f"{each}.3-1") for each in releases]
    assert numbers == list(range(numbers[0], numbers[0] + len(releases)))


def test_the_master_comes_first_and_the_others_so_many_at_a_time(upgrade):
    nodes = {"w1", "w2", "w3", "master"}
    found = upgrade.in_batches(nodes, 2, "master", workers=["w1", "w2", "w3"], held={"w2"})
    assert [(batch["nodes"], batch["prove"]) for batch in found] == [
        (["master"], []),
        (["w1", "w2"], ["w1"]),
        (["w3"], ["w3"]),
    ]
    assert found[0]["sls"] == ["slurm.controller", "slurm.accounting"]
    alone = upgrade.in_batches({"master"}, 1, "master", workers=["master"], held=set())
    assert (alone[0]["prove"], alone[0]["sls"][-1]) == (["master"], "slurm.worker")


def test_every_lock_and_every_stage_is_known(upgrade):
    assert set(upgrade.LOCKED) == {path.parent.name for path in ROOT.glob("formulas/*/requirements.lock")}
    for formula, package in upgrade.LOCKED.items():
        assert upgrade.version_in((ROOT / f"formulas/{formula}/requirements.lock").read_text(), package)
    known = {*upgrade.LOCKED, *json.loads((ROOT / "salt/artifacts.json").read_text())}
    assert {name for stage in upgrade.STAGES.values() for name in stage["components"]} <= known
    role = yaml.safe_load((ROOT / "salt/roles/master.sls").read_text())["include"]
    order = [role.index(stage["sls"][0]) for stage in upgrade.STAGES.values() if stage["sls"] != ["conda_store"]]
    assert order == sorted(order)

"""How a node's last highstate went: what a return says, whose it is, and what is told of it."""

import hmac
import json

import pytest

from tests.unit.load import load

KEY = "sesame"


drift = load("salt/_engines/drift.py", "drift_engine")
cluster = load("salt/_runners/cluster.py", "cluster_runner")


def state(name, result, changes=False):
    key = f"file_|-{name}_|-/etc/x_|-managed"
    return {
        key: {"__id__": name, "result": result, "changes": {"diff": "-a +b"} if changes else {}, "duration": 1500.0}
    }


def returned(node="w1", states=None, *, test=True, by=None):
    """Return the return of a scheduled highstate as the master has it on its bus; ``by`` whom, if not ``node``."""
    return {
        "cmd": "_return",
        "id": node,
        "fun": "state.highstate",
        "fun_args": [{"test": test}],
        "schedule": "highstate",
        "metadata": {"token": hmac.new(KEY.encode(), (by or node).encode(), "sha256").hexdigest(), "_TOS": 0},
        "jid": "20261125180000000000",
        "return": {**state("A", True), **state("B", None, True)} if states is None else states,
        "_stamp": "2026-11-25T18:00:00",
    }


# What a return says


def test_a_run_in_test_mode_tells_drift():
    assert drift.outcome(returned()) == {
        "test": True, "seconds": 3.0, "failed": [], "failed_count": 0, "drifted": ["B"], "changed_count": 1,
    }  # fmt: skip


def test_a_run_that_enforces_mends_drift():
    run = drift.outcome(returned(states={**state("A", True, True), **state("B", False)}, test=False))
    assert (run["changed_count"], run["drifted"], run["failed"], run["test"]) == (1, ["A"], ["B"], False)


def test_a_run_by_hand_or_of_something_else_says_nothing():
    for schedule in (None, "__mine_interval"):
        assert drift.outcome({**returned(), "schedule": schedule}) is None


def test_a_run_that_met_another_one_says_nothing():
    conflict = ['The function "state.apply" is running as PID 7 and was started at ... with jid 2026']
    assert drift.outcome(returned(states=conflict)) is None


@pytest.mark.parametrize(
    "states", [["Rendering SLS 'base:roles.worker' failed: secret"], "Unhandled exception", None, 7]
)
def test_a_run_without_states_has_failed(states):
    run = drift.outcome({**returned(), "return": states})
    assert (run["failed"], run["failed_count"]) == ([drift.NO_STATES], 1)


def test_odd_returns_are_made_fit_to_be_shown():
    odd = {"\x1b[2Jx": {"result": False}, "y": 5, "z": {"result": None, "duration": "long", "__id__": "n" * 999}}
    run = drift.outcome(returned(states={**odd, **{f"{n}": {"result": False} for n in range(99)}}))
    assert run["failed"][0] == "?[2Jx"
    assert (len(run["failed"]), run["failed_count"], run["seconds"]) == (drift.MOST_STATES, 100, 0)
    assert run["drifted"] == ["n" * drift.LONGEST_NAME]


# Whose it is


@pytest.fixture
def nodes(tmp_path):
    """Return a function that opens what a master whose directory is ``tmp_path`` knows, as after a restart."""
    (tmp_path / "minions").mkdir()
    for node in ("w1", "w2", "ghost"):
        (tmp_path / "minions" / node).touch()
    opts = {"cachedir": str(tmp_path), "pki_dir": str(tmp_path)}

    def known(members=("w1", "w2"), errors=()):
        pillar = {"members": dict.fromkeys(members, {}), "secrets": {"highstate_key": KEY}}
        return drift.Nodes(opts, lambda: ({}, list(errors)) if errors else (pillar, []))

    return known


def test_a_node_vouches_for_its_own_return(nodes):
    assert nodes().vouches_for(returned("w1"))


def test_nobody_speaks_for_another_one(nodes):
    known = nodes()
    assert not known.vouches_for(returned("w2", by="w1"))
    assert not known.vouches_for({**returned("w2"), "metadata": {"token": ""}})
    assert not known.vouches_for(returned("ghost")), "the pillar does not name it"
    assert not known.vouches_for(returned("w3")), "its key is not accepted"
    assert not nodes(errors=["no"]).vouches_for({**returned("w2"), "metadata": {"token": ""}})


def test_what_makes_no_sense_ends_nothing(nodes):
    for odd in (
        {},
        None,
        {**returned(), "metadata": None},
        {**returned(), "metadata": {"token": "\u00e9"}},
        {**returned(), "fun_args": 5},
        {**returned(), "id": ["w1"]},
    ):
        assert drift._heard({"tag": "salt/job/2/ret/w1", "data": odd}, nodes(), drift.Probe(None), None) is False


# What is told of it


def test_a_node_that_gets_worse_is_told_once(nodes):
    known = nodes()
    run = drift.outcome(returned())
    assert known.record("w1", run) == {"drifted": ["B"]}
    assert known.record("w1", run) == {}
    since = known.runs["w1"]["drifted_since"]
    more = drift.outcome(returned(states={**state("B", None), **state("C", None), **state("D", False)}))
    assert known.record("w1", more) == {"drifted": ["C"], "highstate-failed": ["D"]}
    assert known.runs["w1"]["drifted_since"] == since
    assert known.record("w1", drift.outcome(returned(states=state("A", True)))) == {}
    assert known.runs["w1"]["drifted_since"] is None
    assert known.record("w1", run) == {"drifted": ["B"]}


def test_what_is_known_survives_a_restart_and_goes_with_the_node(nodes, tmp_path):
    known = nodes()
    for node in ("w1", "w2"):
        known.record(node, drift.outcome(returned(node)))
    known.save()
    assert (tmp_path / "highstates.json").stat().st_mode & 0o777 == 0o600
    assert nodes().runs == known.runs
    (tmp_path / "minions/w2").unlink()
    known.save()
    assert set(nodes().runs) == {"w1"}
    assert nodes(members=["w3"]).present() == {}


def test_an_unreadable_pillar_makes_nobody_a_stranger(nodes):
    known = nodes()
    known.record("w1", drift.outcome(returned()))
    known.save()
    assert set(nodes(errors=["line 3: what?"]).present()) == {"w1"}


def test_metrics_are_numbers_of_members(nodes, tmp_path):
    known = nodes()
    known.record("w1", drift.outcome(returned(states={**state("B", None), **state("C", False)})))
    path = tmp_path / "qhub_salt.prom"
    drift.write(path, known.present(), 600, 0.25)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    values = dict(line.rsplit(" ", 1) for line in lines)
    assert values.pop('qhub_highstate_last_timestamp_seconds{minion="w1"}')
    assert {key: float(value) for key, value in values.items()} == {
        "qhub_event_lag_seconds": 0.25,
        "qhub_highstate_interval_seconds": 600,
        'qhub_highstate_success{minion="w1"}': 0,
        'qhub_highstate_failed_states{minion="w1"}': 1,
        'qhub_highstate_changed_states{minion="w1"}': 1,
        'qhub_highstate_test{minion="w1"}': 1,
        'qhub_highstate_duration_seconds{minion="w1"}': 3,
    }
    assert path.stat().st_mode & 0o777 == 0o644
    drift.write(tmp_path / "absent" / "x.prom", {}, 0, 0)  # node_exporter is not installed yet


class Bus:
    """A bus that keeps what is fired on it."""

    def __init__(self):
        self.fired = []

    def fire_event(self, content, tag):
        self.fired.append((tag, content))


def test_a_service_that_stops_is_passed_on(nodes):
    bus, known = Bus(), nodes()
    probe = drift.Probe(bus)

    def hear(tag, content):
        assert drift._heard({"tag": tag, "data": content}, known, probe, bus) is False

    hear("salt/beacon/w1/service/slurmd", {"slurmd": {"running": False}, "id": "w1"})
    hear("salt/beacon/w9/service/slurmd", {"slurmd": {"running": False}})
    hear("salt/beacon/w1/service/slurmd", {"slurmd": {"running": "no"}})
    hear("salt/beacon/w1/service/slurmd", "odd")
    hear("salt/beacon/w1", {})
    hear("salt/job/x/ret/w1", None)
    assert bus.fired == [("qhub/node/w1/service", {"service": "slurmd", "running": False})]


def test_the_lag_is_how_long_an_event_took_or_takes(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(drift.time, "monotonic", lambda: clock[0])
    bus = Bus()
    probe = drift.Probe(bus)
    assert probe.lag() == 0
    probe.send()
    clock[0] += 40
    probe.send()
    assert (len(bus.fired), probe.lag()) == (1, 40)
    assert not probe.seen("qhub/lag/guessed")
    assert probe.seen(bus.fired[0][0])
    clock[0] += 5
    assert probe.lag() == 40


# What the administrator reads


def test_drift_names_only_nodes_that_are_not_as_declared(nodes, monkeypatch, tmp_path):
    known = nodes()
    known.record("w1", drift.outcome(returned()))
    known.record("w2", drift.outcome(returned("w2", states=state("A", True))))
    known.save()
    monkeypatch.setattr(cluster, "__opts__", {"cachedir": str(tmp_path)}, raising=False)
    members = {"membership.members": lambda: {"w1": {}, "w2": {}, "w3": {}}}
    monkeypatch.setattr(cluster, "__salt__", members, raising=False)
    told = cluster.drift()
    assert told["summary"] == "1 of 3 nodes are as declared"
    assert set(told["nodes"]) == {"w1", "w3"}
    assert told["nodes"]["w1"]["drifted"] == ["B"]
    assert told["nodes"]["w3"] == {"last run": "none yet"}
    assert json.loads(json.dumps(told)) == told

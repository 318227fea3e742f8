"""How a node's last highstate went: what a return says, whose it is, and what is told of it."""

import importlib.util
import json
import time

import pytest
import salt.crypt
import salt.payload
import salt.serializers.msgpack
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.unit.conftest import ROOT

ALGORITHM = salt.crypt.PKCS1v15_SHA224
PEM = serialization.Encoding.PEM


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drift = load("salt/_engines/drift.py", "drift_engine")
cluster = load("salt/_runners/cluster.py", "cluster_runner")


def state(name, result, changes=False):
    key = f"file_|-{name}_|-/etc/x_|-managed"
    return {
        key: {"__id__": name, "result": result, "changes": {"diff": "-a +b"} if changes else {}, "duration": 1500.0}
    }


def returned(node="w1", *, states=None, args=(), **more):
    """Return a job's return as the master puts it on its bus, unsigned."""
    states = {**state("A", True), **state("B", None, True)} if states is None else states
    return {
        "cmd": "_return",
        "id": node,
        "fun": "state.highstate",
        "fun_args": list(args),
        "jid": "20261125180000000000",
        "return": states,
        "ts": int(time.time()),
        **more,
    }


SCHEDULED = {"args": [{"test": True}], "schedule": "highstate"}


# What a return says


def test_a_scheduled_test_run_tells_drift():
    run = drift.outcome(returned(**SCHEDULED))
    assert run == {
        "test": True, "scheduled": True, "seconds": 3.0, "failed": [], "failed_count": 0, "drifted": ["B"],
        "changed_count": 1,
    }  # fmt: skip


def test_a_run_that_was_asked_for_changes_things_and_drifts_not():
    run = drift.outcome(returned(states={**state("A", True, True), **state("B", False)}))
    assert (run["changed_count"], run["drifted"], run["failed"], run["test"]) == (1, [], ["B"], False)


def test_a_scheduled_run_that_enforces_mends_drift():
    run = drift.outcome(returned(states=state("A", True, True), args=[{"test": False}], schedule="highstate"))
    assert (run["changed_count"], run["drifted"], run["test"]) == (1, ["A"], False)


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        ("state.highstate", [], (False, True)),
        ("state.apply", [{"test": True, "queue": 5, "__kwarg__": True}], (True, True)),
        ("state.apply", ["test=True"], (True, True)),
        ("state.highstate", [{"saltenv": "base", "pillar": None, "queue": 5, "__kwarg__": True}], (False, True)),
        ("state.apply", ["nfs"], (False, False)),
        ("state.apply", ["mods=nfs", "test=True"], (True, False)),
        ("state.apply", [{"pillar": {"a": 1}, "__kwarg__": True}], (False, False)),
        ("state.highstate", [{"exclude": "nfs", "__kwarg__": True}], (False, False)),
        ("state.sls", [], (False, False)),
        ("test.ping", None, (False, False)),
    ],
)
def test_only_a_whole_highstate_counts(function, args, expected):
    assert drift.arguments(function, args) == expected


def test_a_run_that_met_another_one_says_nothing():
    conflict = ['The function "state.apply" is running as PID 7 and was started at ... with jid 2026']
    assert drift.outcome(returned(states=conflict, **SCHEDULED)) is None


@pytest.mark.parametrize(
    "states", [["Rendering SLS 'base:roles.worker' failed: secret"], "Unhandled exception", None, 7]
)
def test_a_run_without_states_has_failed(states):
    run = drift.outcome({**returned(**SCHEDULED), "return": states})
    assert (run["failed"], run["failed_count"]) == ([drift.NO_STATES], 1)


def test_odd_returns_are_made_fit_to_be_shown():
    odd = {"\x1b[2Jx": {"result": False}, "y": 5, "z": {"result": None, "duration": "long", "__id__": "n" * 999}}
    run = drift.outcome(returned(states={**odd, **{f"{n}": {"result": False} for n in range(99)}}, **SCHEDULED))
    assert run["failed"][0] == "?[2Jx"
    assert (len(run["failed"]), run["failed_count"], run["seconds"]) == (drift.MOST_STATES, 100, 0)
    assert run["drifted"] == ["n" * drift.LONGEST_NAME]


# Whose it is


@pytest.fixture(scope="module")
def pairs():
    """Return the key pairs of some nodes, as PEM."""
    made = {node: rsa.generate_private_key(65537, 2048) for node in ("w1", "w2", "ghost", "../w1")}
    return {
        node: (
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        )
        for node, key in made.items()
    }


@pytest.fixture
def keys(tmp_path, pairs):
    """Return a function: node -> path of its private key; a master whose directory is ``tmp_path`` has accepted it."""
    (tmp_path / "minions").mkdir()
    for node, (private, public) in pairs.items():
        (tmp_path / f"{node.replace('/', '_')}.pem").write_bytes(private)
        if "/" not in node:
            (tmp_path / "minions" / node).write_bytes(public)
    return lambda node: str(tmp_path / f"{node.replace('/', '_')}.pem")


@pytest.fixture
def nodes(tmp_path, keys):
    """Return a function that opens what is known of nodes, as after a restart."""
    opts = {"cachedir": str(tmp_path), "pki_dir": str(tmp_path), "signing_algorithm": ALGORITHM}
    return lambda members=("w1", "w2"): drift.Nodes(opts, lambda: {node: {} for node in members})


@pytest.fixture
def sent(keys):
    """Return a function that signs a return with a node's key, and hands it over as the bus does."""

    def send(content, signer, *, unasked=False, **after):
        load = dict(content)
        if unasked:
            load["jid"] = "req"
        text = salt.serializers.msgpack.serialize(load)
        load["sig"] = salt.crypt.sign_message(keys(signer), text, algorithm=ALGORITHM)
        if unasked:  # as salt.utils.job does
            load |= {"arg": load["fun_args"], "tgt_type": "glob", "tgt": load["id"], "jid": content["jid"]}
        load |= {"_stamp": "2026-11-25T18:00:00", **after}
        return salt.payload.loads(salt.payload.dumps(load))

    return send


@pytest.mark.parametrize("unasked", [True, False])
def test_a_node_vouches_for_what_it_signed(nodes, sent, unasked):
    assert nodes().vouches_for(sent(returned(**SCHEDULED), "w1", unasked=unasked))


def test_nobody_speaks_for_another_one(nodes, sent):
    known = nodes()
    assert not known.vouches_for(returned("w2", **SCHEDULED)), "unsigned"
    assert not known.vouches_for(sent(returned("w2", **SCHEDULED), "w1")), "signed by another one"
    # An accepted minion returns a job with a resource_id: Salt makes that the id.
    resource = sent(returned("w1", resource_id="w2", **SCHEDULED), "w1")
    resource["id"] = resource.pop("resource_id")
    assert not known.vouches_for(resource)
    altered = sent(returned("w2", **SCHEDULED), "w2", **{"return": state("A", False)})
    assert not known.vouches_for(altered)
    assert not known.vouches_for(sent(returned("ghost", **SCHEDULED), "ghost")), "the pillar does not name it"
    assert not known.vouches_for(sent(returned("../w1", **SCHEDULED), "../w1"))


def test_what_was_signed_before_does_not_come_back(nodes, sent):
    known, now = nodes(), int(time.time())
    old = sent({**returned(**SCHEDULED), "ts": now - 100}, "w1")
    assert known.vouches_for(old)
    known.record("w1", now, drift.outcome(returned()))
    assert not known.vouches_for(old)
    assert not known.vouches_for(sent({**returned(**SCHEDULED), "ts": now + 9999}, "w1"))


# What is told of it


def test_a_node_that_gets_worse_is_told_once(nodes):
    known = nodes()
    run = drift.outcome(returned(**SCHEDULED))
    assert known.record("w1", 1, run) == {"drifted": ["B"]}
    assert known.record("w1", 2, run) == {}
    since = known.runs["w1"]["drifted_since"]
    more = drift.outcome(returned(states={**state("B", None), **state("C", None), **state("D", False)}, **SCHEDULED))
    assert known.record("w1", 3, more) == {"drifted": ["C"], "highstate-failed": ["D"]}
    assert known.runs["w1"]["drifted_since"] == since
    assert known.record("w1", 4, drift.outcome(returned(states=state("A", True), **SCHEDULED))) == {}
    assert known.runs["w1"]["drifted_since"] is None
    assert known.record("w1", 5, run) == {"drifted": ["B"]}


def test_what_is_known_survives_a_restart_and_goes_with_the_node(nodes, tmp_path):
    known = nodes()
    for node in ("w1", "w2"):
        known.record(node, 1, drift.outcome(returned(node, **SCHEDULED)))
    known.save()
    assert (tmp_path / "highstates.json").stat().st_mode & 0o777 == 0o600
    assert nodes().runs == known.runs
    (tmp_path / "minions/w2").unlink()
    known.save()
    assert set(nodes().runs) == {"w1"}
    assert nodes(members=["w3"]).present() == {}


def test_an_unreadable_pillar_makes_nobody_a_stranger(nodes):
    known = nodes()
    known.record("w1", 1, drift.outcome(returned(**SCHEDULED)))
    known.save()
    known = nodes()
    known.ask = lambda: 1 / 0
    assert set(known.present()) == {"w1"}


def test_metrics_are_numbers_of_members(nodes, tmp_path):
    known = nodes()
    known.record("w1", 1, drift.outcome(returned(states={**state("B", None), **state("C", False)}, **SCHEDULED)))
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
    known.record("w1", 1, drift.outcome(returned(**SCHEDULED)))
    known.record("w2", 1, drift.outcome(returned("w2", states=state("A", True), **SCHEDULED)))
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

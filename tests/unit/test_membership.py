"""Workers that come and go: who is dead, who is back, and what a machine that cannot be brought in is told."""

import io
import tarfile
import time

import pytest

from tests.unit.load import load

membership = load("salt/_runners/membership.py", "membership_runner")
cloud = load("salt/_clouds/saltify.py", "saltify_cloud")
converge = load("salt/_engines/converge.py", "converge_engine")
power = load("salt/_engines/power.py", "power_engine")

NOW = 1_790_000_000
AN_HOUR_AGO, JUST_NOW = (time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(NOW - ago)) for ago in (3601, 10))
DEAD = f"dead since {AN_HOUR_AGO}: does not answer (found by the cluster's master)"


# The dead


def test_dead_is_who_slurm_gave_up_long_ago():
    rows = {
        "w1": ("idle", "Unknown", "none"),
        "w2": ("down*", AN_HOUR_AGO, "Not responding"),
        "w3": ("down*", JUST_NOW, "Not responding"),
        "w4": ("idle*", "Unknown", "none"),
    }
    assert membership.dead(rows, NOW - 3600) == {"w2": AN_HOUR_AGO}


@pytest.mark.parametrize(
    "row",
    [
        ("down*", AN_HOUR_AGO, "new disk"),
        ("drained*", AN_HOUR_AGO, "new disk"),
        ("drained*", AN_HOUR_AGO, "Not responding"),
        ("drained*", AN_HOUR_AGO, DEAD),
        ("down", AN_HOUR_AGO, "Not responding"),
    ],
)
def test_what_somebody_did_to_a_node_is_left_alone_and_so_is_who_answers(row):
    assert membership.dead({"w1": row}, NOW) == {}


def test_back_is_who_was_drained_as_dead_and_answers():
    rows = {
        "w1": ("drained", JUST_NOW, DEAD),
        "w2": ("drained*", JUST_NOW, DEAD),
        "w3": ("drained", JUST_NOW, "new disk"),
        "w4": ("drained", JUST_NOW, "dead since Monday"),
        "w5": ("idle", "Unknown", "none"),
    }
    assert membership.returned(rows) == ["w1"]


class Runners:
    """A RunnerClient's functions, of which one fails."""

    functions = {"membership.look_for_dead": lambda after: 1 / 0}


def test_a_look_for_the_dead_that_fails_changes_nothing():
    assert converge._back_from_the_dead(Runners, 3600, ["w1"]) == ["w1"]


# The joining


class Joining:
    """A RunnerClient of a cluster in which ``answers`` are joining, one look after the other."""

    def __init__(self, *answers):
        self.answers, self.ran = list(answers), []
        self.functions = {"membership.unexpected": list, "membership.joining": lambda: self.answers.pop(0)}

    def cmd(self, function, words, **_):
        self.ran.append((function, *words))


@pytest.mark.parametrize(
    ("answers", "runs"),
    [
        (([],), 0),
        ((["w1"], []), 1),
        ((["w1"], ["w1"]), 1),  # it failed: no run for it again until there is news
        ((["w1"], ["w1", "w2"], ["w1"]), 2),
    ],
)
def test_who_comes_while_others_are_brought_in_is_brought_in_too(answers, runs):
    cluster = Joining(*answers)
    assert converge._converge(cluster)
    assert cluster.ran == [("state.orchestrate", "orch.converge")] * runs
    assert not cluster.answers


# Nodes that are switched off and on


@pytest.mark.parametrize(
    ("state", "busy", "found"),
    [
        ("IDLE+DYNAMIC_NORM", AN_HOUR_AGO, {"w1"}),
        ("IDLE+DYNAMIC_NORM", JUST_NOW, set()),
        ("IDLE+DYNAMIC_NORM", "Unknown", set()),
        ("IDLE+DRAIN+DYNAMIC_NORM", AN_HOUR_AGO, set()),
        ("IDLE+DYNAMIC_NORM+POWERED_DOWN", AN_HOUR_AGO, set()),
        ("IDLE+DYNAMIC_NORM+PLANNED", AN_HOUR_AGO, set()),
        ("MIXED+DYNAMIC_NORM", AN_HOUR_AGO, set()),
        ("DOWN+DYNAMIC_NORM+NOT_RESPONDING", AN_HOUR_AGO, set()),
    ],
)
def test_idle_is_who_has_had_no_job_for_long_and_is_nothing_else(state, busy, found):
    line = f"NodeName=w1 OS=Linux 6.1 #1 SMP State={state} LastBusyTime={busy} Reason=State=IDLE+DYNAMIC_NORM\n"
    assert membership.idle(line, NOW - 1800) == found


def test_asleep_is_who_was_switched_off_and_is_not_down(monkeypatch):
    states = {
        "w1": "idle~",
        "w2": "mixed#",
        "w3": "idle%",
        "w4": "down~",
        "w5": "idle",
        "w6": "down*",
        "w7": "drained~",
    }
    monkeypatch.setattr(membership, "node_states", lambda: states)
    assert membership.asleep() == ["w1", "w2", "w3", "w7"]


@pytest.fixture
def spool(tmp_path, monkeypatch):
    """Where Slurm leaves what it wants."""
    for name in ("asked", "taken"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(power, name.upper(), tmp_path / name)
    return tmp_path


def test_the_last_request_counts_and_waits_while_the_node_is_being_switched(spool):
    (spool / "taken/w1").symlink_to("suspend")  # left over
    (spool / "asked/w1").symlink_to("resume")
    (spool / "asked/w2").symlink_to("resume")
    (spool / "asked/.w3").symlink_to("resume")
    (spool / "asked/w4").write_text("resume")
    (spool / "asked/w5").mkdir()
    assert power.taken({"w2": None}) == {"w1": "resume"}
    assert sorted(path.name for path in (spool / "asked").iterdir()) == [".w3", "w2", "w4", "w5"]
    assert power.taken({}) == {"w1": "resume", "w2": "resume"}


def test_only_members_that_may_be_are_switched(spool, caplog):
    members = {"w1": {"power": True}, "w2": {"power": False}}
    asked = {"w1": "resume", "w2": "suspend", "w3": "suspend"}
    for name in asked:
        (spool / "taken" / name).symlink_to("x")
    functions = {"membership.members": lambda: members}
    assert list(power.allowed(asked, functions)) == [("w1", "resume")]
    assert [path.name for path in (spool / "taken").iterdir()] == ["w1"]
    assert list(power.allowed({"w1": "rm\n-rf"}, functions)) == []
    assert r"Refused: 'rm\n-rf' of 'w1'" in caplog.text


def test_a_command_is_words_and_what_it_says_when_it_fails_is_kept():
    assert power.words("ipmitool -H {node}-bmc 'power  on' {}", "w1") == ["ipmitool", "-H", "w1-bmc", "power  on", "{}"]
    assert power.switch(["true"], 5) == ""
    assert power.switch(["false"], 5) == "status 1"
    assert power.switch(["sh", "-c", "echo a >&2; printf 'no\tpower\n' >&2; exit 3"], 5) == "no?power"
    assert power.switch(["sleep", "9"], 0.1) == "it did not end within 0.1 s"
    assert "No such file" in power.switch(["/nowhere"], 5)


# Machines that salt-cloud brings in


def test_what_a_machine_is_sent_is_roots_alone():
    with tarfile.open(fileobj=io.BytesIO(cloud.packed({"minion.pem": b"key", "deploy.sh": b"#!/bin/sh"}))) as tar:
        assert {entry.name: (oct(entry.mode), entry.size) for entry in tar} == {
            "minion.pem": ("0o700", 3),
            "deploy.sh": ("0o700", 9),
        }
        assert tar.extractfile("minion.pem").read() == b"key"


def test_a_host_key_that_is_not_known_is_refused_in_words():
    said = "No ED25519 host key is known for 10.0.0.13 and you have requested strict checking.\r\n"
    words = cloud.failure("w3", "10.0.0.13", "/root/.ssh/known_hosts", 255, said + "Host key verification failed.\r\n")
    assert words.startswith("w3: refused: the host key of 10.0.0.13 is not the one in /root/.ssh/known_hosts")
    assert words.endswith("ssh-keyscan -t ed25519 10.0.0.13 >>/root/.ssh/known_hosts")


def test_another_failure_has_the_words_of_ssh_or_of_the_script():
    refused = "ssh: connect to host 10.0.0.13 port 22: Connection refused\r\n"
    assert cloud.failure("w3", "10.0.0.13", "k", 255, refused) == f"w3: no SSH to 10.0.0.13: {refused.strip()}"
    assert cloud.failure("w3", "10.0.0.13", "k", 255, "") == "w3: no SSH to 10.0.0.13: no answer"
    words = cloud.failure("w3", "10.0.0.13", "k", 1, "Reading\n\ninstall.sh: Salt needs python3\n")
    assert words == "w3: the deploy script failed on 10.0.0.13:\nReading\ninstall.sh: Salt needs python3"

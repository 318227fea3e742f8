"""Workers that come and go: who is dead, who is back, and what a machine that cannot be brought in is told."""

import io
import tarfile
import time

import pytest

from tests.unit.load import load

membership = load("salt/_runners/membership.py", "membership_runner")
cloud = load("salt/_clouds/saltify.py", "saltify_cloud")
converge = load("salt/_engines/converge.py", "converge_engine")

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

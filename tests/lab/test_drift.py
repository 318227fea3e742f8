"""What each node finds at its own highstates: in the metrics, in events, and in what the administrator reads."""

import contextlib
import json
import os

import pytest

from tests.lab.conftest import parse
from tests.lab.harness.shell import wait_for

METRICS = "/var/lib/qhub-metrics/qhub_salt.prom"
#: Of the first and of the last states of a worker.
EARLY, LATE = "/etc/salt/minion", "/etc/default/prometheus-node-exporter"
PYTHON = "/opt/qhub/salt/bin/python"
SOON = 120  # seconds in which a scheduled run has ended; two to ten are usual


def metrics(master):
    """Return ``{"name{labels}": value}`` of what the master's engine wrote."""
    lines = [line for line in master.read(METRICS).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def of(master, node):
    """Return ``{name: value}`` of one node's highstate."""
    label = f'{{minion="{node}"}}'
    found = {name.removesuffix(label): value for name, value in metrics(master).items() if name.endswith(label)}
    return {name.removeprefix("qhub_highstate_"): value for name, value in found.items()}


def told(master):
    """Return what ``cluster.drift`` says: ``{node: {...}}``."""
    return parse(master.run(["salt-run", "--out=json", "cluster.drift"]).stdout)["nodes"]


@contextlib.contextmanager
def scheduled(lab, mode):
    """Let w1 look after itself every ten seconds, in ``mode``."""

    def edit(cluster):
        short = {"highstate": {"mode": mode, "interval": 10, "splay": 1}, "services": {"interval": 2}}
        return {**cluster, "salt": short}

    with lab.pillar(cluster=edit):
        configure(lab)
        yield


def configure(lab):
    """Give w1's minion its configuration, and wait until it runs with it.

    Not through the master: where w1 enforces, it may be about to start its minion anew, which then hears of no job.
    """
    lab.node("w1").run(
        ["salt-call", "--retcode-passthrough", "--log-level=quiet", "state.apply", "salt.minion", "queue=5"]
    )
    started = 'date -d "$(systemctl show -P ActiveEnterTimestamp salt-minion)" +%s'
    written = "stat -c %Y /etc/salt/minion.d/qhub.conf /etc/salt/minion.d/schedule.conf | sort -n | tail -1"
    newer = ["sh", "-c", f'test "$({started})" -gt "$({written})"']
    wait_for("w1's minion runs with it", lambda: not lab.node("w1").run(newer, check=False).returncode, timeout=40)


@pytest.fixture(scope="module")
def events(lab, master):
    """Return a function: the events ``[(tag, content)]`` of nodes that the master's bus has had so far."""
    unit = f"test-drift-{os.getpid()}"  # its journal is this run's only
    options = ["--quiet", "--collect", f"--unit={unit}", "--setenv=PYTHONUNBUFFERED=1"]
    master.run(["systemd-run", *options, "salt-run", "state.event"])

    def heard():
        lines = master.run(["journalctl", "-q", "-o", "cat", "-u", unit]).stdout.splitlines()
        return [(tag, json.loads(content)) for tag, _, content in (line.partition("\t") for line in lines) if content]

    try:
        wait_for("the bus is listened to", heard, timeout=40)
        yield lambda tag: [content for each, content in heard() if each == tag]
    finally:
        master.run(["systemctl", "stop", unit], check=False)


@pytest.fixture(scope="module")
def kept(lab):
    """Put back the files that are made to drift, and the minion's configuration."""
    worker = lab.node("w1")
    files = {path: worker.read(path) for path in (EARLY, LATE)}
    yield files
    for path, text in files.items():
        worker.run(["rm", "-rf", path])
        worker.write(path, text)
    configure(lab)


def test_drift_is_seen_told_and_left_alone_in_test_mode(lab, master, events, kept):
    worker = lab.node("w1")
    with scheduled(lab, "test"):
        wait_for("w1 is as declared", lambda: of(master, "w1").get("test") == 1, timeout=SOON)
        assert of(master, "w1")["changed_states"] == 0, told(master)
        assert "w1" not in told(master)

        worker.write(LATE, "drift\n")
        wait_for("w1 has drifted", lambda: of(master, "w1")["changed_states"], timeout=SOON)
        name = "Node exporter is configured"
        assert name in told(master)["w1"]["drifted"]
        again = of(master, "w1")["last_timestamp_seconds"]
        wait_for("w1 looks once more", lambda: of(master, "w1")["last_timestamp_seconds"] > again, timeout=SOON)
        drifted = [event["states"] for event in events("qhub/node/w1/drifted")]
        assert [name in states for states in drifted] == [True], "once"
        assert worker.read(LATE) == "drift\n"

        # A service of its own that stops is an event, and drift.
        worker.run(["systemctl", "stop", "ssh"])
        wait_for("the stop is told", lambda: events("qhub/node/w1/service"), timeout=20)
        worker.run(["systemctl", "start", "ssh"])
        wait_for("the start is told", lambda: len(events("qhub/node/w1/service")) > 1, timeout=20)
        stop, start = events("qhub/node/w1/service")[:2]
        assert [(each["service"], each["running"]) for each in (stop, start)] == [("ssh", False), ("ssh", True)]

        # A state that cannot do its work.
        worker.run(["rm", LATE])
        worker.run(["mkdir", LATE])
        wait_for("w1 has failed", lambda: of(master, "w1")["success"] == 0, timeout=SOON)
        assert of(master, "w1")["failed_states"] >= 1
        assert name in told(master)["w1"]["failed"]
        assert name in events("qhub/node/w1/highstate-failed")[0]["states"]
        worker.run(["rmdir", LATE])
        worker.write(LATE, kept[LATE])
        wait_for(
            "w1 is well again",
            lambda: of(master, "w1")["success"] == 1 and of(master, "w1")["changed_states"] == 0,
            timeout=SOON,
        )
        assert "w1" not in told(master)


# Ends the highstate that has just mended EARLY.
KILL = f"""
import os, pathlib, time
import msgpack
while "formulas" not in pathlib.Path("{EARLY}").read_text():
    time.sleep(0.005)
for job in pathlib.Path("/var/cache/salt/minion/proc").iterdir():
    job = msgpack.unpackb(job.read_bytes(), strict_map_key=False)
    if job["fun"] == "state.highstate":
        os.kill(job["pid"], 9)
        print("killed")
"""


def test_drift_is_mended_in_enforce_mode_also_after_a_run_was_killed(lab, master, events, kept):
    worker = lab.node("w1")
    with scheduled(lab, "enforce"):
        worker.write(LATE, "drift\n")
        worker.write(EARLY, "# drift\n")
        assert worker.run([PYTHON, "-c", KILL], timeout=SOON).stdout == "killed\n"
        assert worker.read(LATE) == "drift\n", "it was killed half-way"
        wait_for("the next run mends the rest", lambda: worker.read(LATE) == kept[LATE], timeout=SOON)
        wait_for(
            "it is told", lambda: of(master, "w1")["test"] == 0 and of(master, "w1")["changed_states"], timeout=SOON
        )
        assert of(master, "w1")["success"] == 1
        wait_for("the next one has nothing to do", lambda: of(master, "w1")["changed_states"] == 0, timeout=SOON)
        assert "w1" not in told(master)


# An accepted minion says, in each way it can, that the highstate of another one has failed.
FORGE = """
import salt.channel.client, salt.config, salt.minion
opts = salt.config.minion_config("/etc/salt/minion")
opts.update(salt.minion.resolve_dns(opts))
states = {"file_|-Forged_|-/x_|-managed": {"__id__": "Forged", "result": False, "changes": {}, "duration": 1}}
result = {"fun": "state.highstate", "fun_args": [{"test": True}], "schedule": "highstate", "success": False,
          "retcode": 2, "jid": "20991231235959000000", "return": states,
          "metadata": opts["schedule"]["highstate"]["metadata"]}
forged = {"id": "w2", "cmd": "_return", **result}
with salt.channel.client.ReqChannel.factory(opts) as channel:
    tag = "salt/job/20991231235959000000/ret/w2"
    channel.send({"cmd": "_minion_event", "id": "w1", "tag": tag, "data": forged})
    channel.send({"cmd": "_minion_event", "id": "w1", "events": [{"tag": tag, "data": forged}]})
    channel.send({"cmd": "_return", "id": "w1", "resource_id": "w2", **result})
print("sent")
"""


def test_nobody_speaks_for_another_node(lab, master):
    before = of(master, "w2")
    assert before["success"] == 1
    since = master.run(["date", "+%F %T"]).stdout.strip()
    assert lab.node("w1").run([PYTHON, "-c", FORGE], timeout=60).stdout == "sent\n"
    words = ["journalctl", "-q", "-o", "cat", "-u", "salt-master", "--since", since]
    wait_for("it is noticed", lambda: master.run(words).stdout.count("under the name of w2") == 2, timeout=20)
    renewed = written(master)
    wait_for("the metrics are written anew", lambda: written(master) > renewed, timeout=40)
    assert of(master, "w2") == before
    assert "Forged" not in master.read("/var/cache/salt/master/highstates.json")


def test_a_restarted_master_remembers(lab, master):
    before = {node: of(master, node) for node in ("master", "w1", "w2")}
    assert all(before.values())
    stopped = float(master.run(["date", "+%s"]).stdout)
    master.run(["systemctl", "restart", "salt-master"])
    wait_for("the metrics are written anew", lambda: written(master) > stopped, timeout=60)
    assert {node: of(master, node) for node in before} == before
    wait_for("the bus is measured", lambda: 0 < metrics(master)["qhub_event_lag_seconds"] < 5, timeout=40)
    answers = ["salt", "--out=txt", "--timeout=5", "w*", "test.ping"]
    wait_for("the workers answer", lambda: master.run(answers, check=False).stdout.count("True") == 2, timeout=60)


def written(master):
    """Return when the metrics were written."""
    return float(master.run(["stat", "-c", "%.Y", METRICS]).stdout)


def test_the_masters_daemon_has_metrics(master):
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics', timeout=5).read().decode())"
    assert "salt_events_fired" in master.run([PYTHON, "-c", ask]).stdout
    listening = master.run(["ss", "-tlnH", "sport", "=", ":9464"]).stdout.split()
    assert listening[3] == "127.0.0.1:9464"

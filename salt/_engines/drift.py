"""
Tell what each node found at its last scheduled highstate: metrics for Prometheus, events when a node gets worse, and
what ``salt-run cluster.drift`` prints.

Whatever is on the event bus may be forged: an accepted minion can send an event with any tag, and return a job under
another's id (Salt takes ``resource_id`` for the id). So a return counts only if it shows the token of the node that it
is about, which that node's schedule has from its pillar. The rest of it is the node's word about itself.
"""

import hmac
import json
import logging
import secrets
import time
from pathlib import Path

import prometheus_client
import salt.runner
import salt.utils.atomicfile
import salt.utils.event
import salt.utils.files

__opts__: dict

log = logging.getLogger(__name__)

METRICS = Path("/var/lib/qhub-metrics/qhub_salt.prom")
TICK = 15  # seconds between two looks at the bus's lag and at whose keys are accepted
LOOK = 600  # seconds after which the pillar is asked anew who is a member
MOST_STATES, LONGEST_NAME = 50, 200  # what is kept of one run
NO_STATES = "its states did not compile, or the run broke off"


def start(interval=0):
    """
    Listen to the bus for ever.

    interval
        Longest time between two scheduled runs, in seconds; 0 if there are none.
    """
    with (
        salt.utils.event.get_event("master", opts=__opts__, sock_dir=__opts__["sock_dir"], listen=True) as bus,
        salt.runner.RunnerClient(__opts__) as runners,
    ):
        nodes = Nodes(__opts__, runners.functions["cluster.compiled_pillar"])
        probe = Probe(bus)
        changed, due = True, 0.0
        while True:
            wait = 1 if changed else max(due - time.monotonic(), 0.1)
            event = bus.get_event(wait=wait, full=True)
            if event:
                changed |= _heard(event, nodes, probe, bus)
            if (changed and not event) or time.monotonic() > due:
                nodes.save()
                write(METRICS, nodes.present(), interval, probe.lag())
                changed, due = False, time.monotonic() + TICK
                probe.send()


def _heard(event, nodes, probe, bus):
    """Take notice of one event; return whether there is something new to write. No event may end the engine."""
    tag, content = event["tag"], event["data"]
    try:
        if probe.seen(tag):
            return False
        if tag.startswith("salt/job/") and "/ret/" in tag:
            return _returned(content, nodes, bus)
        if tag.startswith("salt/beacon/"):
            _service(tag, content, nodes, bus)
    except Exception as error:
        log.warning("An event was not understood: %s: %r", printable(tag), error)
    return False


def _returned(content, nodes, bus):
    """Take notice of the return of a job."""
    run = outcome(content)
    if not run or not nodes.vouches_for(content):
        return False
    for what, names in nodes.record(content["id"], run).items():
        log.warning("Node %s: %s: %s", content["id"], what, "; ".join(names))
        bus.fire_event({"states": names, "test": run["test"]}, f"qhub/node/{content['id']}/{what}")
    return True


def _service(tag, content, nodes, bus):
    """Pass on that a service of a node runs again, or not any more."""
    _, _, node, _, name = tag.split("/", 4)
    running = content.get(name, {}).get("running")
    if node in nodes.present() and isinstance(running, bool):
        bus.fire_event({"service": printable(name), "running": running}, f"qhub/node/{node}/service")


class Probe:
    """How long an event takes from whoever sends it to who listens."""

    def __init__(self, bus):
        self.bus, self.tag, self.sent, self.took = bus, None, 0.0, 0.0

    def send(self):
        """Send an event whose tag nobody can guess, unless one is still on its way."""
        if not self.tag:
            self.tag, self.sent = f"qhub/lag/{secrets.token_hex(16)}", time.monotonic()
            self.bus.fire_event({}, self.tag)

    def seen(self, tag):
        """Return whether ``tag`` is that of the event on its way, and note when it came."""
        if tag != self.tag:
            return False
        self.took, self.tag = time.monotonic() - self.sent, None
        return True

    def lag(self):
        """Return the seconds it took, or has taken so far."""
        return time.monotonic() - self.sent if self.tag else self.took


class Nodes:
    """
    How the last highstate of each node went, kept in a file of the master's cache.

    opts
        The master's options.
    pillar
        A function that returns the master's pillar, and a list of errors.
    """

    def __init__(self, opts, pillar):
        self.path, self.keys = Path(opts["cachedir"], "highstates.json"), Path(opts["pki_dir"], "minions")
        self.runs = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.saved = json.dumps(self.runs)
        self.pillar, self.members, self.key, self.look = pillar, set(self.runs), None, 0.0

    def vouches_for(self, content):
        """Return whether a return shows the token of the node whose id is in it."""
        node, shown = content["id"], content["metadata"]["token"]
        if node not in self.present(node) or not self.key:
            return False
        if hmac.compare_digest(shown, hmac.new(self.key, node.encode(), "sha256").hexdigest()):
            return True
        log.warning("A return that came under the name of %s is not its own", node)
        return False

    def record(self, node, run):
        """Keep a run of ``node``; return ``{what: [state, ...]}`` for what was not so before."""
        before = self.runs.get(node, {})
        self.runs[node] = {**run, "time": int(time.time())}
        worse = {}
        for kind, what in (("drifted", "drifted"), ("failed", "highstate-failed")):
            since = before.get(f"{kind}_since") or self.runs[node]["time"]
            self.runs[node][f"{kind}_since"] = since if run[kind] else None
            if new := [name for name in run[kind] if name not in before.get(kind, [])]:
                worse[what] = new
        return worse

    def present(self, wanted=None):
        """
        Return ``{id: run}`` of the members that there are; ``{}`` for one of which no run is known.

        wanted
            An id about which it is worth asking the pillar again.
        """
        accepted = {path.name for path in self.keys.iterdir()}
        now = time.monotonic()
        if now > self.look or (now > self.look - LOOK + TICK and wanted in accepted - self.members):
            try:
                pillar, errors = self.pillar()
                if not errors:
                    self.members, self.key = set(pillar["members"]), pillar["secrets"]["highstate_key"].encode()
            except Exception as error:
                errors = [repr(error)]
            if errors:  # the pillar is being edited: who was a member stays one
                log.warning("Who is a member cannot be told: %s", "; ".join(errors))
            self.look = now + (TICK if errors else LOOK)
        return {node: self.runs.get(node, {}) for node in sorted(self.members & accepted)}

    def save(self):
        """Write what is known of members to the file, if it is something new; forget the others."""
        self.runs = {node: run for node, run in self.present().items() if run}
        if (text := json.dumps(self.runs)) != self.saved:
            with salt.utils.files.set_umask(0o077), salt.utils.atomicfile.atomic_open(str(self.path), "w") as file:
                file.write(text)
            self.saved = text


def outcome(content):
    """
    Return what a return says of a scheduled highstate; ``None`` if it is none.

    Returns ``{"test", "seconds", "failed", "drifted", "failed_count", "changed_count"}``: names of states that failed,
    and of those that were not as declared.
    """
    states = content["return"] if content.get("schedule") == "highstate" else []
    if isinstance(states, list) and (not states or any("is running as PID" in str(line) for line in states)):
        return None  # another run was under way: the next one will tell
    if isinstance(states, dict):
        states = {key: state for key, state in states.items() if isinstance(state, dict)}
    else:
        states = {NO_STATES: {"result": False}}
    test = content["fun_args"][0]["test"] is True
    failed = [name(key, state) for key, state in states.items() if state.get("result") is False]
    changed = [
        name(key, state)
        for key, state in states.items()
        if (state.get("result") is None if test else state.get("changes"))
    ]
    times = [state.get("duration") for state in states.values()]
    return {
        "test": test,
        "seconds": round(sum(each for each in times if isinstance(each, (int, float))) / 1000, 3),
        "failed": failed[:MOST_STATES],
        "drifted": changed[:MOST_STATES],
        "failed_count": len(failed),
        "changed_count": len(changed),
    }


def name(key, state):
    """Return the name of a state of a return: its id."""
    parts = key.split("_|-") if isinstance(key, str) else []
    return printable(state.get("__id__") or (parts[1] if len(parts) == 4 else key))


def printable(text):
    """Return text that a node sent as it may be shown."""
    return "".join(each if each.isprintable() else "?" for each in str(text)[:LONGEST_NAME])


def write(path, nodes, interval, lag):
    """Write the metrics for node_exporter, if it is there."""
    registry = prometheus_client.CollectorRegistry()

    def gauge(suffix, text, labels=()):
        return prometheus_client.Gauge(f"qhub_{suffix}", text, labels, registry=registry)

    gauge("event_lag_seconds", "How long an event takes on the Salt master's bus").set(lag)
    gauge("highstate_interval_seconds", "Longest time between two scheduled highstates, 0 without any").set(interval)
    each = {
        "time": gauge("highstate_last_timestamp_seconds", "When the last scheduled highstate ended", ["minion"]),
        "success": gauge("highstate_success", "Whether no state failed in it", ["minion"]),
        "failed_count": gauge("highstate_failed_states", "States that failed in it", ["minion"]),
        "changed_count": gauge("highstate_changed_states", "States that it changed, or would change", ["minion"]),
        "test": gauge("highstate_test", "Whether it was in test mode and changed nothing", ["minion"]),
        "seconds": gauge("highstate_duration_seconds", "How long its states took", ["minion"]),
    }
    for node, run in nodes.items():
        for key, metric in each.items() if run else ():
            metric.labels(node).set(not run["failed_count"] if key == "success" else run[key])
    if path.parent.is_dir():
        with salt.utils.files.set_umask(0o022):
            prometheus_client.write_to_textfile(str(path), registry)

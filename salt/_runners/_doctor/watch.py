"""
Checks by Prometheus: what it does not reach, and what it warns of.
"""

import re
import time
from pathlib import Path

from .ask import fetch, fetch_json, words
from .engine import Absent, Fault

PROMETHEUS = "http://127.0.0.1:9090"
#: Jobs of Prometheus's that have not the name of the check that is about the same service.
CHECKS = {"grafana": "/monitoring/", "salt": "salt-master"}


def prometheus(site):
    """Prometheus is ready."""
    if not Path("/etc/prometheus/scrape.d").is_dir():
        raise Absent
    fetch(f"{PROMETHEUS}/-/ready")
    return "ready"


def targets(site):
    """Prometheus reaches all that it asks."""
    deadline = time.monotonic() + site.settings("prometheus")["interval"] + 3
    # What was down may have been asked before it came back: the next time counts.
    while wrong := down(asked := active(), site.failed, site.members):
        if time.monotonic() > deadline:
            raise Fault(*wrong)
        time.sleep(1)
    return f"{len(asked)} are up"


def active():
    """Return all targets, as Prometheus tells of them."""
    return fetch_json(f"{PROMETHEUS}/api/v1/targets?state=active")["data"]["activeTargets"]


def down(targets, failed, members):
    """
    Return a line for each target that is down.

    targets
        As Prometheus's API has them.
    failed
        Checks that failed: their services' targets are down for the same reason.
    members
        The nodes that no other check blames; of the others nothing is said.
    """
    lines = []
    for target in targets:
        job, instance = target["labels"]["job"], target["labels"]["instance"]
        known = CHECKS.get(job, job) in failed or (job == "node" and instance not in members)
        if target["health"] == "down" and not known:
            error = re.sub(r'^Get "[^"]*": ', "", target["lastError"])
            lines.append(f"{job} {instance}: {words(error)}")
    return sorted(lines)


def alerts(site):
    """No alert fires."""
    firing = [each for each in fetch_json(f"{PROMETHEUS}/api/v1/alerts")["data"]["alerts"] if each["state"] == "firing"]
    lines = sorted({told(each) for each in firing if each["labels"].get("severity") in ("warning", "critical")})
    if lines:
        raise Fault(*lines)
    return "none fires"


def told(alert):
    """Return an alert in one line."""
    return f"{alert['labels']['alertname']}: {words(alert['annotations'].get('summary', ''))}"

"""Grafana's dashboards, asked of the lab's Prometheus: after a little of everything no panel is empty."""

import contextlib
import json

import pytest

from tests.dashboards import dashboards, queries
from tests.lab.browser import signed_in
from tests.lab.harness.shell import wait_for

# On the master: for each query whether it has a number to show; lines, as Grafana does, over the last minutes.
ASK = """
import json, sys, time, urllib.error, urllib.parse, urllib.request
def number(expression, lines):
    form, now = {"query": expression}, time.time()
    if lines:
        form |= {"start": now - 300, "end": now, "step": 15}
    url = "http://127.0.0.1:9090/api/v1/query" + ("_range" if lines else "")
    try:
        answer = json.load(urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), timeout=30))
    except urllib.error.HTTPError as error:
        return error.read().decode()
    values = [value for each in answer["data"]["result"] for _, value in each.get("values", [each.get("value")])]
    return any(value != "NaN" for value in values)
print(json.dumps([number(*each) for each in json.load(sys.stdin)]))
"""
LINES = ("timeseries", "state-timeline")


def empty(lab):
    """Return what shows nothing: ``["dashboard: panel: query", ...]``."""
    asked = [(name, *each) for name, dashboard in dashboards().items() for each in queries(dashboard)]
    words = json.dumps([(expression, panel["type"] in LINES) for _, panel, expression in asked])
    answers = json.loads(lab.master.run(["python3", "-c", ASK], input=words, timeout=120).stdout)
    return [
        f"{name}: {panel['title']}: {expression}" + ("" if answer is False else f": {answer}")
        for (name, panel, expression), answer in zip(asked, answers, strict=True)
        if answer is not True
    ]


@pytest.fixture(scope="module")
def requests(lab, hub, browser):
    """A little of everything has been done; return a function that asks the services once more."""
    lab.highstate("w1")
    lab.orchestrate("orch.backup")
    lab.job("ada", "true")
    with signed_in(lab, browser, "ada"):
        pass
    hub.start_server("ada")
    hub.stop_server("ada")
    gateway = {"base": "/gateway/api/v1/", "kind": "jupyterhub", "token": hub.token("ada")}
    name = hub.ask("POST", "clusters/", {"cluster_options": {}}, **gateway).json()["name"]
    try:
        running = "the Dask cluster runs"
        wait_for(running, lambda: hub.ask("GET", f"clusters/{name}", **gateway).json()["status"] == "RUNNING")
    finally:
        hub.ask("DELETE", f"clusters/{name}", **gateway)

    def ask():
        hub.ask("GET", "")
        hub.ask("GET", "clusters/", **gateway)
        hub.ask("GET", "", base="/conda-store/api/v1/", token=None)

    return ask


def test_every_panel_shows_something(lab, requests):
    missing = []

    def full():
        requests()
        missing[:] = empty(lab)
        return not missing

    with contextlib.suppress(TimeoutError):
        wait_for("every panel shows something", full, timeout=150, interval=10)
    assert not missing, "\n".join(missing)

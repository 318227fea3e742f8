"""Grafana's dashboards: their form is Grafana's own, their queries are PromQL, and they are of one style."""

import json
import re

import promql_parser
import pytest
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.dashboards import dashboards, queries

ALL = dashboards()
every = pytest.mark.parametrize("name", ALL)
plugins.register_default_plugins()


def lost(ours, theirs, path=""):
    """Yield where ``theirs``, what Grafana's types keep of ``ours``, is something else."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs.get(key, "nothing"), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{path}[{place}]")
    elif ours != theirs:
        yield f"{path}: {ours} is {theirs}"


def test_what_grafana_does_not_know_is_found():
    panel = {"type": "stat", "fieldConfig": {"defaults": {"unti": "s"}, "overrides": []}}
    kept = json.loads(json.dumps(Dashboard.from_json({"panels": [panel]}), cls=encoder.JSONEncoder))
    assert list(lost({"panels": [panel]}, kept)) == [".panels[0].fieldConfig.defaults.unti: s is nothing"]


@every
def test_grafana_knows_all_that_a_dashboard_says(name):
    kept = json.loads(json.dumps(Dashboard.from_json(ALL[name]), cls=encoder.JSONEncoder))
    assert list(lost(ALL[name], kept)) == []


def test_dashboards_are_told_apart():
    for key in ("uid", "title"):
        found = [dashboard[key] for dashboard in ALL.values()]
        assert len(found) == len(set(found))


@every
def test_dashboards_are_of_one_style(name):
    dashboard = ALL[name]
    assert dashboard["uid"] == f"qhub-{name}"
    assert dashboard["tags"] == ["qhub"]
    assert dashboard["schemaVersion"] == 42  # Grafana's, in the version of salt/artifacts.json
    text, *panels = dashboard["panels"]
    assert text["type"] == "text"
    assert text["options"]["content"]
    for panel in panels:
        assert panel["title"] and panel["description"], panel
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}, panel["title"]
        if panel["type"] == "stat":  # Grafana's own thresholds are 80: red
            assert {"thresholds", "color"} & set(panel["fieldConfig"]["defaults"]), panel["title"]
        for target in panel["targets"]:
            assert target["expr"], panel["title"]
            # One number or one table has no legend; lines without one would be called by their whole expression.
            assert "legendFormat" in target or panel["type"] in ("stat", "table"), panel["title"]


@every
def test_panels_have_their_places(name):
    panels = ALL[name]["panels"]
    ids = [panel["id"] for panel in panels]
    assert ids == list(range(1, len(ids) + 1))
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert taken.isdisjoint(cells), panel["title"]
        taken |= cells


@every
def test_queries_are_promql(name):
    for panel, expression in queries(ALL[name]):
        assert "$" not in expression, f"{panel['title']}: unknown variable in {expression}"
        promql_parser.parse(expression)


@every
def test_a_zero_is_added_only_when_nothing_else_is_there(name):
    """``vector(0)`` has no labels: it is in no group, and beside groups it is a row or line without a name."""
    for panel, expression in queries(ALL[name]):
        if re.search(r"\bor vector\(", expression):
            assert not re.search(r"\b(by|without) ?\(", expression), f"{panel['title']}: or on() vector(0)"


@every
def test_a_legend_names_labels_that_the_query_has(name):
    for panel in ALL[name]["panels"]:
        for target in panel.get("targets", []):
            grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", target["expr"])
            named = re.findall(r"{{(\w+)}}", target.get("legendFormat", ""))
            if grouped and not target["expr"].startswith("topk"):
                labels = {label.strip() for labels in grouped for label in labels.split(",")}
                assert set(named) <= labels, f"{panel['title']}: {named} of {sorted(labels)}"

"""The dashboards as Grafana takes them, for the tests."""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "formulas/grafana/files/dashboards"
#: What Grafana puts in place of its own variables: four times the interval in which Prometheus asks, at least.
BUILT_IN = {"$__rate_interval": "1m"}


def dashboards():
    """Return ``{name: dashboard}`` of every file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def queries(dashboard):
    """Yield ``(panel, expression)`` of every query, with variables as they are when nobody has chosen anything."""
    values = dict(BUILT_IN)
    for variable in dashboard["templating"]["list"]:
        values[f"${variable['name']}"] = variable["allValue"]
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in values.items():
                expression = expression.replace(name, value)
            yield panel, expression

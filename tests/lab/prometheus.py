"""Prometheus of the lab, as the master's administrator asks it."""

import json

ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"


def ask(master, path):
    """Return what Prometheus's API answers, ``data``; ``path`` is below ``/api/v1/``, such as ``query?query=up``."""
    url = "http://127.0.0.1:9090/api/v1/" + path.replace(" ", "%20").replace('"', "%22")
    return json.loads(master.run(["/usr/bin/python3", "-c", ASK, url]).stdout)["data"]


def firing(master):
    """Return the alerts that fire, a list of their labels."""
    return [alert["labels"] for alert in ask(master, "alerts")["alerts"] if alert["state"] == "firing"]

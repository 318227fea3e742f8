"""A service of the Hub: who is no longer one of the cluster's people loses server, tokens and all.

python -m qhub_hub.people FILE SECONDS      FILE: people.json; SECONDS between two looks at it
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

API = os.environ.get("JUPYTERHUB_API_URL", "")


def call(method, path):
    """Return the Hub's answer, ``None`` if there is no such thing."""
    headers = {"Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}", "Accept": "application/json"}
    request = urllib.request.Request(f"{API}/{path}", headers=headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            text = answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return json.loads(text) if text else None


def known():
    """Return everybody that the Hub knows, with their servers."""
    found = []
    while page := call("GET", f"users?limit=200&offset={len(found)}&include_stopped_servers=false"):
        found += page
        if len(page) < 200:
            break
    return found


def look(people):
    """Remove who is not one of ``people``."""
    for user in known():
        if user["name"] in people:
            continue
        path = f"users/{urllib.parse.quote(user['name'], safe='')}"
        print(f"{user['name']} is not one of the cluster's people any more", flush=True)
        for server in user.get("servers") or {}:
            call("DELETE", f"{path}/servers/{urllib.parse.quote(server, safe='')}" if server else f"{path}/server")
        call("DELETE", path)


def main():
    file, seconds = Path(sys.argv[1]), float(sys.argv[2])
    while True:
        try:
            look(json.loads(file.read_text())["people"])
        except OSError as error:  # the Hub is busy, or still stopping a server: next time
            print(f"not done: {error}", flush=True)
        time.sleep(seconds)


if __name__ == "__main__":
    main()

"""A service of the Hub that looks after what nobody else does.

    python -m qhub_hub.keeper FILE SECONDS      FILE: people.json; SECONDS between two looks

Who is no longer one of the cluster's people loses server, tokens and all. A notebook that no server of the Hub's has
(the Hub was killed while the job waited, or could not reach Slurm to end it) is cancelled.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from qhub_jobs.slurm import SlurmError, ask

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


def remove_others(users, people):
    """Remove who is not one of ``people``."""
    for user in users:
        if user["name"] in people:
            continue
        path = f"users/{urllib.parse.quote(user['name'], safe='')}"
        print(f"{user['name']} is not one of the cluster's people any more", flush=True)
        for server in user.get("servers") or {}:
            call("DELETE", f"{path}/servers/{urllib.parse.quote(server, safe='')}" if server else f"{path}/server")
        call("DELETE", path)


def cancel_strays(queue, users, before):
    """Cancel jobs that no server has, now and when looked at before; return those seen now for the first time."""
    servers = [server for user in users for server in (user.get("servers") or {}).values()]
    owned = {(server.get("state") or {}).get("job_id") for server in servers}
    strays = set(queue) - owned
    for job in strays & before:
        print(f"job {job} is no server's any more", flush=True)
        asyncio.run(ask("cancel", job=int(job)))
    return strays - before


def main():
    file, seconds = Path(sys.argv[1]), float(sys.argv[2])
    strays = set()
    while True:
        try:
            queue = asyncio.run(ask("queue"))["jobs"]  # before the servers: who starts later is not in it
            users = known()
            strays = cancel_strays(queue, users, strays)
            remove_others(users, json.loads(file.read_text())["people"])
        except (OSError, SlurmError) as error:  # the Hub, or Slurm, is busy: next time
            print(f"not done: {error}", flush=True)
        time.sleep(seconds)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # the Hub's way to end it
        main()

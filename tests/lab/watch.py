"""How long the cluster is away for who asks it all the time."""

import contextlib
import json
import os

#: What somebody on a node asks for all the time, trusting whom the node trusts; prints what does not answer, and when.
WATCH = """
import json, ssl, subprocess, sys, threading, time, urllib.error, urllib.request
def get(path):
    try:
        trusting = ssl.create_default_context()
        urllib.request.urlopen("https://" + sys.argv[1] + path, timeout=5, context=trusting)
    except urllib.error.HTTPError as error:
        if error.code == 404 or error.code >= 500:  # 404: the front door has no route
            raise
def watch(name, ask):
    while True:
        begun = time.time()
        try:
            ask()
            fine = True
        except Exception:
            fine = False
        print(json.dumps([name, begun, time.time(), fine]) + "\\n", end="", flush=True)
        time.sleep(0.25)
paths = {
    "sign-in": "/auth/realms/qhub", "hub": "/hub/api/", "conda-store": "/conda-store/api/v1/",
    "gateway": "/gateway/api/health", "monitoring": "/monitoring/",
}
tasks = {name: lambda path=path: get(path) for name, path in paths.items()}
tasks["slurm"] = lambda: subprocess.run(["sinfo"], check=True, timeout=10, capture_output=True)
for task in tasks.items():
    threading.Thread(target=watch, args=task, daemon=True).start()
time.sleep(900)
"""


@contextlib.contextmanager
def watched(node, host):
    """Watch the cluster behind a front door from a node; yield a function, see :func:`away`."""
    unit = f"test-watch-{os.getpid()}"
    node.run(["systemd-run", "--quiet", "--collect", f"--unit={unit}", "python3", "-c", WATCH, host])

    def away():
        """Return ``{what: longest time it was away, in seconds}``; ``False`` while something is."""
        seen, since, fine = {}, {}, {}
        for line in node.run(["journalctl", "-q", "-o", "cat", "-u", unit]).stdout.splitlines():
            if not line.startswith('["'):
                continue  # systemd's own
            name, begun, ended, fine[name] = json.loads(line)
            since.setdefault(name, begun)
            seen[name] = max(seen.get(name, 0), ended - since[name])
            if fine[name]:
                since[name] = ended
        return all(fine.values()) and {name: round(seconds, 1) for name, seconds in seen.items()}

    try:
        yield away
    finally:
        node.run(["systemctl", "stop", unit], check=False)

"""
What a node says of itself, as one line of JSON. The doctor runs this on every node, as root, by the node's own Python:

    python3 -c PROGRAM '{"directories": ["/"], "names": ["w1"], "secrets": ["/etc/*.key"], "people": [1000, 9999],
                         "shared": {"/home": ["mark", true]}}'
"""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

#: Seconds for each of what is asked, and how many times as many at most on a node that has much to do. A file server
#: that does not answer holds up nothing else.
PATIENCE, LOADED = 5, 2.4


def patience():
    """Return the seconds for each of what is asked: the more processes wait for a CPU of the node, the more."""
    return PATIENCE * min(max(1, os.getloadavg()[0] / (os.cpu_count() or 1)), LOADED)


def space(directory):
    """Return the room on the file system of a directory: bytes and inodes, free and in all."""
    if not Path(directory).is_dir():
        return None
    found = os.statvfs(directory)
    return {
        "device": Path(directory).stat().st_dev,
        "free": found.f_bavail * found.f_frsize,
        "size": found.f_blocks * found.f_frsize,
        "free_inodes": found.f_favail,
        "inodes": found.f_files,
    }


def address(name):
    """Return the address that a name is looked up as."""
    return socket.gethostbyname(name)


def shared(directory, mark, writable):
    """Return whether the master's directory ``mark`` is in a directory here, and leave the host's name in it."""
    path = Path(directory, mark)
    if not path.is_dir():
        return "does not show what the master wrote there"
    if writable:
        (path / socket.gethostname()).touch()
    return ""


def open_secrets(patterns, people):
    """Return ``[[path, mode, owner's uid]]`` of files and directories that are open to others than a service.

    ``patterns`` name them; ``people`` is the first and the last uid of a person, who must own none of them.
    """
    found = []
    for pattern in patterns:
        for path in Path("/").glob(pattern.lstrip("/")):
            held = path.lstat()
            person = any(people[0] <= each <= people[1] for each in (held.st_uid, held.st_gid))
            if not stat.S_ISLNK(held.st_mode) and (held.st_mode & 0o007 or person):
                found.append([str(path), stat.S_IMODE(held.st_mode), held.st_uid])
    return found


def command(*words):
    """Return the output of a command. Raises RuntimeError if it does not end in time."""
    seconds = patience()
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{words[0]}: no answer within {seconds:.0f} s") from None
    return done.stdout


def units():
    """Return ``{unit: state}`` of units that failed, that are enabled and do not run, or that start again and again."""
    options = ("--plain", "--no-legend", "--no-pager")
    enabled = command("systemctl", "list-unit-files", *options, "--state=enabled", "--type=service,socket,automount")
    failed = command("systemctl", "list-units", *options, "--state=failed,auto-restart")
    listed = {line.split()[0] for line in (enabled + failed).splitlines() if line.strip()}
    names = sorted(name for name in listed if "@." not in name)
    asked = "--property=Id,ActiveState,SubState,Type,ConditionResult,Result"
    return troubled(command("systemctl", "show", asked, *names)) if names else {}


def troubled(shown):
    """Return ``{unit: state}`` of those that are in trouble among what ``systemctl show`` printed."""
    found = {}
    for block in shown.strip().split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines())
        active, sub = unit["ActiveState"], unit["SubState"]
        if active == "failed":
            found[unit["Id"]] = "failed (" + unit.get("Result", "") + ")"
        elif sub == "auto-restart":
            found[unit["Id"]] = "starts again and again (" + unit.get("Result", "") + ")"
        # What runs once has ended; what systemd was not to start is not missed.
        elif active == "inactive" and unit.get("Type") != "oneshot" and unit["ConditionResult"] == "yes":
            found[unit["Id"]] = "stopped"
    return found


def is_in_time():
    """Return whether chrony follows a time server; ``None`` where there is no chrony."""
    try:
        return "Not synchronised" not in command("chronyc", "-n", "tracking")
    except OSError:
        return None


def all_of(asked):
    """Return ``{key: function}`` of all that is asked; each of them may hang."""
    tasks = {("units", ""): units, ("in_time", ""): is_in_time}
    tasks["secrets", ""] = partial(open_secrets, asked["secrets"], asked["people"])
    for each in asked["directories"]:
        tasks["space", each] = partial(space, each)
    for each in asked["names"]:
        tasks["names", each] = partial(address, each)
    for each, (mark, writable) in asked["shared"].items():
        tasks["shared", each] = partial(shared, each, mark, writable)
    return tasks


def answers(tasks):
    """Return ``{kind: {name: [answer, error]}}``, whatever hangs."""
    found = {}

    def make(key, task):
        try:
            found[key] = [task(), None]
        except Exception as error:
            found[key] = [None, getattr(error, "strerror", None) or str(error)]

    threads = [threading.Thread(target=make, args=item, daemon=True) for item in tasks.items()]
    for thread in threads:
        thread.start()
    seconds = patience() + 1
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    kinds = {}
    for kind, name in tasks:
        late = [None, f"no answer within {seconds:.0f} s"]
        kinds.setdefault(kind, {})[name] = found.get((kind, name), late)
    return kinds


if __name__ == "__main__":
    facts = answers(all_of(json.loads(sys.argv[1])))
    # The clock last: what follows until the master has this is short.
    print(json.dumps({**facts, "now": time.time()}), flush=True)
    os._exit(0)  # whatever still hangs

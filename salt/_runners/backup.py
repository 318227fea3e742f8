"""
Backups of this master and their restore, for the orchestrations ``orch.backup`` and ``orch.restore``. The work is done
by ``qhub-backup`` (formulas/backup), whose words appear on standard error while it goes on.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

__context__: dict

UNIT = "qhub-backup.service"
PROGRAM = "/usr/local/sbin/qhub-backup"
#: There while a bare machine is being restored (``master.sh --restore``).
RESTORING = Path("/etc/qhub/restore.json")
SETTINGS = Path("/etc/qhub/backup/settings.json")
#: Seconds: a first backup of many homes takes long.
PATIENCE = 2 * 86400


def make():
    """
    Make a backup now, as the timer would; wait for one that is under way.

    Returns a summary as a list of lines. If it failed, ``salt-run`` ends with status 1, and returned is what was said;
    what was backed up before stays as it was.

    CLI Example:

    .. code-block:: bash

        salt-run backup.make
    """
    with _shown("journalctl", "--quiet", "--follow", "--lines=0", "--output=cat", f"--unit={UNIT}"):
        started = _run("systemctl", "start", UNIT, timeout=PATIENCE)
    invocation = _run("systemctl", "show", "--property=InvocationID", "--value", UNIT).stdout.strip()
    said = _run("journalctl", "--quiet", "--output=cat", f"_SYSTEMD_INVOCATION_ID={invocation}").stdout.splitlines()
    if started.returncode:
        return _failed("the backup", said[-15:] or [started.stderr.strip()])
    summary = [said[-1]]
    if json.loads(SETTINGS.read_text())["repository"].startswith("/"):
        summary.append("It is in a directory: if that is on this machine's own disks, its loss is not provided for.")
    return [
        *summary,
        f"Keep a copy of {SETTINGS.with_name('password')} away from this machine: without it no backup can be read.",
    ]


def restore(snapshot=None):
    """
    Replace databases and services' state by what is in a backup, and bring back what is missing of people's files.

    snapshot
        The id of a snapshot tagged ``qhub-cluster``, or ``latest``. On a bare machine that ``master.sh --restore``
        prepared it is the one that was said there; anywhere else it must be said.

    Returns what was done as a list of lines. If it failed, ``salt-run`` ends with status 1, and returned is what was
    said. It can then be run again; services stay stopped until it has succeeded, or a highstate starts them.

    CLI Example:

    .. code-block:: bash

        salt-run backup.restore latest
    """
    if RESTORING.exists():
        snapshot = snapshot or json.loads(RESTORING.read_text())["snapshot"]
    if not snapshot:
        there = _run(PROGRAM, "restic", "snapshots", "--compact", "--tag=qhub-cluster", timeout=600).stdout
        command = "salt-run state.orchestrate orch.restore pillar='{snapshot: latest}'"
        return _failed("it replaces the databases, so say by which backup", [command, *there.splitlines()])
    words = [PROGRAM, "restore", str(snapshot)]
    said = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            said.append(line.rstrip())
    if process.returncode:
        return _failed("the restore; it may be run again", said[-5:])
    return said


def _failed(what, lines):
    """Let the run end as a failure that tells these lines, without the traceback that an exception would bring."""
    __context__["retcode"] = 1
    return {"failed": what, "because": lines, "retcode": 1}


def _run(*command, timeout=60):
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@contextlib.contextmanager
def _shown(*command):
    """Let what a command prints appear on standard error meanwhile."""
    process = subprocess.Popen(command, stdout=sys.stderr, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)

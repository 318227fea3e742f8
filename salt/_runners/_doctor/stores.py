"""
Checks of the databases, the queue and the file server.
"""

import os
import struct
from pathlib import Path

from .ask import command, exchange
from .engine import Absent, Fault, Warned

#: Directories of the master that hold what only root and services may read.
PRIVATE = ("/", "/var", "/var/backups", "/var/lib", "/var/lib/mysql", "/var/lib/postgresql", "/var/lib/qhub")


def mariadb(site):
    """MariaDB answers, and has the accounting database."""
    name = site.settings("slurm")["database"]["config"]["StorageLoc"]
    command("mariadb", "--connect-timeout=5", "--skip-column-names", f"--execute=USE `{name}`; SELECT 1")
    return f"has {name}"


def postgresql(site):
    """PostgreSQL answers, and has the services' databases."""
    ask = (
        "psql",
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        "--command=SELECT datname FROM pg_database",
        "postgres",
    )
    found = command(*ask, user="postgres", group="postgres", extra_groups=[], cwd="/").stdout.split()
    if missing := sorted({"keycloak", "jupyterhub", "conda-store"} - set(found)):
        raise Fault(f"there is no database {', '.join(missing)}")
    return "has keycloak, jupyterhub, conda-store"


def redis(site):
    """Redis answers."""
    answer = exchange(site.settings("redis")["socket"], b"PING\r\n")
    if not answer.startswith(b"+PONG"):
        raise Fault(answer.decode(errors="replace").strip() or "it hung up")
    return "answers"


def nfs(site):
    """The NFS server answers, exports no private file system, and lets no setuid file of a client take effect here."""
    settings = site.settings("nfs")
    if not settings["server"]["implementation"]:
        raise Absent
    directories = sorted(export["path"] for export in settings["exports"].values() if export)
    if exposed := [path for path in directories if not without_setuid(path)]:
        lines = [f"{path} is mounted without nosuid,nodev: whoever is root on a worker can be any user here"
                 for path in exposed]  # fmt: skip
        raise Fault(*lines, advice="systemctl restart qhub-nosuid; journalctl -n 30 -u qhub-nosuid")
    address = settings["server"]["listen"] or site.address
    # RFC 5531: a call of procedure 0 of program 100003 (NFS), version 4, without credentials, as one fragment.
    call = struct.pack(">10I", 1, 0, 2, 100003, 4, 0, 0, 0, 0, 0)
    answer = exchange((address, 2049), struct.pack(">I", 0x80000000 | len(call)) + call)
    # Accepted, and done.
    if len(answer) < 28 or struct.unpack(">3I", answer[4:16]) != (1, 1, 0) or answer[24:28] != bytes(4):
        raise Fault(f"{address}:2049: {answer.hex() or 'it hung up'}")
    if private := beside_private(directories, lambda path: Path(path).stat().st_dev if Path(path).exists() else None):
        raise Warned(
            *(f"{path} is on the file system of {other}" for path, other in private.items()),
            advice="move it to a separate file system: docs/security.md, Exported directories",
        )
    return ", ".join(directories)


def beside_private(paths, device):
    """
    Return ``{path: private directory}`` of those of ``paths`` that share a file system with a private directory.

    device
        Takes a path; returns the number of its file system, ``None`` if there is no such path.
    """
    devices = {device(path): path for path in reversed(PRIVATE)}
    devices.pop(None, None)
    return {path: devices[device(path)] for path in paths if device(path) in devices}


def without_setuid(directory):
    """Return whether setuid programs and device files in a directory have no effect; a missing one counts as well."""
    try:
        flags = os.statvfs(directory).f_flag
    except OSError:  # the check of the shared directories reports it
        return True
    return bool(flags & os.ST_NOSUID and flags & os.ST_NODEV)

#!/usr/bin/env python3
"""Run apt-get on a machine where other programs install packages too, such as its daily upgrade.

    apt_get.py ARGUMENT ...    apt-get's arguments

Waits until no other process holds the locks that apt-get needs, and prints which process holds one. apt-get itself can
wait for dpkg's locks (``DPkg::Lock::Timeout``), but not for those of the package lists and of the downloaded packages.
Before packages are installed, an installation that was interrupted is completed: apt-get refuses to work until then.
"""

import fcntl
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

FRONTEND, DPKG = Path("/var/lib/dpkg/lock-frontend"), Path("/var/lib/dpkg/lock")
LISTS = Path("/var/lib/apt/lists/lock")
#: In the order in which apt-get takes them.
INSTALL_LOCKS = (FRONTEND, DPKG, Path("/var/cache/apt/archives/lock"))
#: Seconds to wait for another process: a daily upgrade may install for minutes.
LOCK_TIMEOUT = 1800
FLOCK = "hhqqi4x"  # struct flock of fcntl(2): type, whence, start, length, process
CONFIGURE = ("dpkg", "--force-confdef", "--force-confold", "--configure", "-a")
FIX_BROKEN = ("--yes", "--quiet=2", "--no-remove", "--fix-broken", "install")


def holder(lock):
    """Return the process that holds a lock (an open file), as text, or ``None``."""
    asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, process = struct.unpack(FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
    if kind == fcntl.F_UNLCK:
        return None
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:  # it has just ended, or is in another container
        name = "name unknown"
    return f"process {process} ({name})"


def take(path):
    """Take the lock at ``path`` for this process, also after exec; return its file descriptor.

    Ends the program if another process still holds it after :data:`LOCK_TIMEOUT` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    os.set_inheritable(lock, True)
    deadline = time.monotonic() + LOCK_TIMEOUT
    reported = None
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # either, says fcntl(2)
            found = holder(lock)
            if time.monotonic() > deadline:
                sys.exit(f"apt_get.py: {found} has held {path} for {LOCK_TIMEOUT} s")
            if found and found != reported:
                print(f"Waiting for {found}, which holds {path}", file=sys.stderr, flush=True)
                reported = found
            time.sleep(0.2)
        else:
            return lock


def execute(arguments, locks):
    """Become apt-get once this process holds the locks, which stay its own."""
    for path in locks:
        take(path)
    os.execvp("apt-get", ["apt-get", *arguments])  # noqa: S606


def complete_interrupted():
    """Complete an installation that was interrupted, if there is one."""
    frontend = take(FRONTEND)
    os.close(take(DPKG))  # dpkg takes it
    environment = os.environ | {"DPKG_FRONTEND_LOCKED": "true"}
    configured = subprocess.run(CONFIGURE, env=environment, stdin=subprocess.DEVNULL, check=False)
    os.close(frontend)
    if configured.returncode:  # a package may depend on one that is not unpacked yet
        child = os.fork()
        if not child:
            execute(FIX_BROKEN, INSTALL_LOCKS)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit("apt_get.py: an installation that was interrupted cannot be completed; the reason is above")


def main():
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(__doc__)
    if "update" in arguments:
        execute(arguments, [LISTS])
    complete_interrupted()
    execute(arguments, INSTALL_LOCKS)


if __name__ == "__main__":
    main()

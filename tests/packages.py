"""What other programs do to the packages of a machine: they hold a lock, or are interrupted."""

import contextlib
import subprocess

from tests.lab.harness.shell import wait_for

HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
# A package whose installation does not end by itself, and one that depends on another.
PACKAGES = """
mkdir -p /srv/{slow,needs}/DEBIAN && cd /srv
for name in slow needs; do
    printf '%s\\n' "Package: $name" 'Version: 1' 'Architecture: all' 'Maintainer: root' "Description: $name" \
        >$name/DEBIAN/control
done
echo 'Depends: at' >>needs/DEBIAN/control
printf '%s\\n' '#!/bin/sh' 'test ! -e /srv/hold || { echo $$ >/srv/waits; exec sleep infinity; }' >slow/DEBIAN/postinst
chmod 0755 slow/DEBIAN/postinst
dpkg-deb --build slow && dpkg-deb --build needs
"""


@contextlib.contextmanager
def held(node, lock):
    """Let a process of the machine hold a lock; yield the function that ends it."""
    command = node.command(["python3", "-c", HOLD, lock])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process.stdin.close
        finally:
            process.kill()


def installed(node, package):
    """Whether dpkg has a package as installed."""
    show = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return node.run(show, check=False).stdout == "installed"


def interrupt(node):
    """Kill dpkg while it configures the package ``slow``; ``needs`` is unpacked and ``at``, which it needs, is not."""
    node.run(["apt-get", "--yes", "--quiet=2", "purge", "at"])
    node.run(["bash", "-ec", PACKAGES])
    node.run(["dpkg", "--unpack", "/srv/needs.deb"])
    node.run(["touch", "/srv/hold"])
    words = node.command(["dpkg", "--install", "/srv/slow.deb"])
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as dpkg:
        waits = ["test", "-s", "/srv/waits"]
        try:
            wait_for("dpkg configures", lambda: not node.run(waits, check=False).returncode)
        finally:
            node.run(["sh", "-c", "kill -9 $(pidof dpkg) && kill -9 $(cat /srv/waits)"])
            dpkg.wait(timeout=10)
    node.run(["rm", "/srv/hold", "/srv/waits"])

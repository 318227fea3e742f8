"""Where another process installs packages, ours wait for it; an installation that was interrupted is completed."""

import contextlib
import subprocess

import pytest

from tests.lab.harness import image, settings
from tests.lab.harness.node import LoneNode
from tests.lab.harness.shell import wait_for

BOOTSTRAP = f"{settings.CHECKOUT}/salt/bootstrap"
APT_GET = f"{BOOTSTRAP}/apt_get.py"
INSTALL_SALT = [f"{BOOTSTRAP}/install.sh", f"{BOOTSTRAP}/requirements.lock", settings.MIRROR]
SLURM_UPGRADE = f"{settings.CHECKOUT}/formulas/slurm/files/qhub-slurm-upgrade"
LISTS = "/var/lib/apt/lists/lock"
INSTALL_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/cache/apt/archives/lock")
INSTALL_AT = ["--yes", "--quiet=2", "--no-install-recommends", "install", "at"]
UPDATE = ["--quiet=2", "update"]
COMMANDS = {
    **{lock: [APT_GET, *INSTALL_AT] for lock in INSTALL_LOCKS},
    LISTS: [APT_GET, *UPDATE],
}
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
printf '%s\\n' '#!/bin/sh' 'test ! -e /srv/hold || { touch /srv/reached; sleep infinity; }' >slow/DEBIAN/postinst
chmod 0755 slow/DEBIAN/postinst
dpkg-deb --build slow && dpkg-deb --build needs
"""


@pytest.fixture(scope="module")
def node():
    """A bare machine that has the mirror and the checkout."""
    binds = {settings.MIRROR: image.mirror(), settings.CHECKOUT: settings.REPOSITORY}
    node = LoneNode("apt", binds={inside: f"{outside}:ro" for inside, outside in binds.items()})
    node.destroy()
    try:
        node.boot()
        node.run(["systemctl", "mask", "--now", "systemd-networkd-wait-online"])  # there is only loopback
        source = f"deb [trusted=yes] file:{settings.MIRROR}/debs ./\n"
        node.write("/etc/apt/sources.list.d/qhub-mirror.list", source)
        node.run(["apt-get", "--quiet=2", "update"])
        yield node
    finally:
        node.destroy()


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


def waits_and_goes_on(node, lock, command):
    """Assert that a command reports who holds the lock, does not end before that process ends, and then succeeds."""
    with held(node, lock) as release:
        words = node.command(command)
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as process:  # fmt: skip
            try:
                line = process.stderr.readline()
                assert "(python3)" in line and lock in line, line
                assert process.poll() is None
                release()
                _, errors = process.communicate(timeout=300)
                assert process.returncode == 0, errors
            finally:
                process.kill()


def installed(node, package):
    """Whether dpkg has a package as installed."""
    show = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return node.run(show, check=False).stdout == "installed"


@pytest.mark.parametrize("lock", COMMANDS)
def test_apt_get_waits_for_a_lock(node, lock):
    node.run(["apt-get", "--yes", "--quiet=2", "purge", "at"])
    waits_and_goes_on(node, lock, COMMANDS[lock])
    assert installed(node, "at") == (lock != LISTS)


def test_a_failure_is_apt_gets(node):
    done = node.run([APT_GET, "--yes", "install", "no-such-package"], check=False)
    assert (done.returncode, "Unable to locate package no-such-package" in done.stderr) == (100, True)


def test_an_upgrade_of_slurm_waits_for_the_package_lists(node):
    waits_and_goes_on(node, LISTS, ["python3", SLURM_UPGRADE, "--check"])


def test_bootstrap_completes_an_interrupted_installation(node):
    """dpkg is killed while it configures one package, and another was unpacked before what it depends on."""
    node.run(["apt-get", "--yes", "--quiet=2", "purge", "at"])
    node.run(["bash", "-ec", PACKAGES])
    node.run(["dpkg", "--unpack", "/srv/needs.deb"])
    node.run(["touch", "/srv/hold"])
    words = node.command(["dpkg", "--install", "/srv/slow.deb"])
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as dpkg:
        reached = ["test", "-e", "/srv/reached"]
        try:
            wait_for("dpkg configures", lambda: not node.run(reached, check=False).returncode)
        finally:
            node.run(["sh", "-c", "kill -9 $(pidof dpkg) && kill -9 $(pidof sleep)"])
            dpkg.wait(timeout=10)
    node.run(["rm", "/srv/hold"])
    assert node.run(["apt-get", *INSTALL_AT], check=False).returncode, "APT refuses"
    waits_and_goes_on(node, LISTS, INSTALL_SALT)
    assert all(installed(node, package) for package in ("slow", "needs", "at"))
    assert not node.run(["dpkg", "--audit"]).stdout

"""Where another process installs packages, ours wait for it; an installation that was interrupted is completed."""

import subprocess

import pytest

from tests.lab.harness import image, settings
from tests.lab.harness.node import LoneNode
from tests.packages import held, installed, interrupt

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
    interrupt(node)
    assert node.run(["apt-get", *INSTALL_AT], check=False).returncode, "APT refuses"
    waits_and_goes_on(node, LISTS, INSTALL_SALT)
    assert all(installed(node, package) for package in ("slow", "needs", "at"))
    assert not node.run(["dpkg", "--audit"]).stdout

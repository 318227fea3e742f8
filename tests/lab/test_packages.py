"""A highstate installs packages whatever other programs do to the packages of the machine."""

import subprocess

import pytest

from tests.packages import held, installed, interrupt

PURGE = ["dpkg", "--purge", "needs", "slow", "at"]


@pytest.fixture
def worker(lab):
    """A worker, as it was in the end."""
    worker = lab.node("w2")
    yield worker
    worker.run(["dpkg", "--configure", "-a"], check=False)
    worker.run(PURGE, check=False)


@pytest.mark.parametrize("lock", ["/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock"])
def test_salt_waits_for_another_process(worker, lock):
    words = worker.command(["salt-call", "--retcode-passthrough", "pkg.install", "at", "refresh=True"])
    with held(worker, lock) as release, subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as salt:  # fmt: skip
        try:
            line = next(line for line in salt.stderr if "Waiting" in line)
            assert "dpkg lock" in line
            release()
            salt.communicate(timeout=60)
            assert salt.returncode == 0
        finally:
            salt.kill()
    assert installed(worker, "at")


def test_a_highstate_completes_an_interrupted_installation(lab, worker):
    interrupt(worker)
    assert "Interrupted installation of packages is completed" in str(lab.apply("w2", ["base"], test=True))
    lab.highstate("w2")
    assert all(installed(worker, package) for package in ("slow", "needs", "at"))

"""The master's bootstrap may run again, secrets stay where they belong, and the lab's tools do as they say."""

import os
import subprocess
import sys
from pathlib import Path

from tests.lab.harness import settings
from tests.lab.harness.node import Node
from tests.lab.harness.shell import wait_for


def test_bootstrapping_the_master_again_changes_nothing(lab, master):
    def kept():
        secrets = "/var/lib/qhub/pillar /etc/salt/pki /etc/slurm/slurm.key /root/.ssh/id_ed25519"
        return master.run(["sh", "-c", f"find {secrets} -type f | sort | xargs sha256sum"]).stdout

    before = kept()
    said = master.run(
        [f"{settings.CHECKOUT}/salt/bootstrap/master.sh", "--mirror", settings.MIRROR], timeout=300
    ).stdout
    assert "changed=" not in said, said
    assert said.count("Failed:     0") == 2
    assert kept() == before


def test_generated_secrets_are_roots_alone(master):
    modes = master.run(["find", "/var/lib/qhub/pillar", "-printf", "%m %u %y\\n"]).stdout.splitlines()
    assert set(modes) == {"700 root d", "600 root f"}


def test_no_secret_is_in_logs_results_or_served_files(lab, master):
    key = master.read("/etc/slurm/slurm.key")[:60]
    lab.highstate("w1")
    for text in (key, "-----BEGIN PRIVATE KEY", "-----BEGIN RSA PRIVATE KEY"):
        for place in ("/var/cache/salt/master/jobs", "/var/lib/qhub/files", "/srv/qhub/salt", "/srv/qhub/formulas"):
            assert master.run(["grep", "-rlF", text, place], check=False).stdout == "", (text[:10], place)
        for node in (master, lab.node("w1")):
            journal = node.run(["journalctl", "-q", "--no-pager", "-o", "cat"]).stdout
            assert text not in journal


def test_a_shell_passes_on_the_status_of_its_command(lab):
    words = [sys.executable, "-m", "tests.lab.harness", "shell", "w1"]
    run = {"cwd": settings.REPOSITORY, "capture_output": True, "text": True, "timeout": 60, "check": False}
    result = subprocess.run([*words, 'echo "it\'s $(hostname)"; exit 7'], **run)
    assert (result.returncode, result.stdout) == (7, "it's w1\n")
    result = subprocess.run([*words[:-1], "w99", "true"], **run)
    assert result.returncode == 1
    assert "no machine is called 'w99'" in result.stderr


def test_a_machine_that_was_killed_boots_again_and_leaves_nothing_behind(lab):
    machine = Node("scratch")
    machine.boot().write("/root/kept", "on disk")
    os.kill(machine.supervisor, 9)
    wait_for("its supervisor is gone", lambda: not machine.supervisor)
    assert machine.boot().read("/root/kept") == "on disk"
    machine.destroy()
    assert "scratch" not in Path("/proc/mounts").read_text()
    assert not list(machine.control_groups())[0].exists()
    assert not machine.directory.exists()

"""The master's bootstrap may run again, secrets stay where they belong, and the lab's tools do as they say."""

import os
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.harness import lab as the_lab
from tests.lab.harness import network, settings
from tests.lab.harness.node import Node
from tests.lab.harness.shell import run, wait_for


def test_bootstrapping_the_master_again_changes_nothing(lab, master):
    def kept():
        secrets = "/var/lib/qhub/pillar /etc/salt/pki /etc/slurm/slurm.key /root/.ssh/id_ed25519"
        return master.run(["sh", "-c", f"find {secrets} -type f | sort | xargs sha256sum"]).stdout

    before = kept()
    said = master.run(
        [f"{settings.CHECKOUT}/salt/bootstrap/master.sh", "--mirror", settings.MIRROR], timeout=300
    ).stdout
    assert "changed=" not in said, said
    assert re.search(r"^Failed: +0$", said, re.MULTILINE)
    assert "state.orchestrate orch.upgrade" in said
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
    run: dict = {"cwd": settings.REPOSITORY, "capture_output": True, "text": True, "timeout": 60, "check": False}
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


@pytest.fixture
def outside():
    """A machine that is not on the lab's network, and has a way to this one: ``(its name, this one's address)``."""
    name, inner, outer = "qhub-lab-out", "qhub-out0", "qhub-out1"
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name])
        run(["ip", "address", "add", "10.97.0.1/30", "dev", outer])
        run(["ip", "link", "set", outer, "up"])
        run(["ip", "-n", name, "address", "add", "10.97.0.2/30", "dev", inner])
        run(["ip", "-n", name, "link", "set", inner, "up"])
        run(["ip", "-n", name, "route", "add", "default", "via", "10.97.0.1"])
        yield name, "10.97.0.1"
    finally:
        run(["ip", "link", "delete", outer], check=False)
        run(["ip", "netns", "delete", name])


def test_the_front_door_can_be_opened_to_the_outside(lab, master, outside):
    name, address = outside

    def asked(port):
        ask = f"""
import socket
with socket.create_connection(('{address}', {port}), 3) as connection:
    connection.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    print(connection.recv(8).decode())"""
        return run(["ip", "netns", "exec", name, sys.executable, "-c", ask], check=False).stdout.strip()

    assert asked(80) == ""
    network.publish()
    try:
        wait_for("the door is open", lambda: asked(80) == "HTTP/1.0", timeout=20)
        assert asked(9100) == "", "only the front door"
    finally:
        network.unpublish()
    assert asked(80) == ""


def test_it_was_installed_without_a_way_out(lab, outside):
    """From the mirror's directory alone; this machine passes nothing on for the lab's."""
    name, _ = outside
    ask = ["timeout", "3", "python3", "-c", "import socket; socket.create_connection(('10.97.0.2', 8000), 2)"]
    serve = ["ip", "netns", "exec", name, sys.executable, "-m", "http.server", "--bind", "10.97.0.2", "8000"]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for("there is something outside", lambda: run(ask, check=False).returncode == 0)
            for node in (lab.master, *lab.workers):
                assert node.run(ask, check=False).returncode
                sources = node.run(["apt-get", "indextargets", "--format", "$(URI)"]).stdout.split()
                assert sources
                assert all(uri.startswith(f"file:{settings.MIRROR}/") for uri in sources), sources
        finally:
            server.terminate()
    lab.master.run(["sh", "-c", f"cd {settings.MIRROR} && sha256sum --quiet --check SHA256SUMS"], timeout=120)


@pytest.fixture(scope="module")
def printed():
    """The commands of the summary that ``make lab`` prints, by the words before each."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in the_lab.summary().splitlines()]
    return {words[0]: words[1] for words in lines if len(words) == 2}


def test_the_summary_of_the_lab_names_an_address_that_a_browser_trusts(lab, printed):
    authority = printed["2. the certificate authority"].split()[0]
    address, name = printed["1. the name"].split("'")[1].split()
    context = ssl.create_default_context(cafile=authority)
    with socket.create_connection((address, 443), 10) as plug:
        assert context.wrap_socket(plug, server_hostname=name).version()


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("3. a first password for Ada", "assword"),
        ("run a job as Ada", "w"),
        ("check every service", "in order"),
        ("list the machines", "master"),
    ],
)
def test_a_command_of_the_summary_works_as_printed(lab, printed, step, answer):
    """The shell is the reader's, in the directory of the repository."""
    reader = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    assert answer in run(["sh", "-c", printed[step]], cwd=settings.REPOSITORY, env=reader).stdout


@pytest.mark.parametrize(("suite", "name"), [("master", "master"), ("worker", "w1")])
def test_what_kitchen_verifies_holds_here(lab, verifiers, suite, name):
    lab.node(name).run(["sh", "-c", verifiers[suite]])


def test_a_mirror_needs_a_place():
    refused = subprocess.run(["make", "mirror"], cwd=settings.REPOSITORY, capture_output=True, text=True, check=False)
    assert refused.returncode
    assert "say where: make mirror DIR=" in refused.stderr

"""The lab's NFS server answers its members, to whom root is nobody, and no one else.

The client is libnfs of the machine that runs the tests, in a worker's network: containers cannot mount NFS.
What needs a kernel's client is in test_nfs_kernel.py.
"""

import subprocess
import threading

import pytest

from .harness import settings
from .harness.shell import wait_for
from .nfs import ADA, network, nfs, url


@pytest.fixture
def open_directory(lab):
    """A directory where everyone may write, so that only the server decides who a file belongs to."""
    path = "/home/open-to-all"
    lab.master.run(["install", "-d", "-m", "1777", path])
    yield path
    lab.master.run(["rm", "-r", path])


@pytest.fixture
def letter(tmp_path):
    """A small file on this machine."""
    path = tmp_path / "letter"
    path.write_text("Dear Charles\n")
    return path


@pytest.mark.parametrize("worker", ["w1", "w2"])
def test_a_worker_sees_the_homes(lab, worker):
    listed = nfs(lab, worker, "nfs-ls", "/home").stdout.splitlines()
    (home,) = (line.split() for line in listed if line.split()[-1] == "ada")
    assert home.count("20001") == 2, "the owner is a number, which needs no domain that both sides agree on"


def test_a_user_reads_and_writes_at_home(lab, letter):
    nfs(lab, "w1", "nfs-cp", "/home/ada/letter", letter, who=ADA)
    try:
        assert lab.master.run(["stat", "-c", "%U:%G", "/home/ada/letter"]).stdout == "ada:ada\n"
        assert nfs(lab, "w1", "nfs-cat", "/home/ada/letter", who=ADA).stdout == "Dear Charles\n"
    finally:
        lab.master.run(["rm", "/home/ada/letter"])


def test_a_workers_root_is_nobody(lab, open_directory, letter):
    lab.master.run(["touch", f"{open_directory}/roots"])
    lab.master.run(["chmod", "0600", f"{open_directory}/roots"])
    refused = nfs(lab, "w1", "nfs-cat", f"{open_directory}/roots", check=False)
    assert "NFS4ERR_ACCESS" in refused.stderr
    # libnfs cannot open again what it has made for nobody, and says so; the file is there.
    nfs(lab, "w1", "nfs-cp", f"{open_directory}/new", letter, check=False)
    assert lab.master.run(["stat", "-c", "%u:%g", f"{open_directory}/new"]).stdout == "65534:65534\n"


def test_shared_software_is_for_reading(lab, letter):
    lab.master.run(["tee", "/opt/qhub/shared/tool"], input="a tool\n")
    try:
        assert nfs(lab, "w1", "nfs-cat", "/opt/qhub/shared/tool", who=ADA).stdout == "a tool\n"
        refused = nfs(lab, "w1", "nfs-cp", "/opt/qhub/shared/mine", letter, who=ADA, check=False)
        assert "NFS4ERR_ROFS" in refused.stderr
    finally:
        lab.master.run(["rm", "/opt/qhub/shared/tool"])


def test_what_the_master_itself_changes_is_seen_at_once(lab):
    shared = "/opt/qhub/shared/environment"
    for version in ("1", "2"):
        lab.master.run(["install", "-D", "/dev/stdin", f"{shared}/version"], input=version)
        assert nfs(lab, "w1", "nfs-cat", f"{shared}/version").stdout == version
        lab.master.run(["rm", "-r", shared])


@pytest.fixture
def past_the_firewall(lab):
    """Lets this machine, which is no member, ask the master's services, so that they have to refuse it themselves."""
    lab.master.run(["nft", "insert", "rule", "inet", "qhub", "input", "ip", "saddr", settings.GATEWAY, "accept"])
    yield
    lab.master.run(["systemctl", "reload", "qhub-firewall"])


@pytest.mark.parametrize("path", ["/home", "/opt/qhub/shared"])
@pytest.mark.usefixtures("past_the_firewall")
def test_another_address_is_refused(lab, path):
    refused = nfs(lab, None, "nfs-ls", path, check=False)
    assert refused.returncode
    assert "NFS4ERR_NOENT" in refused.stderr, "it answers, and shows nothing"


def test_no_older_nfs_is_spoken(lab):
    listening = lab.master.run(["ss", "-Hlntu", "( sport = :2049 or sport = :111 )"]).stdout.splitlines()
    assert [line.split()[4].rpartition(":")[2] for line in listening] == ["2049"]


class Reader(threading.Thread):
    """Reads slowly until ``done`` is set, then the rest: never so slowly that the server's lease (4 s in the lab) ends,
    which libnfs does not renew while its output waits, as a kernel's client would."""

    def __init__(self, stream, done):
        super().__init__(daemon=True)
        self.stream, self.done, self.got = stream, done, 0
        self.start()

    def run(self):
        while piece := self.stream.read(1 << 20):
            self.got += len(piece)
            self.done.wait(0.2)


def test_a_member_taken_away_is_refused_and_nobody_else_is_disturbed(lab, open_directory):
    """What a client has open survives every change of the member list; so a join disturbs nobody."""
    size = 512 << 20
    lab.master.run(["truncate", "--size", size, f"{open_directory}/big"])
    server = lab.master.run(["systemctl", "show", "-p", "MainPID", "nfs-ganesha"]).stdout
    read = [*network(lab, "w2"), "nfs-cat", url(f"{open_directory}/big", ADA)]
    reading = subprocess.Popen([str(word) for word in read], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done = threading.Event()
    reader = Reader(reading.stdout, done)
    try:
        wait_for("the file is being read", lambda: reader.got)

        def without_w1(nodes):
            del nodes["nodes"]["w1"]
            return nodes

        with lab.pillar(nodes=without_w1):
            states = lab.apply("master", ["nfs"])
            changed = {state["__id__"] for state in states.values() if state["changes"]}
            firewall = {"Firewall knows the cluster", "Firewall is in force"}
            assert changed == {"NFS exports are declared", "NFS server answers to the members"} | firewall
            wait_for("w1 is refused", lambda: nfs(lab, "w1", "nfs-ls", "/home", check=False).returncode, timeout=10)
        lab.apply("master", ["nfs"])
        wait_for("w1 is back", lambda: not nfs(lab, "w1", "nfs-ls", "/home", check=False).returncode, timeout=10)
        done.set()
        assert (reading.wait(timeout=60), reading.stderr.read()) == (0, b"")
        reader.join()
        assert reader.got == size
    finally:
        done.set()
        reading.kill()
    assert lab.master.run(["systemctl", "show", "-p", "MainPID", "nfs-ganesha"]).stdout == server

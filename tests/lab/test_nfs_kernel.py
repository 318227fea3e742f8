"""The kernel's NFS server and client, which a container cannot have: the same formula on an emulated machine.

The machine is server and clients in one: it has an address for each, and a route says which of them it
speaks from. It needs no lab that is up.
"""

import base64
import io
import json
import re
import tarfile

import pytest
import yaml

from .harness import settings
from .harness.shell import wait_for
from .vm import Machine

MASTER, MEMBER, JOINING, STRANGER = (f"10.97.0.{n}" for n in (10, 11, 12, 13))
GIVE_UP = 6  # seconds
SALT_CALL = ["/opt/qhub/salt/bin/salt-call", "--out=json", "--log-level=error"]
PILLAR: dict = {
    "cluster": {"master": {"id": "master", "address": MASTER}, "network": "10.97.0.0/24"},
    "roles": ["master"],
    "firewall": {"enabled": False},
    "members": {"w1": {"address": MEMBER, "roles": ["worker"]}},
    "nfs": {
        "exports": {
            "home": {"path": "/srv/home", "mount": "/home"},
            "shared": {"path": "/srv/shared", "mount": "/opt/my-site/shared"},
        },
        "client": {"give_up_after": GIVE_UP, "idle": 0},
    },
}
MINION = {
    "id": "master",
    "file_client": "local",
    "lazy_loader_strict_matching": True,
    "enable_fqdns_grains": False,
    "enable_gpu_grains": False,
    "grains_cache": True,
}


def speak_from(vm, address):
    """Let what the machine sends to its own server come from ``address``, and drop what is mounted."""
    vm.shell(f"umount --all --types nfs4; ip route replace local {MASTER} dev room table local src {address}")


def apply(vm, pillar, *options, sls="nfs.server,nfs.client"):
    """Apply the formula; return ``{state id: changes}`` of what changed, all states having succeeded."""
    vm.write("/srv/pillar/site.sls", json.dumps(pillar))
    result = vm.run([*SALT_CALL, "state.apply", sls, *options], check=False, timeout=170)
    states = json.loads(result.stdout)["local"]
    assert isinstance(states, dict), states
    failed = [s for s in states.values() if s["result"] is False]
    assert not failed, json.dumps(failed, indent=1)
    if "test=True" in options:
        return {s["__id__"]: s["comment"] for s in states.values() if s["result"] is None or s["changes"]}
    return {s["__id__"]: s["changes"] for s in states.values() if s["changes"]}


def as_ada(vm, command, **options):
    """Run a shell command as an ordinary user of the cluster."""
    switch = ["setpriv", "--reuid=20001", "--regid=20001", "--clear-groups"]
    return vm.run([*switch, "sh", "-c", command], **options)


@pytest.fixture(scope="module")
def vm():
    defaults = yaml.safe_load((settings.REPOSITORY / "formulas/nfs/defaults.yaml").read_text())["default"]
    server = defaults["server"]
    packages = [*server["kernel"]["packages"], *server["ganesha"]["packages"], *defaults["client"]["packages"]]
    with Machine(packages) as machine:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for formula in ("nfs", "firewall"):
                tar.add(settings.REPOSITORY / "formulas" / formula, formula)
        text = base64.b64encode(archive.getvalue()).decode()
        machine.shell("mkdir -p /srv/salt; base64 -d | tar -xzC /srv/salt", input=text)
        machine.write("/etc/salt/minion", json.dumps(MINION))
        machine.write("/srv/pillar/top.sls", json.dumps({"base": {"*": ["site"]}}))
        machine.write("/etc/hosts", f"127.0.0.1 localhost\n{MASTER} master\n")
        machine.shell("ip link set lo up; ip link add room type dummy; ip link set room up")
        for address in (MASTER, MEMBER, JOINING, STRANGER):
            machine.run(["ip", "address", "add", f"{address}/24", "dev", "room"])
        machine.shell("useradd --uid 20001 --user-group --home-dir /home/ada --shell /bin/bash ada")
        speak_from(machine, MEMBER)
        apply(machine, PILLAR)
        machine.shell("install -d -o ada -g ada -m 0700 /srv/home/ada; echo tool > /srv/shared/tool")
        yield machine


def test_directories_are_mounted_when_they_are_used(vm):
    assert vm.run(["findmnt", "-t", "nfs4"], check=False).stdout == ""
    assert vm.run(["ls", "/home"]).stdout == "ada\n"
    options = vm.run(["findmnt", "-n", "-t", "nfs4", "-o", "OPTIONS", "/home"]).stdout.strip().split(",")
    assert {"rw", "vers=4.2", "proto=tcp", "nosuid", "nodev", "softerr"} <= set(options)
    assert vm.run(["cat", "/opt/my-site/shared/tool"]).stdout == "tool\n"


def test_only_one_port_is_open_and_only_on_the_cluster_network(vm):
    listening = vm.run(["ss", "-Hlntu"]).stdout.splitlines()
    assert [line.split()[4] for line in listening] == [f"{MASTER}:2049"]
    assert vm.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).stdout == ""


def test_a_user_reads_and_writes_and_root_is_nobody(vm):
    as_ada(vm, "echo mine > /home/ada/file")
    assert vm.run(["stat", "-c", "%u:%g", "/srv/home/ada/file"]).stdout == "20001:20001\n"
    assert as_ada(vm, "stat -c %U:%G /home/ada /home/ada/file").stdout.split() == ["ada:ada", "ada:ada"]
    assert "Permission denied" in vm.run(["cat", "/home/ada/file"], check=False).stderr
    assert "Permission denied" in vm.run(["touch", "/home/roots"], check=False).stderr
    vm.shell("install -d -m 1777 /srv/home/open; touch /home/open/roots")
    assert vm.run(["stat", "-c", "%u:%g", "/srv/home/open/roots"]).stdout == "65534:65534\n"
    assert "Read-only" in as_ada(vm, "touch /opt/my-site/shared/x", check=False).stderr


def test_a_setuid_program_that_a_client_wrote_runs_as_its_caller_on_the_server(vm):
    vm.shell("install -d -m 1777 /srv/home/open; getent passwd 105 || useradd --uid 105 --no-create-home victim")
    claim = ["setpriv", "--reuid=105", "--regid=105", "--clear-groups", "sh", "-c"]
    vm.run([*claim, "cp /usr/bin/id /home/open/id; chmod 4755 /home/open/id"])
    assert vm.run(["stat", "-c", "%a %u", "/srv/home/open/id"]).stdout == "4755 105\n"
    assert as_ada(vm, "/srv/home/open/id -u").stdout == "20001\n"


def test_nothing_is_left_to_change(vm):
    assert apply(vm, PILLAR) == {}
    assert apply(vm, PILLAR, "test=True") == {}


def test_a_new_member_is_let_in_and_nobody_else_is_disturbed(vm):
    def server():
        return vm.run(["systemctl", "show", "-p", "InvocationID", "nfs-server", "nfs-mountd"]).stdout

    def connections():
        return set(re.findall(rf"{MEMBER}:\d+", vm.run(["ss", "-Htn", "dport = :2049"]).stdout))

    before = server(), connections()
    vm.shell("exec 3>/home/open/held; flock 3; sleep 1000 <&- >&- 2>&- & echo $! > /run/holder", timeout=20)
    joined = {**PILLAR, "members": {**PILLAR["members"], "w2": {"address": JOINING, "roles": ["worker"]}}}
    changed = apply(vm, joined, sls="nfs.server")
    assert set(changed) == {"NFS exports are declared", "NFS server answers to the members"}
    assert (server(), connections()) == before
    vm.shell("kill -0 $(cat /run/holder); echo more > /home/open/held; kill $(cat /run/holder)")
    speak_from(vm, JOINING)
    assert "ada" in vm.run(["ls", "/home"]).stdout


def test_a_network_is_not_a_member(vm):
    vm.write("/srv/pillar/site.sls", json.dumps({**PILLAR, "members": {"w1": {"address": "10.97.0.0/24"}}}))
    refused = vm.run([*SALT_CALL, "state.show_sls", "nfs.server"], check=False, timeout=90)
    assert "10.97.0.0/24 is not an address of one machine" in refused.stdout
    assert "10.97.0.0" not in vm.run(["exportfs", "-s"]).stdout


@pytest.mark.parametrize("path", ["/srv/home", "/"])
def test_a_stranger_is_refused(vm, path):
    speak_from(vm, STRANGER)
    mount = vm.run(["mount", "-t", "nfs", "-o", "vers=4.2,retry=0", f"master:{path}", "/mnt"], check=False)
    assert "access denied by server" in mount.stderr
    assert vm.run(["ls", "/home"], check=False).returncode


def test_a_login_survives_a_server_that_falls_silent(vm):
    speak_from(vm, MEMBER)
    as_ada(vm, "ls /home/ada")
    vm.run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "100%"])
    try:
        login = vm.run(["su", "--login", "ada", "--command", "echo in"], timeout=90)
    finally:
        vm.run(["tc", "qdisc", "delete", "dev", "lo", "root"])
    assert login.stdout == "in\n"
    assert "Connection timed out" in login.stderr
    print(f"login without a home after {login.seconds:.1f} s, give_up_after is {GIVE_UP} s")
    assert login.seconds < 10 * GIVE_UP
    wait_for("/home is back", lambda: vm.run(["ls", "/home"], check=False).returncode == 0, timeout=30)


def test_what_is_not_mounted_fails_at_once_and_comes_back(vm):
    speak_from(vm, MEMBER)
    vm.run(["systemctl", "stop", "nfs-server"])
    # More often than systemd's usual limit, after which it would give the automount up for good.
    for _ in range(6):
        refused = vm.run(["ls", "/home"], check=False)
        assert refused.returncode
        assert refused.seconds < GIVE_UP
    vm.run(["systemctl", "start", "nfs-server"])
    assert "ada" in vm.run(["ls", "/home"]).stdout


def test_owners_are_people_on_clients_of_ganesha_too(vm):
    ganesha = {**PILLAR, "nfs": {**PILLAR["nfs"], "server": {"implementation": "ganesha"}}}
    vm.shell("umount --all --types nfs4")
    apply(vm, ganesha)
    try:
        speak_from(vm, MEMBER)
        wait_for("/home is there", lambda: vm.run(["ls", "/home"], check=False).returncode == 0, timeout=60)
        # Nobody may open a file for writing until the grace period is over.
        wait_for("ada writes", lambda: not as_ada(vm, "echo > /home/ada/new", check=False).returncode, timeout=90)
        assert as_ada(vm, "stat -c %U:%G /home/ada /home/ada/new").stdout.split() == ["ada:ada", "ada:ada"]
        assert vm.run(["stat", "-c", "%u:%g", "/srv/home/ada/new"]).stdout == "20001:20001\n"
    finally:
        vm.shell("umount --all --types nfs4")
        apply(vm, PILLAR)


def test_what_is_no_longer_shared_is_unmounted(vm):
    nothing = {**PILLAR, "nfs": {**PILLAR["nfs"], "client": {"enabled": False}}}
    assert apply(vm, nothing, sls="nfs.client")
    assert vm.run(["findmnt", "-t", "nfs4,autofs", "/home"], check=False).stdout == ""
    assert vm.shell("ls /etc/systemd/system | grep mount$ || true").stdout == ""

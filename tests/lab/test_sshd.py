"""SSH on port 22: people come to the master by their keys, and to a worker while they have a job there."""

import pytest

from tests.lab.harness import settings
from tests.lab.harness.shell import run

KEY = "/home/marie/key-of-tests"  # where people have one who go on from the master
NEVER_ASK = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20")


@pytest.fixture(scope="module")
def ssh(lab, tmp_path_factory):
    """Return a function that runs a command over SSH, from this machine, as somebody whose key is in the pillar."""
    home = tmp_path_factory.mktemp("ssh")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a laptop", "-f", home / "key"])
    key = (home / "key.pub").read_text().strip()
    nodes = {name: lab.node(name) for name in ("master", "w1")}
    hosts = [f"{node.address} {node.read('/etc/ssh/ssh_host_ed25519_key.pub')}" for node in nodes.values()]
    (home / "known_hosts").write_text("".join(hosts))
    known = ["-o", f"UserKnownHostsFile={home}/known_hosts"]
    options = [*NEVER_ASK, *known, "-o", "IdentitiesOnly=yes", "-i", home / "key"]

    def with_keys(users):
        for name in ("marie", "ada"):
            users["users"][name]["ssh_keys"] = [key]
        users["users"]["ada"]["ssh_keys"].insert(0, "ssh-rsa AAAAB3NzaC1yc2E= an older one")
        users["users"]["guest"] |= {"ssh_keys": [key], "locked": True}
        return users

    def ssh(name, *words, host="master"):
        return run(["ssh", *options, f"{name}@{settings.ADDRESSES[host]}", *words], check=False)

    with lab.pillar(users=with_keys):
        lab.orchestrate("orch.apply")
        lab.master.write(KEY, (home / "key").read_text(), mode="0600")
        lab.master.run(["chown", "marie:", KEY])
        yield ssh
    lab.master.run(["rm", KEY])
    lab.orchestrate("orch.apply")
    assert "marie" not in lab.node("w1").read("/etc/ssh/people_keys")


@pytest.mark.parametrize("name", ["marie", "ada"])
def test_a_person_comes_in_by_key(ssh, name):
    done = ssh(name, "id -un; pwd")
    assert (done.returncode, done.stdout.split()) == (0, [name, f"/home/{name}"]), done.stderr


def test_a_worker_takes_who_has_a_job_there(lab, ssh):
    lab.master.run(["scancel", "--user=marie"])
    lab.wait_for("she has no job", lambda: not lab.master.run(["squeue", "--noheader", "--user=marie"]).stdout)
    refused = ssh("marie", "true", host="w1")
    assert (refused.returncode, "you have no active jobs on this node" in refused.stderr) == (255, True), refused.stderr
    words = ["sbatch", "--parsable", "--account=physics", "--nodelist=w1", "--chdir=/", "--output=/dev/null"]
    job = lab.as_user("marie", [*words, "--wrap=sleep 300"]).stdout.strip()
    try:
        lab.wait_for("the job runs", lambda: squeue(lab, job) == "R")
        done = ssh("marie", "hostname; echo $SLURM_JOB_ID", host="w1")
        assert (done.returncode, done.stdout.split()) == (0, ["w1", job]), done.stderr
        for name in ("w1", "w1.cluster.internal", settings.ADDRESSES["w1"]):
            done = ssh("marie", f"ssh -i {KEY} -o BatchMode=yes {name} hostname")
            assert (done.returncode, done.stdout.split()) == (0, ["w1"]), "the master knows it: " + done.stderr
        inside = lab.node("w1").run(["scontrol", "listpids", job]).stdout
        assert "extern" in inside
        assert ssh("ada", "true", host="w1").returncode == 255, "whose job it is not"
    finally:
        lab.master.run(["scancel", job])


def squeue(lab, job):
    return lab.master.run(["squeue", "--noheader", "--format=%t", "--jobs", job], check=False).stdout.strip()


def test_a_group_shares_a_folder(lab, ssh):
    folder = "/home/groups/physics"
    assert ssh("marie", f"cd {folder} && rm -rf notes && mkdir notes && echo one > notes/today").returncode == 0
    shown = ssh("ada", f"cd {folder} && echo two >> notes/today && cat notes/today && stat -c %G:%a notes")
    assert shown.stdout.split() == ["one", "two", "physics:2775"], shown.stderr
    denied = lab.as_user("guest", ["ls", folder], check=False)
    assert "Permission denied" in denied.stderr
    lab.master.run(["rm", "-r", f"{folder}/notes"])


# Last, as an address that is refused three times is not listened to for a while (OpenSSH's PerSourcePenalties).


def test_a_locked_person_is_locked_out_whatever_keys_there_are(lab, ssh):
    lab.master.run(["install", "-d", "-o", "guest", "-m", "0700", "/home/guest/.ssh"])
    key = lab.master.run(["awk", '$1 == "marie" {print $2, $3}', "/etc/ssh/people_keys"]).stdout
    lab.master.write("/home/guest/.ssh/authorized_keys", key)
    try:
        done = ssh("guest", "-N", "-o", "ExitOnForwardFailure=yes", "-L", "7022:127.0.0.1:22")
        assert done.returncode == 255
        assert "has expired" in done.stderr or "Connection closed" in done.stderr, done.stderr
    finally:
        lab.master.run(["rm", "-r", "/home/guest/.ssh"])


def test_others_do_not(ssh):
    for name in ("root", ".*"):
        assert "Permission denied" in ssh(name, "true").stderr, name

"""Somebody who is root on one worker reaches no user and no program of the master."""

import json

import pytest

from tests.lab import nfs

MARIE = "marie"
#: The user or group of the master whose rights the attacker wants, and the attribute of a file that names it.
VICTIMS = (("postgres", "uid"), ("slurm", "uid"), ("traefik", "uid"), ("keycloak", "uid"), ("shadow", "gid"))


@pytest.fixture
def dropbox(lab):
    """A directory of Marie's, on the master and on the workers."""
    path = f"/home/{MARIE}/dropbox"
    lab.as_user(MARIE, ["mkdir", path])
    yield path
    lab.master.run(["rm", "-r", path])


@pytest.mark.parametrize(("victim", "kind"), VICTIMS)
def test_a_setuid_program_that_a_worker_wrote_runs_as_its_caller(lab, dropbox, victim, kind):
    """The file is made in the directory that the worker shares. An NFS server keeps owner and mode as well."""
    database = "passwd" if kind == "uid" else "group"
    number = lab.master.run(["getent", database, victim]).stdout.split(":")[2]
    program, mode = f"{dropbox}/id", "4755" if kind == "uid" else "2755"
    owner = ["--owner", number] if kind == "uid" else ["--group", number]
    lab.node("w1").run(["install", "--mode", mode, *owner, "/usr/bin/id", program])
    assert lab.master.run(["stat", "-c", f"%a %{kind[0]}", program]).stdout == f"{mode} {number}\n"
    own = lab.master.run(["id", f"-{kind[0]}", MARIE]).stdout
    assert lab.as_user(MARIE, [program, f"-{kind[0]}"]).stdout == own


def test_slurm_takes_no_trigger_from_a_worker(lab):
    job = lab.running_job("w1", 300)
    trigger = ["strigger", "--set", f"--jobid={job}", "--fini", "--program=/bin/true"]
    try:
        refused = lab.node("w1").run(["runuser", "-u", "slurm", "--", *trigger], check=False, timeout=30)
        assert refused.returncode
        assert "presently disabled" in refused.stderr
    finally:
        lab.master.run(["scancel", job])


def test_slurmdbd_runs_no_program_for_a_worker(lab):
    """Slurm's key makes the worker's root an administrator of the accounting; an archive may name a program."""
    program, proof = "/dev/shm/archive", "/var/log/slurm/ran"
    for node in (lab.master, lab.node("w1")):
        node.write(program, f"#!/bin/sh\nid > {proof}\n", mode="0755")
    dump = f"sacctmgr -i archive dump directory=/tmp script={program} events PurgeEventAfter=600months"
    archive = f"echo y | timeout 60 {dump}"
    try:
        lab.node("w1").run(["sh", "-c", archive], check=False, timeout=90)
        answers = ["timeout", "10", "sacctmgr", "--noheader", "show", "cluster"]
        lab.wait_for("slurmdbd answers", lambda: not lab.master.run(answers, check=False).returncode, timeout=120)
        assert lab.master.run(["test", "-e", proof], check=False).returncode, lab.master.read(proof)
    finally:
        for node in (lab.master, lab.node("w1")):
            node.run(["rm", "-f", program, proof])


#: Commands of a minion that reach for the master or for another minion, and what shows that they succeeded.
SALT = {
    "a command on every minion": ("publish.publish '*' cmd.run 'echo GOT''-IN'", "GOT-IN"),
    "a command on the master": ("publish.publish master cmd.run 'echo GOT''-IN'", "GOT-IN"),
    "a runner": ("publish.runner manage.up", "w2"),
    "a runner that removes a key": ("publish.runner key.delete w2", "w2"),
    "another minion's data": ("mine.get '*' grains.items", "localhost"),
    "the shadow file": ("cp.get_file_str salt://../../../../etc/shadow", "root:"),
    "the shadow file, encoded": ("cp.get_file_str salt://%2e%2e/%2e%2e/%2e%2e/etc/shadow", "root:"),
    "the shadow file, by its path": ("cp.get_file_str salt:///etc/shadow", "root:"),
    "the site's pillar": ("cp.get_file_str salt://../pillar/cluster.sls", "cluster:"),
    "secrets, as files": ("cp.get_file_str salt://secrets/master.sls", "keycloak"),
    "the authority's key": ("cp.get_file_str salt://ca/ca.key", "PRIVATE"),
    "a file onto the master": ("cp.push /etc/hostname", "True"),
    "secrets of services": ("pillar.item secrets:jupyterhub_crypt_key", "***"),
    "secrets, by an override": (
        "pillar.item secrets:jupyterhub_crypt_key pillar='{\"cluster\": {\"master\": {\"id\": \"w1\"}}}'", "***"),
    "secrets, by another environment": (
        "pillar.item secrets:jupyterhub_crypt_key pillarenv=master saltenv=master", "***"),
}  # fmt: skip


@pytest.mark.parametrize("attack", SALT)
def test_a_minion_reaches_no_master_and_no_other_minion(lab, attack):
    arguments, sign = SALT[attack]
    command = f"timeout 60 salt-call --log-level=quiet {arguments} 2>&1"
    shown = lab.node("w1").run(["sh", "-c", command], check=False, timeout=90).stdout
    assert sign not in shown, shown[:500]
    secrets = json.loads(lab.master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
    assert secrets["jupyterhub_crypt_key"] not in shown, "the secret is shown"
    assert lab.master.run(["test", "-e", "/etc/salt/pki/master/minions/w2"], check=False).returncode == 0


@pytest.mark.parametrize("path", ["/home", "/opt/qhub/shared"])
def test_root_of_a_worker_is_nobody_for_the_nfs_server(lab, path):
    """Root does not write in the directory of homes, and not into the shared software."""
    written = nfs.nfs(lab, "w1", "nfs-cp", f"{path}/root-was-here", "/etc/hostname", who=nfs.ROOT, check=False)
    assert written.returncode
    assert lab.master.run(["test", "-e", f"{path}/root-was-here"], check=False).returncode


@pytest.mark.parametrize("port", [3000, 5432, 6379, 8080, 8081, 8082, 9090, 9093, 9104, 9187])
def test_no_inner_port_of_the_master_answers(lab, port):
    connect = f"import socket; socket.create_connection(('master', {port}), 3)"
    assert lab.node("w1").run(["python3", "-c", connect], check=False).returncode

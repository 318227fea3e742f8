"""Backups are made, found to be sound or not, and bring back a master that was lost."""

import json
import re

import pytest

from tests.lab.browser import CHOSEN, ROOT, fill, first_password, page, signed_in
from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings
from tests.lab.prometheus import ask

# On a directory of the lab's that outlives its machines, as a disk elsewhere would.
REPOSITORY = "/opt/qhub/shared/backup"
UNIT = "qhub-backup.service"
PARTS = ("postgresql/keycloak", "postgresql/jupyterhub", "postgresql/conda-store", "mariadb/slurm_acct_db", "sqlite")


@pytest.fixture(scope="module")
def backups(lab, master):
    """Let the lab back itself up into :data:`REPOSITORY`; its credentials and its password are ``(text, text)``."""
    credential = "a-credential-of-the-repository"
    site = {
        "repository": REPOSITORY,
        "environment": {"AWS_SECRET_ACCESS_KEY": credential},
        "keep": {"daily": 2, "weekly": 0, "monthly": 0},
        "verify": {"parts": 1},
    }
    forget(master)
    with lab.pillar(backup=lambda pillar: {"backup": site}):
        lab.apply("master", ["backup"])
        yield credential, master.read("/etc/qhub/backup/password").strip()
    lab.apply("master", ["backup"])
    forget(master)
    master.run(["systemctl", "reset-failed", UNIT], check=False)


def forget(master):
    """Let there be no backup, and none have been."""
    known = ("/var/lib/qhub-backup/repository", "/var/lib/qhub-metrics/qhub_backup.prom")
    master.run(["rm", "-rf", REPOSITORY, *known])


def restic(master, *words):
    return master.run(["qhub-backup", "restic", *words], timeout=120).stdout


def snapshots(master, tag="qhub-cluster"):
    """Return ``[(day, id)]`` of the snapshots with a tag, in order."""
    found = json.loads(restic(master, "snapshots", "--json", f"--tag={tag}"))
    return sorted((each["time"][:10], each["short_id"]) for each in found)


def metrics(master):
    text = master.read("/var/lib/qhub-metrics/qhub_backup.prom")
    return {name: float(value) for name, value in re.findall(r"^qhub_backup_(\w+) (\S+)$", text, re.M)}


def megabytes_new(text):
    return float(re.search(r"([\d.]+) MB new", text)[1])


def test_a_backup_has_every_part(lab, master, backups):
    started = float(master.run(["date", "+%s"]).stdout)
    shown = lab.orchestrate("orch.backup").stdout
    assert megabytes_new(shown) > 0.1
    assert "/etc/qhub/backup/password away from this machine" in shown
    listed = restic(master, "ls", "latest", "--tag=qhub-cluster").split("\n")
    for part in PARTS:
        assert f"/var/lib/qhub-backup/dumps/{part}" in listed
    for path in ("/etc/qhub/pillar/users.sls", "/var/lib/qhub/pillar/secrets/master.sls", "/var/lib/qhub/ca/ca.key",
                 "/etc/salt/pki/master/master.pem", "/etc/salt/pki/master/minions/w1", "/root/.ssh/id_ed25519",
                 "/var/lib/slurm/slurmctld/job_state", "/var/lib/sshgate/ssh_host_ed25519_key"):  # fmt: skip
        assert path in listed
    assert {"/home/ada", "/opt/qhub/shared/conda/store"} <= set(
        restic(master, "ls", "latest", "--tag=qhub-data").split("\n")
    )
    assert master.run(["ls", "-A", "/var/lib/qhub-backup"]).stdout.split() == ["lock", "repository"]  # no dump is left
    told = metrics(master)
    assert told["last_success_timestamp_seconds"] >= told["last_verified_timestamp_seconds"] >= started
    assert told["size_bytes"] > 1e5
    lab.wait_for(
        "Prometheus has the metrics",
        lambda: ask(master, "query?query=qhub_backup_last_success_timestamp_seconds")["result"],
    )


def test_the_next_one_adds_little_shows_no_secret_and_keeps_what_is_asked_for(master, backups):
    for day in ("2020-01-01", "2020-01-02", "2020-01-03"):
        old = ["--time", f"{day} 00:00:00", "--host=master", "/etc/hostname"]
        restic(master, "backup", "--quiet", "--tag=qhub-cluster", *old)
    restic(master, "backup", "--quiet", "--tag=of-the-site", *old)

    master.run(["systemctl", "start", "--no-block", UNIT])
    seen = ""
    while master.run(["systemctl", "is-active", UNIT], check=False).stdout.strip() == "activating":
        seen += master.run(["sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null"], check=False).stdout
    journal = master.journal(UNIT, 200)
    assert "restic" in seen
    assert "pg_dump" in journal or "Dumping keycloak" in journal
    for secret in backups:
        assert secret not in seen
        assert secret not in journal

    done = [line for line in journal.splitlines() if "Done in" in line]
    assert len(done) >= 2, journal
    assert megabytes_new(done[-1]) < megabytes_new(done[-2]) / 3
    days = [day for day, _ in snapshots(master)]
    assert days[0] == "2020-01-03"
    assert len(days) == 2  # that, and the last of today
    assert [day for day, _ in snapshots(master, "of-the-site")] == ["2020-01-03"]


def test_a_dump_that_fails_fails_the_backup(lab, master, backups):
    before = metrics(master), snapshots(master), snapshots(master, "qhub-data")
    psql = ["runuser", "-u", "postgres", "--", "psql", "-qc"]
    master.run([*psql, "CREATE DATABASE broken ALLOW_CONNECTIONS false"])
    try:
        failed = lab.orchestrate("orch.backup", check=False)
        assert failed.returncode
        assert "database broken could not be dumped: pg_dump: error" in failed.stdout
        assert master.run(["systemctl", "is-failed", UNIT], check=False).stdout.strip() == "failed"
        assert (metrics(master), snapshots(master), snapshots(master, "qhub-data")) == before
    finally:
        master.run([*psql, "DROP DATABASE broken"])


def test_damage_is_found(master, backups):
    packs = master.run(["find", f"{REPOSITORY}/data", "-type", "f", "-size", "+8k"]).stdout.split()
    before = metrics(master)["last_verified_timestamp_seconds"]
    master.run(["cp", "-p", packs[0], "/root/pack"])
    try:
        master.run(["dd", "if=/dev/urandom", f"of={packs[0]}", "bs=16", "seek=64", "count=4", "conv=notrunc"])
        found = master.run(["qhub-backup", "verify"], check=False, timeout=120)
        assert found.returncode
        assert "does not hold what it should" in found.stderr
        assert metrics(master)["last_verified_timestamp_seconds"] == before
    finally:
        master.run(["mv", "/root/pack", packs[0]])
    assert "is sound" in master.run(["qhub-backup", "verify"], timeout=120).stdout
    assert metrics(master)["last_verified_timestamp_seconds"] > before


def test_a_file_comes_back_alone(master, backups):
    """As docs/operations/backup.md says."""
    master.write("/home/ada/precious", "a result\n")
    master.run(["systemctl", "start", UNIT], timeout=300)
    master.run(["rm", "/home/ada/precious"])
    restic(master, "restore", "latest", "--tag=qhub-data", "--target=/", "--include=/home/ada/precious")
    assert master.read("/home/ada/precious") == "a result\n"


def test_nobody_restores_by_mistake(lab, master, backups):
    refused = lab.orchestrate("orch.restore", check=False)
    assert refused.returncode
    assert "it replaces the databases, so say by which backup" in refused.stdout
    assert not master.run(["systemctl", "is-active", "slurmdbd"], check=False).returncode
    script = [f"{settings.CHECKOUT}/salt/bootstrap/master.sh", "--mirror", settings.MIRROR, "--restore", REPOSITORY]
    refused = master.run([*script, "--password-file", "/etc/qhub/backup/password"], check=False)
    assert refused.returncode
    assert "this machine is a master already" in refused.stderr


def sign_in(browser, name):
    """Sign in to the Hub with the password that the person has chosen."""
    with page(browser) as shown:
        shown.goto(f"{ROOT}/hub/home")
        fill(shown, name, CHOSEN)
        shown.wait_for_url(f"{ROOT}/hub/**")
        shown.get_by_role("link", name="Logout").or_(shown.get_by_text(name)).first.wait_for()


def test_a_running_master_goes_back_to_a_backup(lab, master, browser, backups):
    """What changed after the backup is gone from the databases: a password in Keycloak, an account in Slurm."""
    with signed_in(lab, browser, "marie"):
        pass
    job, _ = lab.job("ada", "true")
    lab.orchestrate("orch.backup")
    first_password(lab, "marie")  # replaces the one that she has chosen
    master.run(["sacctmgr", "--immediate", "add", "account", "newer"])

    lab.orchestrate("orch.restore", snapshot="latest")

    sign_in(browser, "marie")
    assert ["newer"] not in lab.sacctmgr("account", "format=account")
    assert lab.state(job) == "COMPLETED"
    newer, _ = lab.job("ada", "true")
    assert int(newer) > int(job)


def test_a_lost_master_comes_back(lab, master, browser, backups):
    """Its disk is gone; homes and environments are on another. A bare machine with its address takes its place."""
    with signed_in(lab, browser, "marie"):
        pass
    job, _ = lab.job("ada", "echo of before > result")
    master.write("/home/guest/precious", "kept\n")
    lab.orchestrate("orch.backup")
    password = master.read("/etc/qhub/backup/password")
    workers = {node.name: fingerprint(node) for node in lab.workers}
    host_key = master.read("/etc/ssh/ssh_host_ed25519_key.pub").split()[1]

    master.run(["rm", "-r", "/home/guest"])
    master.destroy()
    the_lab.boot("master")
    master.write("/root/password", password, mode="0600")
    script = [f"{settings.CHECKOUT}/salt/bootstrap/master.sh", "--mirror", settings.MIRROR, "--restore", REPOSITORY]
    the_lab.watched(master, ["salt-master", "slurmctld"], [*script, "--password-file", "/root/password"], timeout=900)

    assert {node.name: fingerprint(node) for node in lab.workers} == workers
    states = master.run(["sinfo", "-h", "-N", "-o", "%N %T"]).stdout.split("\n")
    assert {"w1 idle", "w2 idle"} <= set(states)
    answers = master.run(["salt", "--out=txt", "--timeout=15", "w*", "test.ping"]).stdout
    assert sorted(answers.split("\n"))[1:] == ["w1: True", "w2: True"]
    assert lab.state(job) == "COMPLETED"
    newer, output = lab.job("ada", "cat result")
    assert int(newer) > int(job)
    assert output == "of before\n"
    assert master.read("/home/guest/precious") == "kept\n"
    assert master.run(["stat", "-c", "%U", "/home/guest"]).stdout == "guest\n"
    assert master.read("/etc/ssh/ssh_host_ed25519_key.pub").split()[1] == host_key
    sign_in(browser, "marie")  # in a browser that trusts the authority of before
    changed = {name: state for name, state in lab.highstate("master").items() if state["changes"]}
    assert not changed


def fingerprint(node):
    """Return what tells whether somebody was at work on a machine: its configuration, and since when daemons run."""
    # A minion notes there, whenever it connects, that it is to look after its master.
    but = "! -path /etc/salt/minion.d/_schedule.conf"
    files = f"find /etc /opt/qhub/salt /usr/local -xdev -type f {but} -printf '%p %s %T@\\n' | sort"
    daemons = "systemctl show --property=ActiveEnterTimestampMonotonic salt-minion slurmd"
    return node.run(["sh", "-c", f"{files}; {daemons}"]).stdout

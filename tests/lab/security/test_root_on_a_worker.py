"""Somebody who is root on one worker reaches no user and no program of the master."""

import pytest

from tests.lab import nfs

MARIE = "marie"
#: User on the master whose rights the attacker wants, and how the attacker claims to be that user: "uid" or "gid".
VICTIMS = (("postgres", "uid"), ("slurm", "uid"), ("traefik", "uid"), ("keycloak", "uid"), ("shadow", "gid"))


@pytest.fixture
def dropbox(lab):
    """A directory in marie's home where everybody may write."""
    path = f"/home/{MARIE}/dropbox"
    lab.master.run(["install", "-d", "-m", "0711", f"/home/{MARIE}"])
    lab.master.run(["install", "-d", "-m", "0777", "-o", MARIE, path])
    yield path
    lab.master.run(["rm", "-r", path])
    lab.master.run(["chmod", "0700", f"/home/{MARIE}"])


@pytest.mark.parametrize(("victim", "kind"), VICTIMS)
def test_a_setuid_program_that_a_worker_wrote_runs_as_its_caller(lab, dropbox, victim, kind):
    database = "passwd" if kind == "uid" else "group"
    number = lab.master.run(["getent", database, victim]).stdout.split(":")[2]
    claimed = f"uid={number}&gid={number}" if kind == "uid" else f"uid=20002&gid={number}"
    program, mode = f"{dropbox}/id", "4755" if kind == "uid" else "2755"
    nfs.copy(lab, "w1", lab.node("w1").root / "usr/bin/id", program, mode=mode, who=claimed)
    assert lab.master.run(["stat", "-c", f"%a %{kind[0]}", program]).stdout == f"{mode} {number}\n", "the file is there"
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

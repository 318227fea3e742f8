"""Somebody who is root on one worker reaches no user and no program of the master."""

import pytest

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

"""An ordinary person with a shell on the master, and with a job on a worker.

Each attack is a shell command that prints GOT-IN if it succeeds. `$JOB` is a running job of Ada's.
"""

import shlex

import pytest

CONNECT = "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])'"
READ = "head -c 1 {} > /dev/null"
LIST = "ls {} > /dev/null"
#: Commands on the master, by what they try to reach.
SOCKETS = {
    "the job starter": f"{CONNECT} /run/qhub-jobs.sock",
    "Redis": f"{CONNECT} /run/redis/redis.sock",
    "conda builds with a network": f"{CONNECT} /run/conda-build/online.sock",
    "conda builds": f"{CONNECT} /run/conda-build/offline.sock",
    "PostgreSQL as its superuser": "psql -U postgres -c 'SELECT 1' postgres",
    "PostgreSQL's keycloak": "psql -U keycloak -c 'SELECT 1' keycloak",
    "MariaDB": "mariadb -e 'SELECT 1'",
    "MariaDB as slurm": "mariadb -u slurm -e 'SELECT 1' slurm_acct_db",
    "MariaDB as root": "mariadb -u root -e 'SELECT 1'",
    "Salt's publisher": "for s in /run/salt/master/*.ipc; do test -w $s && exit 0; done; false",
}
COMMANDS = {
    "systemctl restart": "systemctl --no-ask-password restart traefik",
    "systemctl stop": "systemctl --no-ask-password stop slurmctld",
    "systemctl set-environment": "systemctl --no-ask-password set-environment A=B",
    "systemd-run": "systemd-run --no-ask-password --wait true",
    "systemd-run as another": "systemd-run --no-ask-password --uid=keycloak --wait true",
    "sudo": "sudo -n true",
    "sudo as the SSH gateway does": "sudo -n -u ada true",
    "su": "su -c true < /dev/null",
    "runuser": "runuser -u ada true",
    "setpriv": "setpriv --reuid=20001 --clear-groups true",
    "a namespace with a root of one's own": "unshare --user --map-root-user head -c 1 /etc/shadow",
    "salt": "timeout 20 salt --timeout=5 master test.ping",
    "salt-call": "timeout 20 salt-call --local test.ping",
    "salt-run": "timeout 20 salt-run manage.up",
    "salt-key": "timeout 20 salt-key --list=all",
    "qhub-keycloak": "qhub-keycloak password ada",
    "qhub-database": "qhub-database keycloak",
    "qhub-shut-out": "qhub-shut-out ada",
    "qhub-firewall": "qhub-firewall",
    "qhub-homes": "qhub-homes",
    "qhub-backup": "qhub-backup status",
    "nft": "nft list ruleset",
    "dmesg": "dmesg | grep -q .",
    "the journal": "journalctl --quiet --lines=1 --unit=keycloak | grep -q .",
    "a mount": "mount --bind /etc/shadow /home/marie/x",
    "a file for root's cron": "touch /etc/cron.d/x",
    "a unit": "touch /etc/systemd/system/x.service",
    "a profile": "touch /etc/profile.d/x.sh",
    "another's process": "kill -0 $(pgrep -u root -x salt-master | head -1)",
}
FILES = {
    "/etc/shadow": READ, "/etc/slurm/slurm.key": READ, "/etc/slurm/slurmdbd.conf": READ,
    "/etc/qhub/tls/traefik.key": READ, "/etc/qhub/backup/password": READ, "/etc/qhub/backup": LIST,
    "/etc/jupyterhub/secrets": LIST, "/etc/dask-gateway/secrets": LIST, "/etc/prometheus/secrets": LIST,
    "/var/lib/qhub/ca/ca.key": READ, "/var/lib/qhub/pillar": LIST, "/var/lib/postgresql/17/main": LIST,
    "/var/lib/mysql/mysql": LIST, "/var/lib/jupyterhub": LIST, "/var/lib/dask-gateway": LIST,
    "/var/lib/slurm/slurmctld": LIST,
    "/var/log/traefik/access.log": READ, "/run/credentials/jupyterhub.service": LIST, "/root": LIST,
    "/var/log/slurm": LIST, "/var/log/slurm/jobcomp.log": READ, "/home/ada": LIST,
    "/etc/salt/pki/master/master.pem": READ, "/etc/salt/pki/minion/minion.pem": READ,
    "/proc/1/environ": READ, "/proc/1/root/etc": LIST,
}  # fmt: skip
SLURM = {
    "scancel": 'scancel $JOB && test -z "$(squeue -h -j $JOB)"',
    "scancel by name": 'scancel --user=ada && test -z "$(squeue -h -j $JOB)"',
    "hold": "scontrol hold $JOB",
    "requeue": "scontrol requeue $JOB",
    "suspend": "scontrol suspend $JOB",
    "a job's time": "scontrol update jobid=$JOB timelimit=1",
    "a job's comment": "scontrol update jobid=$JOB comment=x",
    "a job's account": "scontrol update jobid=$JOB account=chemistry",
    "a job's script": "scontrol write batch_script $JOB - | grep -q sleep",
    "a step in a job": "timeout 20 srun --jobid=$JOB --overlap true",
    "a job's output": "timeout 10 sattach $JOB.0 | grep -q SECRET",
    "a file into a job": "timeout 20 sbcast --jobid=$JOB /etc/hostname /tmp/x",
    "a job as root": "sbatch --uid=0 --wrap true",
    "a job as another": "sbatch --uid=ada --wrap true",
    "a job on another's account": "sbatch --account=science --wrap true",
    "a node's state": "scontrol update nodename=w1 state=drain reason=x",
    "a node": "scontrol create nodename=x cpus=1",
    "a partition": "scontrol update partitionname=main state=down",
    "a reservation": "scontrol create reservation starttime=now duration=1 nodes=w1 users=marie",
    "reconfigure": "scontrol reconfigure",
    "shutdown": "scontrol shutdown",
    "takeover": "scontrol takeover",
    "the log": "scontrol setdebug debug5",
    "an account": "sacctmgr -i add account mine",
    "a limit": "sacctmgr -i modify user marie set maxjobs=1000",
    "an association": "sacctmgr -i add user marie account=science",
    "an administrator": "sacctmgr -i modify user marie set adminlevel=admin",
    "the end of a person": "sacctmgr -i delete user ada",
    "a QOS": "sacctmgr -i add qos mine",
    "a trigger": "strigger --set --node=w1 --down --program=/bin/true",
}
#: Commands of a job of Marie's on the worker on which Ada's job runs.
ON_A_WORKER = {
    "another job's environment": "cat /proc/$PID/environ > /dev/null",
    "another job's directory": "ls /proc/$PID/cwd/ > /dev/null",
    "another job's files": "ls /proc/$PID/fd > /dev/null",
    "another job's memory": "head -c 1 /proc/$PID/mem > /dev/null",
    "another job": "kill -0 $PID",
    "slurmd's spool": "ls /var/spool/slurmd > /dev/null",
    "Slurm's key": "head -c 1 /etc/slurm/slurm.key > /dev/null",
    "another home": "ls /home/ada > /dev/null",
    "the shared software": "touch /opt/qhub/shared/x",
    "shadow": "head -c 1 /etc/shadow > /dev/null",
    "the minion's key": "head -c 1 /etc/salt/pki/minion/minion.pem > /dev/null",
    "the minion's cache": "ls /var/cache/salt/minion > /dev/null",
    "sudo": "sudo -n true",
    "the master's PostgreSQL": "python3 -c 'import socket; socket.create_connection((\"master\", 5432), 3)'",
    "the master's Hub": "python3 -c 'import socket; socket.create_connection((\"master\", 8081), 3)'",
    "the master's Keycloak": "python3 -c 'import socket; socket.create_connection((\"master\", 8080), 3)'",
    "the master's Prometheus": "python3 -c 'import socket; socket.create_connection((\"master\", 9090), 3)'",
    "the master's Redis": "python3 -c 'import socket; socket.create_connection((\"master\", 6379), 3)'",
    "the master's Alertmanager": "python3 -c 'import socket; socket.create_connection((\"master\", 9093), 3)'",
    "another worker's notebooks": "python3 -c 'import socket; socket.create_connection((\"w2\", 63001), 3)'",
    "another worker's exporter": "python3 -c 'import socket; socket.create_connection((\"w2\", 9100), 3)'",
}


@pytest.fixture(scope="module")
def job(lab):
    """The number of a running job of Ada's on w1."""
    words = ["sbatch", "--parsable", "--account=physics", "--nodelist=w1", "--mem=50", "--time=20", "--chdir=/"]
    number = lab.as_user(
        "ada", [*words, "--output=/dev/null", "--wrap=srun sh -c 'while sleep 1; do echo SECRET; done'"], cwd="/"
    ).stdout.strip()
    lab.wait_for("ada's job runs", lambda: lab.state(number) == "RUNNING", timeout=60)
    try:
        yield number
    finally:
        lab.master.run(["scancel", number])


def attempt(lab, command, **variables):
    """Run an attack of Marie's on the master; fail if it succeeds, or if the shell does not find its program."""
    words = ["env", *(f"{name}={value}" for name, value in variables.items())]
    script = f"( {command} ) && echo GOT-IN"
    done = lab.as_user("marie", [*words, "sh", "-c", script], check=False, timeout=90, cwd="/")
    assert "GOT-IN" not in done.stdout, done.stdout[-500:]
    assert ": not found" not in done.stderr, done.stderr[-500:]


@pytest.mark.parametrize("attack", SOCKETS)
def test_a_socket_is_not_for_people(lab, attack):
    attempt(lab, SOCKETS[attack])


@pytest.mark.parametrize("attack", COMMANDS)
def test_a_command_gives_no_rights(lab, attack):
    attempt(lab, COMMANDS[attack])


@pytest.mark.parametrize("path", FILES)
def test_a_private_file_is_closed(lab, path):
    assert lab.master.run(["test", "-e", path], check=False).returncode == 0, "the file exists"
    attempt(lab, FILES[path].format(path))


@pytest.mark.parametrize("attack", SLURM)
def test_slurm_changes_nothing_of_another_person(lab, job, attack):
    attempt(lab, SLURM[attack], JOB=job)
    assert lab.state(job) == "RUNNING"


def test_a_job_reaches_nothing_of_another_job_or_of_services(lab, job):
    """One job of Marie's tries all, beside Ada's job."""
    process = lab.node("w1").run(["pgrep", "-u", "ada", "-x", "sh"]).stdout.split()[0]
    lines = [
        f"( {command} ) 2> /dev/null && echo {shlex.quote(f'GOT-IN {attack}')}"
        for attack, command in ON_A_WORKER.items()
    ]
    options = ["-A", "physics", "-w", "w1", "--mem=50", f"--export=PID={process},PATH=/usr/bin:/bin"]
    _, output = lab.job("marie", *options, "\n".join([*lines, "echo END"]))
    assert output.split("\n")[-2:] == ["END", ""]
    assert [line for line in output.splitlines() if line.startswith("GOT-IN")] == []

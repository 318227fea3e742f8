"""
The doctor: of a healthy cluster it says so; a fault is named, once, whatever else it brings down.

A clock that is off is not among the faults: containers have their machine's (tests/unit/test_doctor.py has it).
"""

import contextlib
import time

import pytest

from tests.lab.conftest import parse
from tests.lab.harness import lab as the_lab
from tests.lab.harness.shell import wait_for

TLS = "/etc/qhub/tls"
CELERY = "/opt/qhub/conda_store/bin/celery --broker=redis+socket:///run/redis/redis.sock inspect ping --timeout=2"
READY = {  # what says that a service is back, past its unit
    "slurmd": "sinfo -h -n w2 -o %T | grep -qx idle",
    "slurmdbd": "sacctmgr -n show cluster",
    "slurmctld": "scontrol ping && ! sinfo -h -N -o %T | grep -vqx idle",
    "jupyterhub": "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8081/hub/api\")'",
    "keycloak": "qhub-keycloak wait 1",
    "conda-store-server": "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:5000/conda-store/api/v1/\")'",
    "conda-store-worker": CELERY,
    "dask-gateway": "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8011/gateway/api/health\")'",
    "redis-server": CELERY,
    "salt-minion": "salt --timeout=2 w1 test.ping",
    "salt-master": "salt --timeout=2 master test.ping",
}


def examine(master):
    """Return ``(status, {check: how it is})`` of ``salt-run cluster.doctor``."""
    done = master.run(["salt-run", "--out=json", "cluster.doctor"], check=False, timeout=120)
    return done.returncode, {check["name"]: check for check in parse(done.stdout)["checks"]}


def bad(checks):
    """Return the checks that failed: ``{check: what it says}``."""
    return {name: " ".join(check["says"]) for name, check in checks.items() if check["state"] == "failed"}


@pytest.fixture(scope="module", autouse=True)
def _healthy(master):
    """Begin with a healthy cluster, and leave one."""
    # What nodes found at their last highstate may be long ago, and other tests' doing.
    master.run(["salt", "*", "schedule.run_job", "highstate", "force=True"])
    drift = ["salt-run", "--out=json", "cluster.drift"]
    wait_for("nodes are as declared", lambda: not parse(master.run(drift).stdout)["nodes"], timeout=90, interval=2)
    wait_until_healthy(master)
    yield
    wait_until_healthy(master)


def wait_until_healthy(master):
    """Wait for what tests before stopped and started, which may not be back yet."""
    last = []

    def healthy():
        status, checks = examine(master)
        last[:] = [bad(checks)]
        return status == 0

    with contextlib.suppress(TimeoutError):
        wait_for("the cluster is healthy", healthy, timeout=90)
    assert last == [{}]


# Faults: each is a context in which the cluster has it


def stop(unit, node="master"):
    """A unit that does not run."""

    @contextlib.contextmanager
    def fault(lab):
        lab.node(node).run(["systemctl", "stop", unit])
        try:
            yield
        finally:
            lab.node(node).run(["systemctl", "start", unit])
            if unit in READY:
                ask = ["timeout", "20", "sh", "-c", READY[unit]]
                wait_for(f"{unit} is back", lambda: not lab.master.run(ask, check=False).returncode, timeout=120)

    return fault


def change(node, do, undo):
    """What one shell command does and another one undoes."""

    @contextlib.contextmanager
    def fault(lab):
        lab.node(node).run(["sh", "-ec", do])
        try:
            yield
        finally:
            lab.node(node).run(["sh", "-ec", undo])

    return fault


def certificate(sign):
    """Another certificate at the front door, made by ``openssl x509`` with these options."""
    names = "subjectAltName=DNS:master.cluster.internal"
    make = (
        f"cp -a {TLS} /root/tls; cd {TLS}; echo {names} > /root/names;"
        " openssl req -new -key traefik.key -subj /CN=door -out /root/request;"
        f" openssl x509 -req -in /root/request -extfile /root/names {sign} -out /root/door;"
        " cat /root/door > traefik.crt; touch /etc/traefik/dynamic/traefik.yml"
    )
    shown = "openssl s_client -connect 127.0.0.1:443 -servername master.cluster.internal </dev/null 2>/dev/null"
    wait = "timeout 20 sh -c 'until {} | openssl x509 -noout -subject | {}; do sleep 0.1; done'"
    back = (
        f"cp -a /root/tls/. {TLS}/; rm -r /root/tls /root/names /root/request /root/door;"
        " touch /etc/traefik/dynamic/traefik.yml"
    )
    return change(
        "master",
        f"{make}; {wait.format(shown, 'grep -q door')}",
        f"{back}; {wait.format(shown, 'grep -vq door')}",
    )


AUTHORITY = "-CA /var/lib/qhub/ca/ca.crt -CAkey /var/lib/qhub/ca/ca.key"
KEYS = "/etc/salt/pki/master/minions"
#: fault: (the fault, the check that names it, what that says)
FAULTS = {
    "broken pillar": (
        change("master", "cd /etc/qhub/pillar; cp nodes.sls /root; echo 'nodes: [' > nodes.sls",
               "mv /root/nodes.sls /etc/qhub/pillar/"),
        "pillar", "nodes.sls",
    ),
    "stranger's key": (change("master", f"cp {KEYS}/w1 {KEYS}/evil", f"rm {KEYS}/evil"), "keys", "evil is accepted"),
    "Salt master stopped": (stop("salt-master"), "salt-master", "master"),
    "minion stopped": (stop("salt-minion", "w1"), "minions", "w1: is not connected"),
    "readable secret": (
        change("master", f"chmod 644 {TLS}/traefik.key", f"chmod 640 {TLS}/traefik.key"),
        "secrets", f"master: {TLS}/traefik.key has mode 0644",
    ),
    "full disk": (
        change("w1", "mount -t tmpfs -o size=1m none /var/backups; dd if=/dev/zero of=/var/backups/full || true",
               "umount /var/backups"),
        "space", "w1: /var/backups: 0 MiB of 1",
    ),
    "any unit stopped": (stop("qhub-hub-routes"), "units", "master: qhub-hub-routes.service: stopped"),
    "redis stopped": (stop("redis-server"), "redis", "redis.sock"),
    "slurmd stopped": (stop("slurmd", "w2"), "slurmd", "w2"),
    "node drained": (
        change("master", "scontrol update nodename=w2 state=drain reason='by hand'",
               "scontrol update nodename=w2 state=resume"),
        "nodes", "w2 is drained: by hand",
    ),
    "slurmdbd stopped": (stop("slurmdbd"), "slurmdbd", "refused"),
    "unreadable slurm.conf": (
        change("master", "cp -p /etc/slurm/slurm.conf /root; echo NoSuchKey=1 >>/etc/slurm/slurm.conf",
               "mv /root/slurm.conf /etc/slurm/"),
        "slurm.conf", "NoSuchKey",
    ),
    "slurm.conf not loaded": (
        change("master", "cp -p /etc/slurm/slurm.conf /root; echo PartitionName=odd >>/etc/slurm/slurm.conf",
               "mv /root/slurm.conf /etc/slurm/"),
        "configuration", "slurmctld has not loaded the slurm.conf that is in place",
    ),
    "partition removed": (
        change("master", "scontrol delete PartitionName=highmem", "scontrol reconfigure"),
        "configuration", "partition highmem is declared, slurmctld does not have it",
    ),
    "slurmctld stopped": (stop("slurmctld"), "slurmctld", "DOWN"),
    "expired certificate": (
        certificate(f"{AUTHORITY} -not_before 20200101000000Z -not_after 20200201000000Z"),
        "certificates", "certificate has expired",
    ),
    "stranger's certificate": (certificate(f"-signkey {TLS}/traefik.key"), "certificates", "self-signed"),
    "sshgate stopped": (stop("sshgate"), "sshgate", "8022"),
    "keycloak stopped": (stop("keycloak"), "keycloak", "refused"),
    "jupyterhub stopped": (stop("jupyterhub"), "jupyterhub", "refused"),
    "conda-store stopped": (stop("conda-store-server"), "conda-store", "refused"),
    "builder stopped": (stop("conda-store-worker"), "builder", "No nodes replied"),
    "dask-gateway stopped": (stop("dask-gateway"), "dask-gateway", "8011"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_nothing_else(lab, master, name):
    fault, named, said = FAULTS[name]
    with fault(lab):
        start = time.monotonic()
        status, checks = examine(master)
        seconds = time.monotonic() - start
    wrong = bad(checks)
    assert set(wrong) == {named}, wrong
    assert said in wrong[named]
    assert checks[named]["advice"]
    assert status == 1
    assert {check["because"] for check in checks.values() if check["state"] == "not checked"} <= {named}
    assert seconds < 40


def test_a_healthy_cluster_is_said_to_be_on_one_screen(master, capsys):
    the_lab.healthy(master)  # restarts by earlier tests are over
    start = time.monotonic()
    done = master.run(["salt-run", "cluster.doctor"], timeout=120)
    seconds = time.monotonic() - start
    with capsys.disabled():
        print(f"\n{done.stdout}in {seconds:.1f} s")
    lines = done.stdout.splitlines()
    assert "all in order" in lines[0]
    assert len(lines) <= 42
    assert "\x1b" not in done.stdout, "no colours but on a terminal"
    assert seconds < 20
    assert master.run(["sh", "-c", "ls -d /home/.qhub* /opt/qhub/shared/.qhub*"], check=False).stdout == ""


def test_the_page_says_what_to_type(lab, master):
    with stop("sshgate")(lab):
        done = master.run(["salt-run", "cluster.doctor"], check=False, timeout=120)
    assert done.returncode == 1
    assert "-> journalctl -n 30 -u sshgate; systemctl restart sshgate" in done.stdout

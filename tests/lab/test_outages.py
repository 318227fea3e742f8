"""What a machine room does to a cluster: power, network and disks that fail and come back. Nothing is lost."""

import contextlib
import time

import pytest

from tests.lab.dask import client, go_on, jobs, said
from tests.lab.harness import lab as the_lab
from tests.lab.harness.shell import wait_for

CUT = 120  # seconds without a network
#: What has to come back before what.
ORDER = (("mariadb", "slurmdbd"), ("postgresql@17-main", "keycloak"), ("postgresql@17-main", "jupyterhub"))
DATABASES = {"mariadb": "/var/lib/mysql", "postgresql@17-main": "/var/lib/postgresql"}


def accounted(lab, job):
    """Return ``(state, restarts)`` of a job from the accounting database."""
    words = ["sacct", "-X", "-n", "-P", "-j", job, "-o", "State,Restarts"]
    return tuple(lab.master.run(words, check=False).stdout.strip().split("|"))


@pytest.fixture(autouse=True)
def tidied(lab, hub):
    """Leave no job and no notebook of these tests behind."""
    yield
    hub.stop_server("marie")
    lab.master.run(["scancel", "--user=ada"])


def test_a_master_that_loses_power(lab, master, hub, laptop):
    """A job, a notebook and a Dask cluster live on while it is away, and everything of it comes back by itself."""
    notebook = hub.start_server("marie", account="physics")
    job = lab.running_job("w2", 90)
    script = """
cluster = gateway.new_cluster(account="physics", memory=300)
cluster.scale(1)
name = cluster.name
client = cluster.get_client()
say(name, client.submit(lambda: 41).result())
sys.stdin.readline()
deadline = time.monotonic() + 120
while True:
    try:
        cluster = gateway.connect(name)
        say(cluster.get_client().submit(lambda: 42).result(timeout=20))
        break
    except Exception as error:
        if time.monotonic() > deadline:
            raise
        time.sleep(1)
cluster.shutdown()
say("gone")
"""
    with client(laptop, hub.standing_token("ada"), script) as process:
        _, answer = said(process)
        assert answer == 41
        lab.jobs_are_saved()
        before = set(jobs(lab))

        master.stop(hard=True)
        started = time.monotonic()
        the_lab.boot("master")
        the_lab.healthy(master, timeout=240)
        print(f"all is well {time.monotonic() - started:.0f} s after power came back")

        assert set(jobs(lab)) == before
        go_on(process)
        assert said(process) == [42]
        assert said(process) == ["gone"]
    assert hub.server("marie")["ready"]
    assert hub.jobs()["marie"]["id"] == notebook, "it is the same notebook"
    show = ["systemctl", "show", "-P", "ActiveEnterTimestampMonotonic"]
    for pair in ORDER:
        first, then = (int(master.run([*show, unit]).stdout) for unit in pair)
        assert first < then, pair
    wait_for(f"job {job} is accounted", lambda: accounted(lab, job) == ("COMPLETED", "0"), timeout=120)


@contextlib.contextmanager
def cut_off(node, other):
    """Let no packet pass between two machines."""
    rules = "".join(
        f"chain {hook} {{ type filter hook {hook} priority -100; ip {side} {other.address} drop; }}\n"
        for hook, side in (("input", "saddr"), ("output", "daddr"))
    )
    node.run(["nft", "-f", "-"], input=f"table inet outage {{\n{rules}}}\n")
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", "inet", "outage"])


def test_a_worker_that_the_master_cannot_reach_for_two_minutes(lab, master, hub):
    """What runs there lives on, also what ends meanwhile; the node is not given up, and is commanded again."""
    w2 = lab.node("w2")
    notebook = hub.start_server("marie", account="physics", partition="highmem")
    assert hub.jobs()["marie"]["host"] == "w2"
    job = lab.running_job("w2", 60)
    with cut_off(w2, master):
        begun = time.monotonic()
        assert not master.run(["salt", "--timeout=5", "w2", "test.ping"], check=False).stdout.count("True")
        wait_for("two minutes are over", lambda: time.monotonic() > begun + CUT, timeout=CUT + 10)
    healed = time.monotonic()
    wait_for("what ended meanwhile is accounted", lambda: accounted(lab, job) == ("COMPLETED", "0"), timeout=90)
    ping = ["salt", "--out=txt", "--timeout=5", "w2", "test.ping"]
    wait_for("w2 does what Salt says", lambda: "True" in master.run(ping, check=False).stdout, timeout=90)
    the_lab.healthy(master, timeout=240)
    print(f"all is well {time.monotonic() - healed:.0f} s after the network came back")
    assert hub.server("marie")["ready"]
    assert hub.jobs()["marie"]["id"] == notebook


@contextlib.contextmanager
def small_disks(node, volumes):
    """Give databases disks of their own with a few MiB free: ``volumes`` is ``{unit: directory}``."""

    def move(there):
        node.run(["systemctl", "stop", *volumes])
        for path in volumes.values():
            there(path, f"/srv/small{path}")
        node.run(["systemctl", "start", *volumes])

    def away(path, small):
        used = int(node.run(["du", "-sm", path]).stdout.split()[0])
        node.run(["mkdir", "-p", small])
        node.run(["mount", "-t", "tmpfs", "-o", f"size={used + 24}m", "tmpfs", small])
        node.run(["cp", "-a", f"{path}/.", small])
        node.run(["mount", "--bind", small, path])

    def back(path, small):
        node.run(["umount", path])
        node.run(["rsync", "-a", "--delete", f"{small}/", f"{path}/"])
        node.run(["umount", small])

    move(away)
    try:
        yield
    finally:
        move(back)


def test_a_full_disk_under_the_databases(lab, master):
    """Jobs run on meanwhile and nothing of them is lost; with room again, all is well without anybody's doing."""
    fillers = [f"{path}/filler{size}" for path in DATABASES.values() for size in ("1M", "1k")]
    table = [
        "runuser",
        "-u",
        "postgres",
        "--",
        "psql",
        "-c",
        "CREATE TABLE outage AS SELECT generate_series(1, 100000)",
    ]
    with small_disks(master, DATABASES):
        lab.wait_for(
            "accounts can be read", lambda: not master.run(["sacctmgr", "-n", "show", "user"], check=False).returncode
        )
        for filler in fillers:
            master.run(["dd", "if=/dev/zero", f"of={filler}", f"bs={filler[-2:]}"], check=False)
        assert "No space left on device" in master.run(table, check=False, timeout=60).stderr
        words = ["sbatch", "--parsable", "--chdir=/tmp", "--mem=10", "--output=/dev/null", "--wrap=true"]
        ran = [lab.as_user("ada", words).stdout.strip() for _ in range(3)]
        lab.wait_for("they have run", lambda: not master.run(["squeue", "-h", "-u", "ada"]).stdout)
        master.run(["rm", *fillers])
        freed = time.monotonic()
        the_lab.healthy(master, timeout=240)
        print(f"all is well {time.monotonic() - freed:.0f} s after there was room")
        for job in ran:
            lab.wait_for(f"{job} is accounted", lambda job=job: accounted(lab, job) == ("COMPLETED", "0"), timeout=90)

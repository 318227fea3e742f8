"""
Faults, made for real, are told to somebody, and so is their end.

What is shortened for the tests is patience: how often things are looked at and how long a fault has to last, not what
the rules look for.

Three that no container can have by itself are put into the mouth of who tells of them: no memory, another time, and a
scheduler with more to do than can be queued here.
"""

import contextlib
import http.server
import json
import threading
import time
import types

import pytest

from tests.lab.harness import settings
from tests.lab.prometheus import ask, firing

FORMULAS = ["prometheus", "alertmanager", "exporters", "slurm_exporter"]
METRICS = "/var/lib/qhub-metrics"


class Receiver:
    """A webhook of the site's: it keeps what it is told, and ``answer`` is what it says to that."""

    def __init__(self):
        self.told, self.answer = [], 200
        receiver = self

        class Hook(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.answer == 200:
                    receiver.told += [(alert["status"], alert["labels"]) for alert in message["alerts"]]
                self.send_response(receiver.answer)
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer((str(settings.GATEWAY), 0), Hook)
        self.address = f"http://{settings.GATEWAY}:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def was_told(self, status, expected):
        """Whether it was told of an alert with these labels."""
        return any(each == status and expected.items() <= labels.items() for each, labels in self.told)


@pytest.fixture(scope="module")
def receiver(lab, master):
    """Who is told of alerts, while Prometheus looks every few seconds and a fault has to last as long."""
    found = Receiver()

    def edit(monitoring):
        return monitoring | {
            "prometheus": {"interval": 5},
            "exporters": {"blackbox": {"interval": 5, "timeout": 3}},
            "slurm_exporter": {"interval": 5},
            "alertmanager": {"webhooks": [found.address], "group_wait": 1, "group_interval": 2},
        }

    try:
        with lab.pillar(monitoring=edit):
            lab.apply("master", FORMULAS)
            yield found
    finally:
        lab.apply("master", FORMULAS)
        found.server.shutdown()


def be_impatient(master):
    """Let each fault be told that lasts for ten seconds, and for a minute after, until Salt puts the rules back."""
    shorter = r"s/^( +for:) .*/\1 10s/; s/offset (5m|6h)/offset 1m/g; s/\[(2m|5m|6h)\]/[1m]/g"
    master.run(["sh", "-c", f"sed -i -E '{shorter}' /etc/prometheus/rules.d/*.yml"])
    master.run(["systemctl", "reload", "prometheus"])


@contextlib.contextmanager
def stopped(node, unit):
    """Stop a unit, and start it again at the end."""
    node.run(["systemctl", "stop", unit])
    try:
        yield
    finally:
        node.run(["systemctl", "start", unit])


@contextlib.contextmanager
def moved(node, path):
    """Take a file away, with nothing in its place that could be a file, and put it back at the end."""
    node.run(["mv", path, f"{path}.away"])
    node.run(["mkdir", path])
    try:
        yield
    finally:
        node.run(["rmdir", path])
        node.run(["mv", f"{path}.away", path])


@contextlib.contextmanager
def full_disks(node):
    """Mount two small file systems, and fill one with bytes and one with files."""
    for path, limit in (("/srv/bytes", "size=4m"), ("/srv/files", "nr_inodes=50")):
        node.run(["mkdir", "-p", path])
        node.run(["mount", "-t", "tmpfs", "-o", limit, "tmpfs", path])
    try:
        node.run(["sh", "-c", "head -c 4000000 /dev/zero >/srv/bytes/full; cd /srv/files && touch $(seq 48)"])
        yield
    finally:
        node.run(["umount", "/srv/bytes", "/srv/files"])


@contextlib.contextmanager
def filling_disk(node):
    """Mount a small file system, and fill it slowly."""
    path = "/srv/filling"
    node.run(["mkdir", "-p", path])
    node.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", path])
    write = f"head -c 30M /dev/zero >{path}/much; while head -c 20k /dev/zero >>{path}/more; do sleep 1; done"
    try:
        node.run(["systemd-run", "--quiet", "--unit=test-filling", "sh", "-c", write])
        yield
    finally:
        node.run(["systemctl", "stop", "test-filling"])
        node.run(["umount", path])


@contextlib.contextmanager
def no_memory(node):
    """Let the kernel tell that little memory is left: what the node has is the whole machine's."""
    told = "sed 's/^MemAvailable:.*/MemAvailable: 1000 kB/' /proc/meminfo >/run/meminfo"
    node.run(["sh", "-c", f"{told} && mount --bind /run/meminfo /proc/meminfo"])
    try:
        yield
    finally:
        node.run(["umount", "/proc/meminfo"])


@contextlib.contextmanager
def wrong_clock(node):
    """Let a node's exporter tell that its clock is ten seconds slow: that of a container is the whole machine's."""
    tick = "echo node_time_seconds $(($(date +%s) - 10)) >/run/clock/new; mv /run/clock/new /run/clock/clock.prom"
    exporter = (
        "prometheus-node-exporter --no-collector.time --collector.textfile.directory=/run/clock"
        f" --web.listen-address={node.address}:9100"
    )
    script = f"while {tick}; do sleep 0.2; done & exec {exporter}"
    with stopped(node, "prometheus-node-exporter"):
        node.run(["systemd-run", "--quiet", "--unit=test-clock", "-pRuntimeDirectory=clock", "sh", "-c", script])
        try:
            yield
        finally:
            node.run(["systemctl", "stop", "test-clock"])


@contextlib.contextmanager
def failed_unit(node):
    """Let a unit fail."""
    node.run(["systemd-run", "--quiet", "--unit=test-fault", "false"])
    try:
        yield
    finally:
        node.run(["systemctl", "reset-failed", "test-fault"])


@contextlib.contextmanager
def jobs(lab, *submissions):
    """Submit jobs of ada's, each a list of options; cancel all of hers at the end."""
    try:
        for options in submissions:
            words = ["sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--mem=10", *options]
            lab.as_user("ada", words)
        yield
    finally:
        lab.master.run(["scancel", "--user=ada"])


@contextlib.contextmanager
def never_to_start(lab):
    """Submit a job that waits for the success of one that has failed."""
    first = ["sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--mem=10", "--wrap=false"]
    job = lab.as_user("ada", first).stdout.strip()
    lab.wait_for("the first job fails", lambda: lab.state(job) == "FAILED")
    with jobs(lab, [f"--dependency=afterok:{job}", "--kill-on-invalid-dep=no", "--wrap=true"]):
        yield


@contextlib.contextmanager
def no_notebooks(hub):
    """Let two notebook servers fail to start."""
    program = "/opt/qhub/shared/bin/qhub-notebook"
    hub.master.run(["chmod", "-x", program])
    try:
        for name in ("ada", "marie"):
            hub.request_server(name, account="physics", check=False)
        yield
        hub.lab.wait_for("nobody has a server", lambda: not hub.server("ada") and not hub.server("marie"), timeout=90)
    finally:
        hub.master.run(["chmod", "+x", program])


@contextlib.contextmanager
def no_build(lab):
    """Ask conda-store for an environment that cannot be, and wait until it has tried."""

    def ask_conda_store(method, path, content=None):
        script = (
            "import sys, urllib.request as u\n"
            "token = open('/etc/conda-store/secrets/salt_token').read().strip()\n"
            f"ask = u.Request('http://127.0.0.1:5000/conda-store/api/v1/{path}', sys.stdin.buffer.read() or None,"
            f" method='{method}', headers={{'Authorization': 'Bearer ' + token, 'Content-Type': 'application/json'}})\n"
            "print(u.urlopen(ask, timeout=30).read().decode())\n"
        )
        return json.loads(lab.master.run(["/usr/bin/python3", "-c", script], input=json.dumps(content or {})).stdout)

    specification = json.dumps({"name": "fault", "dependencies": ["no-such-package-anywhere"]})
    asked = ask_conda_store("POST", "specification/", {"namespace": "global", "specification": specification})
    build = f"build/{asked['data']['build_id']}/"
    try:
        lab.wait_for(
            "the build fails", lambda: ask_conda_store("GET", build)["data"]["status"] == "FAILED", timeout=120
        )
        yield
    finally:
        ask_conda_store("DELETE", "environment/global/fault/")


@contextlib.contextmanager
def old_certificate(lab):
    """Let the front door show a certificate for ten more days."""
    short = {"certificates": {"days_valid": 10, "days_remaining": 1}}
    with lab.pillar(cluster=lambda cluster: cluster | {"ca": short}):
        lab.master.run(["rm", "/etc/qhub/tls/traefik.crt"])
        lab.apply("master", ["traefik"])  # and with it the rules of Prometheus
    be_impatient(lab.master)
    try:
        yield
    finally:
        lab.apply("master", ["traefik"])
        be_impatient(lab.master)


@contextlib.contextmanager
def refused_configuration(master):
    """Give Prometheus a scrape job that it does not take."""
    path = "/etc/prometheus/scrape.d/fault.yml"
    master.write(path, "scrape_configs: [{job_name: prometheus}]\n")
    master.run(["systemctl", "reload", "prometheus"])
    try:
        yield
    finally:
        master.run(["rm", path])
        master.run(["systemctl", "reload", "prometheus"])


@contextlib.contextmanager
def highstate(master, node, fault):
    """Let a node that has a fault look after itself, as it does each hour, and once more when it is mended."""
    now = ["salt", node, "schedule.run_job", "highstate", "force=True"]
    with fault:
        master.run(now)
        yield
    master.run(now)


@contextlib.contextmanager
def bad_backups(master):
    """Let a backup fail, with the last good one and the last look at it long ago."""
    path = f"{METRICS}/qhub_backup.prom"
    with moved(master, "/usr/bin/restic"):
        master.run(["systemctl", "start", "qhub-backup"], check=False)
        then = time.time() - 30 * 86400
        names = ("last_success", "last_verified")
        master.write(path, "".join(f"qhub_backup_{name}_timestamp_seconds {then}\n" for name in names))
        yield
    master.run(["systemctl", "start", "qhub-backup"], timeout=300)
    master.run(["qhub-backup", "verify"], timeout=300)


@contextlib.contextmanager
def never_backed_up(master):
    """Let no backup ever have succeeded, until one does."""
    master.run(["rm", "-f", f"{METRICS}/qhub_backup.prom"])
    yield
    master.run(["systemctl", "start", "qhub-backup"], timeout=300)


@contextlib.contextmanager
def broken_service(lab, hub):
    """Stop a service behind the front door, and ask for it."""
    done = threading.Event()

    def keep_asking():
        while not done.wait(0.5):
            with contextlib.suppress(OSError):
                hub.ask("GET", "api/health", check=False, token=None, base="/gateway/")

    with stopped(lab.master, "dask-gateway"):
        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            yield
        finally:
            done.set()
            asking.join()


@contextlib.contextmanager
def drained(master, node):
    """Take a node out of service."""
    master.run(["scontrol", "update", f"nodename={node}", "state=drain", "reason=new disk"])
    try:
        yield
    finally:
        master.run(["scontrol", "update", f"nodename={node}", "state=resume"])


@contextlib.contextmanager
def no_accounting(lab):
    """Stop slurmdbd, with much to tell it."""
    with stopped(lab.master, "slurmdbd"), jobs(lab, *[["--hold", "--wrap=true"]] * 110):
        yield


@contextlib.contextmanager
def slow_scheduler(master):
    """Let sdiag tell that the scheduler is slow: for all that can be queued here it takes less than a millisecond."""
    program = "/usr/bin/sdiag"
    told = "/^Main schedule/,/^Main scheduler exit/s/Last cycle:.*/Last cycle: 1200000/"
    master.run(["mv", program, f"{program}.away"])
    try:
        master.write(program, f"#!/bin/sh\n{program}.away | sed '{told}'\n", mode="0755")
        yield
    finally:
        master.run(["mv", f"{program}.away", program])


@contextlib.contextmanager
def impatient_master(lab):
    """Have the master expect a highstate of every node each ten seconds, which their minions do not know yet."""
    often = {"highstate": {"interval": 10, "splay": 1}}
    with lab.pillar(cluster=lambda cluster: cluster | {"salt": often}):
        lab.apply("master", ["salt.master"])
    try:
        yield
    finally:
        lab.apply("master", ["salt.master"])


@contextlib.contextmanager
def deaf_receiver(receiver):
    """Let nobody hear."""
    receiver.answer = 400
    try:
        yield
    finally:
        receiver.answer = 200


def alert(name, **labels):
    return {"alertname": name, **labels}


#: Faults that are made together: what makes one and ends it (``at`` is where, see the fixture), and the alerts that it
#: raises.
FAULTS = {
    "of nodes and of people's work": [
        (lambda at: old_certificate(at.lab), [alert("CertificateExpires", instance="https://master.cluster.internal/")]),
        (lambda at: no_notebooks(at.hub), [alert("HubSpawnFailures")]),
        (lambda at: no_build(at.lab), [alert("CondaStoreBuildsFailing")]),
        (lambda at: full_disks(at.w2),
         [alert("NodeDiskFull", mountpoint="/srv/bytes"), alert("NodeInodesFull", mountpoint="/srv/files")]),
        (lambda at: filling_disk(at.w2), [alert("NodeDiskFilling", mountpoint="/srv/filling")]),
        (lambda at: no_memory(at.w2), [alert("NodeMemoryFull", instance="w2")]),
        (lambda at: failed_unit(at.w2), [alert("UnitFailed", instance="w2")]),
        (lambda at: bad_backups(at.master), [alert("BackupFailed"), alert("BackupTooOld"), alert("BackupNotVerified")]),
        (lambda at: highstate(at.master, "w2", moved(at.w2, "/etc/default/prometheus-node-exporter")),
         [alert("HighstateFailed", minion="w2")]),
        (lambda at: highstate(at.master, "w1", stopped(at.w1, "prometheus-node-exporter")),
         [alert("NodeDown", instance="w1"), alert("NodeDrifted", minion="w1")]),
        (lambda at: stopped(at.master, "sshgate"),
         [alert("ServiceDown", job="sshgate"), alert("PageDown", instance="master.cluster.internal:8022")]),
        (lambda at: never_to_start(at.lab), [alert("SlurmJobsStuck", reason="DependencyNeverSatisfied")]),
    ],
    "of services": [
        (lambda at: broken_service(at.lab, at.hub), [alert("FrontDoorErrors", service="dask-gateway@file")]),
        (lambda at: refused_configuration(at.master), [alert("MonitoringConfigurationRefused", job="prometheus")]),
        (lambda at: stopped(at.master, "redis-server"), [alert("DatabaseDown", job="redis")]),
        (lambda at: stopped(at.master, "keycloak"), [alert("ServiceDown", job="keycloak")]),
        (lambda at: never_backed_up(at.master), [alert("BackupNever")]),
        (lambda at: wrong_clock(at.w2), [alert("NodeClockOff", instance="w2")]),
        (lambda at: drained(at.master, "w1"), [alert("SlurmNodeDrained", node="w1", reason="new disk")]),
        (lambda at: jobs(at.lab, ["--nodes=2", "--wrap=true"]), [alert("SlurmPartitionStuck", partition="main")]),
        (lambda at: no_accounting(at.lab), [alert("SlurmdbdDown"), alert("SlurmDBDQueueGrowing")]),
        (lambda at: stopped(at.master, "salt-master"), [alert("SaltMasterDown"), alert("SaltMasterEventLag")]),
    ],
    "of slurmd": [
        (lambda at: stopped(at.w2, "slurmd"), [alert("SlurmNodeDown", node="w2")]),
        (lambda at: slow_scheduler(at.master), [alert("SlurmSchedulerSlow", scheduler="main")]),
    ],
    # With slurmctld, a master that starts anew would bring w2 back into service.
    "of slurmctld": [
        (lambda at: stopped(at.master, "slurmctld"), [alert("SlurmctldDown")]),
        (lambda at: impatient_master(at.lab), [alert("HighstateStale", minion="w2")]),
    ],
}  # fmt: skip
#: What is raised when nothing of all that could be told.
UNHEARD = alert("AlertsNotDelivered")


@pytest.fixture(scope="module")
def at(lab, hub):
    """Where faults are made."""
    w1, w2 = lab.workers
    return types.SimpleNamespace(lab=lab, hub=hub, master=lab.master, w1=w1, w2=w2)


def settled(what, missing, timeout):
    """Wait until nothing is missing; say what is."""
    deadline = time.monotonic() + timeout
    while found := missing():
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s: {found}"
        time.sleep(1)


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_faults(at, receiver, faults):
    """They are made together; all alerts fire and are told, and they end and that is told."""
    expected = [each for _, alerts in faults for each in alerts]

    def untold():
        return [each for each in expected if not receiver.was_told("firing", each)]

    def still_firing():
        there = firing(at.master)
        return [each for each in expected if any(each.items() <= labels.items() for labels in there)]

    def left():
        unresolved = [each for each in expected if not receiver.was_told("resolved", each)]
        return unresolved + still_firing()

    be_impatient(at.master)
    settled("no fault of an earlier test is an alert", still_firing, 240)
    receiver.told.clear()
    with contextlib.ExitStack() as made:
        for fault, _ in faults:
            made.enter_context(fault(at))
        settled("all alerts are told", untold, 240)
    settled("all alerts are over", left, 420)


def test_that_nobody_hears_is_an_alert_too(lab, master, receiver):
    def raised():
        return [labels for labels in firing(master) if UNHEARD.items() <= labels.items()]

    with deaf_receiver(receiver), stopped(master, "sshgate"):
        be_impatient(master)
        lab.wait_for("it is raised", raised, timeout=120)
    lab.wait_for("it is over", lambda: not raised(), timeout=420)


def test_no_alert_was_left_out(master):
    rules = [rule for group in ask(master, "rules")["groups"] for rule in group["rules"] if rule["type"] == "alerting"]
    expected = [each for faults in FAULTS.values() for _, alerts in faults for each in alerts]
    assert {rule["name"] for rule in rules} == {each["alertname"] for each in (*expected, UNHEARD)}

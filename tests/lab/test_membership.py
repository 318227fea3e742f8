"""Machines join by one command and leave without a trace; who is not expected does not get in."""

import json

import pytest

from tests.lab.conftest import parse
from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings, site
from tests.lab.harness.shell import wait_for
from tests.lab.prometheus import ask


def fingerprint(node):
    """What may not change on a machine while another one joins: its files, and since when its daemons run."""
    files = node.run(
        ["sh", "-c", "find /etc /usr/local /opt/qhub/salt/ /var/lib/extrausers -xdev -type f ! -name '*.pyc'"
         " -print0 | sort -z | xargs -0 sha256sum"], timeout=300,
    ).stdout  # fmt: skip
    daemons = node.run(
        [
            "systemctl",
            "show",
            "slurmd",
            "salt-minion",
            "prometheus-node-exporter",
            "ssh",
            "-p",
            "Id,ExecMainStartTimestamp",
        ]
    ).stdout
    return files, daemons


@pytest.fixture
def w3(lab):
    """A bare third machine that the pillar names, switched on."""
    with lab.pillar(nodes=lambda _: site.nodes((*settings.NODES, "w3"))):
        node = the_lab.boot("w3")
        yield node
        lab.orchestrate("orch.remove", check=False, node="w3")
        node.destroy()


def scraped(master):
    """The nodes that Prometheus asks, and whether they answer: ``{name: "up", ...}``."""
    targets = ask(master, "targets?state=active&scrapePool=node")["activeTargets"]
    return {target["labels"]["instance"]: target["health"] for target in targets}


def test_a_greeting_in_roots_shell_is_reported(lab, master):
    worker = lab.node("w2")
    worker.run(["sed", "-i", "1i echo WELCOME to w2", "/root/.bashrc"])
    try:
        refused = master.run(["salt-ssh", "w2", "state.apply", "bootstrap.minion"], check=False)
    finally:
        worker.run(["sed", "-i", "/^echo WELCOME to w2$/d", "/root/.bashrc"])
    assert refused.returncode
    assert "w2: root's shell prints 'WELCOME to w2'" in refused.stdout + refused.stderr
    assert "Succeeded" not in refused.stdout
    assert "True" in master.run(["salt-ssh", "w2", "test.ping"]).stdout


def test_a_third_machine_joins_and_leaves(lab, master, w3):
    before = [fingerprint(worker) for worker in lab.workers]
    running = ["systemctl", "show", "prometheus", "-p", "ExecMainStartTimestamp"]
    prometheus = master.run(running).stdout

    the_lab.add(master, w3)  # one salt-ssh command, then it is only waited
    interval = 15
    wait_for("w3 is scraped", lambda: scraped(master).get("w3") == "up", timeout=interval + 5)
    job, output = lab.job("ada", "--nodelist=w3", "hostname")
    assert output.split() == ["w3"]
    assert [fingerprint(worker) for worker in lab.workers] == before
    assert lab.node("w1").run(["getent", "hosts", "w3"]).stdout

    refused = lab.orchestrate("orch.remove", check=False, node="w4")
    assert refused.returncode
    assert "w4 is not a worker of this cluster; there are: w1, w2, w3" in refused.stdout + refused.stderr

    lab.orchestrate("orch.remove", node="w3")
    assert [fingerprint(worker) for worker in lab.workers] == before
    assert "w3" not in master.run(["sinfo", "-h", "-N", "-o", "%N"]).stdout.split()
    assert "w3" not in master.run(["salt-key", "--list=all", "--out=json"]).stdout
    assert "w3" not in master.run(["cat", "/etc/qhub/members.hosts"]).stdout
    wait_for("w3 is scraped no more", lambda: "w3" not in scraped(master), timeout=interval + 5)
    assert master.run(running).stdout == prometheus, "it was not restarted"
    left_over = master.run(["find", "/etc/salt/pki", "-name", "w3*"]).stdout
    assert left_over == ""
    assert w3.run(["systemctl", "is-active", "slurmd"], check=False).stdout.strip() == "inactive"
    assert w3.run(["test", "-e", "/etc/slurm/slurm.key"], check=False).returncode
    wait_for("w3's minion stops", lambda: w3.run(["systemctl", "is-active", "salt-minion"], check=False).returncode)
    rows = master.run(["sacct", "-X", "-n", "-P", "-j", job, "-o", "NodeList,State"]).stdout.strip()
    assert rows == "w3|COMPLETED", "what it did is remembered"


def test_a_removed_machine_waits_for_its_jobs(lab, master, w3):
    the_lab.add(master, w3)
    job = lab.as_user(
        "ada", ["sbatch", "--parsable", "-w", "w3", "--chdir=/tmp", "--wrap=sleep 6; true"]
    ).stdout.strip()
    wait_for("the job runs", lambda: master.run(["squeue", "-h", "-j", job, "-o", "%T"]).stdout.strip() == "RUNNING")
    impatient = lab.orchestrate("orch.remove", check=False, node="w3", timeout=1)
    assert impatient.returncode
    assert f"still runs the jobs {job}" in impatient.stdout
    assert "w3" in master.run(["sinfo", "-h", "-N", "-o", "%N"]).stdout.split()
    lab.orchestrate("orch.remove", node="w3")
    wait_for("the job is accounted", lambda: lab.state(job) == "COMPLETED")


def salt_cloud(master, name):
    """Bring a node in by salt-cloud where that has to fail; return what it said."""
    result = master.run(["salt-cloud", "-p", "worker", name], check=False)
    assert result.returncode
    return result.stdout + result.stderr


def test_a_reimaged_machine_rejoins_by_the_same_command_of_salt_cloud(lab, master, w3):
    since = master.run(["date", "+%F %T"]).stdout.strip()
    accepted = "/etc/salt/pki/master/minions"
    assert "w4 is no worker that the pillar names (nodes.sls); there are: w1, w2, w3" in salt_cloud(master, "w4")
    master.run(["ssh-keygen", "-R", w3.address], check=False)
    assert f"refused: the host key of {w3.address}" in salt_cloud(master, "w3")
    assert master.run(["ls", accepted]).stdout.split() == ["master", "w1", "w2"]

    the_lab.add(master, w3, by=the_lab.SALT_CLOUD)
    assert w3.run(["stat", "-c", "%a", "/etc/salt/pki/minion/minion.pem"]).stdout.strip() == "400"
    assert w3.run(["find", "/tmp", "-name", "minion.pem"]).stdout == ""
    key = master.read(f"{accepted}/w3")

    w3.destroy()
    bare = the_lab.boot("w3")
    assert f"refused: the host key of {w3.address}" in salt_cloud(master, "w3"), "another machine could answer there"
    the_lab.add(master, bare, by=the_lab.SALT_CLOUD)
    assert lab.job("ada", "--nodelist=w3", "hostname")[1].split() == ["w3"]
    assert master.read(f"{accepted}/w3") == key
    journal = master.run(["journalctl", "-q", "-o", "cat", "--since", since]).stdout
    assert "PRIVATE KEY" not in journal


@pytest.fixture
def impatient(master):
    """A master that gives a worker up within seconds. What is shortened is patience."""

    def patience(slurm, salt):
        master.run(["sed", "-i", f"s/^SlurmdTimeout=.*/SlurmdTimeout={slurm}/", "/etc/slurm/slurm.conf"])
        master.run(["sed", "-i", f"s/dead_after: .*/dead_after: {salt}/", "/etc/salt/master.d/qhub.conf"])
        master.run(["scontrol", "reconfigure"])
        master.run(["systemctl", "restart", "salt-master"])

    def answers():
        return master.run(["salt", "--out=txt", "--timeout=5", "*", "test.ping"], check=False).stdout.count("True")

    before = [master.read(path) for path in ("/etc/slurm/slurm.conf", "/etc/salt/master.d/qhub.conf")]
    patience(10, 1)
    yield
    patience(300, 3600)
    assert before == [master.read(path) for path in ("/etc/slurm/slurm.conf", "/etc/salt/master.d/qhub.conf")]
    wait_for("all minions answer", lambda: answers() == len(settings.NODES), timeout=90)


def test_a_dead_worker_is_drained_and_told_and_serves_again_when_it_is_back(lab, master, impatient):
    def w2():
        return master.run(["sinfo", "-h", "-N", "-n", "w2", "-o", "%T|%E"]).stdout.splitlines()[0]

    events = "/tmp/events"
    listen = f"timeout 300 salt-run --log-level=quiet state.event tagmatch='qhub/node/*/dead' count=1 >{events} 2>&1"
    master.run(["sh", "-c", f"setsid sh -c {json.dumps(listen)} </dev/null >/dev/null 2>&1 &"])
    machine = lab.node("w2")
    machine.stop(hard=True)
    try:
        wait_for("w2 is drained", lambda: w2().startswith("drained*|dead since 2"), timeout=90)
        assert w2().endswith(": does not answer (found by the cluster's master)")
        wait_for("it is told", lambda: "qhub/node/w2/dead" in master.read(events), timeout=10)
        assert "w2" in master.run(["salt-key", "--list=accepted"]).stdout.split(), "nothing is deleted"
    finally:
        the_lab.boot("w2")
    wait_for("w2 serves again", lambda: w2().startswith("idle|"), timeout=120)
    assert lab.job("ada", "--nodelist=w2", "hostname")[1].split() == ["w2"]
    master.run(["rm", events])


def test_a_worker_that_claims_to_be_the_master_gets_nothing(lab, master):
    worker = lab.node("w1")
    own = worker.read("/etc/salt/minion.d/qhub.conf")
    worker.write("/etc/salt/minion.d/zz-claim.conf", "grains: {roles: [master]}\n")
    try:
        out = worker.run(["salt-call", "--out=json", "--log-level=quiet", "pillar.items", "unmask=True"]).stdout
        seen = json.loads(out[out.index("{") :])["local"]
        assert set(seen) <= {
            "cluster",
            "artifacts",
            "nodes",
            "partitions",
            "roles",
            "secrets",
            "base",
            "nfs",
            "slurm",
            "highstate_token",
        }
        assert seen["roles"] == ["worker"]
        assert set(seen["secrets"]) == {"slurm_key"}
        refused = worker.run(["salt-call", "--retcode-passthrough", "--log-level=quiet", "state.apply"], check=False)
        assert refused.returncode
        assert "claims the roles" in refused.stdout
        assert worker.run(["test", "-e", "/etc/salt/master.d"], check=False).returncode
    finally:
        worker.run(["rm", "/etc/salt/minion.d/zz-claim.conf"])
        worker.run(["systemctl", "restart", "salt-minion"])  # it may have read the claim
        lab.wait_for(
            "w1 answers", lambda: "True" in master.run(["salt", "--out=txt", "w1", "test.ping"], check=False).stdout
        )
    assert worker.read("/etc/salt/minion.d/qhub.conf") == own


def test_many_start_events_lead_to_few_runs(lab, master):
    """Anyone with a key can send such events; what they say is not used, and they cost no run each."""
    since = master.run(["date", "+%F %T"]).stdout.strip()
    master.run(["touch", "/var/cache/salt/master/joining/w1"])  # as the bootstrap does
    send = (
        'for n in 1 2 3 4 5 6 7 8; do salt-run --log-level=quiet event.send salt/minion/x$n/start \'{"id": "*"}\'; done'
    )
    master.run(["sh", "-c", send], timeout=120)
    wait_for("w1 is in service", lambda: the_lab.in_service(master, "w1"), timeout=120)

    def runs():
        journal = master.run(["journalctl", "-q", "-o", "cat", "-u", "salt-master", "--since", since]).stdout
        return journal.count("Joining: w1")

    assert 1 <= runs() <= 3


def test_an_accepted_key_that_nobody_named_is_refused_and_logged(lab, master):
    since = master.run(["date", "+%F %T"]).stdout.strip()
    keys = "/etc/salt/pki/master/minions"
    master.run(["cp", f"{keys}/w1", f"{keys}/ghost"])
    try:
        lab.node("w1").run(["systemctl", "restart", "salt-minion"])
        words = ["journalctl", "-q", "-o", "cat", "-u", "salt-master", "--since", since]
        wait_for("the refusal is logged", lambda: "the key of ghost is accepted, but" in master.run(words).stdout)
        pillar = master.run(["salt-run", "--out=json", "pillar.show_pillar", "ghost"]).stdout
        assert parse(pillar) == {}
    finally:
        master.run(["rm", f"{keys}/ghost"])


def test_files_of_the_master_are_not_served(lab):
    worker = lab.node("w1")
    out = worker.run(["salt-call", "--out=json", "--log-level=quiet", "cp.list_master"]).stdout
    served = json.loads(out[out.index("{") :])["local"]
    assert any(path == "top.sls" for path in served)
    assert [path for path in served if path.startswith("pillar/") or "secrets/" in path or ".git" in path] == []


def test_a_minion_with_an_unknown_key_is_not_accepted(lab, master):
    """A machine on the network that nobody named asks to be a minion, under a new id and under a known one."""
    worker = lab.node("w1")
    for name in ("stranger", "w2"):
        directory = f"/tmp/{name}"
        config = {"id": name, "master": settings.ADDRESSES["master"], "root_dir": directory, "pki_dir": "/pki",
                  "encryption_algorithm": "OAEP-SHA224", "signing_algorithm": "PKCS1v15-SHA224"}  # fmt: skip
        worker.write(f"{directory}/minion", json.dumps(config))
        answer = worker.run(
            [
                "timeout",
                "15",
                "/opt/qhub/salt/bin/salt-call",
                f"--config-dir={directory}",
                "--log-level=quiet",
                "test.ping",
            ],
            check=False,
        )
        assert answer.returncode
        worker.run(["rm", "-rf", directory])
    keys = json.loads(master.run(["salt-key", "--list=all", "--out=json"]).stdout)
    assert sorted(keys["minions"]) == ["master", "w1", "w2"]
    assert keys["minions_pre"] == ["stranger"]
    master.run(["salt-key", "--yes", "--quiet", "--delete=stranger"])
    master.run(["rm", "-f", "/etc/salt/pki/master/minions_denied/w2"])
    assert master.run(["salt", "--out=txt", "w2", "test.ping"]).stdout.strip() == "w2: True"

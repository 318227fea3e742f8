"""The exporters: what they tell after a job has run, whom they tell it, and how little of it Slurm notices."""

import json
import re
import socket
import time
import urllib.parse

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.harness import settings
from tests.lab.harness.shell import wait_for

UNITS = {
    "slurm-exporter": 9341,
    "prometheus-mysqld-exporter": 9104,
    "prometheus-postgres-exporter": 9187,
    "prometheus-redis-exporter": 9121,
    "prometheus-blackbox-exporter": 9115,
}
MASTER = settings.ADDRESSES["master"]
NAME = "master.cluster.internal"
FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=20).read().decode())"
BURST = """
import concurrent.futures, sys, urllib.request
with concurrent.futures.ThreadPoolExecutor(25) as pool:
    list(pool.map(lambda _: urllib.request.urlopen(sys.argv[1], timeout=20).read(), range(50)))
"""
EVERY = 10  # seconds between two looks at Slurm, and between two of Prometheus's at what was seen


def fetched(master, url):
    """Return what a page on the master's loopback has."""
    return master.run(["python3", "-c", FETCH, f"http://127.0.0.1:{url}"]).stdout


def metrics(master, page):
    """Return ``{(name, (label, value), ...): number}`` of a page of metrics."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(fetched(master, page))
        for sample in family.samples
    }


def slurm(master):
    """Return the metrics of Slurm."""
    return metrics(master, "9341/metrics")


def query(master, expression):
    """Return what Prometheus answers: a list of ``(labels, number)``."""
    answer = fetched(master, f"9090/api/v1/query?query={urllib.parse.quote(expression)}")
    return [(row["metric"], float(row["value"][1])) for row in json.loads(answer)["data"]["result"]]


@pytest.fixture(scope="module", autouse=True)
def often(lab):
    """Let Slurm be looked at more often than it is."""
    try:
        with lab.pillar(monitoring=lambda monitoring: monitoring | {"slurm_exporter": {"interval": EVERY}}):
            lab.apply("master", ["slurm_exporter"])
            yield
    finally:
        lab.apply("master", ["slurm_exporter"])


def test_slurm_tells_of_a_job_that_waits_runs_and_ends(lab, master):
    before = wait_for("Slurm answers", lambda: (seen := slurm(master))[("slurm_up",)] and seen, timeout=60)
    submit = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", "--mem=10", "--partition=main"]
    array = lab.as_user("ada", [*submit, "--hold", "--array=1-20:2", "--wrap=true"]).stdout.strip()
    running = lab.as_user("ada", [*submit, "--nodelist=w1", "--wrap=sleep 600"]).stdout.strip()
    started = ("slurm_job_wait_seconds_count", ("partition", "main"))
    try:
        state = ("partition", "main"), ("state", "running")
        seen = wait_for(
            "it runs",
            lambda: (now := slurm(master))[("slurm_jobs", *state)] > before[("slurm_jobs", *state)] and now,
            timeout=60,
        )
        assert seen["slurm_account_cpus", ("account", "physics"), ("state", "running")] >= 1
        assert seen["slurm_user_jobs", ("state", "running"), ("user", "ada")] >= 1
        assert seen["slurm_user_jobs", ("state", "pending"), ("user", "ada")] >= 10
        assert seen["slurm_user_memory_bytes", ("state", "pending"), ("user", "ada")] >= 100 << 20
        assert seen["slurm_pending_jobs", ("partition", "main"), ("reason", "JobHeldUser")] >= 10
        assert seen["slurm_partition_cpus", ("partition", "main"), ("state", "allocated")] >= 1
        assert seen["slurm_nodes", ("state", "mixed")] + seen["slurm_nodes", ("state", "allocated")] >= 1
        assert seen[started] > before.get(started, 0)
        assert seen[("slurm_gpus_total",)] == 0
        assert seen[("slurm_dbd_agent_queue_size",)] >= 0
        assert {dict(key[1:])["node"] for key in seen if key[0] == "slurm_node_info"} == {"w1", "w2"}
        assert seen["slurm_rpc_total", ("type", "REQUEST_JOB_INFO")] > 0
    finally:
        lab.as_user("ada", ["scancel", running, array])
    ended = ("slurm_jobs_ended_total", ("partition", "main"), ("state", "cancelled"))
    # The tasks of an array that have not started are one record.
    wait_for("it is over", lambda: slurm(master).get(ended, 0) >= before.get(ended, 0) + 2, timeout=60)
    wait_for("Prometheus has it", lambda: query(master, "slurm_jobs_ended_total > 0"), timeout=3 * EVERY)


def test_a_drained_node_tells_why(master):
    reason = 'bad "disk" | \\ ünïcode'
    key = "slurm_node_reason_info", ("node", "w2"), ("reason", reason)
    master.run(["scontrol", "update", "nodename=w2", "state=drain", f"reason={reason}"])
    try:
        seen = wait_for("it is told", lambda: key in (now := slurm(master)) and now, timeout=60)
        assert any(name == "slurm_node_info" and "drain" in dict(rest)["flags"] for name, *rest in seen)
    finally:
        master.run(["scontrol", "update", "nodename=w2", "state=resume"])


def test_the_databases_are_told_of(master):
    mariadb, postgresql, redis = (metrics(master, f"{port}/metrics") for port in (9104, 9187, 9121))
    assert mariadb[("mysql_up",)] == postgresql[("pg_up",)] == redis[("redis_up",)] == 1
    assert mariadb[("mysql_global_status_uptime",)] > 0
    assert any(name.startswith("mysql_info_schema_innodb_metrics_") for name, *_ in mariadb)
    databases = {dict(key[1:])["datname"] for key in postgresql if key[0] == "pg_database_size_bytes"}
    assert databases >= {"keycloak", "jupyterhub"}
    assert redis[("redis_uptime_in_seconds",)] > 0
    for name, told in (("mysqld", mariadb), ("postgres", postgresql), ("redis", redis)):
        errors = {key for key, value in told.items() if key[0].endswith("_collector_success") and not value}
        assert not errors, f"{name}: {errors}"


def test_an_exporter_may_look_and_nothing_else(master):
    told = master.run(
        ["runuser", "-u", "mysqld-exporter", "--", "mariadb", "--execute=SELECT * FROM slurm_acct_db.user_table"],
        check=False,
    )
    assert "denied" in told.stderr
    for database, statement in (("keycloak", "SELECT 1"), ("postgres", "CREATE TABLE x (y int)")):
        words = ["psql", f"--dbname={database}", f"--command={statement}"]
        told = master.run(["runuser", "-u", "postgres-exporter", "--", *words], check=False)
        assert "denied" in told.stderr, database


@pytest.mark.parametrize("unit", UNITS)
def test_it_runs_with_next_to_no_rights(master, unit):
    user = master.run(["systemctl", "show", "-P", "User", unit]).stdout.strip()
    assert user == unit.removeprefix("prometheus-")
    told = master.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
    assert float(re.search(r"exposure level for \S+: ([\d.]+)", told)[1]) < 2.5


def test_nobody_else_is_told(lab, master):
    listening = [line.split()[3] for line in master.run(["ss", "-Hltn"]).stdout.splitlines()]
    ask = "import socket, sys; print(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))))"
    for port in UNITS.values():
        assert [each for each in listening if each.endswith(f":{port}")] == [f"127.0.0.1:{port}"]
        assert lab.node("w1").run(["python3", "-c", ask, MASTER, port]).stdout.strip() != "0"
        with socket.socket() as stranger:  # in the network, and no member
            stranger.settimeout(5)
            assert stranger.connect_ex((MASTER, port))


def test_a_burst_of_scrapes_is_three_commands(master):
    uid = master.run(["id", "-u", "slurm-exporter"]).stdout.strip()

    def calls():
        """What slurmctld itself says of how often it was asked."""
        return int(re.search(rf"\(\s*{uid}\) count:(\d+)", master.run(["sdiag"]).stdout)[1])

    def commands():
        return sum(value for key, value in slurm(master).items() if key[0] == "slurm_exporter_commands_total")

    def after_a_look():
        before = commands()
        wait_for("Slurm is looked at", lambda: commands() > before, timeout=45)
        return commands(), calls(), time.monotonic()

    (_, before, _), (done, asked, start) = after_a_look(), after_a_look()
    master.run(["python3", "-c", BURST, "http://127.0.0.1:9341/metrics"])
    looks = (time.monotonic() - start) // EVERY + 1
    assert commands() - done <= 3 * looks
    assert calls() - asked <= (asked - before) * looks


def test_without_slurmctld_nothing_old_is_told(master):
    wait_for("Slurm answers", lambda: slurm(master)[("slurm_up",)], timeout=60)
    master.run(["systemctl", "stop", "slurmctld"])
    try:
        seen = wait_for("it is noticed", lambda: not (now := slurm(master))[("slurm_up",)] and now, timeout=60)
    finally:
        master.run(["systemctl", "start", "slurmctld"])
    slurms = {key[0] for key in seen if key[0].startswith("slurm_") and not key[0].startswith("slurm_exporter_")}
    assert slurms == {"slurm_up"}
    wait_for("Slurm is back", lambda: slurm(master)[("slurm_up",)], timeout=60)
    wait_for("nodes are back", lambda: slurm(master).get(("slurm_nodes", ("state", "idle"))) == 2, timeout=90)


def test_pages_and_ports_are_looked_at_from_outside(master):
    expected = {
        *(f"https://{NAME}{page}" for page in ("/", "/monitoring/", "/gateway/api/health", "/conda-store/api/v1/")),
        f"https://{NAME}/auth/realms/qhub/.well-known/openid-configuration",
        *(f"{NAME}:{port}" for port in (443, 8022, 8786)),
        *(f"{MASTER}:{port}" for port in (6817, 6819)),
    }

    def succeeded():
        return {labels["instance"] for labels, value in query(master, "probe_success") if value}

    wait_for("all are well", lambda: succeeded() == expected, timeout=120)
    expiry = {labels["instance"]: value for labels, value in query(master, "probe_ssl_earliest_cert_expiry - time()")}
    assert set(expiry) == {each for each in expected if each.startswith("https") or each.endswith(":443")}
    assert min(expiry.values()) > 86400


def test_a_certificate_that_is_not_for_the_name_is_no_success(master):
    for module, target in (("http", "https://localhost/"), ("tls", "localhost:443")):
        seen = metrics(master, f"9115/probe?module={module}&target={urllib.parse.quote(target, safe='')}")
        assert seen[("probe_success",)] == 0, module

"""Dask clusters: from a notebook, and from a machine that only the front door knows."""

import pytest

from tests.lab.browser import signed_in
from tests.lab.dask import GATEWAY, answer, client, go_on, jobs, said
from tests.lab.hub import choose, lab_is_there, new_notebook, run_cell

IDLE = 20  # seconds
SUM = "da.ones((2000, 2000), chunks=(500, 500)).sum().compute()"


def memory(lab):
    """Return how many MiB each node has for jobs."""
    return int(lab.master.run(["sinfo", "--noheader", "--partition=main", "--format=%m"]).stdout.strip().rstrip("+"))


@pytest.fixture(scope="module")
def gateway(lab, hub):
    """Dask-Gateway, where clusters are idle soon; no cluster is left at the end."""
    most = {"clusters": 2, "workers": 1, "cpus": 1, "memory": 100}
    group = {"workers": 3, "cpus": 3, "memory": memory(lab) + 200}

    def cluster(pillar):
        limits = {"limits": most, "group_limits": {"physics": group}}
        return pillar | {"dask_gateway": {"idle_timeout": IDLE, "heartbeat": 3, "worker": {"memory": 500}, **limits}}

    with lab.pillar(cluster=cluster):
        lab.apply("master", ["dask_gateway"])
        yield hub
    lab.apply("master", ["dask_gateway"])
    lab.master.run(["scancel", "--name=dask"])
    lab.wait_for("no job is left", lambda: not jobs(lab))


def ask(hub, method, path, token, body=None):
    """Ask the gateway's API, as somebody who is new to it: it remembers people by a cookie too."""
    hub.session.cookies.clear()
    return hub.ask(method, f"api/v1/{path}", body, base="/gateway/", kind="jupyterhub", token=token, check=False)


def test_a_cluster_from_a_notebook(lab, gateway, browser):
    with signed_in(lab, browser, "marie") as shown:
        choose(shown, account="physics")
        lab_is_there(shown)
        new_notebook(shown, kernel="dask (global)")
        run_cell(shown, "import dask.array as da; from dask_gateway import Gateway; print('ready')")
        start = "cluster = Gateway().new_cluster(account='physics'); cluster.scale(2); client = cluster.get_client()"
        assert run_cell(shown, f"{start}; client.wait_for_workers(2, timeout=60); print('ready')") == "ready"
        assert run_cell(shown, f"print({SUM})") == "4000000.0"
        found = jobs(lab)
        assert len(found) == 3
        assert {job["account"] for job in found.values()} == {"physics"}
        link = run_cell(shown, "print(cluster.dashboard_link)")
        assert link.startswith(f"{GATEWAY}clusters/")
        board = shown.context.new_page()
        board.goto(link)
        board.wait_for_function("document.title == 'Dask: Status'")
        board.locator("canvas").first.wait_for()
        gateway.stop_server("marie")
    lab.wait_for("the cluster that nobody uses has ended", lambda: not jobs(lab), timeout=IDLE + 60)
    rows = lab.master.run(["sacct", "-XnP", "-j", ",".join(found), "-o", "User,Account,JobName,Comment"]).stdout
    names = [row.rsplit("|", 1) for row in rows.splitlines()]
    assert {name for name, _ in names} == {"marie|physics|dask"}
    assert sorted(comment.split(" of ")[0] for _, comment in names) == ["Dask scheduler", "Dask worker", "Dask worker"]


def test_a_cluster_from_outside_grows_shrinks_and_outlives_the_gateway(lab, gateway, laptop):
    # Of a node's memory, so that each worker is on one of its own.
    half = memory(lab) // 2 + 100
    script = f"""
cluster = gateway.new_cluster(account="physics", memory={half})
cluster.scale(2)
client = cluster.get_client()
say(workers(client, 2), {SUM})
cluster.scale(1)
say(workers(client, 1), {SUM})
sys.stdin.readline()
say({SUM})
sys.stdin.readline()
cluster.scale(2)
say(workers(client, 2), {SUM})
cluster.shutdown()
say("gone")
"""
    with client(laptop, gateway.token("marie"), script) as process:
        assert said(process) == [["w1", "w2"], 4000000.0]
        hosts, total = said(process)
        assert (len(hosts), total) == (1, 4000000.0)
        lab.master.run(["systemctl", "kill", "--signal=KILL", "dask-gateway"])
        go_on(process)
        assert said(process) == [4000000.0], "what there is goes on without the gateway"
        lab.wait_for("the gateway is back", lambda: lab.master.run(HEALTH, check=False).returncode == 0)
        go_on(process)
        assert said(process) == [["w1", "w2"], 4000000.0]
        assert said(process) == ["gone"]
    lab.wait_for("no job is left", lambda: not jobs(lab))


HEALTH = ["python3", "-c", f"import urllib.request; urllib.request.urlopen('{GATEWAY}api/health')"]


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"account": "biology"}, "'biology' is not a valid option for account"),
        ({"partition": "nowhere"}, "'nowhere' is not a valid option for partition"),
        ({"memory": 10**8}, f"{10**8} MiB of memory is too much: all workers of a cluster together get "),
        ({"cpus": 4}, "4 CPUs is too much: all workers of a cluster together get 3."),
        ({"time": 25}, "25 h of time is too much: physics may use main for 24 h."),
        ({"gpus": 1}, "1 GPUs is too much: physics gets 0 at most in main."),
        ({"environment": "/tmp/evil"}, "is not a valid option for environment"),
        ({"worker_cmd": "id"}, "Unknown fields ['worker_cmd']"),
    ],
)
def test_what_somebody_may_not_have_is_refused_in_words(lab, gateway, chosen, told):
    before = set(jobs(lab))
    body = {"cluster_options": {"account": "physics", **chosen}}
    response = ask(gateway, "POST", "clusters/", gateway.token("marie"), body)
    assert (response.status_code, told in response.json()["error"]) == (422, True), response.text
    assert set(jobs(lab)) <= before


def test_who_is_refused_altogether(gateway):
    assert ask(gateway, "GET", "options", gateway.token("marie")).ok
    assert ask(gateway, "GET", "options", "0123456789abcdef").status_code == 401
    little = gateway.token("marie", scopes=["read:users!user=marie"])
    assert ask(gateway, "GET", "options", little).status_code == 401
    nothing = ask(gateway, "GET", "options", gateway.token("guest"))
    assert (nothing.status_code, "no account" in nothing.json()["error"]) == (403, True)


def test_limits_of_clusters_workers_cpus_and_memory(lab, gateway, laptop):
    script = f"""
def told(number, **options):
    cluster = gateway.new_cluster(account="physics", **options)
    with warnings.catch_warnings(record=True) as caught:
        cluster.scale(number)
    cluster.shutdown()
    return str(caught[0].message)
clusters = [gateway.new_cluster(account="physics") for _ in range(2)]
try:
    gateway.submit(account="physics")
except ValueError as error:
    refused = str(error)
for cluster in clusters:
    cluster.shutdown()
say(refused, told(4), told(2, cpus=2), told(2, memory={memory(lab)}))
"""
    clusters, workers, cpus, most = answer(laptop, gateway.token("marie"), script)
    assert "You have 2 clusters, which is as many as you may have." in clusters
    assert "would exceed resource limit of 3 workers" in workers
    assert "would exceed resource limit of 1 workers" in cpus, "each with 2 CPUs, of 3"
    assert "would exceed resource limit of 1 workers" in most, "each with all memory of a node"
    lab.wait_for("no job is left", lambda: not jobs(lab))


def test_another_s_cluster_is_not_to_be_had(lab, gateway, laptop):
    script = """
cluster = gateway.new_cluster(account="physics")
say(cluster.name)
sys.stdin.readline()
cluster.shutdown()
"""

    def asked(method, name):
        return ask(gateway, method, path, gateway.token(name)).status_code

    with client(laptop, gateway.token("marie"), script) as process:
        path = f"clusters/{said(process)[0]}"
        assert [asked("GET", "guest"), asked("DELETE", "guest"), asked("GET", "marie")] == [403, 403, 200]
        job = next(iter(jobs(lab)))
        lines = lab.master.run(["scontrol", "write", "batch_script", job, "-"]).stdout
        assert "PRIVATE KEY" not in lines
        process.communicate("\n", timeout=60)
    lab.wait_for("no job is left", lambda: not jobs(lab))


def test_the_services_are_shut_in(lab):
    for unit in ("dask-gateway", "dask-gateway-proxy"):
        lab.master.run(["systemd-analyze", "security", "--threshold=20", unit])
    listening = lab.master.run(["ss", "-Hltn", "sport >= :8010 and sport <= :8012"]).stdout.splitlines()
    assert {line.split()[3] for line in listening} == {f"127.0.0.1:{port}" for port in (8010, 8011, 8012)}

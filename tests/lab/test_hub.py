"""The Hub behind the pages: what its API and root's helper program do and refuse, and what it looks after by itself."""

import json
import time

import pytest

from tests.lab.browser import PEOPLE
from tests.lab.harness.shell import wait_for

SOCKET = "/run/qhub-jobs.sock"
ROUTES = "/etc/traefik/dynamic/jupyterhub-servers.yml"
KERNELS = "/opt/qhub/shared/share/jupyter/kernels"


@pytest.fixture(scope="module")
def marie(hub):
    """The number of the job that is Marie's server."""
    yield hub.start_server("marie", account="physics", memory=500, time=0.5)
    hub.stop_server("marie")


def sh(hub, script):
    return hub.master.run(["sh", "-c", script]).stdout


# -- a server ----------------------------------------------------------------------------------------


def test_a_job_has_what_was_asked_for(hub, marie):
    job = hub.jobs()["marie"]
    wanted = {"id": marie, "account": "physics", "partition": "main", "memory": "500M", "cpus": "1", "time": "30:00"}
    assert {key: job[key] for key in wanted} == wanted
    assert sh(hub, "stat -c %a:%U:%G /home/marie/.jupyterhub.log").strip() == "660:marie:marie"


def test_nobody_else_s_token_reaches_it(hub, marie):
    def asked(token):
        return hub.ask("GET", "api/contents", token=token, base="/user/marie/", check=False).status_code

    assert [asked(hub.token("marie")), asked(hub.token("guest")), asked(None)] == [200, 403, 403]


def test_a_kernel_for_everybody_appears_by_itself(hub, marie):
    def offered():
        answer = hub.ask("GET", "api/kernelspecs", token=hub.token("marie"), base="/user/marie/").json()
        return set(answer["kernelspecs"])

    before = offered()
    specification = {"argv": ["true", "{connection_file}"], "display_name": "Analysis", "language": "python"}
    hub.master.write(f"{KERNELS}/analysis/kernel.json", json.dumps(specification))
    try:
        assert offered() - before == {"analysis"}
    finally:
        hub.master.run(["rm", "-r", f"{KERNELS}/analysis"])


def test_a_server_reports_port_and_certificate_while_it_starts_and_nothing_else(lab, hub, marie):
    worker = lab.node(hub.jobs()["marie"]["host"])
    rows = [row.split() for row in worker.run(["scontrol", "listpids", marie]).stdout.splitlines()]
    process = next(row[0] for row in rows if row[2] == "batch")
    variables = dict(word.split("=", 1) for word in worker.read(f"/proc/{process}/environ").split("\0") if "=" in word)
    token = variables["JUPYTERHUB_API_TOKEN"]
    assert hub.ask("POST", "batchspawner", {"ip": "127.0.0.1"}, token=token, check=False).status_code == 404
    report = {"port": 63001, "certificate": route(hub, "marie")["transport"]["rootCAs"][0]}
    assert hub.ask("POST", "notebook", report, token=token, check=False).status_code == 403
    assert hub.ask("POST", "notebook", report, token=hub.token("ada"), check=False).status_code == 403


def test_each_start_has_its_own_certificate_and_the_front_door_accepts_only_that(hub, marie):
    first = route(hub, "marie")
    assert first["url"].startswith("https://")
    assert first["transport"]["serverName"] == "notebook.internal"
    hub.stop_server("marie")
    hub.start_server("marie", account="physics", memory=500, time=0.5)
    assert route(hub, "marie")["transport"]["rootCAs"] != first["transport"]["rootCAs"]
    assert hub.ask("GET", "api", base="/user/marie/", token=None).json().keys() == {"version"}


def route(hub, name):
    """Return the address to which the front door sends requests for somebody's server, and how it connects there."""
    routes = json.loads(hub.master.read(ROUTES).partition("\n")[2])["http"]
    router = next(router for router in routes["routers"].values() if f"/user/{name}/" in router["rule"])
    balancer = routes["services"][router["service"]]["loadBalancer"]
    return {
        "url": balancer["servers"][0]["url"],
        "transport": routes["serversTransports"][balancer["serversTransport"]],
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"account": "physics\n#SBATCH --uid=0"}, "is not yours to use"),
        ({"cpus": "2; id"}, "is no number"),
        ({"nodelist": "master"}, "There is nothing called nodelist to choose."),
    ],
)
def test_what_no_form_has_is_refused_too(hub, asked, said):
    answer = hub.request_server("ada", check=False, **asked)
    assert (answer.status_code, said in answer.json()["message"]) == (403, True), answer.text
    assert "ada" not in hub.jobs()


def test_a_start_without_a_choice_does_not_fail_for_an_earlier_one(hub):
    assert hub.request_server("ada", check=False, profile="gone").status_code == 403
    hub.request_server("ada")
    job = wait_for("there is a job", lambda: hub.jobs().get("ada"))
    assert job["account"] == "physics"
    hub.stop_server("ada")


# -- rights ------------------------------------------------------------------------------------------


def test_the_hub_has_no_rights_but_to_listen_on_its_port(hub):
    pid = sh(hub, "systemctl show --property=MainPID --value jupyterhub").strip()
    status = dict(line.split(":\t") for line in hub.master.read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    assert status["Uid"].split()[0] == sh(hub, "id -u jupyterhub").strip()
    assert (int(status["CapBnd"], 16), status["NoNewPrivs"]) == (1 << 10, "1")
    assert "jupyterhub" not in sh(hub, "cat /etc/sudoers /etc/sudoers.d/*")


def test_metrics_need_a_token_that_is_good_for_nothing_else(hub):
    assert hub.ask("GET", "metrics", token=None, base="/hub/", check=False).status_code == 403
    secrets = json.loads(hub.master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
    token = secrets["jupyterhub_metrics_token"]
    assert "jupyterhub_running_servers" in hub.ask("GET", "metrics", token=token, base="/hub/").text
    assert hub.ask("GET", "users", token=token, check=False).status_code == 403


def root_program(hub, by="jupyterhub", **request):
    """Ask root's helper program something as somebody; return the answer, or what went wrong."""
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.sendall(sys.argv[2].encode()); s.shutdown(1); print(s.makefile().read())"
    )
    done = hub.master.run(["python3", "-c", script, SOCKET, json.dumps(request)], user=by, check=False)
    return json.loads(done.stdout) if done.stdout else done.stderr


def test_root_s_program_does_little(hub):
    for user in ("root", "slurm", "nobody"):
        answer = root_program(hub, verb="submit", user=user, script="#!/bin/sh\nid\n", environment={})
        assert answer["error"] == f"{user} is not one of the cluster's people"
    assert "no such request" in root_program(hub, verb="shell", user="marie")["error"]
    assert "no such request" in root_program(hub, verb="cancel", job="1 --user=ada")["error"]
    assert "PermissionError" in root_program(hub, by="marie", verb="queue")
    other = hub.lab.as_user("ada", ["sbatch", "--parsable", "--hold", "--chdir=/", "--wrap=true"]).stdout.strip()
    root_program(hub, verb="cancel", job=int(other))
    assert "JobState=PENDING" in sh(hub, f"scontrol show job {other}"), "which is no notebook"
    hub.master.run(["scancel", other])


def test_a_job_has_the_person_s_rights_and_a_clean_environment(hub):
    script = "#!/bin/sh\n#SBATCH --account=physics --output=/home/marie/out --open-mode=truncate\nid -un; umask; env\n"
    environment = {"A": "b", "LD_PRELOAD": "/x", "SBATCH_UID": "0", "PATH": "/x", "B\nC": "1"}
    job = root_program(hub, verb="submit", user="marie", script=script, environment=environment)["job"]
    wait_for("the job has run", lambda: "JobState=COMPLETED" in sh(hub, f"scontrol show job {job}"))
    lines = hub.master.read("/home/marie/out").splitlines()
    assert lines[:2] == ["marie", "0007"]
    assert "A=b" in lines
    assert not [line for line in lines if line.startswith(("LD_PRELOAD", "SBATCH_UID", "PATH=/x", "C=", "B="))]
    hub.master.run(["rm", "/home/marie/out"])


def test_the_front_door_takes_no_other_routes(hub):
    file = "/var/lib/jupyterhub/routes.toml"
    before = hub.master.read(file)

    def put(text):
        hub.master.write("/run/routes", text)
        sh(hub, f"install -o jupyterhub -m 0600 /run/routes {file}.new && mv {file}.new {file}; rm /run/routes")

    people = PEOPLE.removeprefix("https://")
    one = json.dumps(f"-----BEGIN CERTIFICATE-----\n{'A' * 600}\n-----END CERTIFICATE-----\n")
    evil = "".join(
        f'\n[jupyterhub.routes.router_{name}]\nroutespec = "{path}"\ntarget = "{target}"\nservice = "service_{name}"\n'
        f"data = {{certificate = {certificate}}}\n"
        for name, path, target, certificate in (
            ("a", "/auth/", "https://127.0.0.1:9999", one),
            ("b", f"{people}/user/marie/", "https://127.0.0.1:9000", one),
            ("c", f"{people}/user/ada/", "https://example.org:63001", one),
            ("d", f"{people}/user/`) || PathPrefix(`/auth/", "https://master:63001", one),
            ("e", f"{people}/user/ok/", "https://master:63001", one),
            ("f", f"{people}/user/ssh/", "https://master:22", one),
            ("g", f"{people}/user/plain/", "http://master:63001", one),
            ("h", f"{people}/user/none/", "https://master:63001", '""'),
            ("i", f"{people}/user/file/", "https://master:63001", '"/etc/ssl/certs/ca-certificates.crt"'),
            ("j", "/user/origin/", "https://master:63001", one),
            ("k", "master.cluster.internal/user/origin/", "https://master:63001", one),
            ("l", f"{people}/", "http://127.0.0.1:8081", one),
            ("m", f"x`) || Host(`{people}/user/origin/", "https://master:63001", one),
        )
    )
    put(before + evil + "\n[tcp.routers.x]\nrule = 'HostSNI(`*`)'\nservice = 'x'\n")
    try:
        wait_for("the routes are there", lambda: "router_e" in hub.master.read(ROUTES))
        found = json.loads(hub.master.read(ROUTES).partition("\n")[2])
    finally:
        put(before)
    assert set(found) == {"http"}
    assert {name for name in found["http"]["routers"] if len(name) < 10} == {"router_e"}
    wait_for("the routes are gone", lambda: "router_e" not in hub.master.read(ROUTES))


# -- the queue ---------------------------------------------------------------------------------------


def test_servers_that_wait_share_one_look_at_the_queue(hub):
    def asked():
        return int(sh(hub, "systemctl show --property=NAccepted --value qhub-jobs.socket"))

    names = ("", "a", "b")
    with hub.full("highmem"):
        for name in names:
            hub.request_server("ada", name, partition="highmem")
        wait_for("all wait", lambda: {"ada", "ada-a", "ada-b"} <= set(hub.jobs()))
        refused = hub.request_server("ada", "d", check=False)
        assert (refused.status_code, "2" in refused.json()["message"]) == (400, True), "more than named_servers"
        before, begun = asked(), time.monotonic()
        wait_for("some seconds pass", lambda: time.monotonic() - begun > 5)
        seconds = time.monotonic() - begun
        assert asked() - before <= seconds + 3  # one a second; the keeper's, the limits and one already on its way

        hub.master.run(["scancel", hub.jobs()["ada"]["id"]])
        with hub.ask("GET", "users/ada/server/progress", stream=True) as stream:
            events = (json.loads(line[5:]) for line in stream.iter_lines() if line.startswith(b"data:"))
            failed = next(event for event in events if event.get("failed"))
        assert "ended before JupyterLab was ready" in failed["message"]
        assert "~/.jupyterhub.log" in failed["message"]
        for name in names[1:]:
            hub.stop_server("ada", name)


def test_a_notebook_that_is_no_server_s_is_cancelled(hub):
    words = ["--parsable", "--job-name=jupyterhub", "--account=physics", "--chdir=/", "--output=/dev/null"]
    job = hub.lab.as_user("marie", ["sbatch", *words, "--wrap=sleep 600"]).stdout.strip()
    wait_for("it is cancelled", lambda: "JobState=CANCELLED" in sh(hub, f"scontrol show job {job}"))


def metric(hub, name):
    """Return the value of one of the Hub's metrics without labels."""
    secrets = json.loads(hub.master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
    text = hub.ask("GET", "metrics", token=secrets["jupyterhub_metrics_token"], base="/hub/").text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def failed_starts(hub):
    """Return how many starts the Hub counts as errors."""
    secrets = json.loads(hub.master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
    text = hub.ask("GET", "metrics", token=secrets["jupyterhub_metrics_token"], base="/hub/").text
    name = "jupyterhub_server_spawn_duration_seconds_count{"
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith(name) and 'status="error"' in line
    )


def test_servers_that_never_ran_and_refusals_change_no_count(hub):
    running, errors = metric(hub, "jupyterhub_running_servers"), failed_starts(hub)
    with hub.full("highmem"):
        hub.request_server("ada", partition="highmem")
        wait_for("it waits", lambda: "ada" in hub.jobs())
        hub.stop_server("ada")
    for _ in range(2):
        assert hub.request_server("ada", cpus=1_000_000, check=False).status_code == 403
    assert metric(hub, "jupyterhub_running_servers") == running
    assert failed_starts(hub) == errors


# -- nodes that are not equal --------------------------------------------------------------------------


def test_a_larger_node_of_a_partition_can_be_asked_for(hub):
    small = hub.request_server("marie", account="physics", memory=60000, check=False)
    assert small.status_code == 403
    words = ["nodename=big1", "CPUs=16", "RealMemory=64000", "State=CLOUD", "Feature=highmem"]
    hub.master.run(["scontrol", "create", *words])
    try:

        def accepted():
            answer = hub.request_server("marie", account="physics", partition="highmem", cpus=16, check=False)
            assert answer.ok or answer.status_code in (403, 503), answer.text
            return answer.ok

        wait_for("the Hub has read Slurm again", accepted, timeout=90)
        hub.stop_server("marie")
        refused = hub.request_server("marie", account="physics", partition="highmem", cpus=17, check=False)
        assert "gets 16 at most in highmem" in refused.json()["message"]
    finally:
        hub.stop_server("marie")
        hub.master.run(["scontrol", "delete", "nodename=big1"])


# -- people's own files ------------------------------------------------------------------------------


@pytest.fixture
def profile(hub):
    """A function that adds lines to Marie's ~/.profile, which is put back."""
    path = "/home/marie/.profile"
    before = hub.master.read(path)
    yield lambda text: hub.lab.as_user("marie", ["sh", "-c", f"cat > {path}"], input=before + text)
    hub.stop_server("marie")
    hub.lab.as_user("marie", ["sh", "-c", f"rm -rf /home/marie/pylib; cat > {path}"], input=before)


def failed_start(hub, name):
    """Ask for a server and return the message with which its start fails."""
    answer = hub.request_server(name, account="physics", check=False)
    if not answer.ok:
        return answer.json()["message"]
    with hub.ask("GET", f"users/{name}/server/progress", stream=True) as stream:
        events = (json.loads(line[5:]) for line in stream.iter_lines() if line.startswith(b"data:"))
        return next(event for event in events if event.get("failed"))["message"]


def test_a_persons_own_packages_do_not_keep_the_server_from_starting(hub, profile):
    script = "mkdir -p ~/pylib/tornado; echo 'raise ImportError' > ~/pylib/tornado/__init__.py"
    hub.lab.as_user("marie", ["env", "HOME=/home/marie", "sh", "-c", script])
    profile("export PYTHONPATH=$HOME/pylib\n")
    assert hub.start_server("marie", account="physics")


def test_a_profile_that_ends_the_shell_is_named_and_can_be_left_alone(hub, profile):
    profile("exec cat\n")
    message = failed_start(hub, "marie")
    assert "of your file ~/.profile ends the shell that starts JupyterLab: exec cat" in message
    assert "Start without my own Python files and profile" in message
    hub.stop_server("marie")
    assert hub.start_server("marie", account="physics", without_own_files=True)


# -- settings ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def changed(lab, hub):
    """The states that changed something when a site had settings of its own, which it has until the end."""

    def cluster(pillar):
        physics = {"title": "Physics", "accounts": ["physics"], "choose": False, "time": 1, "memory": 400}
        profiles = {"default": {"memory": 500}, "physics": physics}
        announcement = "Maintenance on <b>Friday</b>"
        settings = {"profiles": profiles, "announcement": announcement, "idle_timeout": 5, "cull_interval": 2}
        return pillar | {"jupyterhub": settings}

    with lab.pillar(cluster=cluster):
        states = lab.apply("master", ["jupyterhub"])
        hub.wait()
        yield {state["__id__"] for state in states.values() if state["changes"]}
    lab.apply("master", ["jupyterhub"])
    hub.wait()


def test_settings_restart_the_hub_and_nothing_else(hub, changed):
    assert changed == {"JupyterHub's settings are in place", "JupyterHub is running"}
    page = hub.ask("GET", "no-such-page", base="/hub/", check=False).text
    assert "Maintenance on <b>Friday</b>" in page


@pytest.mark.usefixtures("changed")
def test_a_fixed_profile_is_what_it_says_and_an_idle_server_is_stopped(hub):
    hub.request_server("ada", profile="physics", memory=2000, time=20, partition="highmem")
    job = wait_for("there is a job", lambda: hub.jobs().get("ada"))
    assert (job["memory"], job["time"], job["partition"]) == ("400M", "1:00:00", "main")
    wait_for("the server is culled", lambda: "ada" not in hub.jobs(), timeout=90)
    assert "Culling server ada" in hub.master.journal("jupyterhub", 100)
    row = ["sacct", "-XnP", "-j", job["id"], "-o", "JobName,User,Account,Comment"]
    wait_for("accounting has it", lambda: hub.master.run(row).stdout.strip() == "jupyterhub|ada|physics|JupyterHub")

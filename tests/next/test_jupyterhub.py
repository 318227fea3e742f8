"""formulas/jupyterhub on a machine that is a whole cluster: who gets what, what survives, what is refused."""

import copy
import json
import time

import pytest

from tests.lab import browser as browsers
from tests.lab.harness.shell import wait_for
from tests.next.jupyterhub import NAME, PASSWORD, PILLAR, THERE, Hub

ROOT = f"https://{NAME}"
WHERE = "import os, socket; print(socket.gethostname(), os.getuid(), os.environ['SLURM_JOB_ID'])"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The machine."""
    started = Hub(tmp_path_factory.mktemp("hub"))
    try:
        started.start()
        yield started
    finally:
        started.destroy()


@pytest.fixture
def marie(hub):
    """The number of the job that is Marie's server, started for the test."""
    yield hub.start_server("marie", account="physics")
    if hub.server("marie"):
        hub.stop_server("marie")


def test_a_second_run_changes_nothing(hub):
    for test in (False, True):
        states = hub.apply("jupyterhub", "jupyterhub.worker", "jupyterlab", test=test)
        assert {n: s["comment"] for n, s in states.items() if s["result"] is not True or s["changes"]} == {}


def test_a_server_is_a_job_of_the_person(hub, marie):
    job = hub.jobs()["marie"]
    assert (job["account"], job["partition"], job["memory"], job["cpus"]) == ("physics", "main", "500M", "1")
    _, printed = hub.run_code("marie", WHERE)
    assert printed.split() == ["master", "20002", marie]
    assert hub.shell("stat -c %a:%U /home/marie").strip() == "700:marie"
    hub.stop_server("marie")
    row = f"sacct -XnP -j {marie} -o JobName,Account,User,Comment"
    wait_for("accounting has it", lambda: hub.shell(row).strip() == "jupyterhub|physics|marie|JupyterHub")


def test_the_hub_has_no_rights(hub):
    pid = hub.shell("systemctl show --property=MainPID --value jupyterhub").strip()
    status = dict(line.split(":\t") for line in hub.node.read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    assert status["Uid"].split()[0] == hub.shell("id -u jupyterhub").strip()
    assert (status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "1")
    assert "jupyterhub" not in hub.shell("cat /etc/sudoers /etc/sudoers.d/* 2>/dev/null || true")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"account": "chemistry"}, "The account 'chemistry' is not yours to use; choose from physics."),
        ({"account": "physics\n#SBATCH --uid=0"}, "is not yours to use"),
        ({"partition": "nowhere"}, "choose from main, long"),
        ({"qos": "--uid=0"}, "is not yours to use"),
        ({"profile": "none"}, "is not yours to use"),
        ({"memory": 10**8}, "MiB of memory is too much"),
        ({"cpus": 10**6}, "CPUs is too much"),
        ({"gpus": 1}, "1 GPUs is too much: physics gets 0 at most in main."),
        ({"time": 25}, "25 h of time is too much: physics may use main for 24 h."),
        ({"time": "nan"}, "out of any range"),
        ({"time": -1}, "at least 1"),
        ({"cpus": "2; id"}, "is no number"),
        ({"nodelist": "master"}, "There is nothing called nodelist to choose."),
    ],
)
def test_what_nobody_may_have_is_refused(hub, asked, said):
    hub.ask("POST", "users/ada", check=False)
    answer = hub.ask("POST", "users/ada/server", asked, check=False)
    assert (answer.status_code, said in answer.json()["message"]) == (403, True), answer.text
    assert hub.jobs() == {}


def test_limits_of_an_account_count(hub):
    hub.ask("POST", "users/marie", check=False)
    answer = hub.ask("POST", "users/marie/server", {"account": "chemistry", "time": 5}, check=False)
    assert "5 h of time is too much: chemistry may use main for 4 h." in answer.json()["message"]


def test_a_fixed_profile_is_what_it_says(hub):
    hub.start_server("ada", profile="physics", memory=2000, time=20, partition="long")
    job = hub.jobs()["ada"]
    assert (job["memory"], job["time"], job["partition"]) == ("400M", "1:00:00", "main")
    hub.stop_server("ada")


def test_who_has_no_account_is_told(hub):
    hub.ask("POST", "users/guest", check=False)
    answer = hub.ask("POST", "users/guest/server", {}, check=False)
    assert answer.status_code == 403
    assert "You have no account to run jobs under" in answer.json()["message"]


def test_nobody_else_gets_in(hub, marie):
    token = hub.token("guest")
    assert hub.ask("GET", "api/contents", token=token, base="/user/marie/", check=False).status_code == 403
    assert hub.ask("GET", "api/contents", token=hub.token("marie"), base="/user/marie/").ok
    assert hub.ask("GET", "api/contents", token=None, base="/user/marie/", check=False).status_code == 403


def test_kernels_survive_hub_and_proxy_and_controller(hub, marie):
    kernel, _ = hub.run_code("marie", "x = 40")
    hub.shell("systemctl kill --signal=KILL jupyterhub")
    hub.wait()
    hub.shell("systemctl restart traefik")
    hub.wait()
    hub.shell("systemctl stop slurmctld")
    try:
        journal = "journalctl --quiet --unit=jupyterhub --since=-60s"
        wait_for("polls have failed", lambda: hub.shell(journal).count("is not known") > 1, timeout=120)
        assert hub.run_code("marie", "print(x + 1)", kernel)[1] == "41\n"
        answer = hub.ask("POST", "users/ada/server", {}, check=False)
        assert answer.status_code in (202, 503), answer.text
    finally:
        hub.shell("systemctl start slurmctld")
    wait_for("Slurm answers", lambda: "marie" in hub.jobs(), timeout=60)
    assert hub.run_code("marie", "print(x + 2)", kernel)[1] == "42\n"
    assert hub.jobs()["marie"]["id"] == marie
    if hub.server("ada"):
        hub.stop_server("ada")


def test_a_server_that_waits_says_why_and_can_be_cancelled(hub):
    filler = hub.shell(
        "runuser -u ada -- sbatch --parsable -D / -o /dev/null -c 2 -A physics --wrap 'sleep 600'"
    ).strip()
    try:
        hub.ask("POST", "users/marie", check=False)
        hub.ask("POST", "users/marie/server", {"account": "physics"})
        wait_for("the job waits", lambda: hub.jobs().get("marie", {}).get("state") == "PENDING")
        token = hub.token("marie")
        with hub.session.get(
            hub.ask("GET", "").url + "users/marie/server/progress",
            headers={"Authorization": f"token {token}"}, stream=True, timeout=60,
        ) as stream:  # fmt: skip
            events = (json.loads(line[5:]) for line in stream.iter_lines() if line.startswith(b"data:"))
            message = next(e["message"] for e in events if "Job" in e["message"] and "(None)" not in e["message"])
        assert "Resources" in message or "Priority" in message
        hub.ask("DELETE", "users/marie/server")
        wait_for("the job is gone", lambda: "marie" not in hub.jobs())
        wait_for("the server is gone", lambda: not hub.server("marie"))
    finally:
        hub.shell(f"scancel {filler}")


def test_one_look_at_the_queue_serves_all(hub):
    names = [f"s{n}" for n in range(2)]
    for name in names:
        hub.start_server("marie", name, account="physics", memory=200)
    started = hub.shell("systemctl show --property=NAccepted --value qhub-notebooks.socket")
    begun = time.monotonic()
    wait_for("time passes", lambda: time.monotonic() - begun > 20)
    looks = int(hub.shell("systemctl show --property=NAccepted --value qhub-notebooks.socket")) - int(started)
    assert looks <= 12  # every poll_interval / 2 (2 s) at most
    for name in names:
        hub.ask("DELETE", f"users/marie/servers/{name}")
    wait_for("they are gone", lambda: hub.jobs() == {})


def test_root_s_program_does_nothing_else(hub):
    def ask(by="jupyterhub", **request):
        script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect('/run/qhub-notebooks.sock'); " + (
            "s.sendall(sys.argv[1].encode()); s.shutdown(1); print(s.makefile().read())"
        )
        done = hub.node.run(["python3", "-c", script, json.dumps(request)], user=by, check=False)
        return json.loads(done.stdout) if done.stdout else done.stderr

    script = "#!/bin/sh\nid\n"
    for user in ("root", "slurm", "vic", "nobody"):
        answer = ask(verb="submit", user=user, script=script, environment={})
        assert answer["error"] == f"{user} is not one of the cluster's people"
    assert "no such request" in ask(verb="shell", user="marie")["error"]
    assert "no such request" in ask(verb="cancel", job="1 --user=ada")["error"]
    assert "PermissionError" in ask(by="marie", verb="queue")
    script = "#!/bin/sh\n#SBATCH -A physics -o /home/marie/out\nid -un; env\n"
    environment = {"A": "b", "LD_PRELOAD": "/x", "SBATCH_UID": "0", "PATH": "/x", "B\nC": "1"}
    job = ask(verb="submit", user="marie", script=script, environment=environment)["job"]
    wait_for("the job has run", lambda: "JobState=COMPLETED" in hub.shell(f"scontrol show job {job}"))
    lines = hub.node.read("/home/marie/out").splitlines()
    assert lines[0] == "marie"
    assert "A=b" in lines
    assert not [line for line in lines if line.startswith(("LD_PRELOAD", "SBATCH_UID", "PATH=/x"))]
    other = hub.shell("runuser -u marie -- sbatch --parsable -A physics -D / -o /dev/null --wrap 'sleep 60'").strip()
    ask(verb="cancel", job=int(other))
    assert "JobState=CANCELLED" not in hub.shell(f"scontrol show job {other}")
    hub.shell(f"scancel {other}")


def test_the_front_door_takes_no_other_routes(hub):
    file = "/var/lib/jupyterhub/routes.toml"
    before = hub.node.read(file)
    evil = "".join(
        f'\n[jupyterhub.routes.router_{name}]\nroutespec = "{path}"\ntarget = "{target}"\nservice = "service_{name}"\n'
        for name, path, target in (
            ("a", "/auth/", "http://127.0.0.1:9999"),
            ("b", "/user/marie/", "http://127.0.0.1:9000"),
            ("c", "/user/ada/", "http://example.org:63001"),
            ("d", "/user/`) || PathPrefix(`/auth/", "http://master:63001"),
            ("e", "/user/ok/", "http://master:63001"),
            ("f", "/user/ssh/", "http://master:22"),
        )
    )
    routes = "/etc/traefik/dynamic/jupyterhub-servers.yml"
    hub.node.write("/tmp/routes", before + evil + "\n[tcp.routers.x]\nrule = 'HostSNI(`*`)'\nservice = 'x'\n")
    hub.shell(f"install -o jupyterhub -m 0600 /tmp/routes {file}.new && mv {file}.new {file}")
    wait_for("the routes are there", lambda: "router_e" in hub.node.read(routes))
    found = json.loads(hub.node.read(routes).partition("\n")[2])
    assert set(found) == {"http"}
    assert {name for name in found["http"]["routers"] if len(name) < 10} == {"router_e"}
    hub.node.write("/tmp/routes", before)
    hub.shell(f"install -o jupyterhub -m 0600 /tmp/routes {file}.new && mv {file}.new {file}")
    wait_for("the routes are gone", lambda: "router_e" not in hub.node.read(routes))


def test_a_server_says_its_port_and_nothing_else(hub, marie):
    environment = hub.shell(f"scontrol listpids {marie} | awk 'NR == 2 {{print $1}}'").strip()
    token = hub.shell(f"tr '\\0' '\\n' < /proc/{environment}/environ | sed -n s/^JUPYTERHUB_API_TOKEN=//p").strip()
    assert hub.ask("POST", "batchspawner", {"ip": "127.0.0.1"}, token=token, check=False).status_code == 404
    assert hub.ask("POST", "notebook", {"port": 63001}, token=token, check=False).status_code == 403
    assert hub.ask("POST", "notebook", {"port": 22}, token=hub.token("ada"), check=False).status_code == 403


def test_metrics_need_a_token(hub):
    assert hub.ask("GET", "metrics", token=None, base="/hub/", check=False).status_code == 403
    secrets = json.loads(hub.node.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
    token = secrets["jupyterhub_metrics_token"]
    assert "jupyterhub_running_servers" in hub.ask("GET", "metrics", token=token, base="/hub/").text
    assert hub.ask("GET", "users", token=token, check=False).status_code == 403


def test_a_removed_person_loses_server_and_tokens(hub, marie):
    token = hub.token("marie")
    pillar = copy.deepcopy(PILLAR)
    pillar["users"]["users"]["marie"]["role"] = "viewer"
    hub.set_pillar(pillar)
    try:
        assert set(hub.good("jupyterhub")) == {"JupyterHub knows the people"}
        wait_for("the server is gone", lambda: "marie" not in hub.jobs(), timeout=60)
        wait_for("the token is dead", lambda: not hub.ask("GET", "user", token=token, check=False).ok)
        assert hub.shell("stat -c %U /home/marie").strip() == "marie"
    finally:
        hub.set_pillar(PILLAR)
        hub.good("jupyterhub")


def test_a_notebook_that_is_no_server_s_is_cancelled(hub):
    words = "--parsable --job-name=jupyterhub -A physics -D / -o /dev/null --wrap 'sleep 600'"
    job = hub.shell(f"runuser -u marie -- sbatch {words}").strip()
    wait_for("it is cancelled", lambda: "JobState=CANCELLED" in hub.shell(f"scontrol show job {job}"))


def test_an_idle_server_is_culled(hub, marie):
    pillar = copy.deepcopy(PILLAR)
    pillar["cluster"]["jupyterhub"] |= {"idle_timeout": 5, "cull_interval": 2}
    hub.set_pillar(pillar)
    try:
        assert set(hub.good("jupyterhub")) == {"JupyterHub's settings are in place", "JupyterHub is running"}
        wait_for("the server is culled", lambda: "marie" not in hub.jobs(), timeout=90)
    finally:
        hub.set_pillar(PILLAR)
        hub.good("jupyterhub")
        hub.wait()


# In a browser


@pytest.fixture(scope="module")
def browser(hub, tmp_path_factory):
    """A browser that trusts the machine's authority, and finds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browsers, "OPTIONS", (*browsers.OPTIONS, f"--host-resolver-rules=MAP {NAME} {THERE}"))
        with browsers.chromium(tmp_path_factory.mktemp("browser"), hub.ca) as started:
            yield started


def sign_in(shown, name):
    shown.get_by_label("Username").fill(name)
    shown.locator("#password").fill(PASSWORD)
    shown.get_by_role("button", name="Sign In").click()


def test_signing_in_choosing_working_and_signing_out(hub, browser):
    with browsers.page(browser) as shown:
        shown.goto(f"{ROOT}/")
        sign_in(shown, "marie")
        shown.wait_for_url(f"{ROOT}/hub/spawn*")
        assert shown.locator(".announcement").inner_text() == "Maintenance on Friday"
        assert shown.locator("#account option").all_inner_texts() == ["chemistry", "physics"]
        assert shown.locator("#memory").input_value() == "500"
        shown.locator("#account").select_option("physics")
        shown.get_by_role("button", name="Start").click()
        shown.wait_for_url(f"{ROOT}/user/marie/lab*", timeout=120_000)
        shown.get_by_text("File", exact=True).first.wait_for()
        assert hub.jobs()["marie"]["account"] == "physics"
        shown.goto(f"{ROOT}/hub/logout")
        shown.get_by_label("Username").wait_for()
        shown.goto(f"{ROOT}/hub/home")
        shown.get_by_label("Username").wait_for()
    hub.stop_server("marie")


def test_a_viewer_is_not_let_in(browser):
    with browsers.page(browser) as shown:
        shown.goto(f"{ROOT}/")
        sign_in(shown, "vic")
        shown.get_by_text("not currently authorized").first.wait_for()


def test_somebody_without_an_account_reads_what_to_do(browser):
    with browsers.page(browser) as shown:
        shown.goto(f"{ROOT}/hub/spawn")
        sign_in(shown, "guest")
        assert "Ask the administrators" in shown.locator("#no-offer").inner_text()

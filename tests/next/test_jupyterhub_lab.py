"""JupyterHub as people meet it: in a browser, through the front door, on a worker."""

import json

import pytest

from tests.lab.browser import chromium, page

ROOT = "https://master.cluster.internal"
CHOSEN = "a Password of 3 words"
SPAWN_TIMEOUT = 120_000  # milliseconds
CELL = "import os, socket; print(socket.gethostname(), os.getuid(), os.environ['SLURM_JOB_ID'])"
# In the page: ask the front door as the page itself would.
FETCH = """async ([path, method, form]) => {
  const token = document.cookie.split("; ").find((each) => each.startsWith("_xsrf="))?.slice(6);
  const options = {method};
  if (form) {
    options.body = new FormData();
    for (const [name, value] of Object.entries(form)) options.body.append(name, value);
    path += "?_xsrf=" + token;
  }
  const answer = await fetch(path, options);
  return [answer.status, await answer.text()];
}"""


@pytest.fixture(scope="module")
def browser(lab, tmp_path_factory):
    """The browser; servers are stopped at the end."""
    home = tmp_path_factory.mktemp("browser")
    (home / "ca.crt").write_text(lab.master.read("/var/lib/qhub/ca/ca.crt"))
    with chromium(home, home / "ca.crt") as started:
        yield started
    lab.master.run(["scancel", "--name=jupyterhub"])
    lab.wait_for("no notebook is left", lambda: not jobs(lab))


@pytest.fixture
def sign_in(lab, browser):
    """Return a function that signs a person in and returns a page of the Hub."""
    opened = []

    def open_as(name, path="/hub/home"):
        out = lab.master.run(["qhub-keycloak", "password", name]).stdout
        first = next(line.split()[-1] for line in out.splitlines() if "assword" in line)
        context = page(browser)
        shown = context.__enter__()
        opened.append(context)
        shown.goto(ROOT + path)
        shown.get_by_label("Username").fill(name)
        shown.locator("#password").fill(first)
        shown.get_by_role("button", name="Sign In").click()
        shown.locator("#password-new").fill(CHOSEN)
        shown.locator("#password-confirm").fill(CHOSEN)
        shown.get_by_role("button", name="Submit").click()
        shown.wait_for_url(f"{ROOT}/hub/**")
        return shown

    yield open_as
    for context in opened:
        context.__exit__(None, None, None)
    lab.master.run(["scancel", "--name=jupyterhub"])
    routes = "/etc/traefik/dynamic/jupyterhub-servers.yml"
    lab.wait_for("no server is left", lambda: "/user/" not in lab.master.read(routes))


def jobs(lab):
    """Return the notebooks in the queue: ``{user: {...}}``."""
    out = lab.master.run(["squeue", "--noheader", "--name=jupyterhub", "--format=%u|%A|%T|%B|%a|%P"]).stdout
    keys = ("user", "id", "state", "host", "account", "partition")
    return {line.split("|")[0]: dict(zip(keys, line.split("|"), strict=True)) for line in out.splitlines()}


def start(shown, **chosen):
    """Choose in the form, and wait for JupyterLab."""
    shown.goto(f"{ROOT}/hub/spawn")
    for name, value in chosen.items():
        shown.locator(f"select#{name}").select_option(value)
    shown.get_by_role("button", name="Start").click()
    lab_is_there(shown)
    shown.goto(shown.url.partition("?")[0] + "?reset")  # JupyterLab would open what was open in the test before
    lab_is_there(shown)


def lab_is_there(shown):
    shown.wait_for_url(f"{ROOT}/user/**/lab**", timeout=SPAWN_TIMEOUT)
    shown.locator(".jp-Launcher, .jp-DirListing").first.wait_for(timeout=SPAWN_TIMEOUT)


def stop(lab, shown, name):
    """Stop a server by the button on the Hub's page."""
    shown.goto(f"{ROOT}/hub/home")
    shown.get_by_role("button", name="Stop My Server").or_(shown.locator("#stop")).first.click()
    lab.wait_for("the job is gone", lambda: name not in jobs(lab))


def run_cell(shown, code):
    """Run code in a new notebook and return what it prints."""
    shown.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    cell = shown.locator(".jp-Notebook .cm-content").first
    cell.click()
    shown.keyboard.type(code)
    shown.keyboard.press("Shift+Enter")
    output = shown.locator(".jp-OutputArea-output pre").first
    output.wait_for(timeout=SPAWN_TIMEOUT)
    return output.inner_text()


def test_a_notebook_runs_on_a_worker_under_ones_own_account(lab, sign_in):
    shown = sign_in("marie")
    start(shown, account="physics", partition="highmem")
    job = jobs(lab)["marie"]
    host, uid, number = run_cell(shown, CELL).split()
    assert (host, uid, number) == ("w2", "20002", job["id"])
    row = lab.master.run(["sacct", "-XnP", "-j", number, "-o", "JobName,User,Account,Partition"]).stdout.strip()
    assert row == "jupyterhub|marie|physics|highmem"
    stop(lab, shown, "marie")


def test_logging_out_ends_the_session_everywhere(sign_in):
    shown = sign_in("marie")
    shown.goto(f"{ROOT}/hub/logout")
    shown.get_by_label("Username").wait_for()
    shown.goto(f"{ROOT}/auth/realms/qhub/account/")
    shown.get_by_label("Username").wait_for()


def test_a_second_person_does_not_reach_the_server(lab, sign_in):
    shown = sign_in("marie")
    start(shown, account="physics")
    other = sign_in("ada")
    status, _ = other.evaluate(FETCH, [f"{ROOT}/user/marie/api/contents", "GET", None])
    assert status == 403
    stop(lab, shown, "marie")


def test_other_workers_do_not_reach_the_server(lab, sign_in):
    shown = sign_in("marie")
    start(shown, account="physics", partition="highmem")
    ports = lab.node("w2").run(["ss", "-Hltn", "sport >= :63001 and sport <= :65000"]).stdout.split()
    port = next(word.rsplit(":", 1)[1] for word in ports if word.startswith(("0.0.0.0:", "*:")) and word[-1] != "*")
    knock = f"import socket; socket.create_connection(('w2', {port}), 5)"
    assert lab.master.run(["python3", "-c", knock], check=False).returncode == 0
    assert lab.node("w1").run(["python3", "-c", knock], check=False).returncode != 0
    stop(lab, shown, "marie")


def test_the_form_offers_what_one_may_use_and_no_more(lab, sign_in):
    shown = sign_in("ada", "/hub/spawn")
    assert shown.locator("#account option").all_inner_texts() == ["physics"]
    assert shown.locator("#partition option").all_inner_texts() == ["main", "highmem"]
    for form, said in (
        ({"account": "chemistry"}, "is not yours to use; choose from physics."),
        ({"memory": "99999999"}, "MiB of memory is too much"),
        ({"time": "25"}, "physics may use main for 24 h."),
    ):
        _, text = shown.evaluate(FETCH, [f"{ROOT}/hub/spawn/ada", "POST", form])
        assert said in text
    assert "ada" not in jobs(lab)
    guest = sign_in("guest", "/hub/spawn")
    assert "Ask the administrators" in guest.locator("#no-offer").inner_text()


def test_a_variable_survives_hub_front_door_and_controller(lab, sign_in):
    shown = sign_in("marie")
    start(shown, account="physics")
    job = jobs(lab)["marie"]["id"]
    run_cell(shown, "kept = 6; print(kept)")
    lab.master.run(["systemctl", "kill", "--signal=KILL", "jupyterhub"])
    lab.master.run(["systemctl", "restart", "traefik"])
    lab.master.run(["systemctl", "stop", "slurmctld"])
    try:
        lab.wait_for(
            "the Hub has not reached Slurm",
            lambda: "is not known" in lab.master.run(["journalctl", "-qu", "jupyterhub", "--since=-60s"]).stdout,
            timeout=90,
        )
    finally:
        lab.master.run(["systemctl", "start", "slurmctld"])
    lab.wait_for("Slurm answers", lambda: jobs(lab), timeout=60)
    shown.keyboard.type("print(kept * 7)")
    shown.keyboard.press("Shift+Enter")
    shown.get_by_text("42", exact=True).wait_for(timeout=SPAWN_TIMEOUT)
    assert jobs(lab)["marie"]["id"] == job
    stop(lab, shown, "marie")


def test_a_full_partition_says_why_and_waiting_can_be_ended(lab, sign_in):
    words = ["sbatch", "--parsable", "--account=physics", "--partition=highmem", "--exclusive", "--chdir=/"]
    full = lab.as_user("ada", [*words, "--output=/dev/null", "--wrap=sleep 600"]).stdout.strip()
    try:
        lab.wait_for("the partition is full", lambda: lab.state(full) == "RUNNING" or "R" in squeue(lab, full))
        shown = sign_in("marie", "/hub/spawn")
        shown.locator("#account").select_option("physics")
        shown.locator("#partition").select_option("highmem")
        shown.get_by_role("button", name="Start").click()
        shown.get_by_text("(Resources)").or_(shown.get_by_text("(Priority)")).first.wait_for(timeout=SPAWN_TIMEOUT)
        assert jobs(lab)["marie"]["state"] == "PENDING"
        shown.locator("#stop-server-btn").click()
        lab.wait_for("the job is gone", lambda: "marie" not in jobs(lab))
    finally:
        lab.master.run(["scancel", full])


def squeue(lab, job):
    return lab.master.run(["squeue", "--noheader", "--format=%t", "--jobs", job], check=False).stdout


def test_a_removed_person_loses_server_and_token(lab, sign_in):
    shown = sign_in("marie")
    start(shown, account="physics")
    token = shown.evaluate(
        """async () => {
          const xsrf = document.cookie.split("; ").find((each) => each.startsWith("_xsrf=")).slice(6);
          const answer = await fetch("/hub/api/users/marie/tokens?_xsrf=" + xsrf, {method: "POST"});
          return (await answer.json()).token;
        }"""
    )
    request = f"r.Request('{ROOT}/hub/api/user', headers={{'Authorization': 'token {token}'}})"
    ask = f"import urllib.request as r; r.urlopen({request})"
    assert lab.master.run(["python3", "-c", ask], check=False).returncode == 0

    def gone(users):
        del users["users"]["marie"]
        return users

    with lab.pillar(users=gone):
        lab.apply("master", ["jupyterhub"])
        lab.wait_for("the server is gone", lambda: "marie" not in jobs(lab))
        lab.wait_for("the token is dead", lambda: lab.master.run(["python3", "-c", ask], check=False).returncode)
    lab.apply("master", ["keycloak.realm", "jupyterhub"])
    assert json.loads(lab.master.read("/etc/jupyterhub/people.json"))["people"]["marie"] == 20002

"""Notebooks as people meet them: in a browser, through the front door, on a worker."""

import os
import time
from pathlib import Path

import pytest

from tests.lab.browser import PEOPLE, ROOT, page, signed_in
from tests.lab.harness import settings
from tests.lab.hub import SPAWN_TIMEOUT, choose, lab_is_there, new_notebook, run_cell

CELL = """import os, socket
print(socket.gethostname(), os.getuid(), os.environ["SLURM_JOB_ID"], oct(os.umask(7)))"""
# In the page: ask the front door as the page itself would.
FETCH = """async ([path, method, form]) => {
  const token = document.cookie.split("; ").find((each) => each.startsWith("_xsrf="))?.slice(6);
  const options = {method};
  if (form) {
    options.body = new FormData();
    for (const [name, value] of Object.entries(form)) options.body.append(name, value);
  }
  const answer = await fetch(`${path}?_xsrf=${token}`, options);
  return [answer.status, await answer.text()];
}"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Return a function that takes a picture of a page: those in docs/images, if ``make screenshots`` asks for it."""
    wanted = os.environ.get("QHUB_SCREENSHOTS")
    directory = settings.REPOSITORY / "docs/images" if wanted else tmp_path_factory.mktemp("pictures")

    def take(shown, name):
        shown.mouse.move(0, 0)
        shown.screenshot(path=Path(directory, f"{name}.png"), animations="disabled", caret="hide")

    return take


@pytest.fixture(scope="module")
def marie(lab, hub, browser):
    """A page of Marie's, signed in."""
    with signed_in(lab, browser, "marie") as shown:
        yield shown


@pytest.fixture(scope="module")
def ada(lab, hub, browser):
    """A page of Ada's, signed in."""
    with signed_in(lab, browser, "ada") as shown:
        yield shown


@pytest.fixture(scope="module")
def guest(lab, hub, browser):
    """A page of the guest's, signed in."""
    with signed_in(lab, browser, "guest") as shown:
        yield shown


@pytest.fixture(scope="module")
def notebook(hub, marie, picture):
    """Marie's JupyterLab on w2; a function that returns it."""

    def started():
        if not hub.server("marie"):
            marie.goto(f"{ROOT}/hub/spawn")
            marie.locator("select#account").select_option("physics")
            marie.locator("select#partition").select_option("highmem")
            picture(marie, "form")
            marie.get_by_role("button", name="Start").click()
            lab_is_there(marie)
        return marie

    yield started
    hub.stop_server("marie")
    hub.master.run(["sh", "-c", "rm -rf /home/marie/Untitled*.ipynb /home/marie/.jupyter/lab/workspaces"])


def stop(hub, shown, name):
    """Stop a server by the button on the Hub's page."""
    shown.goto(f"{ROOT}/hub/home")
    shown.locator("#stop").click()
    hub.lab.wait_for("the job is gone", lambda: name not in hub.jobs())


def test_who_comes_is_asked_to_sign_in(hub, browser, picture):
    with page(browser) as shown:
        shown.goto(f"{ROOT}/")
        shown.get_by_label("Username").wait_for()
        assert shown.title() == "Sign in to lab cluster"
        picture(shown, "sign-in")


def test_the_form_offers_what_one_may_use(ada, marie):
    ada.goto(f"{ROOT}/hub/spawn")
    assert ada.locator("#account option").all_inner_texts() == ["physics"]
    assert ada.locator("#partition option").all_inner_texts() == ["main", "highmem"]
    assert ada.locator("#time-limit").inner_text() == "at most 24 hours"
    ada.locator("#partition").select_option("highmem")
    assert ada.locator("#time-limit").inner_text() == "at most 7 days"
    marie.goto(f"{ROOT}/hub/spawn")
    assert marie.locator("#account option").all_inner_texts() == ["chemistry", "physics"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"account": "chemistry"}, "The account &#39;chemistry&#39; is not yours to use; choose from physics."),
        ({"partition": "nowhere"}, "choose from main, highmem."),
        ({"qos": "--uid=0"}, "is not yours to use"),
        ({"profile": "none"}, "is not yours to use"),
        ({"memory": "99999999"}, "99999999 MiB of memory is too much: physics gets "),
        ({"cpus": "1000000"}, "1000000 CPUs is too much: physics gets "),
        ({"gpus": "1"}, "1 GPUs is too much: physics gets 0 at most in main."),
        ({"time": "25"}, "25 h of time is too much: physics may use main for 24 h."),
        ({"time": "nan"}, "out of any range"),
        ({"time": "-1"}, "at least 1"),
    ],
)
def test_a_forged_form_is_refused_in_words(hub, ada, form, said):
    status, text = ada.evaluate(FETCH, [f"{ROOT}/hub/spawn/ada", "POST", form])
    assert said in text
    assert "ada" not in hub.jobs()


def test_somebody_without_an_account_reads_what_to_do(guest):
    guest.goto(f"{ROOT}/hub/spawn")
    assert "Ask the administrators" in guest.locator("#no-offer").inner_text()
    assert not guest.get_by_role("button", name="Start").is_visible()


def test_a_notebook_runs_on_a_worker_under_ones_own_account(lab, hub, notebook, picture):
    shown = notebook()
    new_notebook(shown)
    host, uid, number, umask = run_cell(shown, CELL).split()
    job = hub.jobs()["marie"]
    assert (host, uid, number, umask) == ("w2", "20002", job["id"], "0o7")
    picture(shown, "lab")
    row = lab.master.run(["sacct", "-XnP", "-j", number, "-o", "JobName,User,Account,Partition"]).stdout.strip()
    assert row == "jupyterhub|marie|physics|highmem"


def test_a_second_person_does_not_reach_it(notebook, guest):
    notebook()
    assert guest.goto(f"{PEOPLE}/user/marie/lab").status == 403
    assert guest.goto(f"{PEOPLE}/user/marie/api/contents").status == 403


def test_other_workers_do_not_reach_it(lab, notebook):
    notebook()
    ports = lab.node("w2").run(["ss", "-Hltn", "sport >= :63001 and sport <= :65000"]).stdout.split()
    port = next(word.rsplit(":", 1)[1] for word in ports if word.startswith(("0.0.0.0:", "*:")) and word[-1] != "*")
    knock = f"import socket; socket.create_connection(('w2', {port}), 5)"
    assert lab.master.run(["python3", "-c", knock], check=False).returncode == 0
    assert lab.node("w1").run(["python3", "-c", knock], check=False).returncode != 0


def test_a_variable_survives_hub_front_door_and_a_minute_without_a_controller(lab, hub, notebook, ada):
    shown = notebook()
    job = hub.jobs()["marie"]["id"]
    new_notebook(shown)
    assert run_cell(shown, "kept = 6; print(kept)").strip() == "6"
    told = shown.get_by_role("dialog", name="Server unavailable")  # while the front door was away
    shown.add_locator_handler(told, lambda dialog: dialog.get_by_role("button", name="Dismiss").click())
    lab.master.run(["systemctl", "kill", "--signal=KILL", "jupyterhub"])
    lab.master.run(["systemctl", "restart", "traefik"])
    lab.master.run(["systemctl", "stop", "slurmctld"])
    minute = time.monotonic() + 60
    try:
        hub.wait()
        journal = ["journalctl", "--quiet", "--unit=jupyterhub", "--since=-60s"]
        lab.wait_for("the Hub has asked in vain", lambda: "is not known" in lab.master.run(journal).stdout, timeout=120)
        ada.goto(f"{ROOT}/hub/spawn", timeout=SPAWN_TIMEOUT)
        assert ada.locator("#no-offer").inner_text() == "Slurm does not answer just now. Try again in a minute."
        lab.wait_for("a minute is over", lambda: time.monotonic() > minute)
    finally:
        lab.master.run(["systemctl", "start", "slurmctld"])
    lab.wait_for("Slurm answers", lambda: not lab.master.run(["squeue"], check=False).returncode, timeout=60)
    assert run_cell(shown, "print(kept * 7)").strip() == "42"
    assert hub.jobs()["marie"]["id"] == job
    stop(hub, shown, "marie")


def test_a_full_partition_says_why_and_waiting_can_be_ended(hub, marie, picture):
    hub.stop_server("marie")
    with hub.full("highmem"):
        choose(marie, account="physics", partition="highmem")
        marie.get_by_text("(Resources)").or_(marie.get_by_text("(Priority)")).first.wait_for(timeout=SPAWN_TIMEOUT)
        assert hub.jobs()["marie"]["state"] == "PENDING"
        picture(marie, "pending")
        marie.get_by_role("button", name="Cancel").click()
        marie.wait_for_url(f"{ROOT}/hub/home")
        hub.lab.wait_for("the job is gone", lambda: "marie" not in hub.jobs())


def test_logging_out_ends_the_session_everywhere(lab, hub, browser):
    with signed_in(lab, browser, "marie") as shown:
        shown.goto(f"{ROOT}/hub/logout")
        for path in ("/hub/home", "/auth/realms/qhub/account/"):
            shown.goto(ROOT + path)
            shown.get_by_label("Username").wait_for()


def test_who_is_removed_loses_server_and_token_and_a_viewer_is_not_let_in(lab, hub, browser):
    hub.stop_server("marie")
    hub.start_server("marie", account="physics")
    token = hub.token("marie")
    assert hub.ask("GET", "user", token=token).ok

    def users(pillar):
        del pillar["users"]["marie"]
        pillar["users"]["guest"]["role"] = "viewer"
        return pillar

    with lab.pillar(users=users):
        lab.apply("master", ["keycloak.realm", "jupyterhub"])
        lab.wait_for("the server is gone", lambda: "marie" not in hub.jobs())
        lab.wait_for("the token is dead", lambda: not hub.ask("GET", "user", token=token, check=False).ok)
        with signed_in(lab, browser, "guest") as shown:
            shown.get_by_text("not currently authorized").first.wait_for()
    assert lab.master.run(["stat", "-c", "%U", "/home/marie"]).stdout == "marie\n", "what is hers stays"
    lab.apply("master", ["keycloak.realm", "jupyterhub"])

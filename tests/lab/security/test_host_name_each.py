"""A site with a wildcard name: each person's servers have a host name of their own."""

import pytest

from tests.lab.browser import ROOT, signed_in
from tests.lab.hub import choose

DOMAIN = "people.master.cluster.internal"
MARIE, ADA = (f"https://{name}.{DOMAIN}" for name in ("marie", "ada"))
SPAWN_TIMEOUT = 120_000  # milliseconds


@pytest.fixture(scope="module")
def wildcard(lab, hub):
    """The lab with a host name for each person."""

    def cluster(pillar):
        pillar["cluster"]["people_name"] = f"*.{DOMAIN}"
        return pillar

    servers = ("marie", "ada")
    for name in servers:
        hub.stop_server(name)
    try:
        with lab.pillar(cluster=cluster):
            lab.orchestrate("orch.apply")
            hub.wait()
            yield
            for name in servers:
                hub.stop_server(name)
    finally:
        lab.orchestrate("orch.apply")
        hub.wait()


def opened(shown, origin, name):
    """Start somebody's server by the form, and wait until JupyterLab can be used."""
    choose(shown, account="physics")
    shown.wait_for_url(f"{origin}/user/{name}/lab**", timeout=SPAWN_TIMEOUT)
    shown.locator(".jp-Launcher, .jp-DirListing").first.wait_for(timeout=SPAWN_TIMEOUT)


def test_a_page_reaches_its_own_server_and_nobody_else_s(wildcard, lab, browser):
    with signed_in(lab, browser, "ada") as shown:
        opened(shown, ADA, "ada")
        with signed_in(lab, browser, "marie") as other:
            opened(other, MARIE, "marie")
        shown.goto(f"{MARIE}/user/marie/api")  # a page of marie's server in ada's browser
        for url in (f"{ADA}/user/ada/api/contents", f"{ROOT}/hub/api/users"):
            got = shown.evaluate(
                "url => fetch(url, {credentials: 'include'}).then(answer => answer.text(), () => 'refused')", url
            )
            assert got == "refused"
        cookies = {each["name"]: each["domain"] for each in shown.context.cookies()}
        assert cookies["__Host-jupyterhub-user-ada"] == ADA.removeprefix("https://")
        shown.goto(f"{ROOT}/user/ada/lab")
        shown.wait_for_url(f"{ADA}/user/ada/lab**", timeout=SPAWN_TIMEOUT)


def test_the_doctor_finds_the_names_and_the_certificate(wildcard, lab):
    done = lab.master.run(["salt-run", "--out=json", "cluster.doctor"], check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]

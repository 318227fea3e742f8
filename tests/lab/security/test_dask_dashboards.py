"""Dashboards of Dask clusters: who finds them, and who sees them."""

import itertools
import json

import pytest

from tests.lab.browser import PEOPLE, ROOT, page, signed_in

#: What is known to show code, keys and logs of a cluster, and the first step of the page's websocket.
PAGES = ("status", "info/main/workers.html", "json/counts.json", "individual-progress", "status/ws", "metrics")


def gateway(hub, method, path, name, body=None):
    """Ask the gateway's API as a person; return the decoded answer."""
    hub.session.cookies.clear()
    token = hub.standing_token(name)
    answer = hub.ask(method, f"api/v1/{path}", body, base="/gateway/", kind="jupyterhub", token=token)
    return answer.json() if answer.content else None


@pytest.fixture(scope="module")
def cluster(lab, hub):
    """The name of a cluster of marie's that runs with one worker."""
    name = gateway(hub, "POST", "clusters/", "marie", {"cluster_options": {"account": "physics"}})["name"]
    try:
        lab.wait_for(
            "the cluster runs",
            lambda: gateway(hub, "GET", f"clusters/{name}", "marie")["status"] == "RUNNING",
            timeout=90,
        )
        gateway(hub, "POST", f"clusters/{name}/scale", "marie", {"count": 1})
        jobs = ["squeue", "--noheader", "--name=dask", "--states=RUNNING", "--format=%A"]
        lab.wait_for("both jobs run", lambda: len(lab.master.run(jobs).stdout.split()) == 2, timeout=60)
        yield name
    finally:
        gateway(hub, "DELETE", f"clusters/{name}", "marie")
        lab.wait_for("no job is left", lambda: not lab.master.run(["squeue", "-h", "--name=dask"]).stdout, timeout=60)


def test_slurm_prints_no_cluster_s_name(lab, cluster):
    for words in (
        ["squeue", "--format=%all"],
        ["squeue", "--json"],
        ["scontrol", "--oneliner", "show", "job"],
        ["sacct", "--allusers", "--parsable2", "--format=ALL"],
    ):
        shown = lab.as_user("guest", words).stdout
        assert "dask" in shown, words
        assert cluster not in shown, words


@pytest.mark.parametrize("origin", [ROOT, PEOPLE])
@pytest.mark.parametrize("path", PAGES)
def test_who_is_not_signed_in_sees_nothing(ask, cluster, path, origin):
    status, _, text = ask(f"/gateway/clusters/{cluster}/{path}", origin=origin)
    assert (status, "dask" in text.lower()) == (401, False), text[:200]


def test_a_browser_is_sent_to_sign_in(ask, browser, cluster):
    for origin in (ROOT, PEOPLE):
        status, headers, _ = ask(f"/gateway/clusters/{cluster}/status", {"Accept": "text/html"}, origin=origin)
        path = f"/gateway/dashboards/sign-in?next=/gateway/clusters/{cluster}/status"
        assert (status, headers["Location"]) == (302, ROOT + path)
    status, headers, _ = ask(path)
    assert status == 302
    assert headers["Location"].startswith(f"{ROOT}/hub/api/oauth2/authorize?")
    assert all(word in headers["Set-Cookie"] for word in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/gateway/"))
    with page(browser) as shown:
        shown.goto(f"{ROOT}/gateway/clusters/{cluster}/status")
        shown.get_by_label("Username").wait_for()


@pytest.mark.parametrize(
    "path",
    [
        "/gateway/api/../clusters/{}/status",
        "/gateway/api/%2e%2e/clusters/{}/status",
        "/gateway/api/..%2fclusters/{}/status",
        "/gateway/dashboards/signed-in/../../clusters/{}/status",
        "/gateway//clusters/{}/status",
        "//gateway/clusters/{}/status",
        "/gateway/./clusters/{}/status",
        "/gateway/%63lusters/{}/status",
        "/gateway%2fclusters/{}/status",
        "/hub/../gateway/clusters/{}/status",
        "/clusters/{}/status",
        "/gateway/clusters/{}",
        "/gateway/clusters/{}?/status",
        "/gateway/clusters//{}/status",
        "/gateway/clusters/x/../{}/status",
        "/GATEWAY/clusters/{}/status",
        "https://master.cluster.internal/gateway/clusters/{}/status",
    ],
)
def test_no_spelling_of_the_address_leads_past_it(ask, cluster, path):
    forged = {
        "X-Forwarded-Uri": "/hub/",
        "X-Forwarded-User": "marie",
        "X-Remote-User": "marie",
        "X-Forwarded-Method": "OPTIONS",
        "Cookie": "dask-dashboards=; dask-dashboards=marie",
    }
    for headers, origin in itertools.product(({}, forged, {**forged, "Accept": "text/html"}), (ROOT, PEOPLE)):
        status, _, text = ask(path.format(cluster), headers, origin=origin)
        assert status >= 300, text[:200]
        assert "Dask: Status" not in text


def test_a_token_of_another_kind_is_no_way_in(ask, hub, cluster):
    for kind in ("token", "jupyterhub", "Bearer"):
        words = {"Authorization": f"{kind} {hub.standing_token('guest')}"}
        status, *_ = ask(f"/gateway/clusters/{cluster}/status", words, origin=PEOPLE)
        assert status == 401


@pytest.mark.parametrize("name", ["guest", "ada"])
def test_another_person_is_refused_also_an_administrator(lab, browser, cluster, name):
    with signed_in(lab, browser, name) as shown:
        for path in ("status", "json/counts.json"):
            status, text = shown.goto(f"{ROOT}/gateway/clusters/{cluster}/{path}").status, shown.inner_text("body")
            assert (status, "no cluster of yours" in text) == (403, True)
            assert shown.url == f"{PEOPLE}/gateway/clusters/{cluster}/{path}"
        unknown = shown.goto(f"{ROOT}/gateway/clusters/{'0' * 32}/status").status
        assert (unknown, shown.inner_text("body")) == (403, text), "which clusters exist is not told"


def test_the_owner_s_dashboard_works_until_signing_out(lab, browser, ask, cluster):
    with signed_in(lab, browser, "marie") as shown:
        shown.goto(f"{ROOT}/gateway/clusters/{cluster}/status")
        address = f"/gateway/clusters/{cluster}/json/counts.json"
        assert shown.url == f"{PEOPLE}/gateway/clusters/{cluster}/status", (
            "the Hub asks nothing of who is signed in there"
        )
        shown.wait_for_function("document.title == 'Dask: Status'")
        shown.locator("canvas").first.wait_for()  # which needs the websocket
        counts = shown.evaluate("async address => (await fetch(address)).json()", address)
        assert counts["workers"] == 1
        assert "dask-dashboards" not in shown.evaluate("document.cookie"), "no script of the page gets the key"
        held = {each["name"]: each["value"] for each in shown.context.cookies() if each["name"] == "dask-dashboards"}
        cookie = {"Cookie": f"dask-dashboards={held['dask-dashboards']}"}
        assert ask(address, cookie, origin=PEOPLE)[0] == 200
        assert ask(address, cookie)[0] == 401, "a dashboard is not shown where people sign in"
        shown.goto(f"{ROOT}/hub/logout")
        lab.wait_for("the session has ended", lambda: ask(address, cookie, origin=PEOPLE)[0] == 401, timeout=60)


def test_a_sign_in_that_did_not_begin_here_is_refused(ask):
    for query in ("", "?code=abc&state=abc", "?code=abc&state=../x", "?error=access_denied"):
        status, headers, _ = ask(f"/gateway/dashboards/signed-in{query}", {"Cookie": "dask-dashboards-state-abd=Lw"})
        assert (status, headers["Set-Cookie"]) == (400, None), query
    status, headers, _ = ask(
        "/gateway/dashboards/signed-in?code=abc&state=abc", {"Cookie": "dask-dashboards-state-abc=Ly9ldmlsLmV4YW1wbGUv"}
    )
    assert (status, headers["Location"]) == (400, None), "nor does it lead anywhere else"


def test_the_gateway_has_no_right_at_the_hub(lab, hub):
    secret = json.loads(lab.master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]["dask_gateway_hub_token"]
    assert hub.ask("GET", "user", token=secret).json()["name"] == "dask-gateway"
    for path in ("users", "users/marie", "proxy", "services", "groups"):
        assert hub.ask("GET", path, token=secret, check=False).status_code in (403, 404), path


def test_a_ticket_that_nobody_was_given_is_refused(ask):
    for query in ("", "?ticket=", "?ticket=abc"):
        status, headers, _ = ask(f"/gateway/dashboards/enter{query}", origin=PEOPLE)
        assert (status, headers["Set-Cookie"]) == (400, None), query
    for path in ("/hub/home", "//evil.example.org/", "https://evil.example.org/", "/gateway/clusters/x"):
        assert ask(f"/gateway/dashboards/sign-in?next={path}")[0] == 400, path


@pytest.fixture
def held(lab, hub):
    """A cluster of marie's whose job runs her profile instead of a scheduler: its name and its token."""
    profile, told = "/home/marie/.bash_profile", "/home/marie/told"
    script = f'test -z "$DASK_GATEWAY_API_TOKEN" || {{ echo "$DASK_GATEWAY_API_TOKEN" > {told}; sleep 300; }}\n'
    lab.as_user("marie", ["tee", profile], input=script)
    name = gateway(hub, "POST", "clusters/", "marie", {"cluster_options": {"account": "physics"}})["name"]
    try:
        lab.wait_for(
            "the job runs", lambda: not lab.master.run(["test", "-s", told], check=False).returncode, timeout=60
        )
        yield name, lab.master.read(told).strip()
    finally:
        lab.master.run(["rm", "-f", profile, told])
        gateway(hub, "DELETE", f"clusters/{name}", "marie")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8081", "http://127.0.0.1:40000"], ids=["hub", "another machine"])
def test_a_scheduler_that_reports_another_address_is_not_believed(hub, held, address):
    name, token = held
    report = {"api_address": address, "scheduler_address": address.replace("http", "tls"), "dashboard_address": address}
    report |= {"count": 0, "active_workers": [], "closing_workers": [], "closed_workers": []}
    path = f"api/v1/clusters/{name}/heartbeat"
    answer = hub.ask("POST", path, report, base="/gateway/", kind="token", token=token, check=False)
    assert (answer.status_code, "is not tls://" in answer.text) == (403, True), answer.text
    assert gateway(hub, "GET", f"clusters/{name}", "marie")["status"] != "RUNNING"

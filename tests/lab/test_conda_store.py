"""Environments in the cluster: people sign in to conda-store, and what is built is on every node."""

import json

import pytest

from tests.lab.browser import CHOSEN, ROOT, fill, page, signed_in
from tests.lab.harness.shell import wait_for

HOME = f"{ROOT}/conda-store/"
SIGN_IN = ("/conda-store/login/", "/conda-store/ui/")
SHARED = "/opt/qhub/shared/conda"
FETCH = """async ([method, path, body, token]) => {
    const headers = {'Content-Type': 'application/json', ...(token && {Authorization: 'Bearer ' + token})};
    const answer = await fetch('/conda-store/api/v1/' + path, {method, headers, body: body && JSON.stringify(body)});
    return [answer.status, await answer.json()];
}"""
# The page knows a name when it has not changed for 300 ms; a timer that is set later and longer ends after that.
NAME_IS_KNOWN = "() => new Promise(done => setTimeout(done, 400))"

# On the master: one request of Salt's.
CALL = """
import json, sys, urllib.request
method, path, token, body = json.load(sys.stdin)
url, headers = "http://127.0.0.1:5000/conda-store/api/v1/" + path, {"Authorization": "Bearer " + token}
headers["Content-Type"] = "application/json"
request = urllib.request.Request(url, body and body.encode(), headers, method=method)
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""


def ask(shown, method, path, body=None, token=None):
    """Ask the API as conda-store's own page does, or where nobody is signed in by ``token``."""
    return shown.evaluate(FETCH, [method, path, body, token])


def ask_as_salt(master, method, path, body=None):
    """Ask the API with Salt's token; return the ``data`` of the answer."""
    token = json.loads(master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]["conda_store_salt_token"]
    given = json.dumps([method, path, token, body and json.dumps(body)])
    return json.loads(master.run(["python3", "-c", CALL], input=given).stdout).get("data")


def token(shown):
    """Return a token that somebody who is signed in has made out, and sign out."""
    made = ask(shown, "POST", "token/")[1]["data"]["token"]
    shown.context.clear_cookies()
    assert ask(shown, "GET", "permission/")[1]["data"]["authenticated"] is False
    return made


def environment(namespace):
    return {"namespace": namespace, "specification": json.dumps({"name": "mine", "dependencies": ["no-such-package"]})}


def new_button(shown, namespace):
    """Return the button for a new environment in a namespace, and whether it can be used."""
    button = shown.get_by_label(f"in the {namespace} namespace")
    return button, button.get_attribute("aria-disabled") == "false"


def create(shown, name):
    """Fill in the form for a new environment of one small package."""
    shown.get_by_label("Environment name").fill(name)
    shown.get_by_role("button", name="Add Package").click()
    shown.get_by_label("Enter package").fill("toolz")
    shown.keyboard.press("Enter")
    shown.evaluate(NAME_IS_KNOWN)
    shown.get_by_role("button", name="Create", exact=True).click()


def refused(shown, namespace):
    """Try to make an environment at the address where the page has the form for it; return what the page says."""
    shown.goto(f"{HOME}ui/{namespace}/new-environment")
    create(shown, "refused")
    return shown.get_by_role("alert").inner_text()


@pytest.fixture(scope="module")
def marie(lab, master, browser):
    """Marie's page, on which she has made the environment physics/by-page, which is built."""
    with signed_in(lab, browser, "marie", *SIGN_IN) as shown:
        button, usable = new_button(shown, "physics")
        assert usable
        button.click()
        create(shown, "by-page")
        shown.wait_for_url(f"{HOME}ui/physics/by-page")
        shown.get_by_test_id("build-status").get_by_text("Completed").wait_for(timeout=300_000)
        yield shown
    ask_as_salt(master, "DELETE", "environment/physics/by-page/")


@pytest.fixture(scope="module")
def viewer(lab):
    """The name of somebody who may only look, at what is shared and what physics has."""

    def users(pillar):
        pillar["users"]["vera"] = {
            "uid": 20011, "full_name": "Vera Rubin", "email": "vera@example.org", "accounts": ["physics"],
            "role": "viewer",
        }  # fmt: skip
        return pillar

    with lab.pillar(users=users):
        lab.apply("master", ["keycloak.realm", "conda_store"])
        yield "vera"
    lab.apply("master", ["keycloak.realm", "conda_store"])


def test_people_sign_in_and_may_what_their_roles_say(lab, browser):
    with signed_in(lab, browser, "marie", *SIGN_IN) as shown:
        assert ask(shown, "GET", "permission/")[1]["data"]["entity_roles"] == {
            "marie/*": ["admin"],
            "chemistry/*": ["developer"],
            "physics/*": ["developer"],
            "global/*": ["viewer"],
        }
        for namespace in ("global", "science", "ada"):
            assert ask(shown, "POST", "specification/", environment(namespace))[0] == 403, namespace
        for namespace in ("marie", "physics"):
            assert ask(shown, "POST", "specification/", environment(namespace))[0] == 200, namespace
        assert ask(shown, "DELETE", "environment/physics/mine/")[0] == 403
        assert ask(shown, "DELETE", "environment/marie/mine/")[0] == 200
        cookie = next(each for each in shown.context.cookies() if each["name"] == "conda-store-auth")
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
        shown.get_by_text("Log out").wait_for()


def test_an_administrator_may_do_everything(lab, browser):
    with signed_in(lab, browser, "ada", *SIGN_IN) as shown:
        assert ask(shown, "GET", "permission/")[1]["data"]["entity_roles"]["*/*"] == ["admin"]
        assert ask(shown, "DELETE", "environment/physics/mine/")[0] == 200


def test_a_page_elsewhere_is_no_way_back(lab, browser):
    for elsewhere in ("https://evil.test/", "//evil.test/", "/auth/", '/conda-store/";alert(1)//'):
        with page(browser) as shown:
            shown.goto(f"{HOME}login/?next={elsewhere}")
            fill(shown, "marie", CHOSEN)
            shown.wait_for_url(lambda url: url.startswith(HOME) and "oauth_callback" not in url)


def test_a_developer_makes_environments_of_the_group_on_the_page(lab, master, marie):
    command = [f"{SHARED}/environments/physics/by-page/bin/python", "-c", "import toolz; print(toolz.__name__)"]
    for node in (master, *lab.workers):
        assert node.run(command, user="marie").stdout == "toolz\n"
    assert [new_button(marie, namespace)[1] for namespace in ("marie", "chemistry", "global")] == [True, True, False]
    for namespace in ("global", "ada", "science"):
        assert refused(marie, namespace) == "request not authorized", namespace
    mine = token(marie)
    for namespace, status in (("global", 403), ("ada", 403), ("science", 403), ("physics", 200)):
        assert ask(marie, "POST", "specification/", environment(namespace), mine)[0] == status, namespace
    assert ask(marie, "DELETE", "environment/physics/by-page/", None, mine)[0] == 403
    ask_as_salt(master, "DELETE", "environment/physics/mine/")


def test_a_viewer_looks_and_changes_nothing(lab, master, browser, marie, viewer):
    there = ask_as_salt(master, "GET", "environment/physics/by-page/")
    build = there["current_build_id"]
    with signed_in(lab, browser, viewer, *SIGN_IN) as shown:
        assert [new_button(shown, namespace)[1] for namespace in ("physics", "global")] == [False, False]
        assert shown.get_by_text("chemistry", exact=True).count() == 0
        shown.wait_for_load_state("networkidle")  # the list folds what is unfolded while it is being filled
        shown.get_by_text("physics", exact=True).click()
        shown.get_by_role("link", name="by-page", exact=True).click()
        shown.get_by_test_id("build-status").get_by_text("Completed").wait_for()
        assert shown.get_by_role("button", name="Edit", exact=True).is_disabled()
        for namespace in ("physics", "global", viewer):
            assert refused(shown, namespace) == "request not authorized", namespace

        def changes(token):
            """Return how each way to change something is answered."""
            ways = [
                *(("POST", "specification/", environment(namespace)) for namespace in ("physics", "global", viewer)),
                ("PUT", "environment/physics/by-page/", {"build_id": build}),
                ("PUT", "setting/physics/by-page/", {"storage_threshold": 1}),
                ("PUT", f"build/{build}/", None),
                ("PUT", f"build/{build}/cancel/", None),
                ("DELETE", f"build/{build}/", None),
                ("DELETE", "environment/physics/by-page/", None),
                ("DELETE", "environment/global/analysis/", None),
                ("POST", f"namespace/{viewer}/", None),
                ("DELETE", "namespace/physics/", None),
                ("POST", "namespace/physics/role", {"other_namespace": "chemistry", "role": "editor"}),
            ]
            return {(method, path): ask(shown, method, path, body, token)[0] for method, path, body in ways}

        def seen(token):
            listed = ask(shown, "GET", "environment/", None, token)[1]["data"]
            return {each["namespace"]["name"] for each in listed}

        assert set(changes(None).values()) == {403}, changes(None)
        assert seen(None) == {"physics", "global"}
        more = {"role_bindings": {"physics/*": ["developer"]}}
        assert ask(shown, "POST", "token/", more)[0] == 400, "no token for more than one may oneself"
        hers = token(shown)
        assert seen(hers) == {"physics", "global"}
        assert set(changes(hers).values()) == {403}, changes(hers)
    assert ask_as_salt(master, "GET", "environment/physics/by-page/") == there


def test_who_may_do_less_than_before_has_no_use_of_old_tokens(lab, browser):
    def with_marie(**changed):
        def users(pillar):
            pillar["users"]["marie"] |= changed
            return pillar

        return users

    def works(shown, token=None):
        return ask(shown, "GET", "permission/", None, token)[1]["data"]["authenticated"]

    with signed_in(lab, browser, "marie", *SIGN_IN) as shown, page(browser) as nobody:
        nobody.goto(HOME)
        every = ask(shown, "POST", "token/")[1]["data"]["token"]
        bindings = {"role_bindings": {"physics/*": ["viewer"]}}
        little = ask(shown, "POST", "token/", bindings)[1]["data"]["token"]
        try:
            for less in ({"accounts": ["physics"]}, {"role": "viewer"}):
                with lab.pillar(users=with_marie(**less)):
                    lab.apply("master", ["conda_store"])
                    assert [works(shown), works(nobody, every), works(nobody, little)] == [False, False, True], less
        finally:
            lab.apply("master", ["conda_store"])
        assert [works(shown), works(nobody, every), works(nobody, little)] == [True] * 3


def test_an_environment_is_on_every_node_and_a_kernel(lab, master):
    asked = {"namespace": "global", "specification": json.dumps({"name": "everywhere", "dependencies": ["python"]})}

    build = ask_as_salt(master, "POST", "specification/", asked)["build_id"]
    ended = ("COMPLETED", "FAILED")
    wait_for(
        "it is built", lambda: ask_as_salt(master, "GET", f"build/{build}/")["status"] in ended, timeout=300, interval=1
    )
    python = f"{SHARED}/environments/global/everywhere/bin/python"
    for node in (master, *lab.workers):
        command = [python, "-c", "import ipykernel, sys; print(sys.prefix)"]
        assert lab.node(node.name).run(command, user="www-data").stdout.startswith(f"{SHARED}/")
        kernel = f"{SHARED}/jupyter/global/kernels/global.everywhere/kernel.json"
        wait_for(
            "it is a kernel",
            lambda node=node, kernel=kernel: not node.run(["test", "-e", kernel], check=False).returncode,
        )
    ask_as_salt(master, "DELETE", "environment/global/everywhere/")

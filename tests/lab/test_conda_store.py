"""Environments in the cluster: people sign in to conda-store, and what is built is on every node."""

import json

from tests.lab.browser import CHOSEN, ROOT, fill, page, signed_in
from tests.lab.harness.shell import wait_for

HOME = f"{ROOT}/conda-store/"
SIGN_IN = ("/conda-store/login/", "/conda-store/ui/")
SHARED = "/opt/qhub/shared/conda"
FETCH = """async ([method, path, body]) => {
    const answer = await fetch('/conda-store/api/v1/' + path, {
        method, headers: {'Content-Type': 'application/json'}, body: body && JSON.stringify(body)});
    return [answer.status, await answer.json()];
}"""

# On the master: one request of Salt's.
CALL = """
import json, sys, urllib.request
method, path, token, body = json.load(sys.stdin)
url, headers = "http://127.0.0.1:5000/conda-store/api/v1/" + path, {"Authorization": "Bearer " + token}
headers["Content-Type"] = "application/json"
request = urllib.request.Request(url, body and body.encode(), headers, method=method)
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""


def ask(shown, method, path, body=None):
    """Ask the API as conda-store's own page does."""
    return shown.evaluate(FETCH, [method, path, body])


def environment(namespace):
    return {"namespace": namespace, "specification": json.dumps({"name": "mine", "dependencies": ["no-such-package"]})}


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


def test_an_environment_is_on_every_node_and_a_kernel(lab, master):
    token = json.loads(master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]["conda_store_salt_token"]
    asked = {"namespace": "global", "specification": json.dumps({"name": "everywhere", "dependencies": ["python"]})}

    def call(method, path, body=None):
        given = json.dumps([method, path, token, body and json.dumps(body)])
        return json.loads(master.run(["python3", "-c", CALL], input=given).stdout).get("data")

    build = call("POST", "specification/", asked)["build_id"]
    ended = ("COMPLETED", "FAILED")
    wait_for("it is built", lambda: call("GET", f"build/{build}/")["status"] in ended, timeout=300, interval=1)
    python = f"{SHARED}/environments/global/everywhere/bin/python"
    for node in (master, *lab.workers):
        command = [python, "-c", "import ipykernel, sys; print(sys.prefix)"]
        assert lab.node(node.name).run(command, user="www-data").stdout.startswith(f"{SHARED}/")
        kernel = f"{SHARED}/jupyter/global/kernels/global.everywhere/kernel.json"
        wait_for(
            "it is a kernel",
            lambda node=node, kernel=kernel: not node.run(["test", "-e", kernel], check=False).returncode,
        )
    call("DELETE", "environment/global/everywhere/")

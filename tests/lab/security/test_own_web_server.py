"""A page that Marie serves from her notebook server, opened by an administrator who is signed in everywhere.

People's servers have another host name than the pages at which people sign in, so a browser gives the page nothing of
them. The front door also removes the headers that hold for a whole origin.
"""

import pytest

from tests.lab.browser import PEOPLE, ROOT, page, signed_in

CONFIG = "/home/marie/.jupyter/jupyter_server_config.py"
HEADERS = {
    "Service-Worker-Allowed": "/",
    "Clear-Site-Data": '"cookies"',
    "Access-Control-Allow-Origin": "https://elsewhere.example.org",
    "Access-Control-Allow-Credentials": "true",
    "Strict-Transport-Security": "max-age=0",
    "X-Sent-By": "marie",
}
#: Marie's configuration: her server has two pages that ask for no sign-in.
PAGES = f"""
import tornado.web
from jupyter_server.serverapp import ServerApp

class Page(tornado.web.RequestHandler):
    def get(self, name):
        for header, value in {HEADERS!r}.items():
            if header != "Clear-Site-Data":
                self.set_header(header, value)
        self.set_header("Content-Type", "text/javascript" if name == "sw.js" else "text/html")
        self.write("onfetch = () => {{}}" if name == "sw.js" else "<title>shared</title>")

before = ServerApp.init_webapp

def init_webapp(self):
    before(self)
    self.web_app.add_handlers(".*$", [(self.base_url + "(shared.html|sw.js)", Page)])

ServerApp.init_webapp = init_webapp
"""
#: Each resolves to what the script got, or throws. `root` is the public origin.
GET = "root => fetch(root + '{}', {{credentials: 'include'}}).then(answer => answer.text())"
#: A window of the page, which the script looks into; `test` reads the window and returns null until it has something.
WINDOW = """async root => {{
    const other = window.open(root + '{}');
    for (let tries = 0; tries < 100; tries++) {{
        const got = (() => {{ {} }})();
        if (got) return got;
        await new Promise(done => setTimeout(done, 100));
    }}
    throw new Error('nothing came');
}}"""
#: A public client's authorization code, by the session of whoever reads the page; the verifier is 43 times "a".
CODE = (
    "/auth/realms/{realm}/protocol/openid-connect/auth?client_id={client}&response_type=code&response_mode=fragment"
    "&scope=openid&code_challenge_method=S256&code_challenge=ZtNPunH49FD35FWYhT5Tv8I7vRKQJ8uxMaL0_9eHjNA"
    "&redirect_uri="
)
ACCOUNT, ADMIN = (
    CODE.format(realm="qhub", client=client) + f"' + root + '{path}"
    for client, path in (
        ("account-console", "/auth/realms/qhub/account/"),
        ("security-admin-console", "/auth/admin/qhub/console/"),
    )
)
LOCATION = "const seen = other.location.href; return seen.includes('code=') && seen;"
ATTACKS = {
    "the Hub's page of tokens": GET.format("/hub/token"),
    "the Hub's page of tokens, in a window": WINDOW.format(
        "/hub/token", "return other.document.readyState == 'complete' && other.document.body.innerText;"
    ),
    "the Hub's list of people": GET.format("/hub/api/users"),
    "a code for the account console": GET.format(ACCOUNT),
    "a code for the account console, in a window": WINDOW.format(ACCOUNT, LOCATION),
    "a code for the realm's console, in a window": WINDOW.format(ADMIN, LOCATION),
    "conda-store's token": """root =>
        fetch(root + '/conda-store/api/v1/token/', {method: 'POST', credentials: 'include'})
        .then(answer => answer.ok ? answer.text() : Promise.reject(new Error(answer.status)))""",
    "conda-store's environments": GET.format("/conda-store/api/v1/environment/"),
    "monitoring": GET.format("/monitoring/"),
    "a service worker for the origin": """() => navigator.serviceWorker.register('sw.js', {scope: '/'})
        .then(worker => worker.scope)""",
}


@pytest.fixture(scope="module")
def configured(lab, hub):
    """Return a function that starts Marie's server with a configuration of hers."""

    def start(config):
        hub.stop_server("marie")
        lab.as_user("marie", ["mkdir", "-p", CONFIG.rpartition("/")[0]])
        lab.as_user("marie", ["tee", CONFIG], input=config)
        hub.start_server("marie")

    yield start
    lab.as_user("marie", ["rm", "-f", CONFIG])
    hub.stop_server("marie")


@pytest.fixture(scope="module")
def shared(lab, configured, browser):
    """The page, opened by Ada, who is an administrator and signed in at the Hub, conda-store and monitoring."""
    configured(PAGES)
    with signed_in(lab, browser, "ada") as shown:
        for path in ("/conda-store/login/", "/monitoring/"):
            shown.goto(ROOT + path)
        shown.goto(f"{PEOPLE}/user/marie/shared.html")
        assert shown.title() == "shared"
        yield shown


def test_headers_for_the_whole_origin_are_removed(configured, hub):
    configured(f'c.ServerApp.tornado_settings = {{"headers": {HEADERS!r}}}\n')
    answer = hub.ask("GET", "api", base="/user/marie/", token=hub.standing_token("marie"))
    assert answer.headers["X-Sent-By"] == "marie", "the server sends the headers"
    passed = {name: answer.headers[name] for name in HEADERS if answer.headers.get(name) == HEADERS[name]}
    assert passed == {"X-Sent-By": "marie"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_page_gets_nothing_of_the_reader_s_session(shared, attack):
    got = shared.evaluate(
        f"root => ({ATTACKS[attack]})(root).then(got => ['got', got], error => ['refused', String(error)])", ROOT
    )
    assert got[0] == "refused", got[1][:300]


def test_conda_store_takes_no_change_from_another_origin(shared):
    """The browser sends the cookie, as both host names are one site; the answer's status tells what came of it."""
    with shared.expect_response(lambda answer: "/conda-store/api/v1/namespace/" in answer.url) as answer:
        shared.evaluate(
            "root => fetch(root + '/conda-store/api/v1/namespace/marie-was-here', "
            "{method: 'POST', credentials: 'include', mode: 'no-cors'})",
            ROOT,
        )
    assert answer.value.status == 403


def test_no_worker_of_the_page_is_at_the_sign_in_page(shared, browser):
    with page(browser) as shown:
        shown.goto(f"{PEOPLE}/user/marie/shared.html")
        shown.evaluate("() => navigator.serviceWorker.register('sw.js').catch(() => null)")
        shown.goto(f"{ROOT}/hub/home")
        shown.get_by_label("Username").wait_for()
        assert shown.evaluate("navigator.serviceWorker.controller") is None


@pytest.mark.parametrize(
    "path",
    [
        "/hub/", "/hub/home", "/hub/api/", "/auth/", "/auth/realms/qhub/account/", "/conda-store/", "/monitoring/",
        "/gateway/api/health", "/services/", "/user/../hub/home", "/user/%2e%2e/hub/home", "//hub/home", "/user",
    ],
)  # fmt: skip
def test_people_s_host_name_has_no_page_at_which_anybody_signs_in(ask, path):
    assert ask(path, {"Accept": "text/html"}, origin=PEOPLE)[0] == 404


def test_people_s_host_name_leads_to_the_front_page(ask):
    status, headers, _ = ask("/", origin=PEOPLE)
    assert (status, headers["Location"]) == (302, f"{ROOT}/")


def test_the_public_name_serves_nothing_of_people_s(shared, ask):
    assert ask("/user/marie/shared.html", origin=PEOPLE)[2] == "<title>shared</title>"
    status, headers, _ = ask("/user/marie/shared.html")
    assert (status, headers["Location"]) == (302, f"{ROOT}/hub/user/marie/shared.html")

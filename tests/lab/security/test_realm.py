"""The realm: no token for a password alone, no session without an end, no client's secret for its administrators."""

import base64
import hashlib
import secrets
import urllib.parse

import pytest

from tests.lab.browser import CHOSEN, ROOT, signed_in

REALM = "/auth/realms/qhub"
ACCOUNT = f"{REALM}/account/"
ADMIN = "/auth/admin/realms/qhub"
POST = """async ([url, form]) =>
    (await fetch(url, {method: "POST", body: new URLSearchParams(form)})).json()"""
STATUS = """async ([url, token]) =>
    (await fetch(url, {headers: {Authorization: `Bearer ${token}`}})).status"""


@pytest.fixture(scope="module")
def ada(lab, browser):
    """A page of Ada, an administrator of the realm, signed in to the account console. Her password is CHOSEN."""
    with signed_in(lab, browser, "ada", ACCOUNT, f"{ACCOUNT}**") as shown:
        yield shown


def token(shown, **form):
    """Return the answer (a dict) of the realm's token endpoint to a page."""
    return shown.evaluate(POST, [f"{ROOT}{REALM}/protocol/openid-connect/token", form])


def code_grant(shown, client, address, scope="openid"):
    """Return the answer of the token endpoint for a public client with pages at ``address``, by a code with PKCE."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    asked = {"client_id": client, "redirect_uri": ROOT + address}
    query = {"response_type": "code", "scope": scope, "code_challenge": challenge, "code_challenge_method": "S256"}
    with shown.expect_request(lambda request: "code=" in request.url) as sent:
        shown.goto(f"{ROOT}{REALM}/protocol/openid-connect/auth?{urllib.parse.urlencode(asked | query)}")
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(sent.value.url).query)["code"][0]
    shown.goto(ROOT + REALM)  # a page without a script, which would use the code itself
    return token(shown, grant_type="authorization_code", code=code, code_verifier=verifier, **asked)


@pytest.fixture(scope="module")
def console(ada):
    """The access token that Keycloak's administration console has for Ada."""
    return code_grant(ada, "security-admin-console", "/auth/admin/qhub/console/")["access_token"]


@pytest.mark.parametrize("client", ["admin-cli", "account", "account-console", "security-admin-console"])
def test_no_client_gives_a_token_for_a_password(ada, client):
    answer = token(ada, grant_type="password", client_id=client, username="ada", password=CHOSEN)
    assert "access_token" not in answer


def test_no_session_is_without_an_end(ada):
    answer = code_grant(ada, "account-console", ACCOUNT, "openid offline_access")
    assert "refresh_token" not in answer, answer.keys()


def test_an_administrator_manages_people(ada, console):
    assert ada.evaluate(STATUS, [f"{ROOT}{ADMIN}/users", console]) == 200


@pytest.mark.parametrize("client", ["jupyterhub", "grafana", "conda-store"])
def test_an_administrator_reads_no_clients_secret(lab, ada, console, client):
    psql = ["psql", "--tuples-only", "--no-align", f"--set=client={client}", "keycloak"]
    query = "SELECT id FROM client WHERE client_id = :'client'"
    identifier = lab.master.run(["runuser", "-u", "postgres", "--", *psql], input=query).stdout.strip()
    assert ada.evaluate(STATUS, [f"{ROOT}{ADMIN}/clients/{identifier}/client-secret", console]) == 403

"""Signing in at the front door, in a browser: who gets in, who does not, and what a service is told about them."""

import base64
import hashlib
import json
import secrets
import urllib.parse

import pytest

from tests.lab.browser import CHOSEN, ROOT, choose_password, fill, first_password, one_time_password, page

REALM = f"{ROOT}/auth/realms/qhub"
ACCOUNT = f"{REALM}/account/"


@pytest.fixture
def sign_in(browser):
    """Return a function that opens the account console as a person and returns the page."""
    opened = []

    def open_as(name, password, url=ACCOUNT):
        context = page(browser)
        shown = context.__enter__()
        opened.append(context)
        shown.goto(url)
        fill(shown, name, password)
        return shown

    yield open_as
    for context in opened:
        context.__exit__(None, None, None)


def settle(lab, sign_in, name, password=CHOSEN):
    """Let a person choose a password at the first sign-in; return the page."""
    shown = sign_in(name, first_password(lab, name))
    choose_password(shown, password)
    return shown


def is_in(shown, name):
    """Wait until the account console shows the person's own data."""
    shown.wait_for_url(f"{ACCOUNT}**")
    shown.get_by_role("heading", name="Personal info").wait_for()
    assert shown.get_by_test_id("username").input_value() == name


def refused(shown):
    """Return why the person was not let in."""
    return shown.locator("#input-error, .kc-feedback-text, .pf-v5-c-alert__title").first.inner_text().strip()


def test_the_certificate_needs_no_exception(browser):
    with page(browser) as shown:
        answer = shown.goto(ACCOUNT)
        assert answer.ok
        assert answer.security_details()["issuer"].startswith("QHub HPC certificate authority")
        shown.get_by_label("Username").wait_for()
        assert shown.url.startswith(f"{REALM}/protocol/openid-connect/auth")
        assert shown.title() == "Sign in to lab cluster"


def test_a_person_signs_in_with_a_password_of_their_own(lab, sign_in, tmp_path):
    is_in(settle(lab, sign_in, "marie"), "marie")
    is_in(sign_in("marie", CHOSEN), "marie")


def test_who_has_no_password_or_a_wrong_one_does_not_get_in(lab, sign_in):
    settle(lab, sign_in, "marie")
    wrong = refused(sign_in("marie", "not the password"))
    assert wrong == "Invalid username or password."
    assert refused(sign_in("guest", "whatever else it is")) == wrong  # and says nothing about who exists
    assert refused(sign_in("nobody-here", "whatever else it is")) == wrong


def test_guessing_is_locked_out(lab, sign_in):
    settle(lab, sign_in, "guest")
    for attempt in range(6):
        refused(sign_in("guest", f"guess {attempt}"))
    assert refused(sign_in("guest", CHOSEN)) == "Invalid username or password."
    log = lab.master.run(["journalctl", "-q", "--no-pager", "-u", "keycloak", "-n", "200"]).stdout
    assert "user_temporarily_disabled" in log


def without(name):
    """Return an edit of ``users.sls`` that takes a person out."""

    def edit(users):
        del users["users"][name]
        return users

    return edit


def test_a_locked_person_and_a_removed_one(lab, sign_in):
    settle(lab, sign_in, "marie")

    def locked(users):
        users["users"]["marie"]["locked"] = True
        return users

    with lab.pillar(users=locked):
        lab.apply("master", ["keycloak.realm"])
        assert refused(sign_in("marie", CHOSEN)) == "Account is disabled, contact your administrator."
    with lab.pillar(users=without("marie")):
        changes = next(s for s in lab.apply("master", ["keycloak.realm"]).values() if s["name"] == "qhub")["changes"]
        assert list(changes) == ["user/marie"]
        assert refused(sign_in("marie", CHOSEN)) == "Invalid username or password."
    lab.apply("master", ["keycloak.realm"])
    is_in(settle(lab, sign_in, "marie"), "marie")


def test_a_session_ends_with_the_person(lab, sign_in):
    shown = settle(lab, sign_in, "marie")
    is_in(shown, "marie")

    with lab.pillar(users=without("marie")):
        lab.apply("master", ["keycloak.realm"])
        shown.goto(ACCOUNT)
        shown.get_by_label("Username").wait_for()
    lab.apply("master", ["keycloak.realm"])


def test_a_service_learns_who_somebody_is(lab, sign_in):
    settle(lab, sign_in, "marie")
    claims = token(lab, sign_in, "jupyterhub", "/hub/oauth_callback", "marie")
    assert claims["preferred_username"] == "marie"
    assert sorted(claims["groups"]) == ["/accounts/chemistry", "/accounts/physics", "/developer"]
    assert claims["roles"] == ["developer"]
    assert "realm-management" not in json.dumps(claims)


def token(lab, sign_in, client, callback, name):
    """Sign in to a client as its service would, and return the claims of the ID token."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    asked = {
        "client_id": client,
        "response_type": "code",
        "scope": "openid",
        "redirect_uri": ROOT + callback,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    shown = sign_in(name, CHOSEN, f"{REALM}/protocol/openid-connect/auth?{urllib.parse.urlencode(asked)}")
    shown.wait_for_url(f"{ROOT}{callback}?**")
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(shown.url).query)["code"][0]
    pillar = json.loads(lab.master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": client,
        "client_secret": pillar[f"{client.replace('-', '_')}_client_secret"],
        "redirect_uri": ROOT + callback,
        "code_verifier": verifier,
    }
    post = "async ([url, form]) => (await fetch(url, {method: 'POST', body: new URLSearchParams(form)})).json()"
    answer = shown.evaluate(post, [f"{REALM}/protocol/openid-connect/token", form])
    payload = answer["id_token"].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=="))


def test_administrators_need_a_one_time_password_where_the_site_says_so(lab, sign_in):
    def with_otp(_):
        return {"realm": {"otp_for": ["admin"]}}

    with lab.pillar(realm=with_otp):
        lab.apply("master", ["keycloak.realm"])
        shown = sign_in("ada", first_password(lab, "ada"))
        shown.get_by_text("Unable to scan?").click()
        secret = shown.locator("#kc-totp-secret-key").inner_text()
        shown.locator("#totp").fill(one_time_password(secret))
        shown.get_by_role("button", name="Submit").click()
        choose_password(shown)
        is_in(shown, "ada")
        again = sign_in("ada", CHOSEN)
        again.locator("#otp").fill("000000")
        again.get_by_role("button", name="Sign In").click()
        assert refused(again) == "Invalid authenticator code."
        is_in(settle(lab, sign_in, "marie"), "marie")  # who is no administrator is not asked
    with lab.pillar(users=without("ada")):  # and her second factor with her
        lab.apply("master", ["keycloak.realm"])
    lab.apply("master", ["keycloak.realm"])

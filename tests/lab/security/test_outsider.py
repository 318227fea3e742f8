"""Somebody without an account, at the front door.

The Hub answers for each path without a service: it redirects to the same path below /hub, where it has no page.
Keycloak redirects to the console of the people's realm, as it knows no other.
"""

import json
import urllib.parse

import pytest

from tests.lab.browser import ROOT

REALM = "/auth/realms/qhub"
OPENID = f"{REALM}/protocol/openid-connect"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: Requests that the realm refuses: method, path and form.
REFUSED = {
    "registration": ("GET", f"{OPENID}/registrations?client_id=account&response_type=code", None),
    "a client of one's own": ("POST", f"{REALM}/clients-registrations/default", {"redirectUris": ["https://x/"]}),
    "a client of one's own, by OpenID": (
        "POST", f"{REALM}/clients-registrations/openid-connect", {"redirect_uris": ["https://x/"]}),
    "a code for a device": ("POST", f"{OPENID}/auth/device", "client_id=account-console"),
    "a client's token": ("POST", f"{OPENID}/token", "grant_type=client_credentials&client_id=salt&client_secret=x"),
    "another person's token, exchanged": (
        "POST", f"{OPENID}/token",
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&client_id=account-console&requested_subject=ada"),
    "people": ("GET", "/auth/admin/realms/qhub/users", None),
    "the realm master": ("GET", "/auth/realms/master/account/", None),
    "the realm master, in other letters": ("GET", "/auth/realms/%6daster/account/", None),
    "the realm master, past a directory": ("GET", "/auth/realms/qhub/../master/account/", None),
    "the realm master, past an encoded slash": ("GET", "/auth/realms/qhub%2f..%2fmaster/account/", None),
    "the console of the realm master": ("GET", "/auth/admin/master/console/", None),
    "metrics": ("GET", "/auth/metrics", None),
    "health": ("GET", "/auth/health", None),
    "the Hub's people": ("GET", "/hub/api/users", None),
    "the Hub's routes": ("GET", "/hub/api/proxy", None),
    "the Hub's metrics": ("GET", "/hub/metrics", None),
    "the Hub's notebook report": ("POST", "/hub/api/notebook", {"port": 63001}),
    "clusters": ("GET", "/gateway/api/v1/clusters/", None),
    "a cluster": ("POST", "/gateway/api/v1/clusters/", {}),
    "a cluster's heartbeat": ("POST", "/gateway/api/v1/clusters/0/heartbeat", {}),
    "conda-store's settings": ("PUT", "/conda-store/api/v1/setting/", {}),
    "conda-store's metrics": ("GET", "/conda-store/metrics", None),
    "an environment": ("POST", "/conda-store/api/v1/specification/", {"specification": "name: x"}),
    "Traefik's routes": ("GET", "/api/rawdata", None),
    "Traefik's page": ("GET", "/dashboard/", None),
    "Prometheus's configuration": ("GET", "/monitoring/api/v1/status/config", None),
    "Prometheus's series": ("POST", "/monitoring/api/v1/admin/tsdb/delete_series", None),
}  # fmt: skip


@pytest.mark.parametrize("attack", REFUSED)
def test_a_request_without_a_sign_in_is_refused(ask, attack):
    method, path, form = REFUSED[attack]
    headers = FORM if isinstance(form, str) else {"Content-Type": "application/json"}
    body = form if isinstance(form, str) or form is None else json.dumps(form)
    status, answer, text = ask(path, headers, method=method, body=body)
    no_such_page = status == 302 and answer["Location"].startswith((f"{ROOT}/hub/", f"{ROOT}/auth/admin/qhub/"))
    assert status >= 400 or no_such_page, f"{status} {answer['Location']}: {text[:300]}"


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example.org/",
        f"{ROOT}.evil.example.org/hub/oauth_callback",
        f"{ROOT}/hub/oauth_callback/../../user/marie/",
        f"{ROOT}/user/marie/oauth_callback",
        f"{ROOT}@evil.example.org/hub/oauth_callback",
        "https://people.master.cluster.internal/hub/oauth_callback",
    ],
)
def test_the_realm_sends_nobody_to_another_address(ask, address):
    query = {"client_id": "jupyterhub", "response_type": "code", "scope": "openid", "redirect_uri": address}
    status, headers, _ = ask(f"{OPENID}/auth?{urllib.parse.urlencode(query)}")
    assert (status, headers["Location"]) == (400, None)


@pytest.mark.parametrize(
    "path",
    [
        "/hub/login?next=https://evil.example.org/", "/hub/login?next=//evil.example.org/",
        "/hub/login?next=/%5Cevil.example.org/", "/hub/logout?next=https://evil.example.org/",
        "/hub/user-redirect//evil.example.org/", "/conda-store/login/?next=https://evil.example.org/",
        "//evil.example.org/", "/%2f%2fevil.example.org/",
    ],
)  # fmt: skip
def test_the_front_door_sends_nobody_elsewhere(ask, path):
    target = ask(path, {"Accept": "text/html"})[1]["Location"] or ""
    host = urllib.parse.urlsplit(target).hostname
    assert host in (None, "master.cluster.internal"), target

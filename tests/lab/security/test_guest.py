"""A person with an account in the realm, at the Hub and Dask-Gateway: nothing of another person, and no more rights."""

import pytest

#: Requests about another person, about the Hub, and for more rights: method, path below /hub/api/ and body.
HUB = {
    "the list of people": ("GET", "users", None),
    "another person": ("GET", "users/ada", None),
    "another person's tokens": ("GET", "users/ada/tokens", None),
    "a token in another person's name": ("POST", "users/ada/tokens", {"note": "x"}),
    "another person's server": ("POST", "users/ada/server", {}),
    "the end of another person's server": ("DELETE", "users/ada/server", None),
    "another person's named server": ("POST", "users/ada/servers/x", {}),
    "another person's activity": ("POST", "users/ada/activity", {"servers": {}}),
    "another person's shares": ("GET", "shares/ada", None),
    "a share of another person's server": ("POST", "shares/ada/", {"user": "guest"}),
    "a new person": ("POST", "users/mallory", None),
    "the end of a person": ("DELETE", "users/ada", None),
    "to be an administrator": ("PATCH", "users/guest", {"admin": True}),
    "another name": ("PATCH", "users/guest", {"name": "ada"}),
    "a token with an administrator's rights": ("POST", "users/guest/tokens", {"scopes": ["admin:users"]}),
    "a token with a role": ("POST", "users/guest/tokens", {"roles": ["admin"]}),
    "a group": ("POST", "groups/admins", {"users": ["guest"]}),
    "the groups": ("GET", "groups", None),
    "the routes": ("GET", "proxy", None),
    "other routes": ("PATCH", "proxy", {"ip": "192.0.2.1"}),
    "services": ("GET", "services/prometheus", None),
    "the end of the Hub": ("POST", "shutdown", {}),
}


@pytest.mark.parametrize("attack", HUB)
def test_the_hub_refuses(hub, attack):
    method, path, body = HUB[attack]
    answer = hub.ask(method, path, body, token=hub.standing_token("guest"), check=False)
    assert answer.status_code in {400, 403, 404, 405}, answer.text[:300]


@pytest.mark.parametrize("attack", ["a list", "another person's", "a cluster without an account"])
def test_dask_gateway_gives_nothing_of_another_person(hub, attack):
    def ask(method, path, body=None):
        token = hub.standing_token("guest")
        return hub.ask(method, f"api/v1/{path}", body, base="/gateway/", kind="jupyterhub", token=token, check=False)

    if attack == "a list":
        assert ask("GET", "clusters/").json() == {}
    elif attack == "another person's":
        assert ask("GET", f"clusters/{'0' * 32}").status_code == 404
    else:
        assert ask("POST", "clusters/", {"cluster_options": {"account": "physics"}}).status_code == 422

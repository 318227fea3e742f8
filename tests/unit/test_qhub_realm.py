"""The realm made from the pillar: who gets which group, and how a site's own part is laid over it."""

import json

import pytest

from tests.unit.load import load

qhub_realm = load("_modules/qhub_realm.py", "qhub_realm")


def pillar(**changes):
    """Return as much of a master's pillar as counts here."""
    secrets = {secret: f"of {name}" for name, (_, _, _, secret) in qhub_realm.CLIENTS.items()}
    settings = {"name": "qhub", "otp_for": [], "ldap": {}, "representation": {}}
    return {
        "cluster": {"name": "grace", "public_name": "hpc.example.org"},
        "secrets": secrets,
        "accounts": {"physics": {}, "chemistry": {}},
        "users": {
            "ada": {"full_name": "Ada Augusta Lovelace", "email": "ada@example.org", "role": "admin",
                    "accounts": {"physics": {"max_jobs": 1}}},
            "bob": {"accounts": ["physics", "chemistry"], "locked": True},
        },
        **changes,
        "realm": {**settings, **changes.get("realm", {})},
    }  # fmt: skip


def named(items, name, key="name"):
    return next(item for item in items if item[key] == name)


def test_people():
    ada, bob = qhub_realm.realm(pillar())["users"]
    assert ada == {
        "username": "ada",
        "enabled": True,
        "email": "ada@example.org",
        "emailVerified": True,
        "firstName": "Ada Augusta",
        "lastName": "Lovelace",
        "groups": ["/admin", "/accounts/physics"],
    }
    assert (bob["enabled"], bob["firstName"], bob["email"]) == (False, "bob", None)
    assert bob["groups"] == ["/developer", "/accounts/physics", "/accounts/chemistry"]


def test_a_directory_says_names_and_is_only_read():
    directory = {"url": "ldaps://ldap.example.org", "users_dn": "ou=people,dc=example", "groups_dn": "ou=groups"}
    made = qhub_realm.realm(pillar(realm={"ldap": {"uni": directory}}))
    assert set(made["users"][0]) == {"username", "enabled", "groups"}
    (component,) = made["components"]["org.keycloak.storage.UserStorageProvider"]
    assert (component["name"], component["config"]["editMode"]) == ("uni", ["READ_ONLY"])
    assert "bindCredential" not in component["config"]
    ((mapper,),) = component["subComponents"].values()
    assert mapper["config"]["groups.path"] == ["/directories/uni"]
    assert named(made["groups"], "directories")["subGroups"] == [{"name": "uni"}]


def test_each_service_has_a_client_of_its_own():
    made = qhub_realm.realm(pillar())
    hub = named(made["clients"], "jupyterhub", "clientId")
    assert (hub["secret"], hub["redirectUris"]) == ("of jupyterhub", ["https://hpc.example.org/hub/oauth_callback"])
    assert {role["name"] for role in made["roles"]["client"]["grafana"]} == {"admin", "developer", "viewer"}
    viewer = named(made["groups"], "viewer")
    assert viewer["clientRoles"] == dict.fromkeys(qhub_realm.CLIENTS, ["viewer"])
    assert not any(value is True for key, value in hub.items() if key in ("directAccessGrantsEnabled", "publicClient"))


def test_one_time_passwords_by_role():
    made = qhub_realm.realm(pillar(realm={"otp_for": ["admin"]}))
    assert named(made["groups"], "admin")["realmRoles"] == ["otp-required"]
    assert named(made["groups"], "developer")["realmRoles"] == []
    flows = {flow["alias"] for flow in made["authenticationFlows"]}
    used = {
        e["flowAlias"] for f in made["authenticationFlows"] for e in f["authenticationExecutions"] if "flowAlias" in e
    }
    assert flows == used | {made["browserFlow"]}
    configs = {config["alias"] for config in made["authenticatorConfig"]}
    assert configs == {
        e["authenticatorConfig"]
        for f in made["authenticationFlows"]
        for e in f["authenticationExecutions"]
        if "authenticatorConfig" in e
    }


def test_people_do_not_edit_what_the_pillar_says():
    (profile,) = qhub_realm.realm(pillar())["components"]["org.keycloak.userprofile.UserProfileProvider"]
    attributes = json.loads(profile["config"]["kc.user.profile.config"][0])["attributes"]
    assert {tuple(attribute["permissions"]["edit"]) for attribute in attributes} == {("admin",)}


@pytest.mark.parametrize(
    ("base", "extra", "result"),
    [
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 3}, "e": 4}, {"a": 1, "b": {"c": 1, "d": 3}, "e": 4}),
        ([{"name": "x", "v": 1}, {"name": "y"}], [{"name": "x", "v": 2}, {"name": "z"}],
         [{"name": "x", "v": 2}, {"name": "y"}, {"name": "z"}]),
        ({"list": ["a", "b"]}, {"list": ["c"]}, {"list": ["c"]}),
        ({"list": [{"name": "x"}]}, {"list": []}, {"list": []}),
        ({"a": 1}, {"a": None}, {"a": None}),
    ],
)  # fmt: skip
def test_a_sites_own_part(base, extra, result):
    before = json.dumps(base)
    assert qhub_realm.laid_over(base, extra) == result
    assert json.dumps(base) == before

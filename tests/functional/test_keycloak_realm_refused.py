"""keycloak_realm: what is refused up front, what Keycloak refuses, and a Keycloak that is not there."""

import threading

import pytest

from tests.functional.keycloak import ADMIN, ADMIN_PASSWORD, SALT, SALT_SECRET, calls
from tests.functional.realm_objects import (
    APP,
    DIRECT,
    LDAP,
    OIDC,
    UNMANAGED,
    URIS,
    execution,
    listed,
    login,
    mapper,
    merged,
    oidc,
    one,
    ours,
    password,
    person,
)
from tests.lab.harness.shell import wait_for

# -- what is refused --------------------------------------------------------------------------------


def flawed_flow(**fields):
    return {"authenticationFlows": [ours({**execution("auth-cookie"), **fields})]}


REFUSED = {  # path that is named: declaration
    "clients[0].redirectUris": {"clients": [{"clientId": "x"}]},
    "clients[1].clientId": {"clients": [APP, APP]},
    "clients[0].clientId": {"clients": [URIS]},
    "clients[0].webOrigins": {"clients": [{**APP, "webOrigins": "https://x"}]},
    "clients[0].enabled": {"clients": [{**APP, "enabled": "perhaps"}]},
    "clients[0].defaultClientScopes[1]": {"clients": [{**APP, "defaultClientScopes": ["email", "nosuch"]}]},
    "clients[0].protocolMappers[0].protocolMapper": {"clients": [{**APP, "protocolMappers": [{"name": "m"}]}]},
    "clients[0].protocolMappers[0].name": {
        "clients": [{**APP, "protocolMappers": [{"protocolMapper": "oidc-audience-mapper"}]}]
    },
    "clients[0].protocolMappers[0].config": {
        "clients": [{**APP, "protocolMappers": [{**mapper("m", "x"), "config": "x"}]}]
    },
    "clients[0].protocolMappers[1].name": {
        "clients": [{**APP, "protocolMappers": [mapper("m", "x"), mapper("m", "y")]}]
    },
    "clientScopes[0].name": {"clientScopes": [{"protocol": "openid-connect"}]},
    "users[1].username": {"users": [{"username": "ada"}, {"username": "Ada"}]},
    "users[0].username": {"users": [{"enabled": True}]},
    "users[1].email": {"users": [person("ada"), person("bob", email="ada@example.org")]},
    "users[0].email": {"users": [person("ada", email="not an address")]},
    "users[0].groups[0]": {"users": [person("ada", groups=["/nowhere"])]},
    "users[0].realmRoles[0]": {"users": [person("ada", realmRoles=["nosuch"])]},
    "users[0].clientRoles.nosuch": {"users": [person("ada", clientRoles={"nosuch": ["admin"]})]},
    "users[0].clientRoles.app[0]": {"clients": [APP], "users": [person("ada", clientRoles={"app": ["nosuch"]})]},
    "users[0].requiredActions[0]": {"users": [person("ada", requiredActions=["DANCE"])]},
    "users[0].attributes.office": {"users": [person("ada", attributes={"office": ["1"]})]},
    "users[0].enabled": {"users": [person("ada", enabled="perhaps")]},
    "groups[0].name": {"groups": [{"attributes": {}}]},
    "groups[0].realmRoles[0]": {"groups": [{"name": "lab", "realmRoles": ["nosuch"]}]},
    "groups[0].subGroups[1].name": {"groups": [{"name": "lab", "subGroups": [{"name": "a"}, {"name": "a"}]}]},
    "groups[0].attributes": {"groups": [{"name": "lab", "attributes": ["gid"]}]},
    "roles.realm[0].composites.realm[0]": {"roles": {"realm": [{"name": "r", "composites": {"realm": ["nosuch"]}}]}},
    "roles.client.nosuch": {"roles": {"client": {"nosuch": [{"name": "r"}]}}},
    "browserFlow": {"browserFlow": "nosuch"},
    "authenticationFlows[0].authenticationExecutions[0].requirement": flawed_flow(requirement="SOMETIMES"),
    "authenticationFlows[0].authenticationExecutions[0].authenticator": flawed_flow(authenticator="no-such-thing"),
    "authenticationFlows[0].authenticationExecutions[0].authenticatorConfig": flawed_flow(authenticatorConfig="nosuch"),
    "authenticationFlows[0].authenticationExecutions[0].flowAlias": {
        "authenticationFlows": [ours(execution("nosuch", authenticatorFlow=True))]
    },
    "identityProviders[0].alias": {"identityProviders": [{"providerId": "oidc", "config": oidc()}]},
    "identityProviders[0].providerId": {"identityProviders": [{**OIDC, "providerId": "nosuch"}]},
    "identityProviders[0].firstBrokerLoginFlowAlias": {
        "identityProviders": [{**OIDC, "firstBrokerLoginFlowAlias": "x"}]
    },
    "identityProviderMappers[0].identityProviderAlias": {
        "identityProviderMappers": [
            {"name": "m", "identityProviderAlias": "x", "identityProviderMapper": "hardcoded-attribute-idp-mapper"}
        ]
    },
    f"components.{LDAP}[0].config.vendor": {
        "components": {LDAP: [{"name": "d", "providerId": "ldap", "config": {"vendor": {"a": "b"}}}]}
    },
    f"components.{LDAP}[0].providerId": {"components": {LDAP: [{"name": "d", "config": {}}]}},
    f"components.{LDAP}[1].name": {"components": {LDAP: [{"name": "d", "providerId": "ldap", "config": {}}] * 2}},
    "requiredActions[0].alias": {"requiredActions": [{"alias": "DANCE", "enabled": True}]},
    "defaultGroups[0]": {"defaultGroups": ["/nowhere"]},
    "defaultDefaultClientScopes[0]": {"defaultDefaultClientScopes": ["nosuch"]},
    "scopeMappings[0].roles[0]": {"clients": [APP], "scopeMappings": [{"client": "app", "roles": ["nosuch"]}]},
    "scopeMappings[0].client": {"scopeMappings": [{"client": "nosuch", "roles": ["offline_access"]}]},
    "clientPolicies.policies[0].profiles[0]": {
        "clientPolicies": {"policies": [{"name": "p", "profiles": ["nosuch"], "conditions": []}]}
    },
    "organizations[0].name": {"organizationsEnabled": True, "organizations": [{"domains": []}]},
    "clients": {"clients": {"app": APP}},
    "users": {"users": "everybody"},
    "passwordPolicy": {"passwordPolicy": ["length(8)"]},
}


@pytest.fixture(scope="module")
def plain(new_realm):
    """A realm with nothing in it, that what is refused leaves as it is."""
    made = new_realm()
    made.apply({"enabled": True})
    yield made
    made.delete()


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_wrong_is_refused_with_its_path_before_anything_is_written(plain, path):
    good = {"displayName": "Not to be seen", "roles": {"realm": [{"name": "not-to-be-seen"}]}}
    comment = plain.refused(merged(good, {}) | REFUSED[path] if path != "clients[1].clientId" else REFUSED[path])
    assert f"- {path}:" in comment, comment


def test_all_that_is_wrong_is_told_at_once(plain):
    comment = plain.refused(
        {"clients": [{"clientId": "x"}], "users": [person("ada", groups=["/a"], realmRoles=["b"])], "browserFlow": "c"}
    )
    for path in ("clients[0].redirectUris", "users[0].groups[0]", "users[0].realmRoles[0]", "browserFlow"):
        assert f"- {path}:" in comment, comment


def test_a_group_below_a_group_that_is_not_there_is_refused(plain):
    ended = plain.modules.state("group_present", "/nowhere/cold", realm=plain.name)
    assert ended["result"] is False and "nowhere" in ended["comment"]
    assert listed("groups", "name")(plain) == set()


def test_purge_must_be_one_of_three(plain):
    assert "purge" in plain.refused({"users": [person("ada")]}, purge="everything")


def test_what_only_keycloak_knows_to_be_wrong_is_told_in_its_words_with_the_name(realm):
    declared: dict = {
        "passwordPolicy": "length(12)",
        "roles": {"realm": [{"name": "reader"}]},
        "users": [person("ada", **password("long-enough-1")), person("bob", **password("short"))],
    }
    ended = realm.modules.state("managed", realm.name, representation=declared)
    assert ended["result"] is False
    assert "user/bob" in ended["comment"] and "invalidPasswordMinLengthMessage" in ended["comment"]
    assert "user/bob" not in ended["changes"] and {"role/reader", "user/ada"} <= set(ended["changes"])
    declared["users"][1] |= password("now-long-enough")
    assert "user/bob" in realm.managed(declared)


# -- Salt's own access ------------------------------------------------------------------------------


def test_salt_has_no_more_rights_than_it_needs(realm):
    realm.apply({"enabled": True})
    token = realm.keycloak.grant("master", "client_credentials", client_id=SALT, client_secret=SALT_SECRET)
    answer = realm.keycloak.session.get(
        f"{realm.keycloak.connection['url']}/admin/realms/master/users",
        headers={"Authorization": f"Bearer {token['access_token']}"},
        timeout=30,
    )
    assert answer.status_code == 403


def test_a_lost_service_account_is_told_with_the_way_to_make_another(realm):
    declared = {"displayName": "Here"}
    realm.apply(declared)
    keycloak = realm.keycloak
    found = one(keycloak.admin("GET", "master/clients", clientId=SALT), "clientId", SALT)["id"]
    keycloak.admin("DELETE", f"master/clients/{found}")
    try:
        for test in (True, False):
            ended = realm.modules.state("managed", realm.name, representation=declared, test=test)
            assert (ended["result"], ended["changes"]) == (False, {})
            assert SALT in ended["comment"] and "bootstrap-admin" in ended["comment"]
            assert SALT_SECRET not in ended["comment"]
    finally:
        keycloak.salt_client()


def test_a_changed_admin_password_does_not_lock_salt_out(realm):
    keycloak = realm.keycloak
    admin = keycloak.admin("GET", "master/users", username=ADMIN, exact="true")[0]["id"]

    def change(secret):
        keycloak.admin(
            "PUT", f"master/users/{admin}/reset-password", {"type": "password", "value": secret, "temporary": False}
        )

    change("another-one")
    try:
        realm.managed({"displayName": "Here"})
    finally:
        change(ADMIN_PASSWORD)


def connection(realm, **changed):
    return {**realm.keycloak.connection, **changed}


def test_a_wrong_secret_is_told(realm):
    ended = realm.modules.state(
        "managed",
        realm.name,
        representation={"enabled": True},
        connection=connection(realm, **{"client_secret": "wrong-one"}),
    )
    assert ended["result"] is False and "wrong-one" not in ended["comment"] and SALT in ended["comment"]


def test_a_keycloak_that_does_not_answer_is_told_after_the_deadline_and_is_pending_in_test_mode(realm):
    nowhere = connection(realm, url=realm.keycloak.connection["url"].replace(":8080", ":8081"), timeout=2)
    declared = {"representation": {"enabled": True}, "connection": nowhere}
    pending = realm.modules.state("managed", realm.name, test=True, **declared)
    assert (pending["result"], pending["changes"]) == (None, {})
    ended = realm.modules.state("managed", realm.name, **declared)
    assert (ended["result"], ended["changes"]) == (False, {})
    assert ":8081" in ended["comment"] and "2 s" in ended["comment"]


def test_it_waits_for_a_keycloak_that_is_starting(realm):
    """Also in the middle of it: answers of a server that is not ready are not taken for the realm's state."""
    realm.apply({"displayName": "Here"})
    keycloak = realm.keycloak
    keycloak.kill()
    thread = threading.Thread(target=keycloak.serve)
    thread.start()
    try:
        ended = realm.modules.state(
            "managed",
            realm.name,
            representation={"displayName": "There"},
            connection=connection(realm, timeout=180),
        )
    finally:
        thread.join()
    assert ended["result"] is True, ended["comment"]
    assert realm.hand("GET")["displayName"] == "There"


def test_an_apply_that_was_cut_off_is_finished_by_the_next(realm):
    declared = merged(
        UNMANAGED,
        {"groups": [{"name": f"g{number}", "attributes": {"gid": [str(number)]}} for number in range(40)]},
        {"clients": [{**APP, "clientId": f"c{number}", "protocolMappers": [mapper("m", "x")]} for number in range(40)]},
        {
            "users": [
                person(f"user{number}", groups=[f"/g{number % 40}"], **password("Initial-1")) for number in range(150)
            ]
        },
    )
    keycloak, ended = realm.keycloak, []

    def run():
        options = {"connection": connection(realm, timeout=5)}
        ended.append(realm.modules.state("managed", realm.name, representation=declared, **options))

    with calls() as sent:
        thread = threading.Thread(target=run)
        thread.start()
        wait_for("it makes users", lambda: sum("partialImport" in path for _, path in sent) > 2, interval=0.02)
        keycloak.kill()
        thread.join()
    try:
        assert ended[0]["result"] is False and ended[0]["comment"]
    finally:
        keycloak.serve()
    assert realm.managed(declared)
    assert {f"user{number}" for number in range(150)} <= listed("users?max=1000", "username")(realm)
    realm.apply({"clients": [*declared["clients"], DIRECT]})
    for number in (0, 75, 149):
        login(realm, f"user{number}", "Initial-1")

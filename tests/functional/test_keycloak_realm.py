"""keycloak_realm against a real Keycloak: whole realms, purging, and pitfalls that others fell into."""

import base64
import copy
import json

import pytest
from salt.exceptions import CommandExecutionError

from tests.functional.keycloak import SALT, calls, writes
from tests.functional.realm_objects import (
    ALIKE,
    APP,
    DIRECT,
    EVERYTHING,
    GONE,
    KINDS,
    OIDC,
    URIS,
    client,
    execution,
    listed,
    login,
    mapper,
    merged,
    named,
    oidc,
    one,
    organization,
    ours,
    password,
    person,
    role,
    user,
)

# -- a whole realm ----------------------------------------------------------------------------------


def test_a_whole_realm_is_made_told_beforehand_repaired_and_left_alone(realm):
    changes = realm.managed(EVERYTHING)
    for name, kind in KINDS.items():
        assert kind.key in changes or kind.given, name
    damaged = [kind for name, kind in KINDS.items() if name not in ALIKE]
    for kind in damaged:
        kind.by_hand(realm)
    changes = realm.managed(EVERYTHING)
    assert set(changes) == {kind.key for kind in damaged}


def unmasked(value):
    """Return an exported value without its masked secrets."""
    if isinstance(value, dict):
        return {key: unmasked(entry) for key, entry in value.items() if entry != "**********"}
    return [unmasked(entry) for entry in value] if isinstance(value, list) else value


def without_names(exported):
    """Return an exported realm without what its own name is part of, nor secrets, which an export does not have."""
    text = json.dumps(unmasked({key: value for key, value in exported.items() if key != "realm"}), sort_keys=True)
    return text.replace(exported["realm"], "NAME")


def test_an_exported_realm_declares_itself_and_makes_another_like_it(realm, new_realm):
    robot = {"clientId": "robot", "serviceAccountsEnabled": True, "standardFlowEnabled": False, "secret": "secret-of-r"}
    secrets = {
        "clients": [robot],
        "smtpServer": {"password": "secret-of-mail"},
        "identityProviders": [{**OIDC, "config": {"clientSecret": "secret-of-us"}}],
    }
    realm.apply(merged(EVERYTHING, secrets))
    exported = realm.modules.export(realm.name)
    text = json.dumps(exported)
    assert "secret-of" not in text and '"id":' not in text
    for kind in ("none", "owned", "all"):
        assert realm.diff(exported, purge=kind) == {}
    other = new_realm()
    try:
        other.managed({**exported, "realm": other.name})
        assert without_names(other.modules.export(other.name)) == without_names(exported)
    finally:
        other.delete()


def test_a_realm_made_by_hand_is_exported_and_adopted(realm):
    """Salt's account gets its rights in such a realm from an administrator."""
    keycloak = realm.keycloak
    keycloak.admin("POST", "", {"realm": realm.name, "enabled": True, "displayName": "By hand"})
    with pytest.raises(CommandExecutionError, match=realm.name):
        realm.diff({"enabled": True})
    account = keycloak.admin("GET", "master/users", username=f"service-account-{SALT}")[0]["id"]
    owner = one(
        keycloak.admin("GET", "master/clients", clientId=f"{realm.name}-realm"), "clientId", f"{realm.name}-realm"
    )
    roles = keycloak.admin("GET", f"master/clients/{owner['id']}/roles")
    keycloak.admin("POST", f"master/users/{account}/role-mappings/clients/{owner['id']}", roles)
    realm.hand("POST", "clients", APP)
    exported = realm.modules.export(realm.name)
    assert exported["displayName"] == "By hand"
    assert realm.managed(exported, purge="all") == {}


# -- purging ----------------------------------------------------------------------------------------


def roles(*names):
    return {"roles": {"realm": [{"name": name} for name in names]}}


def client_roles(*names):
    return {"clients": [APP], "roles": {"client": {"app": [{"name": name} for name in names]}}}


def flows(*names):
    return {"authenticationFlows": [{**ours(execution("auth-cookie")), "alias": name} for name in names]}


def subgroups(*names):
    return {"groups": [{"name": "top", "subGroups": [{"name": name} for name in names]}]}


def organizations(*names):
    return {
        "organizationsEnabled": True,
        "organizations": [{"name": name, "domains": [{"name": f"{name}.example.org"}]} for name in names],
    }


def hand_subgroup(realm):
    top = realm.hand("GET", "group-by-path/top")["id"]
    realm.hand("POST", f"groups/{top}/children", {"name": "byhand"})


def children(realm):
    top = realm.hand("GET", "group-by-path/top")["id"]
    return {entry["name"] for entry in realm.hand("GET", f"groups/{top}/children")}


PURGED = {  # kind: (name in changes, names -> declaration, make one by hand, list what is there)
    "client": (
        "client/{}",
        lambda *names: named(*names, **URIS),
        lambda realm: realm.hand("POST", "clients", {"clientId": "byhand", **URIS}),
        listed("clients", "clientId"),
    ),
    "client scope": (
        "client_scope/{}",
        lambda *names: named(*names, part="clientScopes", protocol="openid-connect"),
        lambda realm: realm.hand("POST", "client-scopes", {"name": "byhand", "protocol": "openid-connect"}),
        listed("client-scopes", "name"),
    ),
    "realm role": (
        "role/{}",
        roles,
        lambda realm: realm.hand("POST", "roles", {"name": "byhand"}),
        listed("roles", "name"),
    ),
    "client role": (
        "client_role/app:{}",
        client_roles,
        lambda realm: realm.hand("POST", f"clients/{client(realm)['id']}/roles", {"name": "byhand"}),
        lambda realm: {entry["name"] for entry in realm.hand("GET", f"clients/{client(realm)['id']}/roles")},
    ),
    "group": (
        "group/{}",
        lambda *names: named(*names, part="groups"),
        lambda realm: realm.hand("POST", "groups", {"name": "byhand"}),
        listed("groups", "name"),
    ),
    "subgroup": ("group/top/{}", subgroups, hand_subgroup, children),
    "user": (
        "user/{}",
        lambda *names: named(*names, part="users", enabled=True),
        lambda realm: realm.hand("POST", "users", {"username": "byhand"}),
        listed("users", "username"),
    ),
    "identity provider": (
        "identity_provider/{}",
        lambda *names: named(*names, part="identityProviders", providerId="oidc", config=oidc()),
        lambda realm: realm.hand("POST", "identity-provider/instances", {**OIDC, "alias": "byhand"}),
        listed("identity-provider/instances", "alias"),
    ),
    "flow": (
        "flow/{}",
        flows,
        lambda realm: realm.hand("POST", "authentication/flows", {**ours(), "alias": "byhand"}),
        listed("authentication/flows", "alias"),
    ),
    "organization": (
        "organization/{}",
        organizations,
        lambda realm: realm.hand("POST", "organizations", {"name": "byhand", "domains": [{"name": "byhand.org"}]}),
        listed("organizations", "name"),
    ),
}


@pytest.mark.parametrize("kind", PURGED)
def test_only_what_is_ours_is_purged_and_only_when_asked(realm, kind):
    key, declare, by_hand, names = PURGED[kind]
    realm.apply(declare("keep", "gone"))
    by_hand(realm)
    everything = names(realm)
    assert everything >= {"keep", "gone", "byhand"}
    assert realm.managed(declare("keep")) == {}
    assert realm.managed(declare("keep"), purge="owned") == {key.format("gone"): GONE}
    assert names(realm) == everything - {"gone"}
    assert realm.managed(declare("keep"), purge="all") == {key.format("byhand"): GONE}
    assert names(realm) == everything - {"gone", "byhand"}, "what Keycloak itself made stays"


def test_a_kind_that_is_not_declared_is_not_purged(realm):
    realm.apply(merged(roles("r"), named("ada", part="users"), named("c", **URIS)))
    realm.managed(roles("r"), purge="all")
    assert listed("users", "username")(realm) == {"ada"}
    assert "c" in listed("clients", "clientId")(realm)


def test_what_was_made_by_hand_and_declared_later_is_still_not_ours_to_purge(realm):
    realm.apply(roles("mine"))
    realm.hand("POST", "roles", {"name": "theirs"})
    realm.managed(roles("mine", "theirs"))
    assert realm.managed(roles("mine"), purge="owned") == {}
    assert realm.managed(roles("mine"), purge="all") == {"role/theirs": GONE}


def test_purging_more_than_the_cap_is_refused_unless_forced(realm):
    many = [f"r{number}" for number in range(60)]
    realm.apply(roles(*many))
    assert "50" in realm.refused(roles("r0"), purge="owned")
    assert "share" in realm.refused(roles(*many[:30]), purge="owned", purge_limit={"count": 100, "share": 0.25})
    assert len(realm.managed(roles(*many[:50]), purge="owned")) == 10
    assert len(realm.managed(roles(*many[:10]), purge="owned", purge_limit={"count": 40, "share": 1})) == 40
    assert len(realm.managed(roles("r0"), purge="owned", force=True)) == 9


@pytest.mark.parametrize("kind", ["clients", "users", "groups", "identityProviders", "clientScopes"])
def test_purging_by_an_empty_list_is_refused_unless_forced(realm, kind):
    fields = {"clients": URIS, "identityProviders": OIDC, "clientScopes": {"protocol": "openid-connect"}}
    realm.apply(named("one", part=kind, **{k: v for k, v in fields.get(kind, {}).items() if k != "alias"}))
    assert kind in realm.refused({kind: []}, purge="owned")
    assert realm.managed({kind: []}) == {}
    changes = realm.managed({kind: []}, purge="owned", force=True)
    assert list(changes.values()) == [GONE]


# -- pitfalls that others fell into -----------------------------------------------------------------


def shuffled(value):
    """Return the same declaration with each list the other way round and each object's keys too."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [shuffled(entry) for entry in reversed(value)]
    return value


def test_order_of_lists_and_keys_is_no_difference(realm):
    declared = {key: value for key, value in EVERYTHING.items() if key != "webAuthnPolicySignatureAlgorithms"}
    realm.apply(declared)
    assert realm.diff(shuffled(declared)) == {}


def test_what_keycloak_fills_in_is_no_difference(realm):
    bare = merged(
        {"clients": [APP, {"clientId": "service", "serviceAccountsEnabled": True, "standardFlowEnabled": False}]},
        {"identityProviders": [OIDC], "users": [{"username": "ada"}], "groups": [{"name": "lab"}]},
        {"clientScopes": [{"name": "scope", "protocol": "openid-connect", "protocolMappers": [mapper("m", "x")]}]},
        roles("reader"),
    )
    realm.managed(bare)
    assert realm.managed(bare, purge="owned") == {}


def test_types_that_keycloak_writes_as_text_are_no_difference(realm):
    """YAML has numbers and booleans where Keycloak keeps text."""
    declared = {
        "smtpServer": {"host": "mail.example.org", "from": "a@example.org", "port": 587, "starttls": True},
        "clients": [{**APP, "attributes": {"access.token.lifespan": 600, "use.refresh.tokens": True}}],
        "groups": [{"name": "lab", "attributes": {"gid": [30001]}}],
    }
    realm.managed(declared)
    assert client(realm)["attributes"]["use.refresh.tokens"] == "true"


def test_names_that_keycloak_writes_small_are_no_difference(realm):
    realm.managed({"users": [person("Ada", email="Ada@Example.org")]})
    assert user(realm)["username"] == "ada"


def test_drift_is_found_though_nothing_was_declared_anew(realm):
    """No checksum of what was declared last time stands in for a look."""
    declared = {"clients": [APP]}
    realm.apply(declared)
    realm.edit(f"clients/{client(realm)['id']}", redirectUris=["https://evil.example.org/*"])
    assert realm.managed(declared) == {
        "client/app": {"redirectUris": {"old": ["https://evil.example.org/*"], "new": APP["redirectUris"]}}
    }
    realm.hand("DELETE", f"clients/{client(realm)['id']}")
    assert "client/app" in realm.managed(declared)


def test_keys_that_we_do_not_know_pass_through_and_keycloak_judges_them(realm):
    declared = {
        "attributes": {"acr.loa.map": '{"gold":"2"}'},
        "clients": [{**APP, "alwaysDisplayInConsole": True, "attributes": {"of.some.later.keycloak": "on"}}],
    }
    realm.managed(declared)
    assert client(realm)["attributes"]["of.some.later.keycloak"] == "on"
    ended = realm.modules.state("managed", realm.name, representation={"settingOfTheFuture": True})
    assert ended["result"] is False and "settingOfTheFuture" in ended["comment"]


def test_tokens_of_a_client_without_declared_scopes_say_whose_they_are(realm):
    """Since Keycloak 25 the claim ``sub`` comes with the scope ``basic``, which a client has by default."""
    realm.managed({"clients": [DIRECT], "users": [person("ada", **password("Initial-1"))]})
    assert "basic" in client(realm)["defaultClientScopes"]
    body = login(realm, "ada", "Initial-1")["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["sub"] == user(realm)["id"]


def test_what_keycloak_makes_for_admin_permissions_is_left_alone(realm):
    """Fine-grained permissions are kept in a client that Keycloak makes when they are switched on."""
    declared = {"adminPermissionsEnabled": True, "clients": [APP]}
    realm.managed(declared)
    names = listed("clients", "clientId")(realm)
    assert "admin-permissions" in names
    assert realm.managed(declared, purge="all") == {}
    assert listed("clients", "clientId")(realm) == names


def test_members_of_an_organization_are_left_alone_unless_declared(realm):
    declared = merged(organizations("physics"), {"users": [person("ada"), person("bob")]})
    realm.apply(declared)
    path = f"organizations/{organization(realm)['id']}/members"
    realm.hand("POST", path, user(realm, "ada")["id"])
    assert realm.managed(declared) == {}
    changed = copy.deepcopy(declared)
    changed["organizations"][0]["description"] = "All of physics"
    realm.managed(changed, purge="owned")
    assert listed(path, "username")(realm) == {"ada"}
    changed["organizations"][0]["members"] = [{"username": "bob"}]
    realm.managed(changed)
    assert listed(path, "username")(realm) == {"bob"}


def test_members_and_roles_given_by_hand_stay_where_none_are_declared(realm):
    realm.apply(merged(roles("reader"), {"groups": [{"name": "lab"}], "users": [person("ada")]}))
    found = user(realm)["id"]
    realm.hand("PUT", f"users/{found}/groups/{realm.hand('GET', 'group-by-path/lab')['id']}")
    realm.hand("POST", f"users/{found}/role-mappings/realm", [realm.hand("GET", "roles/reader")])
    assert realm.managed({"users": [person("ada", lastName="King")]}) != {}
    assert (user(realm)["groups"], user(realm)["realmRoles"]) == (["/lab"], ["reader"])


def test_default_groups_and_roles_of_new_users_are_no_difference(realm):
    declared = {
        "groups": [{"name": "everyone"}, {"name": "lab"}],
        "defaultGroups": ["/everyone"],
        "users": [person("ada", groups=["/lab"], realmRoles=[]), person("bob")],
    }
    realm.managed(declared)
    assert user(realm, "ada")["groups"] == ["/lab"]
    assert user(realm, "bob")["groups"] == ["/everyone"]
    mappings = realm.hand("GET", f"users/{user(realm)['id']}/role-mappings/realm")
    assert [entry["name"] for entry in mappings] == [f"default-roles-{realm.name}"]


def test_the_default_role_takes_more_roles_and_keeps_its_own(realm):
    name = f"default-roles-{realm.name}"
    declared = {"roles": {"realm": [{"name": "reader"}, {"name": name, "composites": {"realm": ["reader"]}}]}}
    realm.managed(declared)
    assert "reader" in role(realm, f"roles/{name}")["composites"]["realm"]


def test_roles_of_a_service_account(realm):
    declared = {
        "clients": [APP, {"clientId": "robot", "serviceAccountsEnabled": True, "standardFlowEnabled": False}],
        "roles": {"client": {"app": [{"name": "user"}]}, "realm": [{"name": "reader"}]},
        "users": [
            {
                "username": "service-account-robot",
                "serviceAccountClientId": "robot",
                "enabled": True,
                "clientRoles": {"app": ["user"]},
                "realmRoles": ["reader"],
            }
        ],
    }
    realm.managed(declared)
    found = user(realm, "service-account-robot")
    assert (found["clientRoles"], found["realmRoles"]) == ({"app": ["user"]}, ["reader"])
    assert realm.managed({**declared, "users": [person("ada")]}, purge="all").keys() == {"user/ada"}


def test_scope_mappings_of_clients_and_client_scopes(realm):
    base = {
        "clients": [{**APP, "fullScopeAllowed": False}, {**APP, "clientId": "api"}],
        "clientScopes": [{"name": "scope", "protocol": "openid-connect"}],
        "roles": {
            "realm": [{"name": "reader"}, {"name": "writer"}],
            "client": {"api": [{"name": "call"}, {"name": "see"}]},
        },
    }

    def scoped(realm_role, client_role):
        return {
            **base,
            "scopeMappings": [
                {"client": "app", "roles": [realm_role]},
                {"clientScope": "scope", "roles": [realm_role]},
            ],
            "clientScopeMappings": {
                "api": [{"client": "app", "roles": [client_role]}, {"clientScope": "scope", "roles": [client_role]}]
            },
        }

    def live(path):
        found = realm.hand("GET", f"{path}/scope-mappings")
        return (
            [entry["name"] for entry in found.get("realmMappings", [])],
            [entry["name"] for entry in found.get("clientMappings", {}).get("api", {}).get("mappings", [])],
        )

    for names in (("reader", "call"), ("writer", "see")):
        realm.managed(scoped(*names))
        app = f"clients/{client(realm)['id']}"
        scope = f"client-scopes/{one(realm.hand('GET', 'client-scopes'), 'name', 'scope')['id']}"
        assert live(app) == live(scope) == ([names[0]], [names[1]])
    realm.hand("DELETE", f"{app}/scope-mappings/realm", [realm.hand("GET", "roles/writer")])
    assert realm.managed(scoped("writer", "see"))
    assert live(app) == (["writer"], ["see"])
    assert realm.managed(base) == {}


# -- scale ------------------------------------------------------------------------------------------


def many(users, clients=20, groups=1, roles=2):
    return {
        "groups": [{"name": f"group{number}", "attributes": {"gid": [str(number)]}} for number in range(groups)],
        "roles": {"realm": [{"name": f"role{number}"} for number in range(roles)]},
        "clients": [{**APP, "clientId": f"client{number}"} for number in range(clients)],
        "users": [
            person(f"user{number}", groups=[f"/group{number % groups}"], realmRoles=["role0"])
            for number in range(users)
        ],
    }


def test_calls_of_a_run_without_changes_do_not_grow_with_the_number_of_users(realm):
    def count(users):
        declared = many(users)
        realm.apply(declared)
        with calls() as sent:
            assert realm.diff(declared) == {}
        assert not writes(sent)
        return len(sent)

    few, more = count(10), count(500)
    assert more <= few + 15, "pages, not people"


def test_everything_is_found_on_however_many_pages(realm):
    """Also what is on the last page is compared, and nothing there is taken for missing or undeclared."""
    declared = many(1010, clients=110, groups=110, roles=110)
    realm.apply(declared)
    assert realm.managed(declared, purge="all") == {}
    last = realm.hand("GET", "users", username="user1009", exact="true")[0]
    realm.hand("PUT", f"users/{last['id']}", {**last, "firstName": "By hand"})
    realm.edit("roles/role109", description="stays")
    realm.edit(f"clients/{client(realm, 'client109')['id']}", redirectUris=["https://evil.example.org/*"])
    group = realm.hand("GET", "group-by-path/group109")
    realm.hand("PUT", f"groups/{group['id']}", {**group, "attributes": {"gid": ["0"]}})
    changes = realm.managed(declared, purge="all")
    assert set(changes) == {"user/user1009", "client/client109", "group/group109"}

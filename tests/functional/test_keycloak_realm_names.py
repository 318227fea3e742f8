"""keycloak_realm: names with any characters that Keycloak allows."""

import pytest

from tests.functional.keycloak import calls, writes
from tests.functional.realm_objects import URIS, one, person, profile, profile_component

#: Each character at the beginning, in the middle and at the end of a name.
NAMES = [
    *(f"{sign}My{sign}Name{sign}" for sign in "./+@|#'\"~:%\\;?& é名"),
    "N" * 64,
    "~/",
    "a~~/b",
    "app / org1",
    "a/b",
]


def path(*names):
    """Return the path of a group in which a slash within a name is escaped."""
    escaped = (name.replace("~", "~~").replace("/", "~/") for name in names)
    return "".join(f"/{name}" for name in escaped)


def groups(realm, entries=None):
    """Return ``{names on the way to a group: id}`` of all groups in Keycloak."""
    found = {}
    for entry in realm.hand("GET", "groups", max=1000) if entries is None else entries:
        found[entry["name"],] = entry["id"]
        below = groups(realm, realm.hand("GET", f"groups/{entry['id']}/children", max=1000))
        found |= {(entry["name"], *names): ident for names, ident in below.items()}
    return found


def memberships(realm, name):
    """Return the ids of a user's groups."""
    found = one(realm.hand("GET", "users", username=name, exact="true"), "username", name.lower())
    return {entry["id"] for entry in realm.hand("GET", f"users/{found['id']}/groups")}


def kept(realm, declared):
    """Make a realm; show that its export declares it, and that purging leaves its objects where they are."""
    realm.managed(declared, purge="owned")
    before = groups(realm)
    exported = realm.modules.export(realm.name)
    for purge in ("none", "owned", "all"):
        assert realm.diff(exported, purge=purge) == {}
    assert realm.managed(exported, purge="owned") == realm.managed(declared, purge="owned") == {}
    assert groups(realm) == before
    return before


def test_groups_of_any_name_stay_where_they_are(realm):
    below = dict(zip(NAMES, reversed(NAMES), strict=True))
    found = kept(
        realm,
        {
            "groups": [
                {"name": name, "attributes": {"n": [name]}, "subGroups": [{"name": below[name]}]} for name in NAMES
            ],
            "users": [person(f"user{n}", groups=[path(name, below[name])]) for n, name in enumerate(NAMES)],
        },
    )
    for number, name in enumerate(NAMES):
        assert memberships(realm, f"user{number}") == {found[name, below[name]]}


def test_roles_clients_and_users_of_any_name(realm):
    roles = {
        "realm": [{"name": name} for name in NAMES],
        "client": {name: [{"name": name}, {"name": "see"}] for name in NAMES},
    }
    composites = {"realm": NAMES, "client": {name: [name] for name in NAMES}}
    declared = {
        **profile_component(profile()),  # which allows any user name
        "roles": {**roles, "realm": [*roles["realm"], {"name": "all", "composites": composites}]},
        "clients": [{"clientId": name, **URIS} for name in NAMES],
        "scopeMappings": [{"client": name, "roles": [name]} for name in NAMES],
        "groups": [{"name": "lab", "realmRoles": NAMES, "clientRoles": {name: [name] for name in NAMES}}],
        "users": [
            {"username": name.strip(), "enabled": True, "realmRoles": [name], "clientRoles": {name: [name]}}
            for name in NAMES
        ],
    }
    kept(realm, declared)


def test_a_group_below_another_and_a_group_with_a_slash_are_told_apart(realm):
    declared = {
        "groups": [{"name": "a", "subGroups": [{"name": "b"}]}, {"name": "a/b"}],
        "users": [person("ada", groups=["/a/b"]), person("bob", groups=["/a~/b"]), person("eve", groups=["/a"])],
    }
    found = kept(realm, declared)
    assert memberships(realm, "ada") == {found["a", "b"]}
    assert memberships(realm, "bob") == {found["a/b",]}
    realm.hand("DELETE", f"groups/{found['a', 'b']}")
    assert set(realm.managed(declared, purge="owned")) == {"group/a/b", "user/ada"}


def test_keycloaks_own_paths_are_accepted_where_they_name_one_group(realm):
    """As ``kc.sh export`` prints them, and its account console."""
    declared = {
        "groups": [
            {"name": "app / org1", "path": "/app / org1", "subGroups": [{"name": "T1/T2", "path": "/app / org1/T1/T2"}]}
        ],
        "users": [person("ada", groups=["/app / org1/T1/T2"])],
        "defaultGroups": ["/app / org1"],
    }
    found = kept(realm, declared)
    assert memberships(realm, "ada") == {found["app / org1", "T1/T2"]}
    assert {entry["id"] for entry in realm.hand("GET", "default-groups")} == {found["app / org1",]}


def test_a_fieldthat_may_be_two_groups_is_refused_with_both(realm):
    declared = [{"name": "a", "subGroups": [{"name": "b/c"}]}, {"name": "a/b", "subGroups": [{"name": "c"}]}]
    comment = realm.refused({"groups": declared, "users": [person("ada", groups=["/a/b/c"])]})
    assert "users[0].groups[0]: there is no group /a/b/c;" in comment
    assert comment.endswith("as in /a/b~/c, /a~/b/c")


def test_groups_beside_one_with_a_slash_are_still_made_in_one_request(realm):
    realm.apply({"enabled": True})
    with calls() as sent:
        realm.apply({"groups": [{"name": name} for name in ("a/b", "c", "d", "e", "f")]})
    assert [path.rpartition("/")[2] for _, path in writes(sent)] == ["partialImport", "groups"]


def test_new_users_get_default_groups_whose_name_has_a_slash(realm):
    everyone = {"groups": [{"name": "all / of us"}], "defaultGroups": ["/all ~/ of us"]}
    realm.managed({**everyone, "users": [person(f"user{number}") for number in range(5)]})
    assert memberships(realm, "user4") == set(groups(realm).values())


@pytest.mark.parametrize("name", ["/app ~/ org1/T1~/T2", "/app / org1/T1/T2"])
def test_states_name_a_group_with_a_slash(realm, name):
    realm.apply({"groups": [{"name": "app / org1", "subGroups": [{"name": "T1/T2"}, {"name": "kept"}]}]})
    changes = realm.state("group_present", name, realm=realm.name, attributes={"gid": [1]})
    assert set(changes) == {"group/app ~/ org1/T1~/T2"}
    assert realm.state("group_absent", name, realm=realm.name)
    assert set(groups(realm)) == {("app / org1",), ("app / org1", "kept")}


@pytest.mark.parametrize(
    ("name", "role"),
    [("https://sp.example.org/x:editor", "editor"), ("https~://sp.example.org/x:read~:all", "read:all")],
)
def test_states_name_a_role_of_a_client_whose_name_has_a_colon(realm, name, role):
    identifier = "https://sp.example.org/x"
    realm.apply({"clients": [{"clientId": identifier, **URIS}]})
    changes = realm.state("client_role_present", name, realm=realm.name, description="May edit")
    client = one(realm.hand("GET", "clients"), "clientId", identifier)["id"]
    assert {entry["name"] for entry in realm.hand("GET", f"clients/{client}/roles")} == {role}
    assert realm.state("client_role_absent", next(iter(changes)).partition("/")[2], realm=realm.name)
    assert realm.hand("GET", f"clients/{client}/roles") == []

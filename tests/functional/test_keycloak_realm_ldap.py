"""keycloak_realm and a real OpenLDAP server: its people sign in, and nothing that Salt does loses them."""

import copy

import pytest

from tests.functional.keycloak import GROUPS, LDAP_PASSWORD, PEOPLE
from tests.functional.realm_objects import DIRECT, GONE, LDAP, UNMANAGED, component, directory, login, merged, one, user

MAPPERS = "org.keycloak.storage.ldap.mappers.LDAPStorageMapper"
OFFICE: dict = {
    "name": "office",
    "providerId": "user-attribute-ldap-mapper",
    "config": {
        "ldap.attribute": ["uid"],
        "user.model.attribute": ["office"],
        "read.only": ["true"],
        "always.read.value.from.ldap": ["false"],
        "is.mandatory.in.ldap": ["false"],
    },
}
MEMBERS = {
    "name": "groups",
    "providerId": "group-ldap-mapper",
    "config": {
        "groups.dn": ["ou=groups,dc=example,dc=org"],
        "group.name.ldap.attribute": ["cn"],
        "group.object.classes": ["groupOfNames"],
        "membership.ldap.attribute": ["member"],
        "membership.attribute.type": ["DN"],
        "membership.user.ldap.attribute": ["uid"],
        "preserve.group.inheritance": ["false"],
        "ignore.missing.groups": ["false"],
        "mode": ["READ_ONLY"],
        "user.roles.retrieve.strategy": ["LOAD_GROUPS_BY_MEMBER_ATTRIBUTE"],
        "drop.non.existing.groups.during.sync": ["false"],
        "groups.path": ["/"],
    },
}


def federated(*mappers, secret=LDAP_PASSWORD, **config):
    """Return a realm with the directory, its mappers, and a client to sign in to."""
    declared = merged(directory(secret), UNMANAGED, {"clients": [DIRECT]})
    entry = declared["components"][LDAP][0]
    entry["config"] |= {key: [value] for key, value in config.items()}
    if mappers:
        entry["subComponents"] = {MAPPERS: copy.deepcopy(list(mappers))}
    return declared


def signed_in(realm):
    """Make the federation and let all of the directory's people sign in; return the realm."""
    realm.managed(federated(OFFICE, MEMBERS))
    for name in PEOPLE:
        assert login(realm, name, f"{name}-s3cret")["access_token"]
    return realm


@pytest.fixture
def federation(realm):
    """A realm in which all of the directory's people have signed in."""
    return signed_in(realm)


@pytest.fixture(scope="module")
def kept(new_realm):
    made = new_realm()
    yield signed_in(made)
    made.delete()


@pytest.fixture
def lasting(kept):
    """Such a realm, of several tests: none loses its people, and what one declares is declared back for the next."""
    kept.apply(federated(OFFICE, MEMBERS))
    return kept


def identities(realm):
    """Return the ids of the federation, of its mappers, and of the people that were imported."""
    found = component(realm, "directory")
    mappers = realm.hand("GET", "components", parent=found["id"])
    people = {entry["username"]: entry["id"] for entry in realm.hand("GET", "users") if entry.get("federationLink")}
    return found["id"], {entry["name"]: entry["id"] for entry in mappers}, people


def mapping(realm, name):
    return one(realm.hand("GET", "components", parent=component(realm, "directory")["id"]), "name", name)


def test_people_of_the_directory_sign_in_and_its_groups_come_with_them(lasting):
    lasting.hand("POST", f"user-storage/{component(lasting, 'directory')['id']}/mappers/"
                    f"{mapping(lasting, 'groups')['id']}/sync", direction="fedToKeycloak")  # fmt: skip
    for name, (_, last) in PEOPLE.items():
        found = user(lasting, name)
        assert found["lastName"] == last
        assert found["attributes"]["office"] == [name]
        assert set(found["groups"]) == {f"/{group}" for group, members in GROUPS.items() if name in members}
    assert "error" in login(lasting, "grace", "not-hers", check=False)


SURNAME = {**OFFICE, "config": {**OFFICE["config"], "ldap.attribute": ["sn"]}}
DESK = {**OFFICE, "name": "desk", "config": {**OFFICE["config"], "user.model.attribute": ["desk"]}}
CHANGES = {  # what is changed: (declaration, the field that is told)
    "a setting": (federated(OFFICE, MEMBERS, batchSizeForSync="500"), "config"),
    "where people are": (federated(OFFICE, MEMBERS, usersDn="dc=example,dc=org", searchScope="2"), "config"),
    "its cache and sync": (federated(OFFICE, MEMBERS, cachePolicy="NO_CACHE", fullSyncPeriod="86400"), "config"),
    "a mapper": (federated(SURNAME, MEMBERS), None),
    "one mapper more": (federated(OFFICE, MEMBERS, DESK), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_ids_and_imported_people_survive_any_change_of_the_federation(lasting, change):
    declared, field = CHANGES[change]
    ident, mappers, people = identities(lasting)
    assert set(people) == set(PEOPLE)
    offline = login(lasting, "grace", "grace-s3cret", scope="offline_access")["refresh_token"]
    changes = lasting.managed(declared)
    assert all(key.startswith("federation") for key in changes) and changes
    if field:
        assert set(changes["federation/directory"]) == {field}
    after = identities(lasting)
    assert (after[0], after[2]) == (ident, people)
    assert after[1].items() >= mappers.items()
    token = lasting.keycloak.grant(lasting.name, "refresh_token", client_id="app", refresh_token=offline)
    assert token["access_token"], "who is signed in stays so"
    assert login(lasting, "grace", "grace-s3cret")


def test_a_second_run_adds_no_second_federation(lasting):
    for declared in (federated(OFFICE, MEMBERS), federated(OFFICE, MEMBERS, priority="5")):
        lasting.managed(declared)
        found = lasting.hand("GET", "components", type=LDAP)
        assert [entry["name"] for entry in found] == ["directory"]


def test_two_federations_of_one_name_are_refused(federation):
    """Which of them is meant, only a person can say."""
    found = component(federation, "directory")
    federation.hand("POST", "components", {k: v for k, v in found.items() if k != "id"})
    comment = federation.refused(federated(OFFICE, MEMBERS))
    assert "directory" in comment and "two" in comment.lower()


def test_another_kind_of_federation_under_the_name_is_refused_not_recreated(lasting):
    declared = federated()
    declared["components"][LDAP][0]["providerId"] = "kerberos"
    before = identities(lasting)
    assert "cannot become kerberos" in lasting.refused(declared)
    assert identities(lasting) == before


def test_a_federation_is_not_purged_with_its_people_unless_forced(federation):
    empty = {"components": {LDAP: []}}
    before = identities(federation)
    federation.refused(empty, purge="owned")
    assert identities(federation) == before
    assert federation.managed(empty, purge="owned", force=True)["federation/directory"] == GONE


def test_a_mapper_and_a_setting_changed_by_hand_are_repaired(lasting):
    declared = federated(OFFICE, MEMBERS)
    before = identities(lasting)
    entry = mapping(lasting, "groups")
    lasting.hand("PUT", f"components/{entry['id']}", {**entry, "config": {**entry["config"], "mode": ["LDAP_ONLY"]}})
    assert lasting.managed(declared)
    assert mapping(lasting, "groups")["config"]["mode"] == ["READ_ONLY"]
    lasting.hand("DELETE", f"components/{mapping(lasting, 'office')['id']}")
    assert lasting.managed(declared)
    assert mapping(lasting, "office")["config"]["user.model.attribute"] == ["office"]
    found = component(lasting, "directory")
    found["config"] |= {"usersDn": ["ou=nobody,dc=example,dc=org"], "bindCredential": ["**********"]}
    lasting.hand("PUT", f"components/{found['id']}", found)
    assert "federation/directory" in lasting.managed(declared)
    after = identities(lasting)
    assert (after[0], after[2]) == (before[0], before[2])
    assert login(lasting, "grace", "grace-s3cret")


def test_mappers_that_keycloak_makes_with_a_federation_stay(federation):
    _, before, _ = identities(federation)
    assert {"username", "email", "last name"} <= set(before)
    federation.managed(federated(OFFICE), purge="owned")
    _, after, _ = identities(federation)
    assert set(before) - set(after) == {"groups"}


def test_the_bind_credential_can_be_set_and_changed(realm):
    realm.managed(federated(secret="not-the-one"))  # noqa: S106
    answer = login(realm, "grace", "grace-s3cret", check=False)
    assert "access_token" not in answer
    secret = {"bindCredential": "**"}
    assert realm.managed(federated()) == {"federation/directory": {"config": {"old": secret, "new": secret}}}
    assert login(realm, "grace", "grace-s3cret")["access_token"]


def test_the_bind_credential_can_come_from_a_vault(realm):
    vault = f"/opt/vault/{realm.name}_directory"
    realm.keycloak.node.write(vault, LDAP_PASSWORD)
    declared = federated(secret="${vault.directory}")  # noqa: S106
    realm.managed(declared)
    assert login(realm, "grace", "grace-s3cret")["access_token"]
    assert component(realm, "directory")["config"]["bindCredential"] == ["${vault.directory}"]


def test_it_is_managed_alone(realm):
    realm.apply({"enabled": True})
    declared = federated(OFFICE, MEMBERS)["components"][LDAP][0]
    fields = {key: value for key, value in declared.items() if key != "name"}
    changes = realm.state("federation_present", "directory", realm=realm.name, **fields)
    assert "federation/directory" in changes and LDAP_PASSWORD not in str(changes)
    assert mapping(realm, "groups")["config"]["mode"] == ["READ_ONLY"]
    assert realm.state("federation_absent", "directory", realm=realm.name)["federation/directory"] == GONE


def test_people_of_the_directory_are_not_taken_for_undeclared_users(federation):
    declared = federated(OFFICE, MEMBERS)
    declared["users"] = [{"username": "local", "enabled": True}]
    changes = federation.managed(declared, purge="all", force=True)
    assert set(changes) == {"user/local"}
    assert set(identities(federation)[2]) == set(PEOPLE)


def test_a_federated_realm_is_exported_and_made_again(federation, new_realm):
    exported = federation.modules.export(federation.name)
    assert LDAP_PASSWORD not in str(exported)
    assert federation.diff(exported, purge="all") == {}
    exported["components"][LDAP][0]["config"]["bindCredential"] = [LDAP_PASSWORD]
    other = new_realm()
    try:
        other.managed({**exported, "realm": other.name})
        assert login(other, "marie", "marie-s3cret")["access_token"]
    finally:
        other.delete()

"""keycloak_realm: which attributes users may have in a new realm, and mail addresses that change hands."""

import pytest

from tests.functional.keycloak import calls
from tests.functional.realm_objects import person, profile, profile_component

# -- users of a new realm ---------------------------------------------------------------------------


def test_what_the_profile_of_users_does_not_allow_is_refused_before_a_realm_is_made(realm):
    long = "x" * 256
    declared = {
        "users": [
            person("ada", attributes={"office": ["1"]}),
            person("bo"),
            person("eve", email=f"{long}@example.org", firstName=long, lastName=long),
        ]
    }
    with calls() as sent:
        comment = realm.refused(declared)
    assert {method for method, _ in sent} == {"GET"}
    assert realm.keycloak.admin("GET", realm.name, check=False).status_code == 404
    for field in ("[0].attributes.office", "[1].username", "[2].email", "[2].firstName", "[2].lastName"):
        assert f"- users{field}:" in comment, comment
    realm.apply({"enabled": True})
    assert realm.refused(declared) == comment


def test_a_new_realms_own_profile_decides_which_attributes_its_users_may_have(realm):
    declared = {
        **profile_component(profile({"name": "office", "permissions": {"view": ["admin"], "edit": ["admin"]}})),
        "users": [person("bo", attributes={"office": ["1"]})],
    }
    assert "user/bo" in realm.managed(declared)


# -- mail addresses ---------------------------------------------------------------------------------


def mails(realm):
    return {entry["username"]: entry.get("email") for entry in realm.hand("GET", "users", max=1000)}


def people(**addresses):
    return {"users": [person(name, email=f"{address}@example.org") for name, address in addresses.items()]}


@pytest.mark.parametrize("others", [{}, {f"new{number}": f"new{number}" for number in range(4)}])
def test_a_user_who_is_renamed_keeps_the_mail_address(realm, others):
    realm.apply(people(ada="ada", marie="marie"))
    changes = realm.managed(people(ada="ada", mcurie="marie", **others), purge="owned")
    assert changes["user/marie"] == {"old": "present", "new": "absent"}
    assert set(mails(realm)) == {"ada", "mcurie", *others}
    assert mails(realm)["mcurie"] == "marie@example.org"


def test_mail_addresses_change_hands(realm):
    realm.apply(people(ada="a", bob="b", eve="e"))
    assert set(realm.managed(people(ada="b", bob="a", eve="e"))) == {"user/ada", "user/bob"}
    assert set(realm.managed(people(ada="new", bob="b", zoe="a", eve="e"))) == {"user/ada", "user/bob", "user/zoe"}
    assert mails(realm) == {
        name: f"{address}@example.org" for name, address in {"ada": "new", "bob": "b", "zoe": "a", "eve": "e"}.items()
    }


def test_the_mail_address_of_a_user_who_stays_is_not_taken(realm):
    realm.apply(people(ada="ada"))
    realm.hand("POST", "users", {"username": "marie", "email": "marie@example.org"})
    ended = realm.modules.state("managed", realm.name, representation=people(ada="ada", mcurie="marie"), purge="owned")
    assert ended["result"] is False and "user/mcurie: 409: User exists with same email" in ended["comment"]
    assert mails(realm) == {"ada": "ada@example.org", "marie": "marie@example.org"}
    realm.apply({"duplicateEmailsAllowed": True, "loginWithEmailAllowed": False})
    declared = {"duplicateEmailsAllowed": True, **people(ada="ada", mcurie="marie")}
    assert set(realm.managed(declared, purge="owned")) == {"user/mcurie"}

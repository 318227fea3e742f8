"""keycloak_realm makes, leaves alone, changes, repairs and clears each kind of object of a real Keycloak."""

import pytest

from tests.functional.realm_objects import KINDS, contains


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def realm(new_realm, kind):
    """One realm for all that is done to one kind of object."""
    made = new_realm()
    made.apply({"enabled": True, **kind.beside})
    yield made
    made.delete()


def told(kind, names):
    """Return what ``changes`` says of these fields."""
    return {kind.told.get(name, name) for name in names}


def is_empty(value):
    """Tell whether there is nothing in a field but Salt's own mark."""
    if isinstance(value, dict):
        return all(is_empty(entry) for key, entry in value.items() if key != "managed-by")
    return value in (None, "", [])


def test_it_is_made_and_then_left_alone(realm, kind):
    changes = realm.managed(kind.representation(kind.minimal))
    if not kind.given:  # else some of it may be as declared from the start
        assert set(changes) == {kind.key}
        assert set(changes[kind.key]) >= told(kind, kind.minimal)
        assert all(change["old"] is None for change in changes[kind.key].values())
    assert contains(kind.live(realm), kind.minimal)
    assert set(realm.managed(kind.representation(kind.full))) <= {kind.key}
    assert contains(kind.live(realm), kind.full)


def test_each_field_changes_and_changes_back(realm, kind):
    realm.apply(kind.representation(kind.full))
    for sample in (kind.changed, kind.full):
        changes = realm.managed(kind.representation(sample))
        assert set(changes) == {kind.key}
        assert set(changes[kind.key]) == told(kind, [name for name in sample if kind.full[name] != kind.changed[name]])
        assert contains(kind.live(realm), sample)


def test_null_clears_a_field_and_leaving_it_out_does_not(realm, kind):
    realm.apply(kind.representation(kind.full))
    assert realm.managed(kind.representation(kind.least)) == {}
    assert contains(kind.live(realm), kind.full)
    if kind.cleared:
        declared = {name: [] if value == [] else None for name, value in kind.cleared.items()}
        changes = realm.managed(kind.representation(declared))
        assert set(changes[kind.key]) == told(kind, kind.cleared)
        live = kind.live(realm)
        for name in kind.cleared:
            assert is_empty(live.get(name)), name


def test_what_is_changed_by_hand_is_told_and_repaired(realm, kind):
    declared = kind.representation(kind.full)
    realm.apply(declared)
    kind.by_hand(realm)
    changes = realm.managed(declared)
    assert set(changes) == {kind.key}
    assert set(changes[kind.key]) >= set(kind.damaged)
    assert contains(kind.live(realm), kind.full)


NAMES = ("clientId", "name", "alias", "username", "subGroups")


def alone(declared):
    """Return the innermost object of a representation that has but one."""
    while "subGroups" in declared or not set(declared) & set(NAMES):
        declared = declared.get("subGroups") or next(iter(declared.values()))
        declared = declared[0] if isinstance(declared, list) else declared
    return declared


@pytest.mark.parametrize("kind", [name for name in KINDS if KINDS[name].single], indirect=True)
def test_it_is_managed_alone(realm, kind):
    state, name = kind.single
    gone = {kind.key: {"old": "present", "new": "absent"}}
    realm.apply(kind.representation(kind.minimal))
    if not kind.given:
        assert realm.state(f"{state}_absent", name, realm=realm.name) == gone
    for sample in (kind.full, kind.changed):
        declared = {key: value for key, value in alone(kind.declare(sample)).items() if key not in NAMES}
        realm.state(f"{state}_present", name, realm=realm.name, **declared)
        assert contains(kind.live(realm), declared)
    if not kind.given:
        assert realm.state(f"{state}_absent", name, realm=realm.name) == gone

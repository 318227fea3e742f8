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
    made.apply(kind.representation(kind.minimal))
    yield made
    made.delete()


def fields(changes, key):
    """Return the names of the fields of one object that changed."""
    return set(changes.get(key, {}))


def is_empty(value):
    """Tell whether there is nothing in a field but Salt's own mark."""
    if isinstance(value, dict):
        return all(is_empty(entry) for key, entry in value.items() if key != "managed-by")
    return value in (None, "", [])


def remove(realm, kind):
    """Make the realm anew, without the object."""
    realm.delete()
    if kind.beside:
        realm.apply(kind.beside)


def test_it_is_made_and_then_left_alone(realm, kind):
    for sample in (kind.minimal, kind.full):
        remove(realm, kind)
        changes = realm.managed(kind.representation(sample))
        assert fields(changes, kind.key) >= set(sample)
        for change in changes[kind.key].values():
            assert kind.given or change["old"] is None
        assert contains(kind.live(realm), sample)


def test_each_field_changes_and_changes_back(realm, kind):
    realm.apply(kind.representation(kind.full))
    for sample in (kind.changed, kind.full):
        changes = realm.managed(kind.representation(sample))
        assert set(changes) == {kind.key}
        assert fields(changes, kind.key) == {name for name in sample if kind.full[name] != kind.changed[name]}
        assert contains(kind.live(realm), sample)


def test_null_clears_a_field_and_leaving_it_out_does_not(realm, kind):
    realm.apply(kind.representation(kind.full))
    assert realm.managed(kind.representation(kind.least)) == {}
    assert contains(kind.live(realm), kind.full)
    if kind.cleared:
        declared = {name: [] if value == [] else None for name, value in kind.cleared.items()}
        changes = realm.managed(kind.representation(declared))
        assert fields(changes, kind.key) == set(kind.cleared)
        live = kind.live(realm)
        for name in kind.cleared:
            assert is_empty(live.get(name)), name


def test_what_is_changed_by_hand_is_told_and_repaired(realm, kind):
    declared = kind.representation(kind.full)
    realm.apply(declared)
    kind.by_hand(realm)
    changes = realm.managed(declared)
    assert set(changes) == {kind.key}
    assert fields(changes, kind.key) >= set(kind.damaged)
    assert contains(kind.live(realm), kind.full)


@pytest.mark.parametrize("kind", [name for name in KINDS if KINDS[name].single])
def test_it_is_managed_alone(new_realm, kind):
    kind = KINDS[kind]
    realm = new_realm()
    try:
        realm.apply(kind.beside)
        state, name = kind.single
        for sample in (kind.full, kind.changed):
            realm.state(f"{state}_present", name, realm=realm.name, **sample)
            assert contains(kind.live(realm), sample)
        if not kind.given:
            changes = realm.state(f"{state}_absent", name, realm=realm.name)
            assert changes == {kind.key: {"old": "present", "new": "absent"}}
    finally:
        realm.delete()

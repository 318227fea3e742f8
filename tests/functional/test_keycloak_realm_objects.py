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


def is_empty(value):
    """Tell whether there is nothing in a field but Salt's own mark."""
    if isinstance(value, dict):
        return all(is_empty(entry) for key, entry in value.items() if key != "managed-by")
    return value in (None, "", [])


def test_it_is_made_and_then_left_alone(realm, kind):
    changes = realm.managed(kind.representation(kind.minimal))
    if not kind.given:  # else some of it may be as declared from the start
        assert set(changes) == {kind.key}
        assert set(changes[kind.key]) >= set(kind.minimal)
        assert all(change["old"] is None for change in changes[kind.key].values())
    assert contains(kind.live(realm), kind.minimal)
    assert set(realm.managed(kind.representation(kind.full))) <= {kind.key}
    assert contains(kind.live(realm), kind.full)


def test_each_field_changes_and_changes_back(realm, kind):
    realm.apply(kind.representation(kind.full))
    for sample in (kind.changed, kind.full):
        changes = realm.managed(kind.representation(sample))
        assert set(changes) == {kind.key}
        assert set(changes[kind.key]) == {name for name in sample if kind.full[name] != kind.changed[name]}
        assert contains(kind.live(realm), sample)


def test_null_clears_a_field_and_leaving_it_out_does_not(realm, kind):
    realm.apply(kind.representation(kind.full))
    assert realm.managed(kind.representation(kind.least)) == {}
    assert contains(kind.live(realm), kind.full)
    if kind.cleared:
        declared = {name: [] if value == [] else None for name, value in kind.cleared.items()}
        changes = realm.managed(kind.representation(declared))
        assert set(changes[kind.key]) == set(kind.cleared)
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


NAMES = ("clientId", "alias", "username", "name")


def fields(kind, sample):
    """Return a sample as arguments of the state that manages one object, whose ``name`` is that of the object."""
    declared = kind.declare(sample)
    while "subGroups" in declared or not set(declared) & set(NAMES):
        declared = declared.get("subGroups") or next(iter(declared.values()))
        declared = declared[0] if isinstance(declared, list) else declared
    declared.pop(next(name for name in NAMES if name in declared))
    return {"display_name" if field == "name" else field: value for field, value in declared.items()}


@pytest.mark.parametrize("kind", [name for name in KINDS if KINDS[name].single], indirect=True)
def test_it_is_managed_alone(realm, kind):
    state, name = kind.single
    gone = {kind.key: {"old": "present", "new": "absent"}}
    realm.apply(kind.representation(kind.minimal))
    if not kind.given:
        assert realm.state(f"{state}_absent", name, realm=realm.name) == gone
    for sample in (kind.full, kind.changed):
        realm.state(f"{state}_present", name, realm=realm.name, **fields(kind, sample))
        assert contains(kind.live(realm), sample)
    if not kind.given:
        assert realm.state(f"{state}_absent", name, realm=realm.name) == gone

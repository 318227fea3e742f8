"""The names of keycloak_realm's objects: keys, paths of groups, and names with any characters."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.load import load

kr = load("_modules/keycloak_realm.py", "keycloak_realm_module")


def changed(live, declared):
    return kr.report(kr.difference(kr.flatten({"realm": "r", **live}), kr.flatten({"realm": "r", **declared})))


#: Names with the characters that keys use, and any others.
any_name = st.text(min_size=1, max_size=64) | st.text("aA/~: .+@|#'\"é名", min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(any_name, min_size=1, max_size=4), st.sampled_from("/:"))
def test_a_key_tells_the_names_it_is_made_of(names, separator):
    assert kr.split(kr.joined(names, separator), separator) == names


@settings(max_examples=100, deadline=None)
@given(st.sets(st.lists(any_name, min_size=1, max_size=3).map(tuple), max_size=5))
def test_a_path_without_escapes_means_every_group_that_keycloak_gives_it_to(groups):
    spellings = kr.Spellings("/", [kr.joined(names, "/") for names in groups])
    for names in groups:
        assert spellings.find(kr.joined(names, "/")) == {kr.joined(names, "/")}
        found = spellings.find("/".join(names))
        assert kr.joined(names, "/") in found or "/".join(names) in spellings.keys
        assert all("/".join(kr.split(key, "/")) == "/".join(names) or key == "/".join(names) for key in found)


def tree(names, **fields):
    """Return groups within each other, of these names from the top; ``fields`` are those of the last."""
    below = tree(names[1:], **fields) if names[1:] else {}
    return {"groups": [{"name": names[0], **({"subGroups": below["groups"]} if below else fields)}]}


@settings(max_examples=100, deadline=None)
@given(st.lists(any_name, min_size=1, max_size=3))
def test_groups_are_compared_by_their_place_in_the_tree(names):
    assert changed(tree(names), tree(names)) == {}
    key = kr.joined(names, "/")
    assert set(changed(tree(names), tree(names, attributes={"x": 1}))) == {f"group/{key}"}
    by_path = {"groups": [{"path": f"/{key}", "attributes": {"x": 1}}]}
    assert changed(tree(names), by_path) == changed(tree(names), tree(names, attributes={"x": 1}))
    if len(names) == 1:
        by_both = {"groups": [{"name": names[0], "path": f"/{names[0]}"}]}
        assert changed(tree(names), by_both) == {}


def test_paths_of_keycloak_become_keys_where_they_mean_one_group():
    live = kr.flatten({"groups": [{"name": "a/b", "subGroups": [{"name": "c"}]}, {"name": "d"}]})
    declared: dict = {
        "groups": [{"path": "/a/b/c"}, {"path": "/d/e"}, {"path": "/d/e/f"}],
        "users": [{"username": "ada", "groups": ["/a/b", "/a~/b/c", "/nowhere", "/d/e/f", "d"]}],
        "defaultGroups": ["/a/b/c"],
    }
    assert kr.resolve_paths(declared, live, kr.flatten(declared))
    assert [entry["path"] for entry in declared["groups"]] == ["/a~/b/c", "/d/e", "/d/e/f"]
    assert declared["users"][0]["groups"] == ["/a~/b", "/a~/b/c", "/nowhere", "/d/e/f", "d"]
    assert declared["defaultGroups"] == ["/a~/b/c"]
    assert not kr.resolve_paths(declared, live, kr.flatten(declared))


def test_a_role_of_a_client_whose_name_has_a_colon_belongs_to_that_client():
    clients = [{"clientId": "https://x", "redirectUris": ["x"]}, {"clientId": "https", "redirectUris": ["x"]}]
    live = kr.flatten({"clients": clients, "roles": {"client": {"https://x": [{"name": "read:all"}]}}})
    wanted = kr.flatten({"users": [{"username": "ada", "clientRoles": {"https://x": ["read:all"]}}]})
    assert kr.check(live, wanted) == []
    told = changed({"clients": clients[:1]}, {"clients": clients, "roles": {"client": {"https://x": [{"name": "r"}]}}})
    assert told["client/https"]["clientId"]["new"] == "https"
    assert told["client_role/https~://x:r"] == {"name": {"old": None, "new": "r"}}


def test_names_of_what_is_to_be_absent_are_found_in_each_form():
    live = kr.flatten(
        {
            "clients": [{"clientId": "https://x"}],
            "roles": {"client": {"https://x": [{"name": "r"}]}},
            "groups": [{"name": "a/b", "subGroups": [{"name": "c"}]}, {"name": "a", "subGroups": [{"name": "b/c"}]}],
            "users": [{"username": "ada"}],
        }
    )

    def resolved(**absent):
        absent = {kind: {name} for kind, name in absent.items()}
        return kr.resolve_absent(absent, live) or absent

    assert resolved(client_role="https://x:r") == {"client_role": {"https~://x:r"}}
    assert resolved(group="/a/b") == resolved(group="a~/b/") == {"group": {"a~/b"}}
    assert resolved(group="nowhere") == {"group": set()}
    assert resolved(user="Ada") == {"user": {"ada"}}
    assert resolved(group="/a/b/c") == ["absent.group: /a/b/c may be any of a/b~/c, a~/b/c"]

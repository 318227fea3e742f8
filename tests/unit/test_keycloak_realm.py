"""The difference engine of keycloak_realm: pure functions, any realm."""

import copy
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

from tests.unit.load import load

kr = load("_modules/keycloak_realm.py", "keycloak_realm_module")
EMPTY = kr.Live({})

# -- any declaration -------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d"]
words = st.sampled_from(["", "x", "y", "z"])
texts = st.dictionaries(st.sampled_from(["k", "l"]), st.none() | words | st.booleans() | st.integers(0, 3))
lists = st.dictionaries(st.sampled_from(["k", "l"]), st.none() | words | st.lists(words))
several = st.lists(st.sampled_from(NAMES))


def named(identity, **optional):
    """Lists of objects that each have a name of their own and some of these fields."""
    entry = st.fixed_dictionaries({identity: st.sampled_from(NAMES)}, optional=optional)
    return st.lists(entry, unique_by=lambda value: value[identity], max_size=4)


mappers = named("name", config=texts, protocolMapper=st.just("p")).map(
    lambda entries: [{"protocolMapper": "p", **entry} for entry in entries]
)
client_roles = st.dictionaries(st.sampled_from(NAMES), several, max_size=2)
roles = named(
    "name",
    description=st.none() | words,
    attributes=st.none() | lists,
    composites=st.none() | st.fixed_dictionaries({}, optional={"realm": several, "client": client_roles}),
)
groups = st.recursive(
    named("name", attributes=lists, realmRoles=st.none() | several, clientRoles=client_roles),
    lambda below: named("name", attributes=lists, subGroups=below),
    max_leaves=4,
)
representations = st.fixed_dictionaries(
    {"realm": st.just("r")},
    optional={
        "displayName": st.none() | words,
        "rememberMe": st.booleans(),
        "accessTokenLifespan": st.integers(1, 3),
        "attributes": texts,
        "smtpServer": st.none() | texts,
        "localizationTexts": st.dictionaries(st.sampled_from(["de", "en"]), texts),
        "defaultGroups": several,
        "roles": st.fixed_dictionaries(
            {}, optional={"realm": roles, "client": st.dictionaries(st.sampled_from(NAMES), roles, max_size=2)}
        ),
        "groups": groups,
        "clients": named(
            "clientId",
            redirectUris=st.none() | several,
            publicClient=st.booleans(),
            attributes=st.none() | texts,
            protocolMappers=mappers,
            secret=words,
        ),
        "clientScopes": named("name", protocolMappers=mappers, attributes=texts),
        "users": named(
            "username",
            enabled=st.booleans(),
            email=st.none() | words,
            attributes=st.none() | lists,
            groups=st.none() | several,
            realmRoles=several,
            clientRoles=st.none() | client_roles,
        ),
        "identityProviders": named("alias", config=texts, providerId=st.just("oidc")),
        "organizations": named("name", domains=st.none() | named("name"), attributes=lists),
        "components": st.fixed_dictionaries(
            {}, optional={kr.FEDERATION: named("name", config=lists, providerId=st.just("ldap"))}
        ),
        "clientScopeMappings": st.dictionaries(st.sampled_from(NAMES), named("client", roles=several), max_size=2),
        "someFutureKey": st.recursive(
            st.booleans() | words, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=5
        ),
    },
)


def applied(live, changes):
    """Return the realm after the changes, as Keycloak would have it."""
    tree, raw = copy.deepcopy(live.tree), dict(live.raw)
    for change in changes:
        objects = tree.setdefault(change.kind, {})
        if change.action == "remove":
            del objects[change.key]
            for below in [key for key in tree.get(kr.BELOW.get(change.kind), ()) if key.startswith(f"{change.key}:")]:
                del tree[kr.BELOW[change.kind]][below]
            continue
        fields = objects.setdefault(change.key, {})
        raw.setdefault((change.kind, change.key), {})
        for field, value in change.new.items():
            fields[field] = kr.merged(fields.get(field), value)
    return live._replace(tree=tree, raw=raw)


@settings(max_examples=150, deadline=None)
@given(representations, representations)
def test_applying_the_difference_makes_what_is_wanted(before, after):
    live, wanted = kr.flatten(before), kr.flatten(after)
    changes = kr.difference(live, wanted)
    assert kr.difference(applied(live, changes), wanted) == []


@settings(max_examples=150, deadline=None)
@given(representations, representations)
def test_purging_all_leaves_what_is_declared(before, after):
    live, wanted = kr.flatten(before), kr.flatten(after)
    result = applied(live, kr.difference(live, wanted, purge="all"))
    assert kr.difference(result, wanted, purge="all") == []
    for kind in set(kr.REMOVALS) - kr.ONLY_OWNED - {*kr.BELOW, *kr.BELOW.values()}:
        if kind in wanted.tree:
            assert set(result.tree.get(kind, ())) == set(wanted.tree[kind])


@settings(max_examples=100, deadline=None)
@given(representations)
def test_a_realm_does_not_differ_from_itself(representation):
    live = kr.flatten(representation)
    assert kr.difference(live, live, purge="all") == []


@settings(max_examples=100, deadline=None)
@given(representations, st.randoms(use_true_random=False))
def test_order_does_not_matter(representation, chance):
    wanted = kr.flatten(shuffled(representation, chance))
    assert kr.difference(kr.flatten(representation), wanted, purge="all") == []


def shuffled(value, chance):
    if isinstance(value, dict):
        keys = sorted(value, key=lambda _: chance.random())
        return {key: shuffled(value[key], chance) for key in keys}
    if isinstance(value, list) and not any(isinstance(entry, (list, bool)) for entry in value):
        unnamed = any(
            isinstance(e, dict) and not {"name", "clientId", "username", "alias", "client"} & set(e) for e in value
        )
        entries = [shuffled(entry, chance) for entry in value]
        return entries if unnamed else sorted(entries, key=lambda _: chance.random())
    return value


@settings(max_examples=100, deadline=None)
@given(representations, representations)
def test_the_report_names_what_differs_and_only_that(before, after):
    live, wanted = kr.flatten(before), kr.flatten(after)
    changes = kr.difference(live, wanted)
    told = kr.report(changes)
    assert len(told) == len(changes)
    json.dumps(told)
    for change in changes:
        for field, sides in told[change.label].items():
            assert sides["old"] != sides["new"] or sides["old"] == "**", (change, field)


@settings(max_examples=100, deadline=None)
@given(representations)
def test_only_what_is_ours_is_purged(before):
    live = kr.flatten(before)
    wanted = kr.Live({kind: {} for kind in kr.REMOVALS})
    assert kr.difference(live, wanted, purge="owned") == []
    owned = frozenset((kind, key) for kind, objects in live.tree.items() for key in sorted(objects)[:1])
    for change in kr.difference(live._replace(owned=owned), wanted, purge="owned"):
        assert (change.kind, change.key) in owned and change.action == "remove"


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "live", "differs"),
    [
        ({"displayName": None}, {}, set()),
        ({"displayName": None}, {"displayName": "x"}, {"displayName"}),
        ({"rememberMe": False}, {}, set()),
        ({"attributes": {}}, {"attributes": {"a": "1"}}, set()),
        ({"attributes": None}, {"attributes": {"a": "1"}}, {"attributes"}),
        ({"attributes": {"a": 1, "b": True}}, {"attributes": {"a": "1", "b": "true", "c": "x"}}, set()),
        ({"attributes": {"b": "false"}}, {"attributes": {}}, {"attributes"}),
        ({"supportedLocales": ["de", "en"]}, {"supportedLocales": ["en", "de"]}, set()),
        ({"supportedLocales": []}, {"supportedLocales": ["en"]}, {"supportedLocales"}),
        (
            {"new": {"in": [{"name": "b"}, {"name": "a", "x": 1}]}},
            {"new": {"in": [{"name": "a", "x": 1}, {"name": "b"}]}},
            set(),
        ),
        ({"new": [{"x": 1}, {"x": 2}]}, {"new": [{"x": 2}, {"x": 1}]}, {"new"}),
    ],
)
def test_settings_are_compared_as_keycloak_means_them(declared, live, differs):
    changes = kr.difference(kr.flatten({"realm": "r", **live}), kr.flatten({"realm": "r", **declared}))
    assert {field for change in changes for field in change.new} == differs


def changed(live, declared, **more):
    return kr.report(
        kr.difference(kr.flatten({"realm": "r", **live})._replace(**more), kr.flatten({"realm": "r", **declared}))
    )


def test_of_a_mapping_the_report_has_what_differs():
    live = {"groups": [{"name": "g", "attributes": {"a": ["1"], "b": ["2"], "c": ["3"]}}]}
    declared = {"groups": [{"name": "g", "attributes": {"a": 1, "b": [3], "c": None}}]}
    assert changed(live, declared) == {
        "group/g": {"attributes": {"old": {"b": ["2"], "c": ["3"]}, "new": {"b": ["3"], "c": None}}}
    }


def test_a_group_can_be_declared_by_its_path():
    declared = {"groups": [{"path": "/a/b/c", "attributes": {"x": 1}}]}
    live = {"groups": [{"name": "a", "subGroups": [{"name": "b", "subGroups": [{"name": "c"}]}]}]}
    assert set(changed(live, declared)) == {"group/a/b/c"}


def test_the_default_role_is_the_realms_own_whatever_it_was_called():
    wanted = kr.flatten({"realm": "New", "roles": {"realm": [{"name": "default-roles-old"}]}})
    assert set(wanted.tree["role"]) == {"default-roles-new"}


def test_the_action_of_a_temporary_password_is_no_difference():
    def users(*actions, **more):
        return {"users": [{"username": "ada", "requiredActions": list(actions), **more}]}

    temporary = {"credentials": [{"type": "password", "value": "x", "temporary": True}]}
    for live in (users(), users("UPDATE_PASSWORD")):
        assert changed(live, users(**temporary)) == changed(live, users("UPDATE_PASSWORD", **temporary)) == {}
    assert changed(users("UPDATE_PASSWORD"), users()) != {}


# -- secrets ---------------------------------------------------------------------------------------


def provider(secret):
    return {
        "identityProviders": [
            {"alias": "x", "internalId": "1", "providerId": "oidc", "config": {"clientSecret": secret}}
        ]
    }


def test_a_masked_secret_is_compared_with_the_hash_of_the_last_one():
    hashes = {"1.config.clientSecret": kr._hash("right")}
    assert changed(provider(kr.MASK), provider("right"), hashes=hashes) == {}
    told = changed(provider(kr.MASK), provider("wrong"), hashes=hashes)
    assert told == {"identity_provider/x": {"config": {"old": {"clientSecret": "**"}, "new": {"clientSecret": "**"}}}}
    assert changed(provider(kr.MASK), provider("right")) == told, "never applied by us"
    assert changed(provider(kr.MASK), provider("right"), hashes={"2.config.clientSecret": hashes.popitem()[1]}) == told


def test_a_mask_that_is_declared_leaves_the_secret_alone():
    assert changed(provider(kr.MASK), provider(kr.MASK)) == changed(provider("x"), provider(kr.MASK)) == {}
    added = kr.difference(EMPTY, kr.flatten({"realm": "r", **provider(kr.MASK)}))
    assert added[0].new["config"] == {}


def test_vault_references_are_compared_as_they_are():
    assert changed(provider("${vault.x}"), provider("${vault.x}")) == {}
    assert changed(provider("${vault.x}"), provider("${vault.y}")) != {}


def test_no_secret_is_reported():
    declared = {
        "smtpServer": {"host": "h", "password": "S1"},
        "clients": [{"clientId": "c", "secret": "S2", "attributes": {"saml.signing.private.key": "S3"}}],
        "components": {kr.FEDERATION: [{"name": "l", "providerId": "ldap", "config": {"bindCredential": ["S4"]}}]},
        "users": [{"username": "u", "credentials": [{"type": "password", "value": "S5"}]}],
        **provider("S6"),
    }
    told = json.dumps(changed({}, declared))
    assert not any(f"S{number}" in told for number in range(1, 7))
    assert told.count('"**"') == 5


# -- what is refused -------------------------------------------------------------------------------

REFUSED: dict[str, dict] = {
    "clients": {"clients": {}} | {"clients": {"a": 1}},
    "clients[0]": {"clients": ["a"]},
    "clients[0].clientId": {"clients": [{"name": "x"}]},
    "clients[1].clientId": {"clients": [{"clientId": "a"}, {"clientId": "a"}]},
    "clients[0].redirectUris": {"clients": [{"clientId": "a", "redirectUris": "https://x"}]},
    "clients[0].attributes.x": {"clients": [{"clientId": "a", "attributes": {"x": [1]}}]},
    "clients[0].protocolMappers[1].protocolMapper": {
        "clients": [{"clientId": "a", "protocolMappers": [{"name": "m", "protocolMapper": "p"}, {"name": "n"}]}]
    },
    "roles.realm[0].attributes": {"roles": {"realm": [{"name": "a", "attributes": "x"}]}},
    "roles.client.c[0].name": {"roles": {"client": {"c": [{}]}}},
    "groups[0].subGroups[0].name": {"groups": [{"name": "a", "subGroups": [{}]}]},
    "users[1].username": {"users": [{"username": "ada"}, {"username": "ADA"}]},
    "localizationTexts.de.x": {"localizationTexts": {"de": {"x": {}}}},
    "smtpServer": {"smtpServer": "mail"},
    "components": {"components": []} | {"components": [1]},
}


@pytest.mark.parametrize("path", REFUSED)
def test_a_malformed_declaration_is_refused_with_its_path(path):
    with pytest.raises(CommandExecutionError) as refused:
        kr.flatten({"realm": "r", **REFUSED[path]})
    assert f"  - {path}: " in str(refused.value)


def user(**fields):
    return {"username": "ada", **fields}


def person(name, email):
    return {"username": name, "email": email}


def federation(provider):
    return {"components": {kr.FEDERATION: [{"name": "l", "providerId": provider}]}}


LIVE = kr.flatten(
    {
        "realm": "r",
        "enabled": True,
        "roles": {"realm": [{"name": "reader"}], "client": {"app": [{"name": "user"}]}},
        "clients": [{"clientId": "app", "redirectUris": ["x"]}, {"clientId": "other", "publicClient": True}],
        "groups": [{"name": "lab", "subGroups": [{"name": "cold"}]}],
        "components": {kr.FEDERATION: [{"name": "l", "providerId": "ldap", "config": {}}]},
        "authenticationFlows": [{"alias": "browser", "topLevel": True, "authenticationExecutions": []}],
    }
)


@pytest.mark.parametrize(
    ("error", "declared"),
    [
        ("clients[0].redirectUris: is missing", {"clients": [{"clientId": "new"}]}),
        ("clients[0].redirectUris: is missing", {"clients": [{"clientId": "app", "redirectUris": []}]}),
        (None, {"clients": [{"clientId": "app", "name": "x"}]}),
        (None, {"clients": [{"clientId": "new", "standardFlowEnabled": False}]}),
        (None, {"clients": [{"clientId": "new", "protocol": "saml"}]}),
        ("users[0].groups[1]: there is no group /lab/hot", {"users": [user(groups=["/lab/cold", "/lab/hot"])]}),
        ("users[0].realmRoles[0]: there is no role x", {"users": [{"username": "u", "realmRoles": ["x", "reader"]}]}),
        ("users[0].clientRoles.x: there is no client", {"users": [{"username": "u", "clientRoles": {"x": ["user"]}}]}),
        ("users[0].clientRoles.app[0]: there is no", {"users": [{"username": "u", "clientRoles": {"app": ["x"]}}]}),
        ("users[1].email: users[0] has the same", {"users": [person("a", "X@y"), person("b", "x@y")]}),
        ("groups[0].path: there is no group /nowhere", {"groups": [{"path": "/nowhere/cold"}]}),
        ("browserFlow: there is no flow x", {"browserFlow": "x"}),
        ("defaultGroups[0]: there is no group", {"defaultGroups": ["/x"]}),
        ("enabled: is not true or false", {"enabled": "perhaps"}),
        ("roles.client.x: there is no client x", {"roles": {"client": {"x": [{"name": "r"}]}}}),
        ("providerId: is ldap and cannot become kerberos", federation("kerberos")),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_path(error, declared):
    try:
        errors = kr.check(LIVE, kr.flatten({"realm": "r", **declared}))
    except CommandExecutionError as refused:
        errors = [str(refused)]
    assert any(error in told for told in errors) if error else errors == []


def test_two_federations_of_one_name_are_refused():
    twice = kr.flatten({"components": {kr.FEDERATION: [{"name": "l", "providerId": "ldap"}] * 2}}, declared=False)
    wanted = kr.flatten({"components": {kr.FEDERATION: [{"name": "l", "providerId": "ldap"}]}})
    assert "two of the name l" in kr.check(twice, wanted)[0]


# -- flows -----------------------------------------------------------------------------------------


def flow(*executions, **more):
    return {
        "alias": "mine",
        "topLevel": True,
        "providerId": "basic-flow",
        "authenticationExecutions": list(executions),
        **more,
    }


def step(name, requirement="REQUIRED", **more):
    return {"authenticator": name, "requirement": requirement, **more}


def test_executions_have_an_order_and_priorities_only_say_which():
    live = {"authenticationFlows": [flow(step("b", priority=20), step("a", priority=10))]}
    assert changed(live, {"authenticationFlows": [flow(step("a"), step("b"))]}) == {}
    assert set(changed(live, {"authenticationFlows": [flow(step("b"), step("a"))]})) == {"flow/mine"}


def test_flows_below_and_configurations_are_part_of_the_flow():
    below = {"alias": "below", "topLevel": False, "authenticationExecutions": [step("x", authenticatorConfig="c")]}
    top = flow({"flowAlias": "below", "authenticatorFlow": True, "requirement": "CONDITIONAL"})

    def declared(value):
        return {"authenticationFlows": [top, below], "authenticatorConfig": [{"alias": "c", "config": {"k": value}}]}

    assert changed(declared("1"), declared(1)) == {}
    assert set(changed(declared("1"), declared("2"))) == {"flow/mine"}


# -- the cap on purging ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "kept", "limit", "refused"),
    [
        (100, 90, None, None),
        (100, 40, None, "count = 50"),
        (100, 60, None, "share = 0.25"),
        (100, 60, {"share": 0.5}, None),
        (6, 1, None, None),
        (6, 0, None, "nothing of this kind"),
    ],
)
def test_purging_has_a_cap(there, kept, limit, refused):
    def roles(count):
        return kr.flatten({"roles": {"realm": [{"name": f"r{number}"} for number in range(count)]}})

    live, wanted = roles(there), roles(kept)
    changes = kr.difference(live, wanted, purge="all")
    if refused:
        with pytest.raises(CommandExecutionError, match=refused):
            kr.guard(changes, live, wanted, limit)
    else:
        kr.guard(changes, live, wanted, limit)


def test_what_keycloak_made_is_never_purged():
    live = kr.flatten(
        {
            "realm": "r",
            "clients": [{"clientId": name} for name in kr.BUILT_IN["client"]],
            "clientScopes": [{"name": name} for name in kr.BUILT_IN["client_scope"]],
            "roles": {
                "realm": [{"name": name} for name in ("default-roles-r", *kr.BUILT_IN["role"])],
                "client": {"account": [{"name": "view-profile"}]},
            },
            "authenticationFlows": [{"alias": "x", "topLevel": True, "builtIn": True}],
            "users": [{"username": "u", "federationLink": "1"}],
        }
    )
    live = live._replace(owned=frozenset(live.raw))
    wanted = kr.Live({kind: {} for kind in kr.REMOVALS})
    assert kr.difference(live, wanted, purge="all") == []


def test_ten_thousand_users_are_compared_in_no_time():
    chance = random.Random(1)  # noqa: S311
    users = [
        {"username": f"u{n}", "email": f"u{n}@x.org", "groups": [f"/g{n % 100}"], "realmRoles": ["a"]}
        for n in range(10_000)
    ]
    live = kr.flatten(
        {"users": users, "groups": [{"name": f"g{n}"} for n in range(100)], "roles": {"realm": [{"name": "a"}]}}
    )
    chance.shuffle(users)
    wanted = kr.flatten({"users": users})
    assert kr.check(live, wanted) == kr.difference(live, wanted, purge="all") == []

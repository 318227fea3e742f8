"""The difference engine of conda_store_env: pure functions, any declaration."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

from tests.unit.conftest import ROOT
from tests.unit.load import load
from tests.unit.test_pillar import cluster, qhub

ce = load("_modules/conda_store_env.py", "conda_store_env_module")

DEFAULTS = {
    "conda_channel_alias": "http://channels",
    "conda_default_channels": ["main"],
    "conda_allowed_channels": [],
    **{f"{word}_{kind}_packages": [] for word in ("conda", "pypi") for kind in ("default", "required", "included")},
}
LOCK = {
    "version": 1,
    "metadata": {"channels": []},
    "package": [{"name": "alpha", "manager": "conda", "platform": "linux-64", "url": "http://x/alpha-1.0-0.tar.bz2"}],
}

# -- any declaration -------------------------------------------------------------------------------

NAMES = ["a/x", "a/y", "b/x", "c/z"]
packages = st.lists(st.sampled_from(["alpha", "beta=2.0", "gamma >=3", "delta"]), unique=True)
leaky = st.fixed_dictionaries(
    {}, optional={"conda_included_packages": packages, "conda_default_channels": st.just(["x"])}
)
environments = st.one_of(
    st.fixed_dictionaries(
        {
            "dependencies": st.tuples(packages, st.sampled_from([[], [{"pip": ["one", "two==2"]}]])).map(
                lambda p: p[0] + p[1]
            )
        },
        optional={
            "channels": st.lists(st.sampled_from(["main", "extra"]), min_size=1, unique=True),
            "variables": st.just({"A": "1"}),
            "description": st.sampled_from(["", "some", "other"]),
            "rebuild": st.sampled_from(["1", "2"]),
            "keep_builds": st.integers(1, 3),
            "settings": leaky,
        },
    ),
    st.fixed_dictionaries({"lockfile": st.just(LOCK)}, optional={"rebuild": st.sampled_from(["1", "2"])}),
)
namespaces = st.fixed_dictionaries(
    {},
    optional={
        "roles": st.dictionaries(st.sampled_from("abc"), st.sampled_from(["viewer", "editor", "admin"])),
        "metadata": st.dictionaries(st.sampled_from(["who", "why"]), st.sampled_from(["ada", "bob"])),
        "settings": leaky,
    },
)


@st.composite
def declarations(draw):
    """What a pillar says; each key that is set below is set for conda-store as a whole."""
    chosen = draw(st.lists(st.sampled_from(NAMES), unique=True))
    told = {name: draw(environments) for name in chosen}
    told["namespaces"] = {name: draw(namespaces) for name in draw(st.lists(st.sampled_from("abc"), unique=True))}
    told["settings"] = {"conda_included_packages": draw(packages), "conda_default_channels": ["main"]}
    return told | {"purge": draw(st.sampled_from(["none", "owned"]))}


def declared_of(told):
    declared, errors = ce.declare(copy.deepcopy(told))
    assert errors == []
    return declared


def nothing():
    return ce.Live({"": dict(DEFAULTS)}, {}, {}, {"settings": [], "namespaces": [], "environments": {}})


def own(settings, upper):
    """Return what a level has of its own, as far as one can see that."""
    return {key: value for key, value in settings.items() if value != upper[key]}


def level(live, before, name, above, fields):
    """Set the settings of a namespace or environment: what is above, its own, and what changes."""
    old = before.settings.get(above, before.settings[""])
    live.settings[name] = {
        **live.settings[above],
        **own(before.settings.get(name, old), old),
        **{key.removeprefix("settings."): c["new"] for key, c in fields.items() if key.startswith("settings.")},
    }


def made(before, declared, changes):
    """Return what conda-store has after ``changes``, each new build being complete."""
    live = copy.deepcopy(before)
    live.settings[""].update({key: change["new"] for key, change in changes.get("settings", {}).items()})
    live.ledger["settings"] += changes.get("settings", {})
    levels = {"namespace": live.namespaces, "environment": live.environments}
    named = {tuple(label.split("/", 1)): fields for label, fields in changes.items() if label != "settings"}
    for (kind, name), fields in named.items():
        if fields.get(kind, {}).get("new") == "absent":
            del levels[kind][name]
        else:
            levels[kind].setdefault(name, {"id": len(levels[kind]) + 1, "owned": True})
    for name, there in live.namespaces.items():
        fields, entry = named.get(("namespace", name), {}), declared.namespaces.get(name, {})
        there["metadata"] = {**there.get("metadata", {}), **entry.get("metadata", {})}
        there["roles"] = fields.get("roles", {"new": there.get("roles", {})})["new"]
        level(live, before, name, "", fields)
    for name, there in live.environments.items():
        fields, entry = named.get(("environment", name), {}), declared.environments.get(name, {})
        level(live, before, name, name.split("/")[0], fields)
        there["description"] = fields.get("description", {"new": there.get("description", "")})["new"]
        builds = there.setdefault("builds", [])
        build = fields.get("build", {"new": there.get("build")})["new"]
        if build == ce.NEW:
            build = max([each["id"] for each in builds], default=0) + 1
            builds.append(complete(build, ce.digest(ce.wanted(name, before, declared))))
            there["specification"] = {"name": name, **ce.wanted(name, before, declared)}
        if "builds" in fields:
            remaining = {build if each == ce.NEW else each for each in fields["builds"]["new"]}
            builds[:] = [each for each in builds if each["id"] in remaining]
        there |= {"build": build, "sound": True, "busy": False, "kept": entry.get("keep_builds")}
        there["digest"] = next(each["digest"] for each in builds if each["id"] == build)
    return live


def complete(number, digest):
    return {
        "id": number,
        "status": "COMPLETED",
        "digest": digest,
        "usable": True,
        "running": False,
        "stuck": False,
    }


@given(declarations(), declarations())
@settings(max_examples=100, deadline=None)
def test_applying_the_difference_gives_what_is_declared(before, after):
    first = declared_of(before)
    live = made(nothing(), first, ce.difference(nothing(), first))
    declared = declared_of(after)
    changes = ce.difference(live, declared)
    then = made(live, declared, changes)
    assert ce.difference(then, declared) == {}
    assert set(declared.environments) <= set(then.environments)
    if declared.options["purge"] == "owned":
        assert set(then.environments) == set(declared.environments)
        assert set(then.namespaces) == set(declared.namespaces)


@given(declarations())
@settings(max_examples=50, deadline=None)
def test_what_is_as_declared_has_no_difference_and_needs_no_closer_look(told):
    declared = declared_of(told)
    live = made(nothing(), declared, ce.difference(nothing(), declared))
    assert ce.difference(live, declared) == {}
    assert not any(ce.unclear(name, live, declared) for name in declared.environments)


@given(declarations(), declarations(), st.data())
@settings(max_examples=50, deadline=None)
def test_purging_takes_only_what_is_owned(before, after, data):
    first, declared = declared_of(before), declared_of({**after, "purge": "owned"})
    live = made(nothing(), first, ce.difference(nothing(), first))
    for there in (*live.environments.values(), *live.namespaces.values()):
        there["owned"] = data.draw(st.booleans())
    changes = ce.difference(live, declared)
    for label, fields in changes.items():
        if any(change["new"] == "absent" for change in fields.values()):
            kind, _, name = label.partition("/")
            assert (live.environments if kind == "environment" else live.namespaces)[name]["owned"]
    then = made(live, declared, changes)
    assert {name.split("/")[0] for name in then.environments} <= set(then.namespaces)


# -- content ---------------------------------------------------------------------------------------


@given(st.permutations(["alpha", "beta=2.0", "gamma"]))
def test_packages_may_come_in_any_order(order):
    one, other = ({"channels": ["x"], "dependencies": names} for names in (["alpha", "beta=2.0", "gamma"], order))
    assert ce.digest(one) == ce.digest({**other, "name": "n", "description": "d", "prefix": None, "variables": None})


def test_channels_come_in_their_order_and_words_to_rebuild_count():
    def marked(channels, rebuild=""):
        return ce.mark({"channels": channels, "dependencies": ["alpha"], "variables": None}, rebuild)

    different = [marked(["x", "y"]), marked(["y", "x"]), marked(["x"]), marked(["x"], "2"), marked(["x"], "3")]
    assert len({ce.digest(each) for each in different}) == 5
    # conda-store hashes lists without their order; what is written into prefix keeps these two apart.
    assert different[0]["prefix"] != different[1]["prefix"]
    assert "prefix" not in marked(["x"])  # so it is what somebody's own, made in the page, would be
    locked = [ce.digest(ce.mark({"lockfile": LOCK}, word)) for word in ("", "1", "2")]
    assert len(set(locked)) == 3


def test_an_edited_copy_of_a_marked_specification_is_another():
    marked = ce.mark({"channels": ["x", "y"], "dependencies": ["alpha"], "variables": None}, "2")
    assert ce.digest({**marked, "dependencies": ["alpha", "beta"]}) != ce.digest(marked)


def test_what_conda_store_adds_is_foreseen():
    own = {**DEFAULTS, "conda_included_packages": ["ipykernel", "Alpha>=1"], "pypi_included_packages": ["two"]}
    entry = ce.ENVIRONMENT["dependencies"](["alpha=1.0", {"pip": ["one"]}])
    specification = ce.effective({"dependencies": entry}, own)
    assert specification["dependencies"] == ["alpha=1.0", "ipykernel", {"pip": ["one", "two"]}]
    assert specification["channels"] == ["main"]
    own = {**DEFAULTS, "conda_default_packages": ["python"], "pypi_default_packages": ["three"]}
    empty = ce.ENVIRONMENT["dependencies"]([])
    assert ce.effective({"dependencies": empty}, own)["dependencies"] == ["python", {"pip": ["three"]}]
    assert ce.effective({"lockfile": LOCK}, own) == {"lockfile": LOCK}


def test_what_conda_store_would_refuse_is_refused_before():
    own = {**DEFAULTS, "conda_allowed_channels": ["main", "http://y"], "conda_required_packages": ["ipykernel"]}
    own["pypi_required_packages"] = ["one"]

    def refused(channels, dependencies):
        entry = {"channels": channels, "dependencies": ce.ENVIRONMENT["dependencies"](dependencies)}
        return [key for key, _ in ce.disallowed(entry, own)]

    assert refused(["http://channels/main", "http://y"], ["ipykernel=6", {"pip": ["One>1"]}]) == []
    assert refused(["x"], ["ipykernel", {"pip": ["one"]}]) == ["channels"]
    assert refused(["main"], ["python"]) == ["dependencies", "dependencies"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("numpy", "numpy"),
        ("Python=3.13", "python"),
        ("conda-forge::numpy >=2,<3", "numpy"),
        ("http://127.0.0.1/x::numpy=2", "numpy"),
        ("numpy[version='>=2']", "numpy"),
        ("requests[socks]>=2", "requests"),
        ("=3", ""),
    ],
)
def test_the_name_in_a_dependency(text, name):
    assert ce._package(text) == name


# -- which build -----------------------------------------------------------------------------------


def there(*builds, current=None, sound=True):
    made = [
        {**complete(number, digest), "status": status, "usable": status == "COMPLETED", "running": status == "BUILDING"}
        for number, (digest, status) in enumerate(builds, 1)
    ]
    current = current or len(made)
    return {"build": current, "digest": made[current - 1]["digest"], "sound": sound, "builds": made}


def test_an_older_build_of_what_is_declared_is_taken_rather_than_a_new_one():
    assert ce.choose("a", there(("a", "COMPLETED"), ("a", "COMPLETED"), ("b", "COMPLETED"))) == 2


def test_a_specification_that_failed_is_not_tried_again():
    assert ce.choose("b", there(("a", "COMPLETED"), ("b", "FAILED"), current=1)) is None
    assert ce.choose("b", there(("b", "FAILED"), sound=False)) is None
    # Another one is, and one to which one came back, and one that was cancelled or left behind.
    assert ce.choose("c", there(("a", "COMPLETED"), ("b", "FAILED"), current=1)) == ce.NEW
    assert ce.choose("b", there(("b", "FAILED"), ("c", "FAILED"), current=1, sound=False)) == ce.NEW
    for status in ("CANCELED", "INTERRUPTED"):
        assert ce.choose("b", there(("a", "COMPLETED"), ("b", status), current=1)) == ce.NEW


def test_a_build_that_runs_is_waited_for_unless_it_is_stuck():
    running = there(("a", "COMPLETED"), ("b", "BUILDING"), current=1)
    assert ce.choose("b", running) == 2
    running["builds"][1]["stuck"] = True
    assert ce.choose("b", running) == ce.NEW


def test_a_current_build_that_was_deleted_is_not_good_enough():
    deleted = there(("a", "COMPLETED"))
    deleted["builds"][0]["usable"] = False
    assert ce.choose("a", deleted) == ce.NEW


def test_a_pinned_build_is_the_one_whatever_is_declared():
    assert ce.choose("c", there(("a", "COMPLETED"), ("b", "COMPLETED")), pin=1) == 1


@given(st.lists(st.integers(1, 30), unique=True, min_size=1).map(sorted), st.integers(1, 5), st.data())
def test_the_newest_builds_and_the_current_one_are_kept(builds, keep, data):
    current = data.draw(st.sampled_from(builds))
    left = ce.kept(builds, current, keep)
    assert current in left and len(left) == min(keep, len(builds))
    others = [build for build in builds if build != current]
    assert set(left) - {current} == set(others[len(others) - len(left) + 1 :])
    assert ce.kept(left, current, keep) == left


# -- settings --------------------------------------------------------------------------------------


def test_a_setting_below_is_set_above_even_if_it_looks_so_already():
    """What makes conda-store leak is that the key is not set; its default may well be what is declared."""
    told = {
        "a/x": {"dependencies": ["alpha"], "settings": {"conda_included_packages": ["beta"]}},
        "settings": {"conda_included_packages": [], "pypi_included_packages": []},
    }
    live, declared = nothing(), declared_of(told)
    assert list(ce.difference(live, declared)["settings"]) == ["conda_included_packages"]
    live.ledger["settings"].append("conda_included_packages")
    assert "settings" not in ce.difference(live, declared)


# -- what is refused -------------------------------------------------------------------------------

REFUSED = [
    ({"a": {"dependencies": []}}, "environments.a: one of force, keep_builds, purge"),
    ({"a/b/c": {"dependencies": []}}, "environments.a/b/c: namespace/name, each of letters"),
    *(
        ({name: {"dependencies": []}}, f"environments.{name}: namespace/name, each of")
        for name in ("a/..", "a/-rf", "-a/b")
    ),
    ({"a b/c": {"dependencies": []}}, "environments.a b/c: namespace/name, each of letters"),
    ({"managed-by-salt/c": {"dependencies": []}}, "environments.managed-by-salt/c: namespace/name"),
    ({"a/b": []}, "environments.a/b: a mapping"),
    ({"a/b": {}}, "environments.a/b: needs dependencies, a lockfile or current_build"),
    ({"a/b": {"dependences": []}}, "environments.a/b.dependences: one of channels, current_build, dep"),
    ({"a/b": {"dependencies": "numpy"}}, "environments.a/b.dependencies[0]: a list of packages"),
    ({"a/b": {"dependencies": ["x", 3.13]}}, "environments.a/b.dependencies[1]: a list of packages"),
    ({"a/b": {"dependencies": ["=3"]}}, "environments.a/b.dependencies[0]: '=3' is not allowed: a package"),
    ({"a/b": {"dependencies": [{"pip": "x"}]}}, "environments.a/b.dependencies[0]: a list of packages"),
    ({"a/b": {"dependencies": [], "channels": "x"}}, "environments.a/b.channels: a list of texts"),
    ({"a/b": {"dependencies": [], "keep_builds": 0}}, "environments.a/b.keep_builds: a whole number from 1"),
    ({"a/b": {"current_build": "1"}}, "environments.a/b.current_build: a whole number from 1"),
    ({"a/b": {"lockfile": {"package": [{}]}}}, "environments.a/b.lockfile: a lockfile of conda-lock"),
    ({"a/b": {"lockfile": LOCK, "dependencies": []}}, "environments.a/b: a lockfile or dependencies, not both"),
    (
        {"a/b": {"dependencies": [], "settings": {"storage_threshold": 5}}},
        "environments.a/b.settings.storage_threshold: one of build_artifacts, conda_allowed_channels",
    ),
    (
        {"a/b": {"dependencies": [], "settings": {"conda_included_packages": []}}},
        "environments.a/b.settings.conda_included_packages: only what is also in environments.settings",
    ),
    ({"settings": {"conda_max_solve_time": "5"}}, "environments.settings.conda_max_solve_time: a whole"),
    ({"settings": {"build_artifacts": ["ZIP"]}}, "environments.settings.build_artifacts: a list of LOCKFILE"),
    ({"namespaces": {"a": {"roles": {"b": "king"}}}}, "environments.namespaces.a.roles: one of viewer"),
    ({"namespaces": {"a/b": {}}}, "environments.namespaces.a/b: a name of letters"),
    ({"namespaces": ["a"]}, "environments.namespaces: a mapping"),
    ({"purge": "all"}, "environments.purge: one of none, owned"),
    ([], "environments: a mapping"),
]


@pytest.mark.parametrize(("told", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_mistakes_are_refused_with_what_is_allowed(told, message):
    assert any(error.startswith(message) for error in ce.declare(told)[1]), ce.declare(told)[1]


PACKAGE = "a package such as python=3.13: no option (-r, --...), no password or token in an address"
CHANNEL = "a channel such as conda-forge, without a password or token in its address"
#: where: what is declared there, the place below it, the value as it is shown, what is allowed
UNFIT = {
    "option of pip": ("dependencies", ["six", {"pip": ["one", "--pre"]}], "[1].pip[1]", "'--pre'", PACKAGE),
    "index of pip": (
        "dependencies", [{"pip": ["--extra-index-url https://user:t0ken@pypi.example.org/simple"]}], "[0].pip[0]",
        "'--extra-index-url https://**@pypi.example.org/simple'", PACKAGE,
    ),
    "file of requirements": ("dependencies", [{"pip": ["-r requirements.txt"]}], "[0].pip[0]",
                             "'-r requirements.txt'", PACKAGE),
    "option of conda": ("dependencies", ["--override-channels"], "[0]", "'--override-channels'", PACKAGE),
    "token for git": (
        "dependencies", [{"pip": ["x @ git+https://t0ken@example.org/x"]}], "[0].pip[0]",
        "'x @ git+https://**@example.org/x'", PACKAGE,
    ),
    "password of a package": (
        "dependencies", ["https://user:t0ken@example.org/x.conda"], "[0]", "'https://**@example.org/x.conda'", PACKAGE,
    ),
    "password with an at sign": (
        "channels", ["main", "https://user:t0k@en@example.org/x"], "[1]", "'https://**@example.org/x'", CHANNEL,
    ),
    "token of a channel": (
        "channels", ["https://conda.example.org/t/t0ken/x"], "[0]", "'https://conda.example.org/t/**/x'", CHANNEL,
    ),
    "option in a setting": ("settings", {"pypi_included_packages": ["-r x"]}, ".pypi_included_packages[0]", "'-r x'",
                            PACKAGE),
    "password in a setting": (
        "settings", {"conda_allowed_channels": ["https://u:t0ken@example.org"]}, ".conda_allowed_channels[0]",
        "'https://**@example.org'", CHANNEL,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_options_and_credentials_are_refused_as_in_the_gate(case):
    key, value, place, shown, allowed = UNFIT[case]
    entry = {"dependencies": [], key: value}
    declared = {"a/b": entry, "settings": value if key == "settings" else {}}
    line = f"environments.a/b.{key}{place}: {shown} is not allowed: {allowed}"
    assert line in ce.declare(declared)[1]
    pillar = {**cluster(), "users": {}, "environments": declared}
    gate = qhub.problems(pillar, qhub.load_schema([ROOT / "salt", ROOT / "formulas"]))
    assert line in gate
    assert "t0k" not in "".join(gate + ce.declare(declared)[1])


@pytest.mark.parametrize(
    "text",
    ["one", "one[extra]>=2", "x @ git+ssh://git@example.org/x@v1", "x @ https://example.org/x@1.whl", "main::two=1"],
)
def test_other_packages_are_not_refused(text):
    declared = {"a/b": {"dependencies": [text, {"pip": [text]}], "channels": ["https://example.org:8443/x", "main"]}}
    assert ce.declare(declared)[1] == []
    pillar = {**cluster(), "users": {}, "environments": declared}
    assert qhub.problems(pillar, qhub.load_schema([ROOT / "salt", ROOT / "formulas"])) == []


def test_a_live_specification_with_options_is_read():
    """People's own environments are in conda-store too; one that cannot be declared keeps none from being applied."""
    specification = {"channels": ["x"], "dependencies": ["one", {"pip": ["--pre", "six"]}]}
    assert ce.content(specification)["dependencies"] == ["one", {"pip": ["--pre", "six"]}]


def test_no_credential_is_in_an_answer():
    old = {"channels": ["https://u:t0ken@example.org/x"], "lockfile": [["x", {"url": "https://example.org/t/t0ken/y"}]]}
    assert ce.masked(old) == {
        "channels": ["https://**@example.org/x"], "lockfile": [["x", {"url": "https://example.org/t/**/y"}]],
    }  # fmt: skip
    assert ce.masked("see https://a:b@c/d and https://e/t/f/g") == "see https://**@c/d and https://e/t/**/g"
    assert "t0ken" not in str(ce.Answer("500: https://u:t0ken@example.org", 500))
    assert ce._lines({"a/b": "https://u:t0ken@example.org"}) == "a/b: https://**@example.org"
    lock = {"package": [{"name": "x", "url": "https://u:t0ken@example.org/x", "platform": "p", "manager": "conda"}]}
    assert ce.declare({"a/b": {"lockfile": lock, "current_build": 1}})[1] == [
        "environments.a/b.lockfile.package[0].url: 'https://**@example.org/x' is not allowed: "
        "an address without a password or token"
    ]


def test_all_mistakes_are_told_at_once():
    told = {"a/b": {"dependencies": 1, "channels": 1}, "purge": "all", "c": 1}
    assert len(ce.declare(told)[1]) == 5


# -- how much is removed at once -------------------------------------------------------------------


def purging(count, told):
    """Return ``(changes, live, declared)`` where ``count`` environments of ours are there."""
    live = nothing()
    for number in range(count):
        name = f"a/e{number}"
        live.environments[name] = {
            "id": number, "owned": True, "build": 1, "sound": True, "busy": False, "digest": None,
            "description": "", "kept": None, "builds": None,
        }  # fmt: skip
    declared = declared_of({"purge": "owned", **told})
    return ce.difference(live, declared), live, declared


def test_an_empty_declaration_removes_nothing_unless_forced():
    with pytest.raises(CommandExecutionError, match="none is declared any more, and 2 would be removed"):
        ce.guard(*purging(2, {}))
    ce.guard(*purging(2, {"force": True}))


@pytest.mark.parametrize(
    ("count", "limit", "message"),
    [
        (6, {}, None),  # 5 of them: as many are always within the share
        (30, {}, "29 of 30 would be removed, more than purge_limit:share = 0.25"),
        (60, {"share": 1}, "59 would be removed, more than purge_limit:count = 50"),
        (60, {"share": 1, "count": 59}, None),
    ],
)
def test_too_many_at_once_are_not_removed(count, limit, message):
    pinned = {"a/e0": {"current_build": 1}, "purge_limit": limit}
    if message is None:
        ce.guard(*purging(count, pinned))
    else:
        with pytest.raises(CommandExecutionError, match=message):
            ce.guard(*purging(count, pinned))

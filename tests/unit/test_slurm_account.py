"""The difference engine of slurm_account: pure functions, any tree."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

from tests.unit.load import load

sa = load("_modules/slurm_account.py", "slurm_account_module")

# -- any declaration -------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d", "e"]
USERS = ["u1", "u2", "u3", "u4"]
counts = st.none() | st.integers(0, 5)
limits = st.fixed_dictionaries(
    {},
    optional={
        "fairshare": st.sampled_from([None, 1, 7, "parent"]),
        "max_jobs": counts,
        "grp_tres": st.none() | st.dictionaries(st.sampled_from(["cpu", "mem", "node"]), st.integers(0, 9)),
        "max_wall": st.sampled_from([None, "30", "12:00:00", "1-00:00:00"]),
        "qos": st.none()
        | st.lists(st.sampled_from(["normal", "long"]))
        | st.lists(st.sampled_from(["+normal", "-long"])),
    },
)


@st.composite
def accounts(draw):
    """A forest of any shape: each account's parent is root or one drawn before it."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(0, len(NAMES)))]
    return {
        name: {**draw(limits), "parent": draw(st.sampled_from(["root", *names[:position]]))}
        for position, name in enumerate(names)
    }


@st.composite
def declarations(draw):
    tree = draw(accounts())
    users = {}
    if tree:
        for user in draw(st.lists(st.sampled_from(USERS), unique=True)):
            members = draw(st.lists(st.sampled_from(list(tree)), unique=True, min_size=1))
            entries = {account: draw(limits) for account in members}
            for entry in entries.values():
                if draw(st.booleans()):
                    entry["partitions"] = {"gpu": draw(limits)}
                    entry["any_partition"] = draw(st.booleans())
            users[user] = {"accounts": entries, "default_account": draw(st.sampled_from(members))}
    return {"accounts": tree, "users": users, "qos": {"long": {"priority": draw(st.integers(0, 3))}}}


def live_of(tree, owned=None):
    """The database after ``tree`` was written to an empty one: every field has a value."""
    full = {kind: {} for kind in sa.TABLES}
    for kind, objects in tree.items():
        for key, entry in objects.items():
            full[kind][key] = {**{name: field.empty() for name, field in sa.TABLES[kind].items()}, **entry}
    full["account"][sa.ROOT] = {name: field.empty() for name, field in sa.ASSOCIATION.items()}
    full["qos"].setdefault("normal", {name: field.empty() for name, field in sa.QOS.items()})
    everything = {(kind, key) for kind, objects in full.items() for key in objects}
    return sa.Live(full, frozenset(everything if owned is None else owned))


def made(live, changes):
    """What a database does with changes: the model that the functional tests hold against the real one."""
    tree = {kind: {key: dict(entry) for key, entry in objects.items()} for kind, objects in live.tree.items()}
    owned, blocked = set(live.owned), set(live.blocked)
    for change in changes:
        if change.action in ("block", "unblock"):
            (blocked.add if change.action == "block" else blocked.discard)(change.key)
        if change.action == "remove":
            del tree[change.kind][change.key]
            owned.discard((change.kind, change.key))
        elif change.action == "add":
            defaults = {name: field.empty() for name, field in sa.TABLES[change.kind].items()}
            tree[change.kind][change.key] = {**defaults, **change.new}
            owned.add((change.kind, change.key))
        else:
            tree[change.kind][change.key].update(change.new)
    return live._replace(tree=tree, owned=frozenset(owned), blocked=frozenset(blocked))


def wanted_of(declaration):
    return sa.normalise(declaration)[0]


# -- properties ------------------------------------------------------------------------------------


@given(declarations(), declarations(), st.sampled_from(["none", "owned", "all"]))
@settings(max_examples=200, deadline=None)
def test_applying_the_difference_converges(before, after, purge):
    wanted = wanted_of(after)
    live = live_of(wanted_of(before))
    changes = sa.difference(live, wanted, purge)
    then = made(live, changes)
    assert sa.difference(then, wanted, purge) == []
    for kind, objects in wanted.items():
        for key, entry in objects.items():
            assert entry.items() <= then.tree[kind][key].items()
    if purge != "none":
        assert set(then.tree["association"]) == set(wanted["association"])
        assert set(then.tree["account"]) == {sa.ROOT, *wanted["account"]}


@given(declarations(), declarations(), st.sets(st.sampled_from(USERS)), st.sampled_from(["none", "owned", "all"]))
@settings(deadline=None)
def test_locked_users_start_nothing_and_unlocking_restores_all(before, after, locked, purge):
    live, wanted = live_of(wanted_of(before)), wanted_of(after)
    shut = made(
        live, sa.difference(live, wanted, purge, locked=dict.fromkeys(USERS, False) | dict.fromkeys(locked, True))
    )
    assert sa.difference(shut, wanted, purge, locked=dict.fromkeys(locked, True)) == []
    theirs = {key for key in shut.tree["association"] if key[0] in locked}
    assert all(shut.tree["association"][key][field] == 0 for key in theirs for field in sa.LOCKED)
    assert theirs == shut.blocked
    free = made(shut, sa.difference(shut, wanted, purge, locked=dict.fromkeys(USERS, False)))
    assert not free.blocked & set(wanted["association"])
    for key, entry in wanted["association"].items():
        assert entry.items() <= free.tree["association"][key].items()
        lifted = sa.LOCKED.keys() - entry.keys() if key[0] in locked else ()
        assert all(free.tree["association"][key][field] is None for field in lifted)


def test_a_locked_user_has_no_rights_over_accounts():
    rights = {"admin_level": "operator", "coordinator_of": ["a"]}
    declaration = {"accounts": {"a": {}}, "users": {"ada": {"accounts": ["a"], "locked": True, **rights}}}
    entry = wanted_of(declaration)["user"]["ada"]
    assert (entry["admin_level"], entry["coordinator_of"]) == ("none", [])
    assert sa.locks(declaration) == {"ada": True}


def test_an_association_made_by_hand_is_blocked_too_and_stays_the_administrator_s():
    key = ("u0", "b", "")
    wanted = wanted_of(plenty(1))
    live = live_of(wanted | {"association": wanted["association"] | {key: {}}})
    live = live._replace(owned=live.owned - {("association", key)})
    changes = [change for change in sa.difference(live, wanted, "owned", locked={"u0": True}) if change.key == key]
    ((_, text),) = sa.commands(changes, live, wanted, "lab")
    assert text.endswith("comment='blocked by salt'\n")
    shut = made(live, changes)
    (back,) = (change for change in sa.difference(shut, wanted, "owned", locked={"u0": False}) if change.key == key)
    assert back.action == "unblock"
    ((_, text),) = sa.commands([back], shut, wanted, "lab")
    assert text.endswith(" comment=''\n")


@given(declarations(), st.sampled_from(["none", "owned", "all"]))
@settings(deadline=None)
def test_what_is_as_declared_has_no_difference(declaration, purge):
    wanted = wanted_of(declaration)
    assert sa.difference(live_of(wanted), wanted, purge) == []


@given(declarations())
@settings(deadline=None)
def test_the_dumped_form_says_the_same(declaration):
    live = live_of(wanted_of(declaration))
    again = wanted_of(sa.declare(live.tree))
    assert sa.difference(live, again, "all") == []
    assert sa.declare(live_of(again).tree) == sa.declare(live.tree)


@given(declarations(), declarations(), st.data())
@settings(max_examples=200, deadline=None)
def test_purging_takes_only_what_is_owned_and_leaves_no_one_stranded(before, after, data):
    wanted, first = wanted_of(after), wanted_of(before)
    everything = sorted(((kind, key) for kind, objects in first.items() for key in objects), key=str)
    owned = data.draw(st.sets(st.sampled_from(everything))) if everything else set()
    live = live_of(first, owned)
    changes = sa.difference(live, wanted, "owned")
    removed = {(change.kind, change.key) for change in changes if change.action == "remove"}
    assert {(kind, key) for kind, key in removed if kind != "user"} <= owned
    assert ("account", sa.ROOT) not in removed and ("qos", "normal") not in removed
    then = made(live, changes).tree
    for user, account, _ in then["association"]:
        assert user in then["user"] and account in then["account"]
    for entry in then["account"].values():
        assert entry.get("parent", sa.ROOT) in then["account"]
    for user, entry in then["user"].items():
        members = {account for u, account, _ in then["association"] if u == user}
        assert entry["default_account"] in members


@given(declarations(), declarations(), st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_an_interrupted_run_is_finished_by_the_next(before, after, done):
    wanted = wanted_of(after)
    live = live_of(wanted_of(before))
    half = made(live, sa.difference(live, wanted, "owned")[:done])
    half = made(half, sa.difference(half, wanted, "owned"))
    assert sa.difference(half, wanted, "owned") == []


@given(declarations(), declarations())
@settings(max_examples=200, deadline=None)
def test_commands_come_in_a_safe_order(before, after):
    """What is referred to exists by then, accounts never go below themselves, removals come last."""
    wanted = wanted_of(after)
    live = live_of(wanted_of(before))
    steps = sa.commands(sa.difference(live, wanted, "owned"), live, wanted, "lab")
    lines = [line for _, text in steps for line in text.splitlines()]
    verbs = [line.split()[0] for line in lines if line.split()[0] in ("add", "modify", "delete")]
    lent = any("maxsubmitjobs=0 comment" in line for line in lines)
    assert lent or "delete" not in verbs or set(verbs[verbs.index("delete") :]) == {"delete"}
    parents = {name: entry.get("parent") for name, entry in live.tree["account"].items()}
    current = None
    for line in lines:
        words = line.split()
        if line.startswith("Parent - "):
            current = words[2].strip("'")
            assert current in parents
        elif line.startswith("Account - "):
            parents[words[2].split("'")[1]] = current
        elif line.startswith("User - "):
            assert current in parents
        elif line.startswith("modify account") and " set parent=" in line:
            name, parent = words[3].removeprefix("name="), words[-1].removeprefix("parent=")
            while parent:
                assert parent != name
                parent = parents[parent]
            parents[name] = words[-1].removeprefix("parent=")


# -- grouping --------------------------------------------------------------------------------------

keys = st.sets(st.tuples(st.sampled_from(USERS), st.sampled_from(NAMES), st.just("")), min_size=1)


@given(keys, st.data())
def test_where_clauses_match_exactly_what_is_meant(live, data):
    meant = data.draw(st.sets(st.sampled_from(sorted(live)), min_size=1))
    matched = []
    for clause in sa._where(meant, "", sa._accounts_of(live)):
        terms = dict(term.split("=", 1) for term in clause.split())
        users, accounts_ = terms["name"].split(","), terms["account"].split(",")
        matched += [(u, a, "") for u in users for a in accounts_ if (u, a, "") in live]
    assert sorted(matched) == sorted(meant)


def test_equal_changes_are_one_command_whatever_the_number_of_users():
    def lines(number):
        users = {f"u{n}": {"accounts": ["a"], "max_jobs": 1} for n in range(number)}
        live = live_of(wanted_of({"accounts": {"a": {}}, "users": users}))
        wanted = wanted_of({"users": {user: {**entry, "max_jobs": 2} for user, entry in users.items()}})
        steps = sa.commands(sa.difference(live, wanted), live, wanted, "lab")
        return [len(text.splitlines()) for _, text in steps]

    assert lines(1) == lines(sa.CHUNK) == [1]


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "declared", "printed"),
    [
        ("max_wall", "90", "01:30:00"),
        ("max_wall", "7-00:00:00", "7-00:00:00"),
        ("max_wall", "2-12", "2-12:00:00"),
        ("max_wall", "00:00:30", "00:01:00"),
        ("max_wall", None, ""),
        ("grp_tres", {"mem": "20G", "cpu": 4}, "cpu=4,mem=20G"),
        ("grp_tres", {"mem": 20480}, "mem=20G"),
        ("grp_tres", None, ""),
        ("fairshare", None, "1"),
        ("fairshare", "parent", "parent"),
        ("max_jobs", 0, "0"),
        ("max_jobs", None, ""),
        ("qos", ["b", "A"], "a,b"),
        ("qos", ["+b"], "+b"),
        ("default_qos", None, ""),
    ],
)
def test_declared_and_printed_values_compare(field, declared, printed):
    normalise = sa.ASSOCIATION[field].normalise
    assert normalise(declared) == normalise(printed)


@pytest.mark.parametrize(
    ("declaration", "told"),
    [
        ({"users": {"Ada": {"accounts": ["a"]}}}, "users:Ada"),
        ({"users": {"ada": {"max_jobs": 1}}}, "at least one account"),
        ({"users": {"ada": {"accounts": "a"}}}, "users:ada:accounts"),
        ({"users": {"ada": {"accounts": {"a": {"any_partition": False}}}}}, "no partition is named"),
        ({"users": {"ada": {"accounts": ["a"], "default_wckey": "x", "wckeys": []}}}, "default_wckey"),
        (
            {"users": {"ada": {"accounts": ["a"], "colour": 1}}},
            'users:ada:colour: "colour" is not a key here',
        ),
        ({"accounts": {"a": {"max_wall": 43200}}}, "accounts:a:max_wall: 43200"),
        ({"accounts": {"a": {"max_jobs": True}}}, "accounts:a:max_jobs: true"),
        ({"accounts": {"a": {"qos": ["x", "+y"]}}}, "either all plain"),
        ({"accounts": {"a": {"user_defaults": {"max_jobs": -1}}}}, "accounts:a:user_defaults:max_jobs"),
        ({"accounts": []}, "accounts: [] is not a mapping"),
        ({"qos": {"x": {"preempt_mode": "explode"}}}, "one of cluster, off"),
        ({"slurm_accounting": {"purge_limit": {"number": 1}}}, "purge_limit"),
        ({"slurm_accounting": {"resources": {"matlab": {}}}}, "licence@server"),
        ({"slurm_accounting": {"reservations": {"r": {"start": "tomorrow"}}}}, "reservations:r:start"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_path(declaration, told):
    with pytest.raises(CommandExecutionError, match="refused") as refusal:
        sa.normalise(declaration)
    assert told in str(refusal.value)


def test_a_pillar_entry_is_the_whole_person():
    person = {"uid": 20001, "full_name": "Ada", "groups": ["x"], "ssh_keys": [], "accounts": ["a"]}
    other = {"uid": 20002, "full_name": "No Slurm"}
    tree, _ = sa.normalise({"users": {"ada": person, "other": other}}, strict=False)
    assert tree["user"] == {"ada": {"default_account": "a"}}


def test_host_lists_are_compared_expanded():
    assert sa._hosts("w[01-03],gpu1") == sa._hosts("w03,w01,w02,gpu1") == ["gpu1", "w01", "w02", "w03"]


# -- safety ----------------------------------------------------------------------------------------


def plenty(number):
    return {"accounts": {"a": {}}, "users": {f"u{n}": {"accounts": ["a"]} for n in range(number)}}


@pytest.mark.parametrize(
    ("before", "after", "settings_", "told"),
    [
        (3, 0, {}, "nothing of this kind is declared"),
        (400, 340, {}, "purge_limit:count = 50"),
        (40, 20, {}, "purge_limit:share = 0.25"),
        (400, 390, {"purge_limit": {"count": 5}}, "purge_limit:count = 5"),
        (400, 340, {"force": True}, None),
        (3, 0, {"force": True}, None),
        (1, 0, {}, None),
        (8, 4, {}, None),
    ],
)
def test_a_purge_is_capped(before, after, settings_, told):
    live = live_of(wanted_of(plenty(before)))
    wanted, site = sa.normalise({**plenty(after), "slurm_accounting": settings_})
    changes = sa.difference(live, wanted, site["purge"])
    assert sum(change.action == "remove" and change.kind == "user" for change in changes) == before - after
    if told:
        with pytest.raises(CommandExecutionError, match=told):
            sa.guard(changes, live, wanted, site)
    else:
        sa.guard(changes, live, wanted, site)


def test_what_has_jobs_is_held_and_what_is_above_it():
    before = {
        "accounts": {"a": {}, "b": {"parent": "a"}, "c": {}},
        "users": {"ada": {"accounts": ["b", "c"]}, "bob": {"accounts": ["b"]}},
    }
    live = live_of(wanted_of(before))
    wanted = wanted_of({"accounts": {}, "users": {}})
    changes, notes = sa.hold(sa.difference(live, wanted, "owned"), {("ada", "b", ""): 2}, live)
    told = {(change.action, change.kind, change.key) for change in changes}
    assert ("block", "association", ("ada", "b", "")) in told
    assert {key for action, kind, key in told if (action, kind) == ("remove", "account")} == {"c"}
    assert {key for action, kind, key in told if (action, kind) == ("remove", "user")} == {"bob"}
    assert notes == ["user ada in b takes no new jobs and goes when its 2 job(s) have ended"]


def test_a_user_who_is_held_in_another_account_than_the_default_gets_that_as_the_default():
    before = {"accounts": {"a": {}, "b": {}}, "users": {"ada": {"accounts": ["a", "b"]}}}
    live = live_of(wanted_of(before))
    wanted = wanted_of({"accounts": before["accounts"], "users": {}})
    changes, _ = sa.hold(sa.difference(live, wanted, "owned"), {("ada", "b", ""): 1}, live)
    assert sa.Change("modify", "user", "ada", {"default_account": "a"}, {"default_account": "b"}) in changes
    assert ("remove", "association", ("ada", "a", "")) in {change[:3] for change in changes}


def test_a_blocked_association_that_is_wanted_again_is_unblocked():
    wanted = wanted_of(plenty(1))
    live = live_of(wanted)._replace(blocked=frozenset({("u0", "a", "")}))
    live.tree["association"]["u0", "a", ""]["max_submit_jobs"] = 0
    (change,) = sa.difference(live, wanted)
    assert (change.old, change.new) == ({"max_submit_jobs": 0}, {"max_submit_jobs": None})
    ((_, text),) = sa.commands([change], live, wanted, "lab")
    where = "name=u0 account=a partition='' cluster=lab"
    assert text == f"modify user where {where} set MaxSubmitJobs=-1 comment='{sa.OWNER}'\n"


def test_what_changed_is_told_by_object_and_field():
    live = live_of(wanted_of(plenty(1)))
    wanted = wanted_of({"accounts": {"a": {"max_jobs": 2}, "b": {}}, "users": {"u0": {"accounts": ["b"]}}})
    assert sa.report(sa.difference(live, wanted, "owned")) == {
        "account a": {"max_jobs": {"old": None, "new": 2}},
        "account b": {"present": {"old": False, "new": True}},
        "user u0": {"default_account": {"old": "a", "new": "b"}},
        "user u0 in a": {"present": {"old": True, "new": False}},
        "user u0 in b": {"present": {"old": False, "new": True}},
    }


@pytest.mark.parametrize(
    ("live", "declared", "loop"),
    [
        ({}, {"high": ["low"], "low": ["high"]}, ["high", "low"]),
        ({}, {"high": ["high"]}, ["high"]),
        ({"low": ["high"]}, {"high": ["low"]}, ["high"]),
        ({"low": ["high"]}, {"high": ["low"], "low": []}, []),
        ({}, {"high": ["low", "normal"], "low": ["normal"]}, []),
    ],
    ids=["a loop of two", "itself", "a loop with a live one", "a loop that ends", "a line"],
)
def test_qos_that_would_preempt_itself_is_found_before_anything_is_touched(live, declared, loop):
    names = {"normal", *live, *declared}
    there, _ = sa.normalise({"qos": {name: {"preempt": live.get(name, [])} for name in names}})
    wanted, _ = sa.normalise({"qos": {name: {"preempt": lower} for name, lower in declared.items()}})
    found = [error for error in sa.check(live_of(there), wanted) if "preempt itself" in error]
    assert [error.partition(":preempt")[0] for error in found] == [f"qos:{name}" for name in loop]


NOON = datetime.datetime(2026, 12, 1, 12, 0, 30)  # a Tuesday
WINDOW = {"start": "2026-12-01T08:00:00", "duration": "08:00:00", "flags": []}
LONG_AGO = {"start": "2020-01-01T08:00:00"}


@pytest.mark.parametrize(
    ("declared", "live", "start", "duration"),
    [
        ({"start": "2027-01-01T08:00:00"}, None, "2027-01-01T08:00:00", "08:00:00"),
        ({"start": "2026-11-30T08:00:00"}, None, None, None),
        ({}, None, "2026-12-01T12:00:00", "04:00:00"),
        ({}, {"start": "2026-12-01T11:00:00", "duration": "05:00:00"}, "2026-12-01T11:00:00", "05:00:00"),
        ({}, {"start": "2026-12-01T11:00:00", "duration": "02:00:00"}, "2026-12-01T08:00:00", "08:00:00"),
        ({"flags": ["DAILY"]}, None, "2026-12-02T08:00:00", "08:00:00"),
        ({"flags": ["WEEKLY"]}, None, "2026-12-08T08:00:00", "08:00:00"),
        ({"flags": ["HOURLY"]}, None, "2026-12-01T13:00:00", "08:00:00"),
        ({**LONG_AGO, "flags": ["DAILY"]}, {"start": "2026-12-02T08:00:00"}, "2026-12-02T08:00:00", "08:00:00"),
        ({"flags": ["WEEKLY"]}, {"start": "2026-12-03T08:00:00"}, "2026-12-08T08:00:00", "08:00:00"),
        ({"start": None}, None, None, "08:00:00"),
    ],
    ids=["to come", "past", "begun", "made when it had begun", "another end", "daily", "weekly", "hourly",
         "moved by Slurm", "another day of the week", "without a start"],
)  # fmt: skip
def test_a_reservation_is_compared_as_time_has_it(declared, live, start, duration):
    got = sa.due({**WINDOW, **declared}, live, NOON)
    assert (got and got["start"], got and got["duration"]) == (start, duration)

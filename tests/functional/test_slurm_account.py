"""slurm_account against a real slurmdbd and MariaDB, and slurmctld where it matters."""

import contextlib
import datetime
import threading
import time

import pytest
from salt.exceptions import CommandExecutionError

from tests.functional.modules import Modules
from tests.functional.slurm import CLUSTER, search_path
from tests.lab.harness.shell import wait_for

SOON = {"timeout": 60}


def until_true(condition, timeout=60):
    return wait_for("it is so", condition, timeout=timeout, interval=0.05)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def started(programs):
    """The file with a line for each program that was started."""
    return programs / "started"


@pytest.fixture(scope="module")
def slurm(slurm_machine, programs):
    """The machine, with its programs on PATH."""
    slurm_machine.fill(programs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", search_path(programs))
        yield slurm_machine


@pytest.fixture(scope="module")
def module(slurm, tmp_path_factory):
    return Modules("slurm_account", tmp_path_factory.mktemp("salt"))


@pytest.fixture
def empty(slurm):
    """An empty database with the cluster registered; slurmctld is off."""
    slurm.reset()
    return slurm


@pytest.fixture
def busy(empty):
    """An empty database, slurmctld and a node that runs jobs."""
    empty.start_controller()
    return empty


def both(module, name="managed", *arguments, **declared):
    """Run a state in test mode, for real, and again: the first writes nothing and tells what the second changes."""
    arguments = arguments or (CLUSTER,)
    before = module.dump(CLUSTER)
    foretold = module.state(name, *arguments, test=True, **declared)
    assert module.dump(CLUSTER) == before
    done = module.state(name, *arguments, **declared)
    assert done["result"] is True, done["comment"]
    assert foretold["changes"] == done["changes"]
    assert foretold["result"] is (None if done["changes"] else True)
    if done["changes"]:
        again = module.state(name, *arguments, **declared)
        assert (again["result"], again["changes"]) == (True, {}), again["comment"]
    return done["changes"]


# -- every field: set, read back, change, clear ----------------------------------------------------

LIMITS = {  # field: two values, in a declared form that is also the one dumped
    "fairshare": (10, "parent"),
    "priority": (5, 7),
    "grp_jobs": (10, 11),
    "grp_jobs_accrue": (12, 13),
    "grp_submit_jobs": (14, 15),
    "grp_tres": ({"cpu": 100, "gres/gpu": 4, "mem": 10240}, {"cpu": 50, "node": 3}),
    "grp_tres_mins": ({"cpu": 1000}, {"billing": 2000}),
    "grp_tres_run_mins": ({"cpu": 3000}, {"cpu": 4000, "mem": 5}),
    "grp_wall": ("2-00:00:00", "01:30:00"),
    "max_jobs": (0, 3),
    "max_jobs_accrue": (4, 5),
    "max_submit_jobs": (6, 7),
    "max_tres": ({"cpu": 8}, {"cpu": 9, "gres/gpu": 1}),
    "max_tres_per_node": ({"cpu": 2}, {"mem": 2049}),
    "max_tres_mins": ({"cpu": 100}, {"cpu": 200}),
    "max_wall": ("12:00:00", "7-00:00:00"),
    "min_prio_threshold": (1, 2),
    "qos": (["long", "normal"], ["normal"]),
    "default_qos": ("long", "normal"),
}
ACCOUNTS = LIMITS | {
    "parent": ("science", "arts"),
    "description": ("high energy: physics", "physics"),
    "organization": ("cern", "eth zurich"),
    "flags": (["UsersAreCoords"], []),
}
QOS = {
    "description": ("long jobs", "longer jobs"),
    "flags": (["DenyOnLimit", "NoDecay"], ["PartitionTimeLimit"]),
    "grace_time": ("00:02:00", "00:00:30"),
    "grp_jobs": (1, 2),
    "grp_jobs_accrue": (3, 4),
    "grp_submit_jobs": (5, 6),
    "grp_tres": ({"cpu": 10}, {"gres/gpu": 2}),
    "grp_tres_mins": ({"cpu": 20}, {"cpu": 21}),
    "grp_tres_run_mins": ({"cpu": 30}, {"cpu": 31}),
    "grp_wall": ("10:00:00", "11:00:00"),
    "limit_factor": (2.0, 0.5),
    "max_jobs_accrue_per_account": (7, 8),
    "max_jobs_accrue_per_user": (9, 10),
    "max_jobs_per_account": (11, 12),
    "max_jobs_per_user": (13, 14),
    "max_submit_jobs_per_account": (15, 16),
    "max_submit_jobs_per_user": (17, 18),
    "max_tres": ({"cpu": 40}, {"mem": 1}),
    "max_tres_per_account": ({"cpu": 41}, {"cpu": 42}),
    "max_tres_per_node": ({"cpu": 43}, {"cpu": 44}),
    "max_tres_per_user": ({"cpu": 45}, {"cpu": 46}),
    "max_tres_mins": ({"cpu": 47}, {"cpu": 48}),
    "max_tres_run_mins_per_account": ({"cpu": 49}, {"cpu": 50}),
    "max_tres_run_mins_per_user": ({"cpu": 51}, {"cpu": 52}),
    "max_wall": ("3-00:00:00", "00:30:00"),
    "min_prio_threshold": (19, 20),
    "min_tres": ({"cpu": 2}, {"cpu": 3}),
    "preempt": (["low", "normal"], ["low"]),
    "preempt_exempt_time": ("00:10:00", "01:00:00"),
    "preempt_mode": ("requeue", "cancel"),
    "priority": (100, 200),
    "usage_factor": (0.5, 2.0),
    "usage_threshold": (0.25, 0.75),
}
USERS = {
    "admin_level": ("operator", "administrator"),
    "coordinator_of": (["arts", "science"], ["arts"]),
    "wckeys": (["k1", "k2"], ["k2", "k3"]),
    "default_wckey": ("k1", "k3"),
    "default_account": ("arts", "science"),
}
GIVEN = {"parent": "root", "description": "", "organization": "", "default_account": "arts", "qos": None}


def choice(samples, index):
    return {field: values[index] for field, values in samples.items()}


def nothing(samples):
    return {field: GIVEN.get(field) for field in samples}


def test_samples_are_complete(module):
    known = module.fields()
    assert set(LIMITS) == set(known["association"]) - {"partitions", "any_partition"}
    assert set(ACCOUNTS) == set(known["account"]) - {"user_defaults"}
    assert set(QOS) == set(known["qos"])
    assert set(USERS) == set(known["user"]) - {"accounts", "locked"} - set(LIMITS)  # locked: sets limits itself


def test_every_field_of_a_qos(busy, module):
    others = {"low": {}, "normal": {}}
    for index in (0, 1):
        both(module, qos={**others, "long": choice(QOS, index)})
        assert module.dump(CLUSTER)["qos"]["long"] == choice(QOS, index)
    both(module, qos={**others, "long": nothing(QOS)})
    assert module.dump(CLUSTER)["qos"]["long"] == {"description": ""}
    assert busy.show("qos", "where", "name=long", "format=description,maxwall,preempt,flags") == [
        ["(managed by salt)", "", "", ""]
    ]
    both(module, qos=others)
    assert set(module.dump(CLUSTER)["qos"]) == {"low", "normal"}


def test_every_field_of_accounts_users_and_associations(busy, module):
    tops, qos = {"science": {}, "arts": {}}, {"long": {}}

    def declare(account, user, limits):
        partitions = {"gpu": {"max_jobs": 1}}
        accounts = {"arts": {**limits, "partitions": partitions}, "science": None}
        return {
            "qos": qos,
            "accounts": {**tops, "physics": account},
            "users": {"ada": {"accounts": accounts, **user}},
        }

    for index in (0, 1):
        both(module, **declare(choice(ACCOUNTS, index), choice(USERS, index), choice(LIMITS, index)))
        found = module.dump(CLUSTER)
        account = {k: v for k, v in choice(ACCOUNTS, index).items() if v != []}
        assert found["accounts"]["physics"] == account
        user = found["users"]["ada"]
        assert {k: v for k, v in user.items() if k != "accounts"} == choice(USERS, index)
        arts = user["accounts"]["arts"]
        assert {k: v for k, v in arts.items() if k != "partitions"} == choice(LIMITS, index)
        assert arts["partitions"] == {"gpu": {"max_jobs": 1}}
        assert user["accounts"]["science"] == {}
    both(module, **declare(nothing(ACCOUNTS), nothing(USERS), {**nothing(LIMITS)}))
    found = module.dump(CLUSTER)
    assert found["accounts"]["physics"] == {"description": "", "organization": ""}
    assert found["users"]["ada"] == {
        "accounts": {"arts": {"partitions": {"gpu": {"max_jobs": 1}}}, "science": {}},
        "default_account": "arts",
    }
    rows = busy.show("assoc", "wopl", "user=ada", "format=account,partition,share,grptres,maxjobs,maxwall,qos")
    assert sorted(rows) == [
        ["arts", "", "1", "", "", "", ""],
        ["arts", "gpu", "1", "", "1", "", ""],
        ["science", "", "1", "", "", "", ""],
    ]
    both(module, **declare({}, {}, {}) | {"users": {}, "settings": {"force": True}})
    assert module.dump(CLUSTER)["users"] == {}
    assert [row[0] for row in busy.show("user", "format=user")] == ["root"]


def test_licences(empty, module):
    for fields in (
        {"count": 50, "allowed": 40, "server_type": "flexlm", "description": "maths: matlab"},
        {"count": 60, "allowed": 30, "server_type": "rlm", "description": "matlab"},
    ):
        both(module, settings={"resources": {"matlab@flex": fields}})
        assert module.dump(CLUSTER)["slurm_accounting"] == {"resources": {"matlab@flex": fields}}
    both(module, settings={"resources": {}, "force": True})
    assert "slurm_accounting" not in {k: v for k, v in module.dump(CLUSTER).items() if v}


def test_reservations(busy, module):
    declared = {
        "start": "2037-01-31T08:00:00",
        "duration": "08:00:00",
        "nodes": "slurm",
        "users": ["ada", "root"],
        "flags": ["MAINT"],
    }
    both(module, accounts={"a": {}}, users={"ada": {"accounts": ["a"]}, "bob": {"accounts": ["a"]}})
    both(module, settings={"reservations": {"Maintenance": declared}})
    found = module.dump(CLUSTER)["slurm_accounting"]["reservations"]["Maintenance"]
    assert found["nodes"] == ["slurm"] and found["flags"] == ["MAINT"]
    changed = {
        **declared,
        "start": "2037-02-01T08:00:00",
        "duration": "1-00:00:00",
        "users": ["bob"],
        "flags": ["FLEX"],
    }
    changes = both(module, settings={"reservations": {"Maintenance": changed}})
    assert changes["reservation Maintenance"]["users"] == {"old": ["ada", "root"], "new": ["bob"]}
    by_hand = "reservationname=byhand starttime=2037-03-01T00:00:00 duration=60 users=root nodes=ALL"
    busy.node.run(["scontrol", "create", *by_hand.split()])
    dumped = module.dump(CLUSTER)["slurm_accounting"]
    assert both(module, settings=dumped) == {}
    both(module, settings={"reservations": {}, "force": True})
    assert set(module.dump(CLUSTER)["slurm_accounting"]["reservations"]) == {"byhand"}
    both(module, "reservation_absent", "byhand", cluster=CLUSTER)


def test_reservations_in_the_course_of_time(busy, module):
    """One whose time is past, one that has begun, and one that slurmctld moves to the next day when it has ended."""

    def at(offset):
        return (datetime.datetime.now() + datetime.timedelta(seconds=offset)).strftime("%Y-%m-%dT%H:%M:%S")

    common = {"duration": "00:01:00", "nodes": "slurm", "users": ["root"]}
    declared = {
        "Past": {**common, "start": "2020-01-31T08:00:00"},
        "Begun": {**common, "start": at(-3600), "duration": "10:00:00", "flags": ["OVERLAP"]},
        "Nightly": {**common, "start": at(20), "flags": ["DAILY", "OVERLAP"]},
        "Weekly": {**common, "start": "2020-01-31T08:00:00", "flags": ["WEEKLY", "OVERLAP"]},
    }
    settings = {"reservations": declared}
    both(module, accounts={"a": {}}, users={"ada": {"accounts": ["a"]}}, settings=settings)
    found = module.dump(CLUSTER)["slurm_accounting"]["reservations"]
    assert set(found) == {"Begun", "Nightly", "Weekly"}
    notes = module.diff(CLUSTER, settings=settings)["notes"]
    assert any("Past: its time is past" in note for note in notes), notes

    def moved():
        now = module.dump(CLUSTER)["slurm_accounting"]["reservations"]["Nightly"]["start"]
        return now > at(3600)

    wait_for("slurmctld has moved the nightly reservation", moved, timeout=240)
    assert both(module, settings=settings) == {}


# -- the tree --------------------------------------------------------------------------------------


def parents(slurm):
    rows = slurm.show("assoc", "wopl", "format=account,user,parentname")
    return {account: parent for account, user, parent in rows if not user}


def test_a_deep_tree_turns_over(empty, module):
    """Each account below the next, then the other way round: moves never put an account below itself."""
    names = [f"a{n}" for n in range(6)]
    down = {name: {"parent": above} for name, above in zip(names, ["root", *names[:-1]], strict=True)}
    both(module, accounts=down)
    up = {name: {"parent": above} for name, above in zip(reversed(names), ["root", *reversed(names[1:])], strict=True)}
    both(module, accounts=up)
    assert parents(empty) == {"root": ""} | {name: entry["parent"] for name, entry in up.items()}
    both(
        module,
        accounts={"a5": {}, "new": {"parent": "a5"}, "below": {"parent": "new"}, "a0": {"parent": "below"}},
    )
    # Of what is no longer declared, a4 to a1 had something below them until a0 moved.
    assert parents(empty) == {"root": "", "a5": "root", "new": "a5", "below": "new", "a0": "below"}


def test_the_pillar(empty, tmp_path):
    """The pillar's entry is the whole person; who is in no account is not Slurm's business."""
    person = {"uid": 20001, "full_name": "Ada Lovelace", "shell": "/bin/bash", "groups": ["physics"]}
    pillar = {
        "accounts": {"physics": {}},
        "qos": {"long": {"priority": 3}},
        "users": {"ada": {**person, "accounts": ["physics"], "max_jobs": 3}, "bob": {**person, "uid": 20002}},
        "slurm_accounting": {"defaults": {"max_wall": "1-00:00:00"}},
        "groups": {"physics": {"gid": 30000}},
    }
    module = Modules("slurm_account", tmp_path, pillar)
    both(module, pillar=True)
    found = module.dump(CLUSTER)
    limits = {"max_jobs": 3, "max_wall": "1-00:00:00"}
    assert found["users"] == {"ada": {"accounts": {"physics": limits}, "default_account": "physics"}}
    assert (set(found["accounts"]), set(found["qos"])) == ({"physics"}, {"normal", "long"})


def test_layered_defaults(empty, module):
    both(
        module,
        accounts={
            "science": {"user_defaults": {"max_jobs": 20, "max_wall": "1-00:00:00"}},
            "physics": {"parent": "science", "user_defaults": {"max_jobs": 30}},
        },
        users={
            "ada": {"accounts": ["physics"]},
            "bob": {
                "accounts": {
                    "physics": {"max_jobs": 50, "partitions": {"gpu": {"max_wall": None}}},
                    "science": None,
                }
            },
            "cat": {"accounts": ["science"], "max_jobs": 40},
        },
        settings={"defaults": {"max_submit_jobs": 100, "max_wall": "02:00:00"}},
    )
    rows = empty.show("assoc", "wopl", "format=user,account,partition,maxjobs,maxwall,maxsubmit")
    assert sorted(row for row in rows if row[0] not in ("", "root")) == [
        ["ada", "physics", "", "30", "1-00:00:00", "100"],
        ["bob", "physics", "", "50", "1-00:00:00", "100"],
        ["bob", "physics", "gpu", "50", "", "100"],
        ["bob", "science", "", "20", "1-00:00:00", "100"],
        ["cat", "science", "", "40", "1-00:00:00", "100"],
    ]


MESSY = """\
add qos Weird description='A Weird One'
modify qos weird set flags=NoReserve,DenyOnLimit maxtrespu=cpu=3,mem=3000 gracetime=61
modify qos weird set maxwall=90 preempt=normal
add account Top description='Top of All' organization=Uni
add account left,right parent=top fairshare=parent
add account deep parent=left grptresmins=cpu=100,billing=7 maxjobs=0
modify account top set qoslevel+=weird
modify account deep set qoslevel=normal,weird defaultqos=weird flags=UsersAreCoords
modify account root set maxsubmitjobs=5000
add user ada account=left,deep partition=gpu
add user ada account=right
modify user ada where account=deep set qoslevel+=weird
modify user ada set defaultaccount=right
add user bob account=deep adminlevel=operator wckeys=k1 defaultwckey=k1
add user bob account=top wckeys=k2 fairshare=3 priority=9 maxtresperjob=cpu=1,gres/gpu=1
modify user bob set comment='left by hand'
add user root account=deep
add coordinator account=left names=ada
add coordinator account=deep names=ada
add user ghost account=right
delete user ghost where account=right
add resource name=comsol server=lmgrd count=7 type=License servertype=flexlm cluster=lab allowed=9
modify resource where name=comsol server=lmgrd cluster=lab set allowed=50
"""


def test_a_tree_made_by_hand_round_trips(busy, module):
    busy.sacctmgr(input=MESSY)
    found = module.dump(CLUSTER)
    assert found["users"]["ada"]["accounts"]["left"] == {"any_partition": False, "partitions": {"gpu": {}}}
    assert found["users"]["ada"]["coordinator_of"] == ["left"]
    assert found["accounts"]["deep"]["parent"] == "left"
    assert found["accounts"]["root"] == {"max_submit_jobs": 5000}
    for purge in ("none", "owned", "all"):
        settings = {**found["slurm_accounting"], "purge": purge}
        declared = {part: found[part] for part in ("accounts", "qos", "users")}
        assert module.diff(CLUSTER, **declared, settings=settings)["changes"] == {}
    # and into an empty database it makes the same tree again
    busy.reset()
    busy.start_controller()
    both(module, **declared, settings=found["slurm_accounting"])
    assert module.dump(CLUSTER) == found


def test_a_separator_in_a_text_or_a_name_ends_no_run(busy, module):
    """sacctmgr separates its columns by the same character, and escapes nothing."""
    busy.sacctmgr("add", "account", "legacy", "description=fusion|plasma", "organization=R|D")
    busy.sacctmgr("add", "qos", "long", "description=a|b", "maxwall=60")
    busy.sacctmgr("add", "qos", "big|one")
    found = module.dump(CLUSTER)
    assert found["accounts"]["legacy"]["description"] == "fusion|plasma"
    assert found["accounts"]["legacy"]["organization"] == "r|d"
    assert found["qos"]["long"]["description"] == "a|b"
    both(module, accounts={"physics": {}}, qos={"short": {"max_wall": "01:00:00"}})
    assert "legacy" in module.dump(CLUSTER)["accounts"]
    planned = module.diff(CLUSTER, accounts={"physics": {}})
    assert any("big" in note for note in planned["notes"]), planned


# -- pitfalls --------------------------------------------------------------------------------------


def test_names_are_small_letters(empty, module):
    both(
        module,
        accounts={"Physics": {"description": "Big"}},
        qos={"Long": {}},
        users={"ada": {"accounts": ["PHYSICS"], "qos": ["LONG"]}},
    )
    assert "physics" in module.dump(CLUSTER)["accounts"]
    refused = module.state("managed", CLUSTER, users={"Ada": {"accounts": ["physics"]}})
    assert refused["result"] is False and "small letters" in refused["comment"]
    refused = module.state("managed", CLUSTER, accounts={"Physics": {}, "physics": {}})
    assert refused["result"] is False and "twice" in refused["comment"]


MALFORMED: dict[str, dict] = {
    "users:ada:accounts:physics:max_jobs": {"users": {"ada": {"accounts": {"physics": {"max_jobs": "many"}}}}},
    "accounts:physics:max_wall": {"accounts": {"physics": {"max_wall": 43200}}},
    "accounts:physics:grp_tres": {"accounts": {"physics": {"grp_tres": {"cpu": "lots"}}}},
    "accounts:physics:colour": {"accounts": {"physics": {"colour": "red"}}},
    "accounts:physics:description": {"accounts": {"physics": {"description": "a|b"}}},
    "accounts:a b": {"accounts": {"a b": {}}},
    "accounts:a:parent": {"accounts": {"a": {"parent": "b"}, "b": {"parent": "a"}}},
    "accounts:c:parent": {"accounts": {"c": {"parent": "nowhere"}}},
    "qos:long:flags": {"qos": {"long": {"flags": ["Purple"]}}},
    "there is no QOS gold": {"accounts": {"physics": {"qos": ["gold"]}}},
    "does not track gres/tpu": {"accounts": {"physics": {"grp_tres": {"gres/tpu": 1}}}},
    "there is no account chemistry": {"users": {"ada": {"accounts": ["chemistry"]}}},
    "users:ada:default_account": {"users": {"ada": {"accounts": ["physics"], "default_account": "arts"}}},
    "slurm_accounting:purge": {"settings": {"purge": "everything"}},
}


def test_what_is_malformed_is_refused_before_anything_is_written(empty, module):
    good: dict = {"accounts": {"physics": {}, "arts": {}}, "users": {"ada": {"accounts": ["physics"]}}}
    both(module, **good)
    before = module.dump(CLUSTER)
    for told, bad in MALFORMED.items():
        merged = {
            part: {**good.get(part, {}), "new": {}, **entry} if part == "accounts" else entry
            for part, entry in bad.items()
        }
        for test in (True, False):
            ret = module.state("managed", CLUSTER, test=test, **merged)
            assert ret["result"] is False and told in ret["comment"] and not ret["changes"], ret
    assert module.dump(CLUSTER) == before


def test_default_account_moves_before_the_old_one_goes(empty, module):
    accounts = {"old": {}, "new": {}}
    both(module, accounts=accounts, users={"ada": {"accounts": ["old"]}, "bob": {"accounts": ["old"]}})
    empty.sacctmgr("add", "user", "bob", "account=new")  # by hand: stays
    changes = both(module, accounts={"new": {}}, users={"ada": {"accounts": ["new"]}})
    assert changes["user ada"]["default_account"] == {"old": "old", "new": "new"}
    assert changes["user bob"] == {"default_account": {"old": "old", "new": "new"}}
    assert sorted(empty.show("user", "format=user,defaultaccount")) == [
        ["ada", "new"],
        ["bob", "new"],
        ["root", "root"],
    ]
    assert set(parents(empty)) == {"root", "new"}


def test_a_user_left_over_without_associations_comes_back(empty, module):
    accounts = {"a": {}, "b": {}}
    both(module, accounts=accounts, users={"ada": {"accounts": ["a"]}})
    empty.sql("update slurm_acct_db.lab_assoc_table set deleted=1 where user='ada'")
    empty.stop("slurmdbd")
    empty.start_database()
    both(module, accounts=accounts, users={"ada": {"accounts": ["b", "a"]}})
    assert ["ada", "b"] in empty.show("user", "format=user,defaultaccount")


def test_a_partition_association_replaces_one_for_all(empty, module):
    both(module, accounts={"a": {}}, users={"ada": {"accounts": {"a": {"max_jobs": 3}}}})
    only = {"a": {"any_partition": False, "partitions": {"gpu": {"max_jobs": 3}}}}
    changes = both(module, users={"ada": {"accounts": only}})
    assert changes["user ada in a"]["present"] == {"old": True, "new": False}
    assert changes["user ada in a on gpu"]["present"] == {"old": False, "new": True}
    assert empty.show("assoc", "user=ada", "format=user,partition") == [["ada", "gpu"]]


def test_many_different_changes(empty, module):
    """More of them than are worth a command each."""

    def users(step):
        limits = {n: {"fairshare": n + step, "max_wall": f"{n + step}:00:00", "max_jobs": step} for n in range(20)}
        return {
            f"u{n}": {"accounts": {"a": {**entry, "partitions": {"gpu": {"priority": n + step}}}, "b": None}}
            for n, entry in limits.items()
        }

    accounts = {"a": {}, "b": {}}
    both(module, accounts=accounts, users=users(10))
    changes = both(module, accounts=accounts, users=users(50))
    assert len(changes) == 40
    assert module.dump(CLUSTER)["users"]["u3"]["accounts"] == {
        "a": {
            "fairshare": 53,
            "max_wall": "2-05:00:00",
            "max_jobs": 50,
            "partitions": {"gpu": {"priority": 53}},
        },
        "b": {},
    }


def test_coordinators(empty, module):
    accounts = {
        "top": {},
        "mid": {"parent": "top"},
        "low": {"parent": "mid"},
        "open": {"flags": ["UsersAreCoords"]},
    }
    users = {
        "ada": {"accounts": ["top"], "coordinator_of": ["mid", "low"]},
        "bob": {"accounts": ["open"], "coordinator_of": ["open"]},
    }
    both(module, accounts=accounts, users=users)
    assert module.dump(CLUSTER)["users"]["ada"]["coordinator_of"] == ["mid"]
    users["ada"]["coordinator_of"] = ["low"]
    both(module, accounts=accounts, users=users)
    coordinators = {row[0]: row[1] for row in empty.show("account", "withcoord", "format=account,coordinators")}
    assert coordinators == {"root": "", "top": "", "mid": "", "low": "ada", "open": "bob"}


def test_what_sacctmgr_calls_an_error_is_none(empty, module):
    """What was there before: sacctmgr adds nothing and ends with status 1, this module is content."""
    both(module, accounts={"a": {}})
    plan = {"accounts": {"a": {}}, "users": {"ada": {"accounts": ["a"]}}}
    assert empty.sacctmgr("add", "account", "a", check=False).returncode == 1
    empty.sacctmgr("add", "user", "ada", "account=a")
    assert module.apply(CLUSTER, **plan)["changes"] == {}


# -- purging ---------------------------------------------------------------------------------------


def test_purge(empty, module):
    accounts = {f"a{n}": {} for n in range(8)}
    users = {f"u{n}": {"accounts": [f"a{n}"]} for n in range(8)}
    both(module, accounts=accounts, users=users, qos={"long": {}})
    empty.sacctmgr("add", "account", "byhand", "parent=a0")
    empty.sacctmgr("add", "user", "hand", "account=byhand")
    fewer = {name: {} for name in list(accounts)[2:]}, {name: users[name] for name in list(users)[2:]}

    none = module.apply(CLUSTER, accounts=fewer[0], users=fewer[1], qos={"normal": {}}, settings={"purge": "none"})
    assert none["changes"] == {}
    changes = both(module, accounts=fewer[0], users=fewer[1], qos={"normal": {}})
    assert {"user u0", "user u1", "account a1", "qos long"} <= set(changes)
    assert {"a0", "byhand"} < set(parents(empty)), "an account stays while something by hand is below it"

    for declared, told in (
        ({"users": {}}, "nothing of this kind is declared"),
        ({"accounts": {}, "users": {}}, "nothing of this kind is declared"),
        ({"users": {"u7": users["u7"]}, "settings": {"purge_limit": {"count": 3}}}, "purge_limit:count"),
    ):
        for test in (True, False):
            ret = module.state("managed", CLUSTER, test=test, **declared)
            assert ret["result"] is False and told in ret["comment"], ret
    many = {f"m{n}": {"accounts": ["a7"]} for n in range(20)}
    both(module, users={**fewer[1], **many})
    ret = module.state("managed", CLUSTER, users=fewer[1])
    assert ret["result"] is False and "purge_limit:share" in ret["comment"]
    both(module, users=fewer[1], settings={"force": True})

    both(
        module,
        accounts={"a7": {}},
        users={"u7": users["u7"]},
        qos={"x": {}},
        settings={"purge": "all", "force": True},
    )
    assert set(parents(empty)) == {"root", "a7"}
    assert {row[0] for row in empty.show("user", "format=user")} == {"root", "u7"}
    assert {row[0] for row in empty.show("qos", "format=name")} == {"normal", "x"}


def test_single_objects(empty, module):
    both(module, "account_present", "physics", cluster=CLUSTER, description="physics", fairshare=3)
    both(module, "qos_present", "long", cluster=CLUSTER, max_wall="1-00:00:00")
    both(module, "user_present", "ada", cluster=CLUSTER, accounts=["physics"], qos=["long"])
    both(module, "user_present", "bob", cluster=CLUSTER, accounts=["physics"])
    both(module, "account_present", "below", cluster=CLUSTER, parent="physics")
    both(module, "resource_present", "matlab@flex", cluster=CLUSTER, count=3, allowed=100)
    both(module, "cluster_present", CLUSTER)
    ret = module.state("account_absent", "physics", cluster=CLUSTER)
    assert ret["result"] is False and "cannot be removed" in ret["comment"]
    both(module, "resource_absent", "matlab@flex", cluster=CLUSTER)
    both(module, "account_absent", "below", cluster=CLUSTER)
    both(module, "user_absent", "ada", cluster=CLUSTER)
    changes = both(module, "account_absent", "physics", cluster=CLUSTER)
    assert set(changes) == {"account physics", "user bob", "user bob in physics"}
    both(module, "qos_absent", "long", cluster=CLUSTER)
    left = module.dump(CLUSTER)
    assert (left["accounts"], left["users"], set(left["qos"])) == ({}, {}, {"normal"})


# -- jobs, the controller and the order of things --------------------------------------------------


def test_what_has_jobs_is_blocked_then_removed(busy, module):
    accounts = {"a": {}, "b": {}}
    both(module, accounts=accounts, users={"ada": {"accounts": ["a", "b"]}, "bob": {"accounts": ["a"]}})
    job = until_true(lambda: busy.submit("ada", "-A", "a"))
    until_true(
        lambda: module.functions["cmd.run_stdout"](f"sacct -nXP -j {job} -s RUNNING -o jobid", python_shell=False)
    )
    ret = module.state("managed", CLUSTER, accounts={"b": {}}, users={"bob": {"accounts": ["b"]}})
    assert ret["result"] is True and "user ada in a takes no new jobs" in ret["comment"], ret["comment"]
    assert ret["changes"]["user ada in a"] == {
        field: {"old": None, "new": 0} for field in ("grp_submit_jobs", "max_submit_jobs")
    }
    assert ret["changes"]["user ada in b"]["present"]["new"] is False
    with pytest.raises(Exception, match="QOS/limits|Submit"):
        busy.submit("ada", "-A", "a")
    again = module.state("managed", CLUSTER, accounts={"b": {}}, users={"bob": {"accounts": ["b"]}})
    assert again["changes"] == {} and "takes no new jobs" in again["comment"]
    # wanted again: unblocked
    both(module, accounts=accounts, users={"ada": {"accounts": ["a"]}, "bob": {"accounts": ["b"]}})
    busy.submit("ada", "-A", "a")
    # cancelled if so declared
    ret = module.state(
        "managed",
        CLUSTER,
        accounts={"b": {}},
        users={"bob": {"accounts": ["b"]}},
        settings={"running_jobs": "cancel"},
    )
    assert ret["result"] is True and "cancelled" in ret["comment"], ret
    assert ret["changes"]["user ada"]["present"] == {"old": True, "new": False}
    assert set(parents(busy)) == {"root", "b"}


def test_a_locked_user_submits_and_starts_nothing_and_the_running_job_goes_on(busy, module):
    def declared(**entry):
        # A limit of a QOS counts instead of the association's of the same kind.
        qos = {"normal": {"max_submit_jobs_per_user": 100, "max_jobs_per_user": 100}}
        return {"qos": qos, "accounts": {"a": {}}, "users": {"ada": {"accounts": {"a": {"max_jobs": 9}}, **entry}}}

    def state(job):
        return busy.node.run(["squeue", "-h", "-j", job, "-o", "%T %r"]).stdout.split()

    busy.sacctmgr("add", "account", "byhand", "cluster=lab")
    busy.sacctmgr("add", "user", "ada", "account=byhand", "cluster=lab", "maxjobs=7")
    both(module, **declared())
    running = until_true(lambda: busy.submit("ada", "-A", "a"))
    waiting = busy.submit("ada", "-A", "a", "--hold")
    until_true(lambda: state(running)[0] == "RUNNING")
    both(module, **declared(locked=True))
    for account in ("a", "byhand"):
        with pytest.raises(Exception, match="QOS/limits|Submit"):
            busy.submit("ada", "-A", account)
    busy.node.run(["scontrol", "release", waiting])
    until_true(lambda: "Limit" in state(waiting)[-1], timeout=90)
    assert state(running)[0] == "RUNNING"
    both(module, **declared())
    busy.node.run(["scancel", running])  # the machine has memory for one job
    until_true(lambda: state(waiting)[0] == "RUNNING", timeout=90)
    assert busy.submit("ada", "-A", "byhand")
    rows = busy.show("assoc", "user=ada", "format=account,maxjobs,maxsubmit,grpjobs,grpsubmit,comment")
    assert sorted(rows) == [["a", "9", "", "", "", "managed by salt"], ["byhand", "", "", "", "", ""]]
    busy.node.run(["scancel", "--user=ada"])


def test_the_cluster_may_come_from_either_side(slurm, module):
    # slurmctld first
    slurm.reset(cluster=False)
    slurm.start_controller()
    assert both(module, accounts={"a": {}}).keys() == {"account a"}
    # this module first: foretold, registered, and slurmctld starts with the identity it finds
    slurm.reset(cluster=False)
    foretold = module.state("managed", CLUSTER, test=True, accounts={"a": {}}, users={"ada": {"accounts": ["a"]}})
    assert foretold["result"] is None and foretold["changes"][f"cluster {CLUSTER}"]["present"]["new"] is True
    done = module.state("managed", CLUSTER, accounts={"a": {}}, users={"ada": {"accounts": ["a"]}})
    assert done["result"] is True and done["changes"] == foretold["changes"], done
    slurm.start_controller()
    assert slurm.submit("ada")
    slurm.stop("slurmctld")
    slurm.start_controller()
    assert slurm.node.run(["systemctl", "is-active", "slurmctld"]).stdout.strip() == "active"


def test_a_user_unknown_to_the_machine_is_told_of(busy, module):
    ret = module.state("managed", CLUSTER, accounts={"a": {}}, users={"newcomer": {"accounts": ["a"]}})
    assert ret["result"] is True and "not known to this machine yet: newcomer" in ret["comment"]
    busy.node.run(["useradd", "-m", "newcomer"])
    try:
        busy.node.run(["scontrol", "reconfigure"])
        assert until_true(lambda: _or_none(lambda: busy.submit("newcomer")))
    finally:
        busy.node.run(["scancel", "--user=newcomer"], check=False)
        busy.node.run(["userdel", "-r", "newcomer"], check=False)


def _or_none(call):
    with contextlib.suppress(Exception):
        return call()
    return None


def test_limits_that_are_not_enforced_are_told_of(busy, module):
    original = busy.node.read("/etc/slurm/slurm.conf")
    busy.node.write("/etc/slurm/slurm.conf", original.replace("associations,limits,qos", "associations"))
    try:
        busy.node.run(["systemctl", "restart", "slurmctld"])
        until_true(lambda: "UP" in busy.node.run(["scontrol", "ping"], check=False).stdout)
        ret = module.state("managed", CLUSTER, accounts={"a": {"max_jobs": 1}})
        assert ret["result"] is True and "Slurm ignores limits, qos" in ret["comment"]
    finally:
        busy.node.write("/etc/slurm/slurm.conf", original)


def test_the_database_changes_without_slurmctld(empty, module):
    start = time.monotonic()
    ret = module.state("managed", CLUSTER, accounts={"a": {}}, settings={"reservations": {}})
    assert ret["result"] is False and "Reservations need slurmctld" in ret["comment"]
    assert set(ret["changes"]) == {"account a"}
    assert time.monotonic() - start < 90


# -- faults ----------------------------------------------------------------------------------------


def test_sacctmgr_that_is_missing(slurm, module, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for test, result in ((True, None), (False, False)):
        ret = module.state("managed", CLUSTER, test=test, accounts={"a": {}})
        assert ret["result"] is result and "sacctmgr is not installed" in ret["comment"]


def test_slurmdbd_that_is_down_or_late(empty, module):
    empty.stop("slurmdbd")
    with pytest.raises(CommandExecutionError, match="slurmdbd did not answer within 2 s"):
        module.apply(CLUSTER, accounts={"a": {}}, settings={"timeout": 2})
    late = threading.Timer(4, empty.node.run, [["systemctl", "start", "slurmdbd"]])
    late.start()
    assert set(module.apply(CLUSTER, accounts={"a": {}}, settings=SOON)["changes"]) == {"account a"}
    late.join()


MANY: dict[str, dict] = {
    "accounts": {f"a{n}": {} for n in range(50)},
    "users": {f"u{n}": {"accounts": [f"a{n % 50}", f"a{(n + 1) % 50}"], "max_jobs": n % 7} for n in range(2000)},
}


@pytest.mark.parametrize("fault", ["slurmdbd is killed", "MariaDB is restarted"])
def test_interrupted_half_way_the_next_run_finishes(empty, module, fault):
    both(module, accounts={"a0": {}, "kept": {}}, users={"ada": {"accounts": ["kept"], "max_jobs": 9}})
    everything = {
        "accounts": {**MANY["accounts"], "kept": {}},
        "users": {**MANY["users"], "ada": {"accounts": ["kept"], "max_jobs": 9}},
    }
    outcome = []

    def attempt():
        outcome.append(module.state("managed", CLUSTER, **everything, settings=SOON))

    thread = threading.Thread(target=attempt)
    thread.start()
    # in the middle of writing: the database is at work on the load
    rows = "select count(*) from information_schema.innodb_trx where trx_rows_modified > 100"
    # (which InnoDB looks up anew only if it has not been asked for a tenth of a second)
    wait_for("it writes", lambda: outcome or int(empty.sql(rows).split()[-1]), interval=0.2)
    assert not outcome, outcome
    if fault == "slurmdbd is killed":
        empty.node.run(["systemctl", "kill", "-s", "KILL", "slurmdbd"])
        empty.node.run(["systemctl", "reset-failed", "slurmdbd"], check=False)
        empty.start_database()
    else:
        empty.node.run(["systemctl", "restart", "mariadb"])
    thread.join(240)
    assert not thread.is_alive()
    empty.node.run(["systemctl", "start", "slurmdbd"])
    empty.wait_database()
    last = module.state("managed", CLUSTER, **everything, settings=SOON)
    assert last["result"] is True, last["comment"]
    assert outcome[0]["result"] is False or last["changes"] == {}
    assert module.diff(CLUSTER, **everything)["changes"] == {}
    found = module.dump(CLUSTER)
    assert len(found["users"]) == 2001
    assert found["users"]["ada"]["accounts"] == {"kept": {"max_jobs": 9}}
    assert len(empty.show("assoc", "format=id")) == 2 + 51 + 4001


def test_processes_do_not_grow_with_users(empty, module, started):
    """Few and many users, three runs of each: first, unchanged, one changed."""

    def count(users):
        empty.reset()
        declared: dict = {"accounts": {"a": {}}, "users": {f"u{n}": {"accounts": ["a"]} for n in range(users)}}
        started.write_text("")
        for max_jobs in (None, None, 3):
            declared["users"]["u0"]["max_jobs"] = max_jobs
            module.apply(CLUSTER, **declared)
        return sorted(started.read_text().split())

    assert count(3) == count(300)

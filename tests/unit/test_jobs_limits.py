"""What services offer and refuse: formulas/jobs/files/qhub_jobs/limits.py, from what Slurm prints."""

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import ROOT

sys.path.insert(0, str(ROOT / "formulas/jobs/files"))
from qhub_jobs import limits, parse  # noqa: E402

# account|parentname|user|partition|qos|defaultqos|maxwall|maxtres|maxtrespernode|grptres
ASSOCIATIONS = """\
root||||normal
root||root||normal
science|root|||normal|||||cpu=100
physics|science|||normal,long|normal||||mem=64G
physics||ada||normal,long|long|2-00:00:00|cpu=8
physics||marie||normal|normal
physics||marie|gpu|normal|normal||cpu=2,gres/gpu=1
chemistry|science|||normal
chemistry||marie||normal|normal|04:00:00
"""
QOS = "normal||||||\nlong|DenyOnLimit|7-00:00:00||||\ngpuq|||cpu=4|||\n"
FLAGS = """\
PartitionName=main AllowGroups=ALL Default=YES Hidden=NO RootOnly=NO State=UP
PartitionName=gpu AllowGroups=ALL Default=NO Hidden=NO RootOnly=NO State=UP
PartitionName=club AllowGroups=club Default=NO Hidden=NO RootOnly=NO State=UP
PartitionName=closed AllowGroups=ALL Default=NO Hidden=NO RootOnly=NO State=DOWN
PartitionName=secret AllowGroups=ALL Default=NO Hidden=YES RootOnly=NO State=UP
PartitionName=root AllowGroups=ALL Default=NO Hidden=NO RootOnly=YES State=UP
"""


def limit(number, unset=None):
    """Return a number as Slurm's JSON has it; ``None``: no limit."""
    return {"set": number is not None, "infinite": number is None, "number": number or 0} | (unset or {})


def partition(name, time=None, *, accounts="", deny="", groups="", qos="", denied_qos="", assigned="", up=True, **most):
    """Return a partition as ``scontrol --json`` of Slurm 24.11 has it, as far as it is read."""
    return {
        "name": name,
        "accounts": {"allowed": accounts, "deny": deny},
        "groups": {"allowed": groups},
        "qos": {"allowed": qos, "deny": denied_qos, "assigned": assigned},
        "maximums": {
            "time": limit(time),
            "cpus_per_node": limit(most.get("cpus")),
            "partition_memory_per_node": limit(most.get("memory"), {"set": True, "infinite": False}),
            "partition_memory_per_cpu": limit(most.get("memory_per_cpu"), {"infinite": False}),
        },
        "partition": {"state": ["UP" if up else "DOWN"]},
    }


def node(name, partitions, cpus, memory, gres="", *, spare_cpus=0, spare_memory=0):
    """Return a node as qhub-jobs hands it on."""
    given = {"name": name, "partitions": partitions, "cpus": cpus, "effective_cpus": cpus - spare_cpus}
    return {**given, "real_memory": memory, "specialized_memory": spare_memory, "gres": gres}


PARTITIONS = [
    partition("main", 1440),
    partition("gpu", deny="chemistry", qos="normal", assigned="gpuq"),
    partition("club", 60, groups="club", accounts="science", memory=1000),
    partition("closed", 60, up=False),
    partition("secret", 60),
    partition("root", 60),
]
EVERYWHERE = ["main", "closed", "secret", "root"]
NODES = [
    node("small", EVERYWHERE, 16, 64000),
    node("wide", EVERYWHERE, 32, 32000),
    node("gpu", ["gpu"], 16, 64000, "gpu:a100:4(S:0-1)"),
    node("club", ["club"], 4, 8000),
]
PROFILES = {
    "default": {"time": 4, "memory": 2000, "cpus": 1},
    "big": {"accounts": ["chemistry"], "memory": 8000},
    "club": {"groups": ["club"], "choose": False, "partition": "club", "time": 1, "memory": 500},
    "gone": None,
}


def rows(text, columns):
    """Return the rows filled up to that many columns, as sacctmgr prints them."""
    lines = [line.split("|") for line in text.splitlines()]
    return "".join("|".join([*line, *[""] * columns][:columns]) + "\n" for line in lines)


def read(**changes):
    """Return the cluster, with some of what Slurm prints in place of that above."""
    printed = {"associations": rows(ASSOCIATIONS, 10), "qos": rows(QOS, 7)}
    return limits.Cluster.read(**printed | {"partitions": PARTITIONS, "flags": FLAGS, "nodes": NODES} | changes)


@pytest.fixture
def cluster():
    return read()


def offer(cluster, user, groups=()):
    return limits.Offer(cluster, PROFILES, user, groups)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("", None), ("UNLIMITED", None), ("60", 60), ("1:30", 2), ("04:00:00", 240), ("2-00:00:00", 2880), ("7-0", 10080)],
)
def test_times(text, minutes):
    assert parse.minutes(text) == minutes


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_times_are_never_less_than_they_say(days, hours, minutes, seconds):
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    assert parse.minutes(text) == days * 1440 + hours * 60 + minutes + (seconds > 0)


def test_resources():
    assert parse.tres("cpu=4,mem=1.5G,gres/gpu=2,node=3,billing=9") == {"cpu": 4, "mem": 1536, "gpu": 2}
    assert parse.tres("mem=500M") == {"mem": 500}
    assert parse.gpus("gpu:a100:4(S:0-1),shard:8,gpu:2") == 6
    assert parse.gpus("(null)") == 0


def test_who_sees_what(cluster):
    assert offer(cluster, "ada").partitions() == ["main", "gpu"]
    assert offer(cluster, "ada", ["club"]).partitions() == ["main", "gpu", "club"]
    assert offer(cluster, "marie").accounts() == ["physics", "chemistry"]
    assert offer(cluster, "marie").partitions("chemistry") == ["main"]
    assert list(offer(cluster, "ada").profiles) == ["default"]
    assert list(offer(cluster, "marie").profiles) == ["default", "big"]
    assert list(offer(cluster, "ada", ["club"]).profiles) == ["default", "club"]
    assert "no account" in offer(cluster, "guest").reason()


def test_the_default_qos_comes_first(cluster):
    assert offer(cluster, "ada").checked({})["qos"] == "long"
    assert offer(cluster, "ada").checked({"partition": "gpu"})["qos"] == "normal"


@pytest.mark.parametrize(
    ("user", "asked", "said"),
    [
        ("ada", {"account": "chemistry"}, "account 'chemistry' is not yours"),
        ("ada", {"partition": "closed"}, "partition 'closed' is not yours"),
        ("ada", {"partition": "secret"}, "partition 'secret' is not yours"),
        ("ada", {"partition": "root"}, "partition 'root' is not yours"),
        ("ada", {"partition": "club"}, "partition 'club' is not yours"),
        ("ada", {"qos": "gpuq"}, "QOS 'gpuq' is not yours"),
        ("ada", {"partition": "gpu", "qos": "long"}, "QOS 'long' is not yours"),
        ("ada", {"cpus": 9}, "physics gets 8 at most in main"),
        ("ada", {"partition": "gpu", "cpus": 5}, "gets 4 at most in gpu"),
        ("ada", {"time": 24.1}, "physics may use main for 24 h"),
        ("ada", {"partition": "gpu", "time": 49}, "physics may use gpu for 48 h"),
        ("marie", {"account": "chemistry", "time": 4.5}, "chemistry may use main for 4 h"),
        ("marie", {"account": "chemistry", "partition": "gpu"}, "partition 'gpu' is not yours"),
        ("marie", {"account": "physics", "partition": "gpu", "gpus": 2}, "physics gets 1 at most in gpu"),
        ("ada", {"memory": 64001}, "physics gets 64000 at most"),
        ("ada", {"gpus": 1}, "gets 0 at most in main"),
        ("ada", {"profile": "big"}, "profile 'big' is not yours"),
        ("ada", {"profile": "gone"}, "profile 'gone' is not yours"),
        ("ada", {"cpus": "one"}, "is no number"),
        ("ada", {"cpus": True, "time": "inf"}, "out of any range"),
        ("ada", {"memory": 0}, "at least 1"),
        ("ada", {"comment": "x"}, "nothing called comment"),
        ("guest", {}, "no account"),
    ],
)
def test_what_is_refused(cluster, user, asked, said):
    with pytest.raises(limits.Refused, match=said):
        offer(cluster, user).checked(asked)


def test_limits_of_the_accounts_above_count(cluster):
    assert cluster.association("ada", "physics", "main").most == {"cpu": 8, "mem": 65536}
    assert cluster.association("marie", "chemistry", "main").most["cpu"] == 100


def test_what_was_not_asked_for_is_the_profile_s(cluster):
    assert offer(cluster, "ada").checked({"cpus": "2", "memory": ""}) == {
        "profile": "default",
        "account": "physics",
        "partition": "main",
        "qos": "long",
        "time": 4.0,
        "memory": 2000,
        "cpus": 2,
        "gpus": 0,
    }


def test_a_fixed_profile_takes_nothing_else(cluster):
    asked = {"profile": "club", "partition": "main", "time": 9, "memory": 9, "cpus": 3}
    got = offer(cluster, "ada", ["club"]).checked(asked)
    assert (got["partition"], got["time"], got["memory"], got["cpus"]) == ("club", 1.0, 500, 1)


ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["physics", "gpu"]))
KEYS = ("profile", "account", "partition", "qos", "time", "memory", "cpus", "gpus")


@given(st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=9)), ODD), st.sampled_from(["ada", "marie"]))
def test_whatever_is_asked_for_is_refused_or_within_limits(asked, user):
    cluster = read()
    person = offer(cluster, user)
    try:
        got = person.checked(asked)
    except limits.Refused:
        return
    assert set(got) == set(KEYS)
    assert all(limits.NAME.fullmatch(got[key]) for key in ("account", "partition"))
    place = next((a, p) for a, p in person.places if (a.account, p.name) == (got["account"], got["partition"]))
    wall, most = cluster.most(*place, got["qos"])
    assert wall is None or 0 < got["time"] * 60 <= wall
    sizes = (("cpus", "cpu"), ("memory", "mem"), ("gpus", "gpu"))
    assert all(isinstance(got[key], int) and got[key] >= 0 for key, _what in sizes)
    assert any(all(got[key] <= node.get(what, got[key]) for key, what in sizes) for node in most)


def test_every_profile_that_is_offered_can_be_taken(cluster):
    for user, groups in itertools.product(("ada", "marie"), ((), ("club",))):
        person = offer(cluster, user, groups)
        for name in person.profiles:
            assert person.checked({"profile": name})["profile"] == name


@pytest.mark.parametrize(("user", "groups"), [("ada", []), ("marie", []), ("marie", ["club"])])
def test_what_the_form_says_is_what_is_granted(cluster, user, groups):
    found = offer(cluster, user, groups)
    choices = found.choices()
    assert choices[0]["partition"] == "main", "the default first"
    assert {choice["account"] for choice in choices} == set(found.accounts())
    for choice, node in ((each, node) for each in choices for node in each["nodes"]):
        shown = {key: value for key, value in {**choice, **node}.items() if key != "nodes" and value is not None}
        granted = found.checked({"profile": "default", **shown})
        assert {key: granted[key] for key in shown} == shown
        for key in ("time", "memory", "cpus", "gpus"):
            if key in shown:
                with pytest.raises(limits.Refused, match="too much"):
                    found.checked({"profile": "default", **shown, key: shown[key] + 1})


# -- nodes that are not equal ------------------------------------------------------------------------

UNEQUAL = [
    node("w1", ["main"], 2, 24000),
    node("wide", ["main"], 64, 64000, spare_cpus=2, spare_memory=4000),
    node("deep", ["main"], 8, 512000, "gpu:a100:4"),
    node("other", ["gpu"], 128, 999999),
]


def wants(cluster, user="marie", account="chemistry", **asked):
    return offer(cluster, user).checked({"account": account, "partition": "main", "time": 1, **asked})


@pytest.mark.parametrize(
    "asked",
    [
        {"cpus": 62, "memory": 60000},
        {"cpus": 8, "memory": 512000, "gpus": 4},
    ],
    ids=["all of one node", "all of another"],
)
def test_a_job_may_have_what_any_one_node_has(asked):
    assert asked.items() <= wants(read(nodes=UNEQUAL), **asked).items()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cpus": 63}, "63 CPUs is too much: chemistry gets 62 at most in main"),
        ({"memory": 512001}, "512001 MiB of memory is too much: chemistry gets 512000 at most"),
        (
            {"cpus": 9, "memory": 60001},
            "9 CPUs and 60001 MiB of memory together is too much: on one node of main, chemistry gets at most "
            "62 CPUs and 60000 MiB of memory, or 8 CPUs and 512000 MiB of memory and 4 GPUs",
        ),
        ({"cpus": 9, "gpus": 1}, "together is too much"),
    ],
    ids=[
        "reserved CPUs",
        "more memory than any",
        "CPUs of one and memory of another",
        "CPUs of one and GPUs of another",
    ],
)
def test_nobody_is_offered_the_best_of_two_nodes_together(asked, said):
    with pytest.raises(limits.Refused, match=said):
        wants(read(nodes=UNEQUAL), **asked)


def test_the_form_gets_what_each_kind_of_node_has_together():
    choice = next(c for c in offer(read(nodes=UNEQUAL), "marie").choices() if c["account"] == "chemistry")
    assert choice["nodes"] == [
        {"cpus": 62, "memory": 60000, "gpus": 0},
        {"cpus": 8, "memory": 512000, "gpus": 4},
    ]


def test_a_persons_limits_count_on_each_node():
    choices = offer(read(nodes=UNEQUAL), "ada").choices()  # 8 CPUs and 64 GiB at most
    assert next(c for c in choices if c["partition"] == "main")["nodes"] == [
        {"cpus": 8, "memory": 65536, "gpus": 4},  # which has all that the other one has
    ]


def test_a_partitions_limits_of_a_node_count():
    partitions = [partition("main", 60, cpus=4, memory_per_cpu=700)]
    choice = offer(read(nodes=UNEQUAL, partitions=partitions), "marie").choices()[0]
    assert choice["nodes"] == [{"cpus": 4, "memory": 2800, "gpus": 4}]


SIZES = st.fixed_dictionaries({what: st.integers(0, 9) for what in limits.WHAT})


@given(st.lists(SIZES, min_size=1), SIZES)
def test_a_request_is_within_the_offer_if_one_node_has_it(nodes, asked):
    def has(node):
        return all(asked[what] <= node[what] for what in asked)

    offered = limits.largest(nodes)
    assert all(node in nodes for node in offered)
    assert any(map(has, offered)) == any(map(has, nodes))
    assert not any(limits.covers(a, b) for a, b in itertools.permutations(offered, 2))


# -- names as they are kept --------------------------------------------------------------------------


def test_a_partition_has_the_association_that_slurmdbd_keeps_in_small_letters():
    associations = "root||||normal\nphysics|root|||normal\nphysics||marie|gpu|normal|normal|02:00:00\n"
    cluster = read(
        associations=rows(associations, 10),
        partitions=[partition("main"), partition("GPU")],
        flags=FLAGS.replace("=gpu", "=GPU"),
        nodes=[node("w1", ["main", "GPU"], 4, 8000)],
    )
    assert offer(cluster, "marie").partitions() == ["GPU"]
    assert wants(cluster, account="physics", partition="GPU", time=2)["partition"] == "GPU"
    with pytest.raises(limits.Refused, match="physics may use GPU for 2 h"):
        wants(cluster, account="physics", partition="GPU", time=3)


def test_names_of_accounts_and_qos_are_compared_in_small_letters():
    partitions = [partition("main", accounts="Physics", qos="Normal,LONG", denied_qos="Long", assigned="GPUQ")]
    cluster = read(partitions=partitions)
    assert wants(cluster, "ada", "Physics", qos="NORMAL")["account"] == "physics"
    with pytest.raises(limits.Refused, match="QOS 'long' is not yours"):
        wants(cluster, "ada", "physics", qos="long")
    with pytest.raises(limits.Refused, match="gets 4 at most"):
        wants(cluster, "ada", "physics", cpus=5)
    assert "big" in limits.Offer(cluster, {"big": {"accounts": ["Physics"]}}, "ada", []).profiles


# -- what cannot be read -----------------------------------------------------------------------------

ODD_ROWS = {
    "a pipe in an account": ("a|b|root|||normal||||||", "association 'a|b|root"),
    "a pipe in a user's account": ("a|b||marie||normal|normal|||||", "association 'a|b||marie"),
    "a time": ("chemistry||marie|odd|normal|normal|soon|||", "association of user 'marie' in 'chemistry'"),
    "a number": ("physics||marie|odd|normal|normal||cpu=many||", "association of user 'marie' in 'physics'"),
}


@pytest.mark.parametrize("odd", ODD_ROWS)
def test_an_association_that_cannot_be_read_is_named_and_left_alone(odd):
    row, name = ODD_ROWS[odd]
    cluster = read(associations=rows(ASSOCIATIONS, 10) + row + "\n")
    assert len(cluster.unread) == 1
    assert name in cluster.unread[0]
    assert offer(cluster, "marie").choices() == offer(read(), "marie").choices()


def test_an_account_below_one_that_cannot_be_read_can_be_used():
    cluster = read(associations=rows(ASSOCIATIONS, 10).replace("science|root|", "sci|ence|root|"))
    assert len(cluster.unread) == 1
    assert offer(cluster, "ada").accounts() == ["physics"]


def test_other_objects_that_cannot_be_read_are_named_and_left_alone():
    cluster = read(
        qos=rows(QOS, 7) + "bad|one|||||||\nlate||never||||\n",
        partitions=[*PARTITIONS, {"name": "odd"}],
        nodes=[*NODES, {"name": "w9", "partitions": ["main"]}],
    )
    assert [message.split(":")[0] for message in cluster.unread] == [
        "QOS 'bad|one|||||||'",
        "QOS 'late'",
        "partition 'odd'",
        "node 'w9'",
    ]
    assert offer(cluster, "ada").choices() == offer(read(), "ada").choices()


TEXT = st.text(st.characters(blacklist_characters="\n"))


@given(st.lists(TEXT), st.lists(TEXT))
def test_no_row_of_whatever_text_ends_a_reading(associations, qos):
    cluster = read(
        associations=rows(ASSOCIATIONS, 10) + "".join(f"{line}\n" for line in associations),
        qos=rows(QOS, 7) + "".join(f"{line}\n" for line in qos),
    )
    assert offer(cluster, "ada").choices() == offer(read(), "ada").choices()

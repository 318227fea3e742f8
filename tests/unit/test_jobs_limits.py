"""What services offer and refuse: formulas/jobs/files/qhub_jobs/limits.py, from what Slurm prints."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.load import load

limits = load("formulas/jobs/files/qhub_jobs/limits.py", "qhub_jobs_limits")

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
PARTITIONS = """\
PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES QoS=N/A MaxTime=1-00:00:00 State=UP
PartitionName=gpu AllowGroups=ALL DenyAccounts=chemistry AllowQos=normal Default=NO QoS=gpuq MaxTime=UNLIMITED State=UP
PartitionName=club AllowGroups=club AllowAccounts=science AllowQos=ALL Default=NO MaxMemPerNode=1000 MaxTime=60 State=UP
PartitionName=closed AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL MaxTime=60 State=DOWN
PartitionName=secret AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Hidden=YES MaxTime=60 State=UP
"""
NODES = "main|16|64000|(null)\nmain|32+|32000|(null)\ngpu|16|64000|gpu:a100:4(S:0-1)\nclub|4|8000|(null)\n"
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


@pytest.fixture
def cluster():
    return limits.Cluster.read(rows(ASSOCIATIONS, 10), rows(QOS, 7), PARTITIONS, NODES)


def offer(cluster, user, groups=()):
    return limits.Offer(cluster, PROFILES, user, groups)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("", None), ("UNLIMITED", None), ("60", 60), ("1:30", 2), ("04:00:00", 240), ("2-00:00:00", 2880), ("7-0", 10080)],
)
def test_times(text, minutes):
    assert limits.minutes(text) == minutes


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_times_are_never_less_than_they_say(days, hours, minutes, seconds):
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    assert limits.minutes(text) == days * 1440 + hours * 60 + minutes + (seconds > 0)


def test_resources():
    assert limits.tres("cpu=4,mem=1.5G,gres/gpu=2,node=3,billing=9") == {"cpu": 4, "mem": 1536, "gpu": 2}
    assert limits.tres("mem=500M") == {"mem": 500}
    assert limits.gpus("gpu:a100:4(S:0-1),shard:8,gpu:2") == 6
    assert limits.gpus("(null)") == 0


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
    cluster = limits.Cluster.read(rows(ASSOCIATIONS, 10), rows(QOS, 7), PARTITIONS, NODES)
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
    for key, what in (("cpus", "cpu"), ("memory", "mem"), ("gpus", "gpu")):
        assert isinstance(got[key], int)
        assert 0 <= got[key] <= most.get(what, got[key])


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
    for choice in choices:
        asked = {"profile": "default", **{key: value for key, value in choice.items() if value is not None}}
        granted = found.checked(asked)
        assert {key: granted[key] for key in choice if choice[key] is not None} == {
            key: value for key, value in choice.items() if value is not None
        }
        for limit in ("time", "memory", "cpus", "gpus"):
            if choice[limit] is not None:
                with pytest.raises(limits.Refused, match="too much"):
                    found.checked({**asked, limit: choice[limit] + 1})

"""Who may come in through the SSH gateway: what is decided without a network."""

import contextlib
import ipaddress
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import ROOT
from tests.unit.load import load
from tests.unit.test_pillar import cluster, qhub

door = load("formulas/sshgate/files/door.py", "sshgate_door")

LIMITS = types.SimpleNamespace(
    first_delay=1,
    longest_delay=15,
    most_failures=5,
    forget_failures=100,
    unauthenticated=4,
    unauthenticated_per_address=2,
)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def model(**changes):
    return {"kind": "user", "name": "ada", "scopes": ["access:servers!user=ada", "self"], **changes}


def test_a_users_own_token_is_entitled():
    assert door.entitled("ada", model())
    assert door.entitled("ada", model(scopes=["access:servers"])), "as an administrator's"


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "service"},
        {"name": "bob"},
        {"name": None},
        {"scopes": []},
        {"scopes": None},
        {"scopes": ["access:servers!server=ada/", "users:activity!user=ada"]},  # a notebook server's
        {"scopes": ["access:servers!user=bob"]},
        {"scopes": ["access:servers!group=ada", "read:users!user=ada"]},
        {"scopes": ["access:services!service=dask-gateway"]},
    ],
)
def test_another_token_is_not(other):
    assert not door.entitled("ada", model(**other))
    assert not door.entitled("ada", {})


@pytest.mark.parametrize(
    "name",
    ["", "-u", "#0", "%wheel", "Ada", "ada ", "ada\n", "a/b", "a" * 32, "ada;id", "ädä", ".", "..", ".a", "a.", "a..b"],
)
def test_no_user(name):
    assert not door.USER.fullmatch(name)
    assert not as_in_the_pillar(name)


@pytest.mark.parametrize("name", ["ada", "ada.lovelace", "a.b-c_d.1", "_x", "a" * 31, "a." + "b" * 29])
def test_a_user(name):
    assert door.USER.fullmatch(name)
    assert as_in_the_pillar(name)


def as_in_the_pillar(name):
    """Whether the pillar's schema takes a person of this name."""
    pillar = {**cluster(), "users": {name: {"uid": 20001}}}
    return qhub.problems(pillar, qhub.load_schema([ROOT / "salt", ROOT / "formulas"])) == []


@pytest.mark.parametrize(
    "token", ["", "short", "a" * 257, "token with space", "token\r\nHost: x", "tokën123", "token\n"]
)
def test_no_token(token):
    assert not door.TOKEN.fullmatch(token)


def header(family, body, command=0x21):
    head = door.PROXY_SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big")
    return head, body


@given(st.ip_addresses(), st.binary(max_size=40))
def test_the_front_door_tells_the_clients_address(address, more):
    there = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
    body = address.packed + there.packed + bytes([1, 2, 3, 4]) + more
    assert door.proxied_address(*header(0x11 if address.version == 4 else 0x21, body)) == str(address)


def test_a_check_of_the_front_doors_own_has_no_address():
    assert door.proxied_address(*header(0, b"", command=0x20)) is None


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=40))
def test_anything_else_is_no_header(head, body):
    with pytest.raises(ValueError, match="PROXY"):
        door.proxied_address(head, body)


@pytest.mark.parametrize("family", [0x00, 0x12, 0x22, 0x31])
def test_a_header_that_names_no_tcp_client(family):
    with pytest.raises(ValueError, match="no TCP client"):
        door.proxied_address(*header(family, bytes(40)))
    with pytest.raises(ValueError, match="no TCP client"):
        door.proxied_address(*header(0x21, bytes(20)))


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:201E 00000000:0000 0A 00000000:00000000 00:00000000 00000000   997        0 1 1 0 100 0 0 10 0
   1: 0100007F:CE24 0100007F:201E 01 00000000:00000000 00:00000000 00000000   999        0 2 1 0 20 4 30 10 -1
   2: 0100007F:CE25 0100007F:201E 06 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   3: 0100007F:201E 0100007F:CE24 01 00000000:00000000 00:00000000 00000000   997        0 4 1 0 20 4 30 10 -1
"""


def test_the_owner_of_a_connection():
    gateway = ("127.0.0.1", 0x201E)
    assert door.owner(TABLE, ("127.0.0.1", 0xCE24), gateway) == 999
    assert door.owner(TABLE, ("127.0.0.1", 0xCE25), gateway) is None, "it is closed"
    assert door.owner(TABLE, ("127.0.0.1", 1), gateway) is None


def test_one_client_is_an_address_or_a_network_of_version_6():
    assert door.network("192.0.2.7") == "192.0.2.7"
    assert door.network("::ffff:192.0.2.7") == "192.0.2.7"
    assert door.network("2001:db8::1") == door.network("2001:db8::ffff:1") == "2001:db8::/64"
    assert door.network("2001:db8:0:1::1") != door.network("2001:db8::1")


def test_failures_double_the_wait_up_to_a_limit_and_are_forgotten():
    clock = Clock()
    failures = door.Failures(1, 15, 100, clock)
    waits = []
    for _ in range(6):
        waits.append(failures.delay("a"))
        failures.add("a")
    assert waits == [0, 1, 2, 4, 8, 15]
    assert failures.delay("b") == 0
    clock.now += 99
    assert failures.delay("a") == 15
    clock.now += 1
    assert failures.delay("a") == 0
    failures.add("a")
    assert failures.delay("a") == 1


def test_what_is_remembered_is_bounded():
    failures = door.Failures(1, 15, 100, Clock())
    for number in range(door.MOST_REMEMBERED + 10):
        failures.add(number)
    assert len(failures.seen) == door.MOST_REMEMBERED
    assert (failures.count(0), failures.count(door.MOST_REMEMBERED)) == (0, 1)


def test_connections_that_have_not_signed_in_are_limited_by_address():
    limits = door.Door(LIMITS, Clock())
    with limits.entered("a", print):
        assert not limits.is_crowded("a")
        with limits.entered("a", str):
            assert limits.is_crowded("a")
            assert not limits.is_crowded("b")
    assert not limits.is_crowded("a")
    assert not limits.waiting, "addresses without a connection are forgotten"


def test_the_address_with_most_connections_makes_room_for_one_more():
    limits, closed = door.Door(LIMITS, Clock()), []
    with contextlib.ExitStack() as inside:

        def enter(source, name):
            inside.enter_context(limits.entered(source, lambda: closed.append(name)))

        for source, name in (("a", "a1"), ("b", "b1"), ("b", "b2"), ("c", "c1")):
            enter(source, name)
        assert (limits.unauthenticated(), closed) == (LIMITS.unauthenticated, [])
        enter("d", "d1")
        assert (limits.unauthenticated(), closed) == (LIMITS.unauthenticated, ["b1"])
        enter("e", "e1")
        assert closed == ["b1", "a1"]
    assert limits.unauthenticated() == 0


def test_a_name_that_fails_too_often_from_an_address_is_shut_out_there_for_a_while():
    clock = Clock()
    limits = door.Door(LIMITS, clock)
    for _ in range(LIMITS.most_failures):
        assert not limits.is_shut("a", "ada")
        limits.failures.add(("a", "ada"))
    assert limits.is_shut("a", "ada")
    assert not limits.is_shut("a", "marie"), "others at that address are not affected"
    assert not limits.is_shut("b", "ada"), "nor is the name at another address"
    clock.now += LIMITS.forget_failures
    assert not limits.is_shut("a", "ada")


def test_metrics_are_text_for_prometheus():
    metrics = door.Metrics()
    metrics.gauge("sshgate_sessions", lambda: 3)
    metrics.count("sshgate_logins_total", result="refused")
    metrics.count("sshgate_logins_total", 2, result="accepted")
    assert metrics.text() == (
        "# TYPE sshgate_logins_total counter\n"
        'sshgate_logins_total{result="accepted"} 2\n'
        'sshgate_logins_total{result="refused"} 1\n'
        "# TYPE sshgate_sessions gauge\n"
        "sshgate_sessions 3\n"
    )


@given(st.text())
def test_nothing_steers_a_terminal(text):
    assert not door.CONTROL.search(door.plain(text))
    assert door.plain("a\x1b]0;b\x07\tc\n") == "a]0;b\tc\n"

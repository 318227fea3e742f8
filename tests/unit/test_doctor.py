"""The doctor: a fault is told once; what it reads out of what others print; its page."""

import dataclasses
import datetime
import http.server
import json
import struct
import subprocess
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import salt.loader

from tests.unit.conftest import ROOT
from tests.unit.load import load

load("salt/_runners/_doctor/__init__.py", "_doctor")
from _doctor import ask, door, engine, facts, nodes, reports, services, slurm, stores, table, watch  # noqa: E402
from _doctor.site import Site  # noqa: E402

shown = load("salt/_output/doctor.py", "doctor_output")
Check, Fault, Outcome = engine.Check, engine.Fault, engine.Outcome


class Everything:
    """A site of two nodes, for checks that do not look at it."""

    def __init__(self, nodes=frozenset(), failed=frozenset()):
        self.nodes, self.failed = nodes, failed
        self.members = {"w1", "w2"} - nodes

    def without(self, nodes, failed):
        return Everything(nodes, failed)


def fails(*lines, **about):
    def check(site):
        raise Fault(*lines, **about)

    return check


def works(site):
    return "fine"


def examined(*checks, seconds=10):
    return engine.examine([Check("A", *check[:2], "do", **check[2]) for check in checks], Everything(), seconds)


# How checks depend on each other


def test_what_needs_something_that_failed_is_not_checked():
    found = examined(
        ("database", fails("refused"), {"needs": ()}),
        ("service", fails("no database"), {"needs": ("database",)}),
        ("page", fails("no service"), {"needs": ("service",)}),
        ("other", works, {"needs": ()}),
    )
    assert {name: (outcome.state, outcome.because) for name, outcome in found.items()} == {
        "database": ("failed", ""),
        "service": ("not checked", "database"),
        "page": ("not checked", "database"),
        "other": ("ok", ""),
    }


def test_what_is_not_there_is_no_fault():
    def absent(site):
        raise engine.Absent

    found = examined(("a", absent, {"needs": ()}), ("b", works, {"needs": ("a",)}))
    assert [outcome.state for outcome in found.values()] == ["absent", "absent"]


def test_a_warning_leaves_the_cluster_healthy_and_holds_up_no_other_check():
    def warns(site):
        raise engine.Warned("works, but")

    found = examined(("first", warns, {"needs": ()}), ("second", works, {"needs": ("first",)}))
    assert found["first"][:3] == (engine.WARNED, ("works, but",), "do")
    assert found["second"].state == engine.OK


def test_a_check_leaves_out_the_nodes_that_earlier_ones_blame():
    seen = []

    def look(site):
        seen.append((site.nodes, site.failed))
        return "fine"

    found = examined(
        ("minions", fails("w1: no answer", nodes=["w1"]), {"needs": ()}),
        ("slurmd", look, {"needs": (), "after": ("minions",)}),
    )
    assert found["slurmd"].state == "ok"
    assert seen == [({"w1"}, {"minions"})]


def test_a_check_without_any_node_left_is_not_made():
    found = examined(
        ("minions", fails("no answer", nodes=["w1", "w2"]), {"needs": ()}),
        ("clocks", works, {"needs": (), "after": ("minions",)}),
    )
    assert (found["clocks"].state, found["clocks"].because) == ("not checked", "minions")


def test_a_check_that_breaks_is_a_failure_of_its_own():
    found = examined(("a", lambda site: 1 / 0, {"needs": ()}), ("b", works, {"needs": ()}))
    assert found["a"].says == ("ZeroDivisionError: division by zero",)
    assert found["b"].state == "ok"


def test_a_check_that_hangs_is_told_in_time_and_so_is_who_needs_it():
    never = threading.Event()
    start = time.monotonic()
    found = examined(
        ("a", lambda site: never.wait(), {"needs": ()}),
        ("b", works, {"needs": ("a",)}),
        ("c", works, {"needs": ()}),
        seconds=0.3,
    )
    never.set()
    assert time.monotonic() - start < 3
    assert found["a"].says == ("did not end within 0 s",)
    assert (found["b"].because, found["c"].state) == ("a", "ok")


def test_some_checks_are_made_with_those_that_they_need():
    names = [check.name for check in engine.with_needs(table.CHECKS, ["/auth/"])]
    assert names == ["pillar", "postgresql", "traefik", "certificates", "keycloak", "/auth/"]
    assert "minions" in [check.name for check in engine.with_needs(table.CHECKS, ["nodes"])]


def test_the_advice_is_the_tables_unless_the_fault_has_its_own():
    found = examined(("a", fails("x"), {"needs": ()}), ("b", fails("x", advice="look"), {"needs": ()}))
    assert (found["a"].advice, found["b"].advice) == ("do", "look")


def test_all_checks_run_at_once():
    together = threading.Barrier(2, timeout=5)
    found = examined(
        ("a", lambda site: together.wait(), {"needs": ()}), ("b", lambda site: together.wait(), {"needs": ()})
    )
    assert {outcome.state for outcome in found.values()} == {"ok"}


# The table


def test_a_check_needs_only_what_is_above_it():
    above = set()
    for check in table.CHECKS:
        assert {*check.needs, *check.after} <= above, check.name
        assert check.name not in above, f"{check.name} is there twice"
        assert check.advice, check.name
        assert check.function.__doc__, check.name
        above.add(check.name)
    assert [check.name for check in table.CHECKS if not check.needs] == ["pillar"]


def test_the_page_of_a_healthy_cluster_is_one_screen():
    checks = [
        {"group": check.group, "name": check.name, "state": "ok", "says": ["fine"], "advice": "", "because": ""}
        for check in table.CHECKS
    ]
    page = shown.page({"cluster": "lab", "healthy": True, "seconds": 3.2, "checks": checks}, COLORLESS)
    assert len(page.splitlines()) <= 45
    assert page.startswith(f"Cluster lab: {len(checks)} checks, all in order (3.2 s)\n")


COLORLESS = dict.fromkeys(("RED", "GREEN", "YELLOW", "ENDC"), "")


def test_the_page_says_what_is_wrong_and_what_to_do():
    checks = [
        {"group": "Stores", "name": "redis", "state": "failed", "says": ["refused", "twice"],
         "advice": "start it", "because": ""},
        {"group": "Slurm", "name": "jobs", "state": "ok", "says": ["ran"], "advice": "", "because": ""},
        {"group": "Stores", "name": "builder", "state": "not checked", "says": [], "advice": "", "because": "redis"},
        {"group": "Stores", "name": "exports", "state": "warning", "says": ["old"], "advice": "move it", "because": ""},
        {"group": "Monitoring", "name": "alerts", "state": "absent", "says": [], "advice": "", "because": ""},
    ]  # fmt: skip
    colors = {**COLORLESS, "RED": "<", "ENDC": ">"}
    page = shown.page({"cluster": "lab", "healthy": False, "seconds": 3.2, "checks": checks}, colors)
    assert page.splitlines() == [
        "Cluster lab: 1 of 4 checks failed, 1 with a warning (3.2 s)",
        "Stores       redis          <FAILED  >refused",
        "                                    twice",
        "                                    -> start it",
        "             builder        -       >not checked, as redis failed",
        "             exports        warning >old",
        "                                    -> move it",
        "Slurm        jobs           ok      >ran",
    ]


# What checks read


PILLAR: dict = {
    "cluster": {
        "name": "lab",
        "public_name": "hpc",
        "people_name": "people.hpc",
        "master": {"id": "master", "address": "10.0.0.1"},
    },
    "nodes": {"w1": {}, "w2": {}},
    "base": {"time_sync": True},
}
MEMBERS = {
    "master": {"address": "10.0.0.1", "roles": ["master"]},
    "w1": {"address": "10.0.0.2", "roles": ["worker"]},
    "w2": {"address": "10.0.0.3", "roles": ["worker"]},
}
GOOD: dict = {
    "sent": 100.0, "now": 101.0, "received": 102.0, "in_time": {"": [True, None]}, "units": {"": [{}, None]},
    "secrets": {"": [[], None]}, "names": {"master": ["10.0.0.1", None], "hpc": ["10.0.0.1", None]},
    "space": {"/": [{"device": 1, "free": 50, "size": 100, "free_inodes": 50, "inodes": 100}, None],
              "/x": [None, None]},
    "shared": {"/home": ["", None], "/opt/qhub/shared": ["", None]},
}  # fmt: skip


def site(accepted=("master", "w1", "w2"), left=("w1", "w2"), **changed):
    """Return a site whose nodes report what is good, but for ``changed``: ``w1={...}``."""
    reported = {name: {**GOOD, "roles": MEMBERS[name]["roles"], **changed.get(name, {})} for name in MEMBERS}
    future = Future()
    future.set_result({name: report for name, report in reported.items() if changed.get(name, {}) is not None})
    notes = {"left": {"home": list(left), "shared": []}}
    return Site(PILLAR, [], MEMBERS, frozenset(accepted), [ROOT / "formulas"], future, notes)


def fault(check, site, **options):
    with pytest.raises(Fault) as found:
        check(site, **options)
    return found.value.lines, set(found.value.nodes)


@pytest.mark.parametrize("check", [nodes.keys, nodes.minions, nodes.roles, nodes.names, nodes.clocks, nodes.space,
                                   nodes.secrets, nodes.shared])  # fmt: skip
def test_good_reports_are_in_order(check):
    assert check(site())


def test_an_accepted_stranger_and_a_node_without_a_key():
    assert fault(nodes.keys, site(("master", "w1", "w2", "evil"))) == (["evil is accepted and not in nodes.sls"], set())
    assert fault(nodes.keys, site(("master", "w1"))) == (["w2 is in nodes.sls and has not joined"], {"w2"})


def test_a_silent_minion_and_one_without_python():
    found = site(w1={"error": "python3: not found"})
    del found.reports.result()["w2"]
    assert fault(nodes.minions, found) == (["w1: python3: not found", "w2: no answer"], {"w1", "w2"})
    assert nodes.space(found), "the others are looked at"


def test_a_minion_that_claims_another_role():
    lines, blamed = fault(nodes.roles, site(w1={"roles": ["master", "worker"]}))
    assert (lines, blamed) == (["w1 claims master, worker; the pillar gives it worker"], {"w1"})


@pytest.mark.parametrize(
    ("now", "line"),
    [(103.5, "w1 is 1.5 s ahead of the master"), (98.0, "w1 is 2.0 s behind the master"), (102.9, None), (99.1, None)],
)
def test_a_clock_that_is_off_is_one_that_cannot_be_right(now, line):
    found = site(w1={"now": now})
    if line:
        assert fault(nodes.clocks, found) == ([line], {"w1"})
    else:
        assert nodes.clocks(found)


def test_a_clock_that_follows_nobody():
    lines, _ = fault(nodes.clocks, site(w2={"in_time": {"": [False, None]}}))
    assert lines == ["w2 follows no time server"]


def test_a_name_that_is_not_found_or_somebody_elses():
    found = {"master": ["127.0.0.1", None], "hpc": [None, "Name or service not known"]}
    lines, _ = fault(nodes.names, site(w1={"names": found}))
    assert lines == ["w1: master is 127.0.0.1, not 10.0.0.1", "w1: hpc: Name or service not known"]


def test_units_are_told_unless_another_check_is_about_them():
    found = site(w1={"units": {"": [{"slurmd.service": "stopped", "cron.service": "failed (exit-code)"}, None]}})
    lines, blamed = fault(nodes.units, found, others={"slurmd.service"})
    assert (lines, blamed) == (["w1: cron.service: failed (exit-code)"], {"w1"})


def test_advice_about_units_names_the_one_that_failed():
    late = {"units": {"": [None, "systemctl: no answer within 5 s"]}}
    failed = {"units": {"": [{"cron.service": "failed (exit-code)"}, None]}}
    with pytest.raises(Fault) as both:
        nodes.units(site(w1=late, w2=failed), others=frozenset())
    assert both.value.lines == [
        "w2: cron.service: failed (exit-code)",
        "w1: its units are not known: systemctl: no answer within 5 s",
    ]
    assert both.value.nodes == {"w1", "w2"}
    assert both.value.advice == "salt w2 cmd.run 'journalctl -n 30 -u cron.service; systemctl restart cron.service'"
    with pytest.raises(Fault) as alone:
        nodes.units(site(w1=late), others=frozenset())
    assert alone.value.advice == "salt w1 cmd.run 'uptime; systemctl list-jobs'; salt-run cluster.doctor"


@pytest.mark.parametrize(("load", "seconds"), [(0, 5), (2, 5), (4, 10), (99, 12)], ids=["idle", "used", "full", "over"])
def test_a_loaded_node_has_longer(monkeypatch, load, seconds):
    monkeypatch.setattr(facts.os, "getloadavg", lambda: (load, 0, 0))
    monkeypatch.setattr(facts.os, "cpu_count", lambda: 2)
    assert facts.patience() == seconds
    assert facts.PATIENCE * facts.LOADED + 1 < reports.PATIENCE


def test_a_command_that_does_not_end_is_named(monkeypatch):
    monkeypatch.setattr(facts, "patience", lambda: 0.1)
    with pytest.raises(RuntimeError, match="^sleep: no answer within 0 s$"):
        facts.command("sleep", "5")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"free": 2 * 2**20, "size": 100 * 2**20}, "2 MiB of 100 are free"),
        ({"free_inodes": 1, "inodes": 1000}, "1 of 1000 inodes are free"),
        ({"free": 6 * 2**30, "size": 10 * 2**40}, ""),  # a share of little of a lot
        ({"inodes": 0, "free_inodes": 0}, ""),  # a file system without a limit
    ],
)
def test_a_full_file_system(changed, said):
    assert nodes.full({**GOOD["space"]["/"][0], **changed}) == said


def test_a_file_system_is_told_once():
    full = [{"device": 7, "free": 0, "size": 2**20, "free_inodes": 9, "inodes": 9}, None]
    lines, _ = fault(nodes.space, site(w1={"space": {"/var": full, "/var/lib": full}}))
    assert lines == ["w1: /var: 0 MiB of 1 are free"]


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ({"/": 1, "/var": 1, "/home": 1, "/opt/qhub/shared": 2}, {"/home": "/"}),
        ({"/": 1, "/var/lib/postgresql": 2, "/home": 3, "/opt/qhub/shared": 2},
         {"/opt/qhub/shared": "/var/lib/postgresql"}),
        ({"/": 1, "/home": 2, "/opt/qhub/shared": 2}, {}),
        ({"/": 1, "/home": 2}, {}),
    ],
)  # fmt: skip
def test_an_export_on_the_file_system_of_private_directories_is_found(devices, found):
    assert stores.beside_private(["/home", "/opt/qhub/shared"], devices.get) == found


def test_an_nfs_server_that_exports_the_root_file_system_is_a_warning(monkeypatch):
    monkeypatch.setattr(stores, "without_setuid", lambda _: True)
    monkeypatch.setattr(stores, "exchange", lambda *_: bytes(4) + struct.pack(">6I", 1, 1, 0, 0, 0, 0))
    here = Site({**PILLAR, "nfs": {"exports": {"home": {"path": "/"}, "shared": None}}}, [], MEMBERS, frozenset(),
                [ROOT / "formulas"])  # fmt: skip
    with pytest.raises(engine.Warned) as raised:
        stores.nfs(here)
    assert raised.value.lines == ["/ is on the file system of /"]
    assert "docs/security.md" in raised.value.advice


def test_a_shared_directory_that_is_not_shared():
    hidden = {**GOOD["shared"], "/home": ["does not show what the master wrote there", None]}
    assert fault(nodes.shared, site(w1={"shared": hidden}))[0] == [
        "w1: /home: does not show what the master wrote there"
    ]
    assert fault(nodes.shared, site(left=["w1"]))[0] == ["w2: /home: the master does not see what is written there"]


def test_a_worker_that_was_drained_as_dead_is_told_with_since_when(monkeypatch):
    out = "w1|dead since 2026-11-25T22:00:00: does not answer\n" * 2 + "w2|none\n"
    monkeypatch.setattr(nodes, "command", lambda *words: SimpleNamespace(stdout=out))
    found = nodes.drained_as_dead({"w1": "is not connected", "w2": "no answer", "w3": "no answer"})
    assert found == {"w1": "dead since 2026-11-25T22:00:00: does not answer"}


def test_what_minions_answer():
    answer = {"cmd.run_all": {"stdout": '{"now": 1}', "stderr": ""}, "grains.get": ["worker"]}
    assert reports.report(answer) == {"now": 1, "roles": ["worker"]}
    answer["cmd.run_all"] = {"stdout": "", "stderr": "Traceback\nKeyError: x\n"}
    assert reports.report(answer) == {"error": "KeyError: x"}
    assert reports.report("The minion function caused an exception") == {
        "error": "The minion function caused an exception"
    }


SINFO = "w1|idle|none\nw1|idle|none\nw2|drained|by hand|twice\nw3|down*|Not responding\nw4|mixed-|none\n"


def test_nodes_that_get_no_jobs():
    assert slurm.out_of_service(SINFO, ["w1", "w2", "w3", "w4", "w5"]) == {
        "w2": "w2 is drained: by hand|twice",
        "w3": "w3 is down*: Not responding",
        "w5": "w5 is not there",
    }


def test_free_nodes_of_partitions():
    sinfo = "main|w1|idle\nmain|w2|idle\nbig|w2|idle\nfull|w3|allocated\n"
    assert slurm.free(sinfo, ["w1", "w2", "w3"]) == {"main": "w1", "big": "w2"}
    assert slurm.free(sinfo, ["w2"]) == {"main": "w2", "big": "w2"}
    assert slurm.free(sinfo, ["w1"]) == {"main": "w1"}, "a node that another check blames is not tried"


@pytest.mark.parametrize(
    ("partition", "answer"),
    [
        ({"default": True}, True),
        ({"accounts": ["physics"]}, False),
        ({"accounts": None}, True),
        ({"config": {"AllowQos": "long"}}, False),
        ({"config": {"DefMemPerCPU": 1}}, True),
    ],
)
def test_partitions_in_which_root_may_run(partition, answer):
    assert slurm.is_open(partition) is answer


SHOWN = """Type=notify
Result=exit-code
Id=a.service
ActiveState=failed
SubState=failed
ConditionResult=yes

Type=simple
Result=success
Id=b.service
ActiveState=inactive
SubState=dead
ConditionResult=yes

Type=oneshot
Result=success
Id=c.service
ActiveState=inactive
SubState=dead
ConditionResult=yes

Type=simple
Result=exit-code
Id=d.service
ActiveState=activating
SubState=auto-restart
ConditionResult=yes

Type=simple
Result=success
Id=e.service
ActiveState=inactive
SubState=dead
ConditionResult=no
"""


def test_units_in_trouble():
    assert facts.troubled(SHOWN) == {
        "a.service": "failed (exit-code)",
        "b.service": "stopped",
        "d.service": "starts again and again (exit-code)",
    }


def test_secrets_that_others_may_read(tmp_path):
    for name, mode in (("good", 0o640), ("bad", 0o644)):
        (tmp_path / name).write_text("secret")
        (tmp_path / name).chmod(mode)
    for name, mode in (("closed", 0o700), ("open", 0o711)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    found = facts.open_secrets([f"{tmp_path}/*"], [10000, 60000])
    assert sorted(entry[:2] for entry in found) == [[f"{tmp_path}/bad", 0o644], [f"{tmp_path}/open", 0o711]]
    uid = tmp_path.stat().st_uid
    assert len(facts.open_secrets([f"{tmp_path}/*"], [uid, uid])) == 4, "a person's"


def test_a_shared_directory_is_looked_at_and_written_to(tmp_path):
    assert facts.shared(tmp_path, "mark", True)
    (tmp_path / "mark").mkdir()
    assert facts.shared(tmp_path, "mark", True) == ""
    assert len(list((tmp_path / "mark").iterdir())) == 1


def test_a_node_reports_whatever_hangs(monkeypatch):
    monkeypatch.setattr(facts, "patience", lambda: -0.9)
    never = threading.Event()
    found = facts.answers({("space", "/"): never.wait, ("names", "x"): lambda: "10.0.0.1"})
    never.set()
    assert found["names"]["x"] == ["10.0.0.1", None]
    assert found["space"]["/"][0] is None


def test_the_program_that_nodes_run():
    asked = {"directories": ["/", "/nowhere"], "names": ["localhost"], "secrets": [], "people": [1, 2], "shared": {}}
    program = (ROOT / "salt/_runners/_doctor/facts.py").read_text()
    words = ["/usr/bin/python3", "-c", program, json.dumps(asked)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert abs(found["now"] - time.time()) < 30
    assert found["names"] == {"localhost": ["127.0.0.1", None]}
    assert found["space"]["/"][0]["size"] > 0
    assert found["space"]["/nowhere"] == [None, None]


@pytest.fixture(scope="module")
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if self.path.startswith("/moved") else 503 if self.path.startswith("/ill") else 200)
            self.end_headers()
            self.wfile.write(b"No\n database")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_service_is_quoted_and_what_it_was_asked_is_not_told(server):
    with pytest.raises(Fault, match=f"^{server}/ill: 503 No database$"):
        ask.fetch(f"{server}/ill?token=secret")
    with pytest.raises(Fault, match="another service's answer: No database"):
        ask.fetch_json(server)
    assert ask.fetch(f"{server}/moved", expect=(302,)).status == 302


def test_what_cannot_be_reached(server, tmp_path):
    with pytest.raises(Fault, match=r"^http://127\.0\.0\.1:1/: Connection refused$"):
        ask.fetch("http://127.0.0.1:1/")
    with pytest.raises(Fault, match=f"^{tmp_path}/no.sock: No such file or directory$"):
        ask.exchange(f"{tmp_path}/no.sock")
    with pytest.raises(Fault, match="WRONG_VERSION_NUMBER|wrong version number|record layer"):
        ask.fetch(server.replace("http:", "https:"))


def test_a_command_is_quoted():
    assert ask.command("echo", "yes").stdout == "yes\n"
    with pytest.raises(Fault, match="^sh: it is broken$"):
        ask.command("sh", "-c", "echo first >&2; echo it is broken >&2; exit 3")
    with pytest.raises(Fault, match="^sleep: no answer within 0.1 s$"):
        ask.command("sleep", "5", timeout=0.1)
    with pytest.raises(Fault, match="^no-such-program: No such file or directory$"):
        ask.command("no-such-program")


def test_certificates_that_end():
    now = datetime.datetime(2026, 1, 1)
    assert door.soon("x", now + datetime.timedelta(100), now) is None
    assert door.soon("x", now + datetime.timedelta(3), now) == "x: its certificate ends in 3 days"
    assert door.soon("x", now - datetime.timedelta(3), now) == "x: its certificate ended on 2025-12-29"


ADDRESSES = {"hpc": "10.0.0.1", "people.hpc": "10.0.0.1", "any.people.hpc": "10.0.0.1", "elsewhere": "10.9.9.9"}


@pytest.mark.parametrize(
    ("people_name", "fault"),
    [
        ("people.hpc", None),
        ("*.people.hpc", None),
        ("hpc", "people's servers have the front door's name hpc: a page of one person can act as its readers"),
        ("elsewhere", "elsewhere has the address 10.9.9.9, which is not that of hpc"),
        ("unknown", "unknown has no address (unknown: Name or service not known): add the name to the DNS, beside hpc"),
    ],
)
def test_the_name_of_people_s_servers(monkeypatch, people_name, fault):
    def resolve(name, port):
        if name not in ADDRESSES:
            raise OSError(f"{name}: Name or service not known")
        return [(2, 1, 6, "", (ADDRESSES[name], port))]

    front = SimpleNamespace(headers={"Location": "https://hpc/"}, text="")
    monkeypatch.setattr(door.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(door, "fetch", lambda *arguments, **options: front)
    pillar = {**PILLAR, "cluster": {**PILLAR["cluster"], "people_name": people_name}}
    here = dataclasses.replace(site(), pillar=pillar)
    if fault is None:
        assert door.people(here) == people_name
    else:
        with pytest.raises(Fault) as found:
            door.people(here)
        assert found.value.lines == [fault]


def test_keycloaks_refusal_is_in_its_own_words():
    page = '<div><p class="instruction">Invalid parameter: redirect_uri &amp; more</p></div>'
    assert door.refusal(page) == "Invalid parameter: redirect_uri & more"
    assert door.refusal("<h1>We are sorry...</h1>").strip() == "We are sorry..."


@pytest.mark.parametrize(
    ("metrics", "complete"),
    [
        ('grafana_plugin_build_info{plugin_id="prometheus",version="13.1.9"} 1\n', True),
        ('grafana_plugin_build_info{plugin_id="loki",version="13.1.9"} 1\n', False),
        ("up 1\n", False),
    ],
    ids=["loaded", "another", "none"],
)
def test_a_grafana_without_its_data_source_is_at_fault(metrics, complete):
    class Grafana(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/monitoring/metrics" else 404)
            self.end_headers()
            self.wfile.write(metrics.encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Grafana) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked = site()
        asked = Site({**PILLAR, "grafana": {"port": server.server_port}}, [], MEMBERS, asked.accepted, asked.formulas)
        if complete:
            door.data_source(asked)
        else:
            lines, _ = fault(door.data_source, asked)
            assert lines == ["Grafana has not loaded its plugin prometheus: dashboards are empty"]
        server.shutdown()


def target(job, instance, health="down"):
    return {"labels": {"job": job, "instance": instance}, "health": health, "lastError": 'Get "http://x": refused'}


def test_a_target_whose_service_or_node_is_blamed_already_is_not_told_again():
    asked = [target("keycloak", "127.0.0.1:9000"), target("node", "w1"), target("node", "w2"), target("x", "y", "up")]
    assert watch.down(asked, {"keycloak"}, {"master", "w2"}) == ["node w2: refused"]
    assert len(watch.down(asked, set(), {"master", "w1", "w2"})) == 3
    assert watch.down([target("grafana", "127.0.0.1:3000")], {"/monitoring/"}, set()) == []


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x", bytes(28)])
def test_what_is_no_nfs_server(monkeypatch, answer):
    monkeypatch.setattr(stores, "exchange", lambda *arguments: answer)
    with pytest.raises(Fault):
        stores.nfs(site())


def test_environments_whose_newest_build_failed():
    environments = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "new"}]
    states = [(9, 2, "FAILED"), (8, 1, "COMPLETED"), (7, 1, "FAILED"), (6, 5, "FAILED")]
    builds = [{"id": number, "environment_id": of, "status": state} for number, of, state in states]
    assert services.failed_builds(environments, builds) == [("b", 9)]


@pytest.mark.parametrize(
    ("declared", "failed", "current", "expected"),
    [
        (["a", "x"], ["a", "x", "ipykernel"], ["a", "ipykernel"], False),
        (["a"], ["a", "x", "ipykernel"], ["a", "ipykernel"], True),
        (["a", {"pip": ["y"]}], ["a", "x"], [{"pip": ["y"]}, "a"], True),
        (["a"], ["a", "ipykernel"], ["a", "x", "ipykernel"], False),
        (["a"], ["a", "ipykernel"], ["a", "ipykernel"], False),  # its channels, or the word to build it again
        (["a"], ["a", "ipykernel"], [], False),
        (None, ["a"], ["b"], False),
    ],
)
def test_what_failed_and_is_asked_for_no_more(declared, failed, current, expected):
    entry = None if declared is None else {"dependencies": declared}
    assert services.taken_back(entry, failed, current) is expected


# Together, as Salt loads it


@pytest.fixture
def runners(options, tmp_path):
    def load(cluster):
        (tmp_path / "pillar").mkdir()
        (tmp_path / "pillar/cluster.sls").write_text(cluster)
        opts = options("master", tmp_path / "salt", tmp_path / "pillar")
        Path(opts["pki_dir"], "minions").mkdir(parents=True)
        return SimpleNamespace(opts=opts, functions=salt.loader.runner(opts))

    return load


def test_with_a_broken_pillar_that_is_the_only_fault(runners):
    loaded = runners("cluster: {name: [}")
    found = loaded.functions["cluster.doctor"]()
    states = {check["name"]: (check["state"], check["because"]) for check in found["data"]["checks"]}
    assert states.pop("pillar") == ("failed", "")
    assert set(states.values()) == {("not checked", "pillar")}
    assert found["data"]["retcode"] == 1
    page = salt.loader.outputters({**loaded.opts, "color": False})[found["outputter"]](found["data"])
    assert "FAILED" in page
    assert "salt-run cluster.validate" in page


def test_what_slurmctld_runs_is_compared_with_what_is_declared():
    assert slurm.not_loaded("Match", {"main"}, {"main"}) == []
    assert slurm.not_loaded("Different Ours=0x1 Slurmctld=0x2", {"main", "odd"}, {"main", "long"}) == [
        "slurmctld has not loaded the slurm.conf that is in place",
        "partition long is declared, slurmctld does not have it",
        "slurmctld has the partition odd, which is not declared",
    ]


def test_resources_that_a_node_did_not_register_are_named():
    declared = {"w1": None, "w2": "gpu:a100:2,shard:4"}
    assert slurm.unregistered({"w1": "", "w2": "gpu:a100:2(S:0),shard:a100:4(S:0)"}, declared) == []
    assert slurm.unregistered({"w1": "", "w2": ""}, declared) == [
        "nodes.w2.gres is gpu:a100:2,shard:4, w2 has registered none"
    ]


def test_no_advice_restarts_slurmctld_for_its_configuration():
    advice = {check.name: check.advice for check in table.CHECKS}
    assert all("do not restart slurmctld" in advice[name] for name in ("slurm.conf", "configuration"))

"""unit.current: services that did not load a file after it was written are restarted or reloaded."""

import datetime
import os
import time

import pytest

from tests.unit.load import load

unit = load("_states/unit.py", "unit_state")


def shown(start, change=None, reload="success", active="active"):
    """What ``systemctl show`` prints of a unit that started at ``start`` and changed at ``change``, both in seconds."""

    def text(seconds):
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%a %Y-%m-%d %H:%M:%S.%f UTC")

    return {
        "ActiveState": active,
        "ActiveEnterTimestamp": text(start),
        "StateChangeTimestamp": text(change or start),
        "ReloadResult": reload,
    }


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that makes a run of one service with one file, and returns outcome and actions."""
    file = tmp_path / "daemon.conf"
    file.write_text("a")

    def made(state, *, reload=False, result=True, changes=None, test=False, works=True, written=None):
        if written:
            os.utime(file, (written, written))
        service: dict = {"state": "service", "fun": "running", "__id__": "Daemon is running", "name": "daemon"}
        service |= {"watch": [{"file": "Daemon is configured"}], "reload": reload}
        managed = {"state": "file", "fun": "managed", "__id__": "Daemon is configured", "name": str(file)}
        actions = []
        monkeypatch.setattr(unit, "__lowstate__", [managed, service], raising=False)
        outcome = {"result": result, "changes": changes or {}}
        monkeypatch.setattr(unit, "__running__", {unit._tag(service): outcome}, raising=False)
        monkeypatch.setattr(unit, "__opts__", {"test": test}, raising=False)
        monkeypatch.setattr(unit, "_show", lambda name: state)

        def act(do):
            actions.append(do)
            return works

        functions = {f"service.{do}": lambda name, do=do: act(do) for do in ("restart", "reload")}
        monkeypatch.setattr(unit, "__salt__", functions, raising=False)
        return unit.current("x"), actions

    return made


NOW = time.time() - 100


def test_a_service_that_started_after_its_file_is_left_alone(run):
    assert run(shown(NOW), written=NOW - 1) == ({**EMPTY, "comment": "Services run with their files."}, [])


EMPTY = {"name": "x", "changes": {}, "result": True}


def test_a_service_that_started_before_its_file_is_restarted(run):
    ret, actions = run(shown(NOW), written=NOW + 1)
    assert (ret["result"], list(ret["changes"]), actions) == (True, ["daemon"], ["restart"])


def test_a_reload_counts_if_it_succeeded(run):
    assert run(shown(NOW - 9, NOW), reload=True, written=NOW - 1)[1] == []
    assert run(shown(NOW - 9, NOW, reload="exit-code"), reload=True, written=NOW - 1)[1] == ["reload"]
    assert run(shown(NOW - 9, NOW), reload=False, written=NOW - 1)[1] == ["restart"]


def test_a_reload_that_fails_fails_the_state(run):
    ret, actions = run(shown(NOW), reload=True, works=False, written=NOW + 1)
    assert (ret["result"], actions) == (False, ["reload"])
    assert "daemon: reload failed: journalctl" in ret["comment"]


def test_nothing_is_done_in_test_mode(run):
    ret, actions = run(shown(NOW), test=True, written=NOW + 1)
    assert (ret["result"], list(ret["changes"]), actions) == (None, ["daemon"], [])


@pytest.mark.parametrize(
    "about",
    [{"result": False}, {"changes": {"daemon": True}}, {"state": "inactive"}, {"written": time.time() + 9999}],
    ids=["failed", "acted", "inactive", "future"],
)
def test_services_that_are_left_alone(run, about):
    state = shown(NOW, active=about.pop("state", "active"))
    assert run(state, **{"written": NOW + 1, **about})[1] == []

"""What qhub-backup makes of what restic says, of its settings and of its own metrics."""

import contextlib
import json
import sqlite3
import subprocess
import sys

import pytest

from tests.unit.load import load


@pytest.fixture(scope="module")
def program():
    return load("formulas/backup/files/qhub-backup", "qhub_backup")


def test_what_restic_says_is_told_without_its_wrapping(program):
    unreadable = {"message_type": "error", "error": {"message": "input/output error"}, "item": "/home/ada/x"}
    last = {"message_type": "exit_error", "code": 12, "message": "Fatal: wrong password or no key found"}
    lines = [json.dumps(unreadable), '{"message_type": "status"}', json.dumps(last), "plain text", "12"]
    said = "/home/ada/x: input/output error\nFatal: wrong password or no key found\nplain text"
    assert program.said("\n".join(lines)) == said


def test_a_repository_is_named_without_its_password(program):
    restic = program.Restic("rest:https://cluster:sesame@backup.example.org/x", "/password", {"A": "b"})
    assert str(restic) == "rest:https://**@backup.example.org/x"
    assert restic.environment["A"] == "b"
    assert restic.directory is None


def test_variables_are_taken_as_they_are(program, tmp_path):
    (tmp_path / "environment").write_text("# ours\nNAME=a=b 'c' $d\n\nOTHER=\n")
    assert program.variables(tmp_path / "environment") == {"NAME": "a=b 'c' $d", "OTHER": ""}


def test_metrics_are_read_as_they_were_told(program, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "METRICS", tmp_path / "node-exporter/qhub_backup.prom")
    assert program.read_metrics() == {}
    told = {"last_success_timestamp_seconds": 1795630950.0, "size_bytes": 94676404.0}
    program.write_metrics(told)
    assert program.read_metrics() == told
    assert program.METRICS.stat().st_mode & 0o777 == 0o644
    assert "# TYPE qhub_backup_size_bytes gauge\nqhub_backup_size_bytes 94676404\n" in program.METRICS.read_text()


def test_who_is_known_under_another_number_is_found(program):
    """Of the groups there are in any case, one has another number in the backup."""
    users, groups = program.numbers({"users": {}, "groups": {"root": 0, "mail": 4711}})
    assert (users, groups) == ({}, {4711: program.grp.getgrnam("mail").gr_gid})


def test_only_what_is_missing_is_brought_back(program, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").touch()
    missing = {name: program.is_missing(tmp_path / name) for name in ("empty", "home", "home/file", "none")}
    assert missing == {"empty": True, "home": False, "home/file": False, "none": True}


def test_a_name_is_a_pattern_for_itself(program):
    assert program.as_pattern("a*b?[c]") == r"a\*b\?\[c]"


def asked_of(program, path, content=b""):
    return subprocess.run([sys.executable, "-I", "-c", program, path], input=content, capture_output=True, check=False)


def test_a_database_of_a_service_is_read_and_written(program, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "live")) as live:
        live.execute("CREATE TABLE clusters AS SELECT 7 AS id")
        live.commit()
        read = asked_of(program.READ_SQLITE, tmp_path / "live")
    assert asked_of(program.WRITE_SQLITE, tmp_path / "restored", read.stdout).returncode == 0
    assert (tmp_path / "restored").stat().st_mode & 0o777 == 0o600
    with contextlib.closing(sqlite3.connect(tmp_path / "restored")) as restored:
        assert restored.execute("SELECT id FROM clusters").fetchall() == [(7,)]


def test_a_link_in_the_place_of_a_database_is_refused_and_not_followed(program, tmp_path):
    (tmp_path / "secret").write_text("root's")
    for link in ("database", "database.part"):
        (tmp_path / link).symlink_to("secret")
    refused = asked_of(program.READ_SQLITE, tmp_path / "database")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"symbolic links" in refused.stderr
    assert asked_of(program.WRITE_SQLITE, tmp_path / "database", b"new").returncode == 0
    assert (tmp_path / "secret").read_text() == "root's"
    assert not (tmp_path / "database").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database", "secret"]

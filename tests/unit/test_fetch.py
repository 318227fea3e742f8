"""The fetcher: files for a mirror, downloads after an interruption, and versions that stay installed."""

import hashlib
import http.server
import io
import json
import re
import subprocess
import sys
import tarfile
import threading

import pytest

from tests.unit.conftest import ROOT
from tests.unit.load import load


@pytest.fixture
def download(tmp_path):
    """Return a function that runs the fetcher for two programs, of which ``away`` is not to be had."""
    (tmp_path / "here").write_text("a program")
    digest = hashlib.sha256(b"a program").hexdigest()
    listed = {
        name: {"version": "1", "file": name, "url": (tmp_path / name).as_uri(), "sha256": {"any": digest}}
        for name in ("here", "away")
    }
    (tmp_path / "map.json").write_text(json.dumps(listed))

    def run(*words):
        command = [sys.executable, ROOT / "salt/bootstrap/fetch.py", "--map", tmp_path / "map.json", "download"]
        return subprocess.run([*command, tmp_path / "mirror", *words], capture_output=True, text=True, timeout=60)

    return run


def test_all_is_fetched_but_what_a_site_does_without(download, tmp_path):
    assert download("--without=away").returncode == 0
    assert [path.name for path in (tmp_path / "mirror").iterdir()] == ["here"]


def test_what_is_not_to_be_had_is_an_error(download):
    result = download()
    assert result.returncode == 1
    assert "away 1 is not to be had" in result.stderr


def test_doing_without_something_unknown_is_refused(download, tmp_path):
    result = download("--without=awya")
    assert result.returncode == 1
    assert "awya is not in" in result.stderr
    assert not (tmp_path / "mirror").exists()


# Interrupted downloads

BODY = bytes(range(256)) * 400


class Maker(http.server.BaseHTTPRequestHandler):
    """Serves ``BODY``, in the way that the path names; keeps the ranges that were asked for."""

    protocol_version = "HTTP/1.1"
    asked: list[str | None] = []

    def do_GET(self):
        way, asked = self.path.strip("/"), self.headers.get("Range")
        self.asked.append(asked)
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and way != "without-ranges" else 0
        self.close_connection = True
        if way == "missing":
            self.send_error(404)
        elif way == "not-http":
            self.wfile.write(b"220 this is another protocol\r\n")
        elif first >= len(BODY):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(BODY)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif way == "cut-chunk":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"1000\r\nonly this")
        else:
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(BODY) - 1}/{len(BODY)}")
            self.send_header("Content-Length", str(len(BODY) - first))
            self.end_headers()
            half = first + (len(BODY) - first) // 2 if len(self.asked) == 1 and way.startswith("cut") else None
            self.wfile.write(BODY[first:half])

    def log_message(self, *_):
        pass


@pytest.fixture
def maker():
    """A server of a file."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Maker) as server:
        Maker.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def fetch(tmp_path, maker):
    """Return a function that fetches the maker's file by one of its ways: ``(file, error)``, one of them ``None``."""
    program = load("salt/bootstrap/fetch.py", "bootstrap_fetch")

    def run(way):
        url = f"http://127.0.0.1:{maker.server_port}/{way}"
        entry = {"version": "1", "file": way, "url": url, "sha256": hashlib.sha256(BODY).hexdigest()}
        try:
            return program.fetch("program", entry, tmp_path), None
        except SystemExit as error:
            return None, str(error.code)

    return run


def test_a_download_goes_on_where_it_stopped(fetch, maker, tmp_path):
    file, error = fetch("cut")
    assert f"the connection ended after {len(BODY) // 2} of {len(BODY)} bytes" in error
    assert (tmp_path / "cut.part").read_bytes() == BODY[: len(BODY) // 2]
    file, error = fetch("cut")
    assert file.read_bytes() == BODY
    assert Maker.asked == [None, f"bytes={len(BODY) // 2}-"]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("way", "left", "requests"),
    [
        ("whole", BODY, 1),  # the fetcher was killed before it gave the file its name
        ("whole", BODY + b"more", 2),
        ("whole", bytes(len(BODY)), 2),
        ("whole", bytes(len(BODY) // 2), 2),
        ("without-ranges", BODY[:9], 1),
        ("whole", b"", 1),
    ],
    ids=["complete", "too-long", "another-file-complete", "another-file", "no-ranges", "empty"],
)
def test_whatever_is_left_of_a_download_the_next_run_has_the_file(fetch, maker, tmp_path, *, way, left, requests):
    (tmp_path / f"{way}.part").write_bytes(left)
    file, error = fetch(way)
    assert error is None
    assert file.read_bytes() == BODY
    assert len(Maker.asked) == requests


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("missing", "the server answered 404 Not Found"),
        ("cut-chunk", "the connection ended before all of it came"),
        ("not-http", "the answer is not HTTP (BadStatusLine)"),
    ],
)
def test_a_failed_download_is_reported_in_words(fetch, way, words):
    file, error = fetch(way)
    assert file is None
    assert f"/{way}: {words}\n" in error


def test_a_server_that_does_not_answer_is_reported_in_words(fetch, maker):
    maker.shutdown()
    maker.server_close()
    assert "Connection refused" in fetch("whole")[1]
    assert "urlopen" not in fetch("whole")[1]


# What is installed


@pytest.fixture
def opt(tmp_path, monkeypatch):
    """Return a function that runs the fetcher's command line, and its output; programs are below ``tmp_path/opt``."""
    program = load("salt/bootstrap/fetch.py", "bootstrap_fetch")
    monkeypatch.setattr(program, "INSTALLED", tmp_path / "opt")
    monkeypatch.setattr(program, "CACHE", tmp_path / "cache")
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as archive:
        for name, mode in {"x-2/bin/x": 0o700, "x-2/data/plugin.json": 0o640}.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, 4
            archive.addfile(member, io.BytesIO(b"text"))
    digest = hashlib.sha256((tmp_path / "archive.tar.gz").read_bytes()).hexdigest()
    entry = {"version": "2", "file": "archive.tar.gz", "url": (tmp_path / "archive.tar.gz").as_uri()}
    (tmp_path / "map.json").write_text(json.dumps({"x": {**entry, "sha256": {"any": digest}}}))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["fetch.py", "--map", str(tmp_path / "map.json"), *words])
        program.main()

    return run


def modes(directory):
    return {
        str(path.relative_to(directory)): oct(path.stat().st_mode & 0o777)
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_services_can_read_and_run_what_is_unpacked(opt, tmp_path):
    opt("install", "x")
    assert modes(tmp_path / "opt/x-2") == {"bin/x": "0o755", "data/plugin.json": "0o644"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "opt/x-2").rglob("*") if path.is_dir()} == {0o755}


def test_older_versions_are_removed_once_the_listed_one_is_in_place(opt, tmp_path, capsys):
    opt("install", "x")
    installed, kept = tmp_path / "opt", {"x-2", "x-tools-1", "x-data", "y-1", "x"}
    for name in ("x-1", "x-1.9.part", "x-tools-1", "x-data", "y-1"):
        (installed / name).mkdir()
    (installed / "x-1/data").symlink_to(tmp_path / "cache")
    (installed / "x").symlink_to(installed / "x-1")
    opt("prune", "x")
    assert (installed / "x-1").is_dir(), "it is the one in use"
    (installed / "x").unlink()
    (installed / "x").symlink_to(installed / "x-2")
    with pytest.raises(SystemExit) as found:
        opt("prune", "--check", "x")
    assert found.value.code == 1
    assert (installed / "x-1").is_dir()
    opt("prune", "x")
    assert {path.name for path in installed.iterdir()} == kept
    assert (tmp_path / "cache").is_dir()
    with pytest.raises(SystemExit) as found:
        opt("prune", "--check", "x")
    assert found.value.code == 0
    assert f"removed {installed / 'x-1'}\n" in capsys.readouterr().out

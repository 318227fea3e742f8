"""What is fetched for a mirror."""

import hashlib
import json
import subprocess
import sys

import pytest

from tests.unit.conftest import ROOT


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

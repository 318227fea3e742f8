"""The core of the tests: each of its entries names tests that exist."""

import subprocess
import sys

import pytest

from tests.conftest import part
from tests.core import CORE, covers, in_core
from tests.unit.conftest import ROOT


@pytest.fixture(scope="module")
def core():
    """The node ids that pytest collects of the core, without those of unit tests."""
    paths = sorted({entry.partition("::")[0] for entries in CORE.values() for entry in entries} - {"tests/unit"})
    words = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "--core", *paths]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_every_entry_names_tests(core):
    nodeids = [*core, __file__.removeprefix(f"{ROOT}/")]
    missing = [entry for entries in CORE.values() for entry in entries if not any(covers(entry, id) for id in nodeids)]
    assert not missing


def test_only_the_core_is_chosen(core):
    assert core and all(map(in_core, core))


def test_every_promise_has_tests():
    assert not [promise for promise, entries in CORE.items() if not promise or not entries]


@pytest.mark.parametrize(
    ("nodeid", "covered"),
    [
        ("tests/lab", True),
        ("tests/lab/test_a.py::test_b", True),
        ("tests/lab::x", True),
        ("tests/lab[a]", True),
        ("tests/lab2/test_a.py::test_b", False),
        ("tests/unit/test_a.py", False),
    ],
)
def test_an_entry_covers_whole_names(nodeid, covered):
    assert covers("tests/lab", nodeid) is covered


@pytest.mark.parametrize(
    ("nodeid", "in_all", "in_the_core"),
    [
        ("tests/unit/test_a.py::test_b[c/d]", "unit", "unit"),
        ("tests/functional/test_a.py::test_b", "functional", "functional"),
        ("tests/lab/test_dask.py::test_b", "lab to n", "lab"),
        ("tests/lab/test_ssh.py::test_b", "lab from o", "lab"),
        ("tests/lab/security/test_ssh.py::test_b", "lab to n", "lab"),
    ],
)
def test_the_core_takes_one_lab(nodeid, in_all, in_the_core):
    assert (part(nodeid, core=False), part(nodeid, core=True)) == (in_all, in_the_core)

"""Tests are marked by their directory, ``--core`` chooses those of tests/core.py, and two processes share them."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.core import in_core

HERE = Path(__file__).parent
LAYERS = ("unit", "functional", "lab")
#: The parts of a run, in the order in which pytest-xdist's processes begin them. A process runs a part from start to
#: end, so that its machines are booted once. The tests of the lab mostly wait. All of them are two parts, each with a
#: lab of its own; the core of them is one part, and takes one lab.
PARTS = ("lab", "lab to n", "unit", "functional", "lab from o")


def part(nodeid, core):
    """Return the part of a run that a test belongs to."""
    _, layer, name, *_ = nodeid.split("/")
    if layer != "lab" or core:
        return layer
    return "lab to n" if name < "test_o" else "lab from o"


class ByPart(LoadScopeScheduling):
    """Each part is run by one process. The first process, whose lab has the number that the caller chose, begins."""

    @property
    def nodes(self):
        return sorted(super().nodes, key=lambda node: node.gateway.id)

    def _split_scope(self, nodeid):
        return part(nodeid, self.config.option.core)


def pytest_addoption(parser):
    parser.addoption("--core", action="store_true", help="only the tests that tests/core.py names")


def pytest_xdist_make_scheduler(config, log):
    return ByPart(config, log)


def pytest_collection_modifyitems(config, items):
    core = config.option.core
    if core:
        config.hook.pytest_deselected(items=[item for item in items if not in_core(item.nodeid)])
        items[:] = [item for item in items if in_core(item.nodeid)]
    for item in items:
        layer = item.path.relative_to(HERE).parts[0]
        if layer in LAYERS:
            item.add_marker(getattr(pytest.mark, layer))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: PARTS.index(part(item.nodeid, core)))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """End with a line for each failure, short enough to be read where only the end of a log is kept.

    pytest's own summary, which pyproject.toml turns off, has whole messages there: some are a highstate's.
    """
    for word in ("failed", "error"):
        for report in terminalreporter.getreports(word):
            crash = getattr(report.longrepr, "reprcrash", None)
            first, *_ = (crash.message if crash else str(report.longrepr)).splitlines() or [""]
            terminalreporter.write_line(f"{word.upper()} {report.nodeid.removeprefix('tests/')} - {first}"[:160])

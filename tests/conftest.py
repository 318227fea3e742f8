"""Each test is marked by the directory it is in; two processes of pytest-xdist's share them as PARTS says."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
LAYERS = ("unit", "functional", "lab")
#: What one process does in one go, as it shares machines, in the order in which they are begun. The lab's tests, which
#: wait for the most part, are two: each has a lab of its own.
PARTS = ("lab to n", "unit", "functional", "lab from o")


def part(nodeid):
    """Return the part that a test belongs to."""
    _, layer, file, *_ = nodeid.split("/")
    return layer if layer != "lab" else "lab to n" if file < "test_o" else "lab from o"


class ByPart(LoadScopeScheduling):
    """Each part is one process's."""

    def _split_scope(self, nodeid):
        return part(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return ByPart(config, log)


def pytest_collection_modifyitems(config, items):
    for item in items:
        layer = item.path.relative_to(HERE).parts[0]
        if layer in LAYERS:
            item.add_marker(getattr(pytest.mark, layer))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: PARTS.index(part(item.nodeid)))


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

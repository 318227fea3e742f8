"""Each test is marked by the directory it is in; with pytest-xdist, tests of one directory run one after another."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
LAYERS = ("unit", "functional", "lab")


class ByLayer(LoadScopeScheduling):
    """A process has all tests of a layer, which share machines."""

    def _split_scope(self, nodeid):
        return nodeid.split("/")[1]


def pytest_xdist_make_scheduler(config, log):
    return ByLayer(config, log)


def pytest_collection_modifyitems(items):
    for item in items:
        layer = item.path.relative_to(HERE).parts[0]
        if layer in LAYERS:
            item.add_marker(getattr(pytest.mark, layer))

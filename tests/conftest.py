"""Each test is marked by the directory it is in; tests of one directory run one after another."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
LAYERS = ("unit", "functional", "lab")


def pytest_collection_modifyitems(items):
    for item in items:
        layer = item.path.relative_to(HERE).parts[0]
        if layer in LAYERS:
            item.add_marker(getattr(pytest.mark, layer))
            item.add_marker(pytest.mark.xdist_group(layer))

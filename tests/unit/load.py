"""Files of this repository as modules, whatever they are called: Salt and services load them in ways of their own."""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

from tests.unit.conftest import ROOT


def load(path, name):
    """Return the file at ``path``, from the repository's top, as the module ``name``."""
    loader = SourceFileLoader(name, str(ROOT / path))
    module = sys.modules[name] = module_from_spec(spec_from_loader(name, loader))
    loader.exec_module(module)
    return module

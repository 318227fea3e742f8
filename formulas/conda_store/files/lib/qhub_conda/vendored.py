"""`import conda` means the conda that conda-lock brings (conda_lock._vendor), pinned with it: there is no other one.

conda is published as an installer and as a package for itself. Of what is in Python's index under its name nothing can
be used, so the copy in conda-lock is the way to have one version of it, checked by hash, with and without a way out.
"""

import importlib
import importlib.abc
import importlib.util
import logging
import sys

VENDORED = "conda_lock._vendor."


class VendoredConda(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``conda`` and what is below it under its other name: one module with two names, not two modules."""

    def __init__(self):
        self.own = {}

    def find_spec(self, name, path=None, target=None):
        if name == "conda" or name.startswith("conda."):
            return importlib.util.spec_from_loader(name, self)
        return None

    def create_module(self, spec):
        module = importlib.import_module(VENDORED + spec.name)
        self.own[spec.name] = module.__spec__, module.__dict__.get("__loader__")
        return module

    def exec_module(self, module):
        module.__spec__, module.__loader__ = self.own.pop(module.__spec__.name)


sys.meta_path.insert(0, VendoredConda())

if not hasattr(logging, "_acquireLock"):  # gone in Python 3.13; conda 24.7 calls it
    logging._acquireLock, logging._releaseLock = logging._lock.acquire, logging._lock.release  # type: ignore[attr-defined]

"""A bare root in which Salt is installed from the package registries, as on a site without a mirror."""

import contextlib
import os
import tempfile
from pathlib import Path

from tests.lab.harness import image, settings
from tests.lab.harness.shell import run, step

INSTALL = (f"{settings.CHECKOUT}/salt/bootstrap/install.sh", f"{settings.CHECKOUT}/salt/bootstrap/requirements.lock")


class FromRegistries:
    """The root: ``start`` it once, ``destroy`` it."""

    def __init__(self):
        self.mounts = contextlib.ExitStack()

    def start(self):
        """Make the root and install Salt in it."""
        directory = Path(self.mounts.enter_context(tempfile.TemporaryDirectory()))
        self.root = self.mounts.enter_context(image.overlay(image.base(), directory))
        image.connect(self.root)
        self.mounts.enter_context(image.mounted("--bind", settings.REPOSITORY, self.root / settings.CHECKOUT[1:]))
        self.mounts.enter_context(image.mounted("-t", "proc", "proc", self.root / "proc"))
        with step("Installing Salt from the registries"):
            self.install()

    def destroy(self):
        self.mounts.close()

    def install(self):
        environment = {key: value for key, value in os.environ.items() if key != "PIP_FIND_LINKS"}
        self.run(*INSTALL, env=environment)

    def run(self, *words, **options):
        """Run a command inside; return what it prints."""
        return run(["chroot", self.root, *words], timeout=600, **options).stdout

"""Salt is installed from the package registries, as on a site without a mirror."""

import os

from tests.lab.harness import image, settings
from tests.lab.harness.shell import run

LOCK = f"{settings.CHECKOUT}/salt/bootstrap/requirements.lock"


def test_salt_is_installed_from_the_registries_as_the_lock_says(tmp_path):
    root = tmp_path / "root"
    environment = {key: value for key, value in os.environ.items() if key != "PIP_FIND_LINKS"}
    with image.overlay(image.base(), tmp_path):
        image.connect(root)
        with (
            image.mounted("--bind", settings.REPOSITORY, root / settings.CHECKOUT[1:]),
            image.mounted("-t", "proc", "proc", root / "proc"),
        ):
            install = ["chroot", root, f"{settings.CHECKOUT}/salt/bootstrap/install.sh", LOCK]
            run(install, timeout=600, env=environment)
            assert run(["chroot", root, "salt-call", "--version"]).stdout.startswith("salt-call 3008.")
            made = (root / "opt/qhub").stat().st_mtime_ns
            run(install, timeout=60, env=environment)
            assert (root / "opt/qhub").stat().st_mtime_ns == made, "a second run does nothing"

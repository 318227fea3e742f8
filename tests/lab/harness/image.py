"""The bare machine's file system, and the mirror its packages come from; both cached."""

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from . import settings
from .shell import run, step

# A bare machine in a room without a way out: it knows no package source until it is told of the mirror.
CUSTOMIZE = (
    "mv $1/etc/apt/sources.list $1/etc/apt/sources.list.connected",
    ": > $1/etc/resolv.conf",
    "rm -f $1/etc/machine-id $1/etc/ssh/ssh_host_* && : > $1/etc/machine-id",
    "chroot $1 systemctl enable systemd-networkd.service",
)
WITHOUT = [f"--without={name}" for name in settings.ABSENT_PROGRAMS]


def alone(build):
    """Let one process at a time, and one thread, run a function that fills the cache."""

    @functools.wraps(build)
    def locked():
        settings.CACHE.mkdir(parents=True, exist_ok=True)
        with (settings.CACHE / f"{build.__name__}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return build()

    return locked


@alone
def base():
    """Return the directory of the bare Debian root, building it first if the recipe is new."""
    recipe = repr((settings.RELEASE, settings.IMAGE_PACKAGES, CUSTOMIZE))
    root = settings.CACHE / f"image-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not root.exists():
        with step("Building the Debian image"), _new_directory(root) as building:
            run(
                ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
                 f"--include={','.join(settings.IMAGE_PACKAGES)}",
                 *(f"--customize-hook={hook}" for hook in CUSTOMIZE), settings.RELEASE, building],
                timeout=900,
            )  # fmt: skip
        _delete_older(root)
    return root


def _delete_older(current):
    mounts = Path("/proc/mounts").read_text()
    for image in settings.CACHE.glob("image-*"):
        if image != current and str(image) not in mounts:
            shutil.rmtree(image)


@alone
def mirror():
    """Return the mirror's directory, filled by salt/bootstrap/mirror.py in a throwaway root."""
    directory = settings.CACHE / "mirror"
    inputs = [
        *sorted((settings.REPOSITORY / "formulas").glob("*/defaults.yaml")),
        *sorted((settings.REPOSITORY / "formulas").glob("*/requirements.lock")),
        *sorted((settings.REPOSITORY / "salt/bootstrap").glob("*.lock")),
        *(settings.REPOSITORY / f"salt/bootstrap/{name}.py" for name in ("mirror", "fetch", "channel")),
        settings.REPOSITORY / "salt/artifacts.json",
    ]
    recipe = repr((base().name, settings.TEST_NODE_PACKAGES))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs) + recipe.encode()).hexdigest()
    stamp = directory / "STAMP"
    if not stamp.exists() or stamp.read_text() != digest:
        directory.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        with step("Fetching programs"):  # here, where every registry's client is; the script below finds them done
            fetch = settings.REPOSITORY / "salt/bootstrap/fetch.py"
            run([sys.executable, fetch, "download", directory / "artifacts", *WITHOUT], timeout=900)
        with step("Filling the package mirror"), tempfile.TemporaryDirectory(dir=settings.CACHE) as scratch:
            _fill(directory, Path(scratch))
        stamp.write_text(digest)
    return directory


def _fill(directory, scratch):
    root = scratch / "root"
    with overlay(base(), scratch):
        connect(root)
        with mounted("--bind", directory, root / settings.MIRROR[1:]), mounted(
            "--bind", settings.REPOSITORY, root / settings.CHECKOUT[1:]
        ), mounted("-t", "proc", "proc", root / "proc"):  # fmt: skip
            script = f"{settings.CHECKOUT}/salt/bootstrap/mirror.py"
            environment = {k: v for k, v in os.environ.items() if k != "PIP_FIND_LINKS"}
            run(
                ["chroot", root, "python3", script, settings.MIRROR, *settings.TEST_NODE_PACKAGES, *WITHOUT],
                timeout=1800,
                env=environment,
            )


def connect(root):
    """Let a root use the package registries as this machine does: same resolver, same trusted CAs."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy(root / "etc/apt/sources.list.connected", root / "etc/apt/sources.list")
    local = Path("/usr/local/share/ca-certificates")
    if local.is_dir():
        shutil.copytree(local, root / "usr/local/share/ca-certificates", dirs_exist_ok=True)
        run(["chroot", root, "update-ca-certificates"])
    for pattern in ("*proxy*", "*cert*"):
        for source in Path("/etc/apt/apt.conf.d").glob(pattern):
            shutil.copy(source, root / "etc/apt/apt.conf.d")


@contextlib.contextmanager
def overlay(lower, directory):
    """Mount ``directory/root`` as a writable layer over ``lower``; the layer stays, the mount goes."""
    for name in ("upper", "work", "root"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    with mounted(
        "-t", "overlay", "-o", f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work",
        "overlay", directory / "root",
    ):  # fmt: skip
        yield directory / "root"


@contextlib.contextmanager
def mounted(*arguments):
    """Mount as ``mount`` with these arguments does, the last of which is made if it is not there."""
    arguments[-1].mkdir(parents=True, exist_ok=True)
    run(["mount", *arguments])
    try:
        yield
    finally:
        run(["umount", arguments[-1]])


@contextlib.contextmanager
def _new_directory(final):
    """Build in a sibling directory and rename at the end, so that an interrupted build leaves no half image."""
    building = final.with_name(final.name + ".part")
    shutil.rmtree(building, ignore_errors=True)
    yield building
    building.rename(final)

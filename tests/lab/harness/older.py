"""The project as it was: an older release of it, and the mirror that went with it.

Keycloak, Traefik and JupyterHub are in versions that were published before. Of Slurm a registry has only the packages
of today: they are packed again, as they are, under a lower version.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from . import image, settings
from .shell import run, step

PROGRAMS = {
    "keycloak": {
        "version": "26.7.2",
        "sha256": {"any": "4f3ce3b797a9d98998b7f1a6bd5d2b9832100faea66c48988713a9b23eda5c44"},
    },
    "traefik": {
        "version": "3.7.13",
        "sha256": {"x86_64": "327314f5a64a9b25aba05bf83b0942ab3bfde65573cee8cc1a9e5b49d268cd63"},
    },
}
JUPYTERHUB = {"version": "6.1.0", "sha256": "1dd7921a4952e0520d85e25867eeae5f74c2490f32b6d3dd11684a51ac54df46"}
LOCKED = "jupyterhub=={version} \\\n    --hash=sha256:{sha256}\n".format(**JUPYTERHUB)
SLURM = "24.11.5-4~older"
CACHE = settings.CACHE / "older"
WHEELS = CACHE / "jupyterhub-{version}".format(**JUPYTERHUB)
# What makes a checkout, as far as a master needs it.
CHECKOUT = ("_modules", "_states", "formulas", "pillar", "salt")
# Where a machine has today's mirror and the older packages; what is at settings.MIRROR are links to them.
TODAY, OLDER = "/srv/mirror-today", "/srv/older"
BINDS = {TODAY: f"{settings.CACHE / 'mirror'}:ro", OLDER: f"{CACHE}:ro"}


def artifacts():
    """Return salt/artifacts.json as it was."""
    today = json.loads((settings.REPOSITORY / "salt/artifacts.json").read_text())
    return {name: entry | PROGRAMS.get(name, {}) for name, entry in today.items()}


@image.alone
def programs():
    """Return the directory with the older programs, fetched unless they are there from before."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as listed:
        json.dump(artifacts(), listed)
        listed.flush()
        fetch = settings.REPOSITORY / "salt/bootstrap/fetch.py"
        run([sys.executable, fetch, "--map", listed.name, "download", CACHE, *PROGRAMS], timeout=300)
    return CACHE


@image.alone
def packages():
    """Have the older JupyterHub, and Slurm's packages under a lower version with what an index says of them."""
    if not WHEELS.exists():
        with tempfile.NamedTemporaryFile("w") as lock:
            lock.write(LOCKED)
            lock.flush()
            words = ["pip", "download", "--quiet", "--no-deps", "--require-hashes", "--requirement", lock.name]
            environment = {key: value for key, value in os.environ.items() if key != "PIP_FIND_LINKS"}
            run([sys.executable, "-m", *words, "--dest", WHEELS], timeout=300, env=environment)
    target, index = CACHE / "debs", (settings.CACHE / "mirror/debs/Packages").read_text()
    stanzas = [each for each in index.split("\n\n") if "\nSource: slurm-wlm\n" in each]
    stamp = target / "made-of"
    if not stamp.exists() or stamp.read_text() != "\n\n".join(stanzas):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        with step("Packing Slurm under a lower version"):
            (target / "Packages").write_text("\n\n".join(repacked(each, target) for each in stanzas) + "\n\n")
        stamp.write_text("\n\n".join(stanzas))


def repacked(stanza, target):
    """Pack one package under the lower version; return its stanza of the index."""
    today, name = (re.search(rf"^{key}: (.*)$", stanza, re.MULTILINE)[1] for key in ("Version", "Package"))
    file = target / f"{name}_{SLURM}.deb"
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        root = Path(scratch, "root")
        source = re.search(r"^Filename: (.*)$", stanza, re.MULTILINE)[1]
        run(["dpkg-deb", "-R", settings.CACHE / "mirror/debs" / source, root])
        control = root / "DEBIAN/control"
        control.write_text(control.read_text().replace(today, SLURM))
        run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", root, file])
    said = stanza.replace(source, f"./{file.name}").replace(today, SLURM)
    said = re.sub(r"^(MD5sum|SHA1|SHA512): .*\n", "", said, flags=re.MULTILINE)
    said = re.sub(r"^Size: .*$", f"Size: {file.stat().st_size}", said, flags=re.MULTILINE)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return re.sub(r"^SHA256: .*$", f"SHA256: {digest}", said, flags=re.MULTILINE)


def checkout(directory, *, older):
    """Make a directory the checkout of this release, or of the one before."""
    for name in CHECKOUT:  # not itself: a machine has it bound in
        shutil.rmtree(directory / name, ignore_errors=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(settings.REPOSITORY / name, directory / name, symlinks=True, ignore=ignore)
    if older:
        (directory / "salt/artifacts.json").write_text(json.dumps(artifacts()))
        lock = directory / "formulas/jupyterhub/requirements.lock"
        text, found = re.subn(r"^jupyterhub==.*\n( +--hash=.*\n)+", lambda _: LOCKED, lock.read_text(), flags=re.M)
        assert found == 1
        lock.write_text(text)


def mirror(directory, *, older):
    """Make a directory the mirror of this release, or of the one before: links, which hold on a machine with BINDS."""
    image.mirror()
    for path in directory.iterdir():  # not itself: a machine has it bound in
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    today = settings.CACHE / "mirror"
    if older:
        programs()
        packages()
        for part in ("artifacts", "debs", "wheels/jupyterhub"):
            (directory / part).mkdir(parents=True)
        entries = (artifacts()[name] for name in PROGRAMS)
        _link(directory / "artifacts", [CACHE / entry["file"].format(**entry) for entry in entries], OLDER)
        _link(directory / "debs", (CACHE / "debs").glob("*.deb"), f"{OLDER}/debs")
        _link(directory / "wheels/jupyterhub", WHEELS.iterdir(), f"{OLDER}/{WHEELS.name}")
        # What it is now is not there: APT would take it.
        stanzas = (today / "debs/Packages").read_text().split("\n\n")
        rest = [each for each in stanzas if "\nSource: slurm-wlm\n" not in each]
        (directory / "debs/Packages").write_text((CACHE / "debs/Packages").read_text() + "\n\n".join(rest))
        wheels = set((today / "wheels/jupyterhub").iterdir())
        (wheel,) = (today / "wheels/jupyterhub").glob("jupyterhub-[0-9]*")
        _link(directory / "wheels/jupyterhub", wheels - {wheel}, f"{TODAY}/wheels/jupyterhub")
        sums = (today / "SHA256SUMS").read_text().splitlines(keepends=True)
        others = [line for line in sums if line.split()[1] not in ("debs/Packages", str(wheel.relative_to(today)))]
        (directory / "SHA256SUMS").write_text("".join(others))
        for part in ("artifacts", "debs", "wheels"):
            _link(directory / part, (today / part).iterdir(), f"{TODAY}/{part}")
    _link(directory, today.iterdir(), TODAY)


def _link(directory, paths, there):
    """Link in a directory to those of ``paths`` that it does not have; a machine has them in ``there``."""
    for path in paths:
        if not os.path.lexists(directory / path.name):
            (directory / path.name).symlink_to(f"{there}/{path.name}")

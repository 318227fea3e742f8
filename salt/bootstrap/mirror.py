#!/usr/bin/env python3
"""Collect what an installation needs into one directory, for sites without a way out.

    mirror.py DIRECTORY [PACKAGE ...] [--without PROGRAM ...]

Run it as root on a connected machine with the release that the cluster's nodes run; it can be a
container. Afterwards DIRECTORY holds

    debs/      every Debian package named by a ``packages`` list in formulas/*/defaults.yaml or needed
               by the bootstrap, with what they depend on, as a flat APT repository
               (and any PACKAGE named on the command line, for a site's own use)
    wheels/    Salt and its Python dependencies, built from the hash-pinned requirements.lock, and in wheels/FORMULA
               those of each formulas/FORMULA/requirements.lock
    artifacts/ the programs of salt/artifacts.json, each with the checksum pinned there, but for a PROGRAM that the
               site does without (grafana, with ``monitoring: {page: prometheus}``)
    channel/   a channel of conda packages, for environments that conda-store builds: this Debian's Python, and what
               channel.lock lists
    SHA256SUMS of the packages, the wheels and the channel

Copy or mount it on every node and name it in the pillar (``artifacts: {mirror: DIRECTORY}``) and in
``master.sh --mirror DIRECTORY``. Running it again adds what is missing and drops what is obsolete.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FORMULAS = HERE.parent.parent / "formulas"
BOOTSTRAP_PACKAGES = ["python3-venv", "ca-certificates"]
BUILD_PACKAGES = [
    *("apt-utils", "gcc", "libc6-dev", "python3-dev", "python3-packaging", "python3-venv", "python3-yaml"),
]
APT = [HERE / "apt_get.py", "--yes", "--quiet=2", "--no-install-recommends"]


def run(command, stderr=subprocess.STDOUT):
    """Run a command; its output is shown only if it fails."""
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=stderr, check=False)
    if result.returncode:
        sys.exit(f"mirror: {' '.join(map(str, command))}\n{result.stdout}")
    return result.stdout


def apt(*words):
    """Run apt-get. What it reports is shown: for which process it waits, for one."""
    run([*APT, *words], stderr=None)


def package_lists(tree):
    """Yield each list that stands under a key ``packages``, however deep."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "packages" and isinstance(value, list):
                yield value
            else:
                yield from package_lists(value)


def debs(target, installed, more):
    """Download the packages of every formula and ``more`` (a list), and what they need.

    ``installed`` is a dpkg status file: what it has is on every node already.

    One resolver run per list: lists may exclude each other.
    """
    import yaml  # from python3-yaml, installed by main()

    target.mkdir(parents=True, exist_ok=True)
    lists = [BOOTSTRAP_PACKAGES, *([name] for name in more)]
    for defaults in sorted(FORMULAS.glob("*/defaults.yaml")):
        tree = yaml.safe_load(defaults.read_text())
        lists += package_lists({family: tree.get(family, {}) for family in ("default", "Debian")})
    for packages in lists:
        places = ["-o", f"Dir::Cache::archives={target}", "-o", f"Dir::State::status={installed}"]
        apt(*places, "install", "--download-only", *packages)
    apt("-o", f"Dir::Cache::archives={target}", "autoclean")
    index = subprocess.run(["apt-ftparchive", "packages", "."], cwd=target, check=True, stdout=subprocess.PIPE).stdout
    (target / "Packages").write_bytes(index)


def wheels(target, scratch):
    """Build what each lock lists into wheels; every download is checked against the lock's hashes."""
    locks = {target: HERE / "requirements.lock"}
    locks |= {target / lock.parent.name: lock for lock in FORMULAS.glob("*/requirements.lock")}
    for obsolete in {path for path in target.glob("*/") if path.is_dir()} - set(locks):
        shutil.rmtree(obsolete)
    for directory, lock in locks.items():
        stamp = directory / "requirements.lock"
        if stamp.exists() and stamp.read_text() == lock.read_text():
            continue
        for old in directory.glob("*"):
            if old.is_file():
                old.unlink()
        build(lock, directory, scratch)
        stamp.write_text(lock.read_text())


def build(lock, directory, scratch):
    """Build what one lock lists into wheels; ``scratch`` becomes an environment with pip."""
    if not (scratch / "bin").exists():
        run([sys.executable, "-m", "venv", scratch])
    pip, options = [scratch / "bin/pip", "--quiet"], ["--no-deps", "--ignore-requires-python"]
    downloads = tempfile.mkdtemp(dir=scratch)  # pip wheel itself would not ignore what a package says of Python
    run([*pip, "download", *options, "--require-hashes", "--requirement", lock, "--dest", downloads])
    run([*pip, "wheel", *options, "--wheel-dir", directory, *sorted(Path(downloads).iterdir())])


def channel(target, scratch):
    """Make the conda channel, unless it is of this lock and this Python."""
    program, lock, stamp = HERE / "channel.py", HERE / "channel.lock", target / "made-of"
    made_of = f"{sys.version}\n{hashlib.sha256(program.read_bytes()).hexdigest()}\n{lock.read_text()}"
    if stamp.exists() and stamp.read_text() == made_of:
        return
    found = Path(tempfile.mkdtemp(dir=scratch))
    build(lock, found, scratch / "environment")
    run([sys.executable, program, target, *sorted(found.glob("*.whl"))])
    stamp.write_text(made_of)


def checksums(directory):
    """Write SHA256SUMS in the form that ``sha256sum --check`` reads."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(directory)}\n"
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in ("SHA256SUMS", "lock") and path.parent != directory / "artifacts"
    ]
    (directory / "SHA256SUMS").write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("packages", nargs="*")
    parser.add_argument("--without", action="append", default=[])
    chosen = parser.parse_args()
    directory = chosen.directory.resolve()
    print("mirror: installing the tools", flush=True)
    scratch = Path(tempfile.mkdtemp())
    bare = shutil.copy("/var/lib/dpkg/status", scratch)
    apt("update")
    apt("install", *BUILD_PACKAGES)
    print("mirror: building wheels", flush=True)
    wheels(directory / "wheels", scratch / "environment")
    print("mirror: downloading packages", flush=True)
    debs(directory / "debs", bare, chosen.packages)
    print("mirror: making the conda channel", flush=True)
    channel(directory / "channel", scratch)
    print("mirror: fetching programs", flush=True)
    without = [f"--without={name}" for name in chosen.without]
    run([sys.executable, HERE / "fetch.py", "download", directory / "artifacts", *without])
    checksums(directory)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()

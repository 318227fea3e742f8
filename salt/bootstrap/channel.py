#!/usr/bin/env python3
"""Make a conda channel of this Debian's own Python and of wheels, for sites that build environments without a way out.

    channel.py DIRECTORY WHEEL ...

DIRECTORY becomes the channel: package `python` is Debian's interpreter and standard library, every other package one of
the wheels, under the name that it has in Python's index. Wheels have to fit that Python, and pip has to be among them,
which conda lets every environment have. The same input gives the same files. conda-store wants it over HTTP
(formulas/conda_store serves it).
"""

import bz2
import concurrent.futures
import configparser
import email
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# conda writes the real prefix in its place when it links a package.
PLACEHOLDER = "/opt/conda_prefix_placeholder_" + "p" * 60
TIMESTAMP = 1700000000
PYTHON = "{}.{}".format(*sys.version_info[:2])
VERSION = "{}.{}.{}".format(*sys.version_info[:3])
SITE = f"lib/python{PYTHON}/site-packages"
SUBDIRS = ("linux-64" if os.uname().machine == "x86_64" else f"linux-{os.uname().machine}", "noarch")
PLATFORM, NOARCH = SUBDIRS
MARKERS = {"python_version": PYTHON, "python_full_version": VERSION, "implementation_version": VERSION}


class Package:
    """One package. ``files``: {path: (bytes, executable, has the placeholder)}; ``links``: {path: target}."""

    def __init__(self, subdir, name, version, depends, files, *, links=None, scripts=(), summary=""):
        self.files, self.links, self.scripts = files, links or {}, scripts
        noarch = subdir == NOARCH
        self.index = {
            "name": name,
            "version": version,
            "build": "py_0" if noarch else f"py{PYTHON.replace('.', '')}_0",
            "build_number": 0,
            "depends": sorted(set(depends)),
            "arch": None if noarch else os.uname().machine,
            "platform": None if noarch else "linux",
            "subdir": subdir,
            "license": "see package",
            "timestamp": TIMESTAMP * 1000,
            **({"noarch": "python"} if noarch else {}),
        }
        self.about = {"summary": summary or name, "license": "see package"}

    def metadata(self):
        """Yield what is in the package's ``info/``: ``(path, bytes)``."""
        paths = []
        for path, (content, _, has_prefix) in sorted(self.files.items()):
            entry = {"_path": path, "path_type": "hardlink", "size_in_bytes": len(content), "sha256": sha256(content)}
            if has_prefix:
                entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
            paths.append(entry)
        paths += [
            {"_path": path, "path_type": "softlink", "size_in_bytes": 0, "sha256": sha256(b"")}
            for path in sorted(self.links)
        ]
        found = {"index": self.index, "about": self.about, "paths": {"paths_version": 1, "paths": paths}}
        if "noarch" in self.index:
            link = {"type": "python", "entry_points": list(self.scripts)}
            found["link"] = {"noarch": link, "package_metadata_version": 1}
        for name, content in found.items():
            yield f"info/{name}.json", json.dumps(content).encode()
        yield "info/files", "".join(f"{entry['_path']}\n" for entry in paths).encode()
        with_prefix = [path for path, (_, _, has_prefix) in sorted(self.files.items()) if has_prefix]
        if with_prefix:
            yield "info/has_prefix", "".join(f'{PLACEHOLDER} text "{path}"\n' for path in with_prefix).encode()

    def write(self, channel):
        """Write the package's file; return ``(subdir, file's name, its entry in repodata.json, what it is)``."""
        index = self.index
        name = f"{index['name']}-{index['version']}-{index['build']}.tar.bz2"
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:bz2", compresslevel=1) as archive:
            members = [(path, text, False) for path, text in self.metadata()]
            members += [(path, text, executable) for path, (text, executable, _) in self.files.items()]
            for path, text, executable in members:
                member = tarfile.TarInfo(path)
                member.size, member.mode, member.mtime = len(text), 0o755 if executable else 0o644, TIMESTAMP
                archive.addfile(member, io.BytesIO(text))
            for path, target in self.links.items():
                member = tarfile.TarInfo(path)
                member.type, member.linkname, member.mode, member.mtime = tarfile.SYMTYPE, target, 0o777, TIMESTAMP
                archive.addfile(member)
        data = content.getvalue()
        (channel / index["subdir"] / name).write_bytes(data)
        sums = {"md5": hashlib.md5(data, usedforsecurity=False).hexdigest(), "sha256": sha256(data)}
        return index["subdir"], name, {**index, "size": len(data), **sums}, self.about


def sha256(content):
    """Return a SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def debian_python():
    """
    Return Debian's Python as a package. It finds its library beside itself, wherever that is. What Debian has
    otherwise than Python, dist-packages, is set back: for ``sysconfig`` by a change; ``site`` is part of the binary,
    so where that one looks is a link.
    """
    source, files, links = Path(f"/usr/lib/python{PYTHON}"), {}, {}
    for top, directories, names in source.walk():
        left_out = ("__pycache__", "test", "dist-packages", "site-packages")
        directories[:] = sorted(d for d in directories if d not in left_out and not d.startswith("config-"))
        for name in sorted(names):
            path = top / name
            inside = f"lib/python{PYTHON}/{path.relative_to(source)}"
            if name in ("EXTERNALLY-MANAGED", "sitecustomize.py"):
                continue
            if path.is_symlink():
                if path.exists() and not path.readlink().is_absolute():
                    links[inside] = str(path.readlink())
                continue
            content = path.read_bytes()
            if inside.endswith(("/sysconfig.py", "/sysconfig/__init__.py")):
                content = with_usual_layout(content.decode()).encode()
            files[inside] = content, False, False
    files[f"bin/python{PYTHON}"] = Path(f"/usr/bin/python{PYTHON}").read_bytes(), True, False
    files[f"{SITE}/README.txt"] = b"Packages are installed here.\n", False, False
    links |= {
        f"lib/python{PYTHON}/dist-packages": "site-packages",
        "bin/python": f"python{PYTHON}",
        "bin/python3": f"python{PYTHON}",
    }
    return Package(PLATFORM, "python", VERSION, [], files, links=links, summary=f"Debian's CPython {VERSION}")


def with_usual_layout(sysconfig):
    """Return Debian's module ``sysconfig`` with the layout of Python itself."""
    for old, new in (
        ("os.environ.get('DEB_PYTHON_INSTALL_LAYOUT', 'posix_local')", "'posix_prefix'"),
        ("prefix_scheme = 'posix_local'", "prefix_scheme = 'posix_prefix'"),
    ):
        if sysconfig.count(old) != 1:
            sys.exit(f"channel: this Debian's Python is not what this was made for: no {old} in sysconfig")
        sysconfig = sysconfig.replace(old, new)
    return sysconfig


class Wheel:
    """A wheel, and what it becomes."""

    def __init__(self, path):
        self.zip = zipfile.ZipFile(path)
        names = self.zip.namelist()
        self.info = next(name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
        self.metadata = email.message_from_bytes(self.zip.read(f"{self.info}/METADATA"))
        self.name, self.version = canonicalize_name(self.metadata["Name"]), self.metadata["Version"]
        tags = email.message_from_bytes(self.zip.read(f"{self.info}/WHEEL"))
        pure = all(tag.endswith("-none-any") for tag in tags.get_all("Tag", []))
        self.pure = pure and tags["Root-Is-Purelib"].lower() == "true"

    def depends(self, wheels, extras=("",)):
        """Yield conda's dependencies. It has no extras: those of `foo[bar]` are written out where they are wanted."""
        for text in self.metadata.get_all("Requires-Dist", []):
            wanted = Requirement(text)
            if wanted.marker and not any(wanted.marker.evaluate({**MARKERS, "extra": each}) for each in extras):
                continue
            name = canonicalize_name(wanted.name)
            versions = ",".join(sorted(str(each) for each in wanted.specifier)).replace("===", "==")
            yield f"{name} {versions}".strip()
            if wanted.extras and name in wheels:
                yield from wheels[name].depends(wheels, tuple(wanted.extras))

    def package(self, wheels):
        """Return the package: files where conda wants them, and a script for each entry point."""
        site, programs = ("site-packages", "python-scripts") if self.pure else (SITE, "bin")
        files: dict[str, tuple[bytes, bool, bool]] = {}
        for entry in self.zip.infolist():
            if entry.is_dir():
                continue
            content, executable = self.zip.read(entry), bool((entry.external_attr >> 16) & 0o111)
            special = re.match(r"[^/]+\.data/([^/]+)/(.*)", entry.filename)
            kind, path = special.groups() if special else ("purelib", entry.filename)
            if kind == "scripts":
                has_python = content.startswith(b"#!python")
                if has_python:
                    content = f"#!{PLACEHOLDER}/bin/python".encode() + content[content.index(b"\n") :]
                files[f"{programs}/{path}"] = content, True, has_python
            elif kind == "data":
                files[path] = content, executable, False
            elif kind == "headers":
                files[f"include/python{PYTHON}/{self.name}/{path}"] = content, False, False
            else:
                files[f"{site}/{path}"] = content, executable, False
        files[f"{site}/{self.info}/INSTALLER"] = b"conda\n", False, False
        scripts = self.scripts()
        if not self.pure:  # for the others conda writes them
            files |= {f"bin/{name}": (script(target), True, True) for name, target in scripts.items()}
        major, minor = PYTHON.split(".")
        needed = re.sub(r"\s", "", self.metadata.get("Requires-Python") or "")
        python = f"python {needed}".strip() if self.pure else f"python >={PYTHON},<{major}.{int(minor) + 1}"
        return Package(
            NOARCH if self.pure else PLATFORM,
            self.name,
            self.version,
            [python, *self.depends(wheels)],
            files,
            scripts=[f"{name} = {target}" for name, target in scripts.items()],
            summary=str(self.metadata.get("Summary", "")),
        )

    def scripts(self):
        """Return the wheel's programs: ``{name: "module:function"}``."""
        points = _Points(delimiters=("=",))
        name = f"{self.info}/entry_points.txt"
        if name in self.zip.namelist():
            points.read_string(self.zip.read(name).decode())
        if not points.has_section("console_scripts"):
            return {}
        return {name: target.split("[")[0].strip() for name, target in points["console_scripts"].items()}


class _Points(configparser.ConfigParser):
    """Entry points, whose names are as they are written."""

    def optionxform(self, optionstr):
        return optionstr


def script(target):
    """Return a program that calls ``module:function``."""
    module, function = target.split(":")
    lines = [
        f"#!{PLACEHOLDER}/bin/python",
        "import sys",
        f"from {module} import {function.split('.')[0]}",
        'if __name__ == "__main__":',
        f"    sys.exit({function}())",
        "",
    ]
    return "\n".join(lines).encode()


def convert(path, channel, wheels):
    """Write the package of one wheel, or of Debian's Python if ``path`` is ``None``."""
    if path is None:
        return debian_python().write(channel)
    known = {wheel.name: wheel for wheel in map(Wheel, wheels)}
    return Wheel(path).package(known).write(channel)


def make(channel, wheels):
    """Make the channel in an empty directory."""
    for subdir in SUBDIRS:
        (channel / subdir).mkdir(parents=True)
    with concurrent.futures.ProcessPoolExecutor() as pool:
        jobs = [pool.submit(convert, path, channel, wheels) for path in (None, *wheels)]
        packages = sorted((job.result() for job in jobs), key=lambda package: package[1])
    described = {}
    for subdir in SUBDIRS:
        entries = {name: entry for where, name, entry, _ in packages if where == subdir}
        repodata = {"info": {"subdir": subdir}, "packages": entries, "packages.conda": {}, "removed": [],
                    "repodata_version": 1}  # fmt: skip
        text = json.dumps(repodata, indent=1).encode()
        (channel / subdir / "repodata.json").write_bytes(text)
        (channel / subdir / "repodata.json.bz2").write_bytes(bz2.compress(text))
    for subdir, _, entry, about in packages:
        described[entry["name"]] = {"subdirs": [subdir], "version": entry["version"], **about}
    whole = {"channeldata_version": 1, "packages": described, "subdirs": list(SUBDIRS)}
    (channel / "channeldata.json").write_text(json.dumps(whole, indent=1))


def main():
    if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    channel = Path(sys.argv[1])
    building = channel.with_name(f"{channel.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    make(building, [Path(path) for path in sys.argv[2:]])
    shutil.rmtree(channel, ignore_errors=True)
    building.rename(channel)


if __name__ == "__main__":
    main()

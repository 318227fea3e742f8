"""A conda channel of tiny packages, served over http: what a solver has to do, without what it takes long to link.

``alpha`` is there in two versions, ``beta`` needs it, ``gamma`` needs nothing, ``delta`` needs what is not there.
"""

import bz2
import hashlib
import http.server
import io
import json
import tarfile
import threading
from functools import partial

PACKAGES = [("alpha", "1.0", []), ("alpha", "1.1", []), ("beta", "2.0", ["alpha"]), ("gamma", "3.0", [])]
BROKEN = [("delta", "1.0", ["missing"])]
STAMP = 1700000000


def package(path, name, version, depends):
    """Write one package and return its entry in the channel's index."""
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": depends, "arch": None}
    index |= {"platform": None, "subdir": "noarch", "noarch": "generic", "timestamp": STAMP * 1000}
    text, inside = f"{name} {version}\n".encode(), f"share/{name}.txt"
    listed = {"_path": inside, "path_type": "hardlink", "size_in_bytes": len(text)}
    listed["sha256"] = hashlib.sha256(text).hexdigest()
    files = {
        "info/index.json": json.dumps(index).encode(),
        "info/files": f"{inside}\n".encode(),
        "info/paths.json": json.dumps({"paths_version": 1, "paths": [listed]}).encode(),
        "info/about.json": b"{}",
        inside: text,
    }
    with tarfile.open(path, "w:bz2") as archive:
        for member, content in files.items():
            entry = tarfile.TarInfo(member)
            entry.size, entry.mtime, entry.mode = len(content), STAMP, 0o644
            archive.addfile(entry, io.BytesIO(content))
    content = path.read_bytes()
    sums = {kind: hashlib.new(kind, content, usedforsecurity=False).hexdigest() for kind in ("md5", "sha256")}
    return {**index, "size": len(content), **sums}


def write(directory, packages):
    """Write a channel of ``packages``; return ``{file name: entry}``."""
    found = {}
    for subdir in ("noarch", "linux-64"):
        (directory / subdir).mkdir(parents=True)
        if subdir == "noarch":
            for name, version, depends in packages:
                file = f"{name}-{version}-0.tar.bz2"
                found[file] = package(directory / subdir / file, name, version, depends)
        entries = found if subdir == "noarch" else {}
        text = json.dumps({"info": {"subdir": subdir}, "packages": entries, "packages.conda": {}}).encode()
        (directory / subdir / "repodata.json").write_bytes(text)
        (directory / subdir / "repodata.json.bz2").write_bytes(bz2.compress(text))
    return found


class Channels:
    """The channels ``tiny`` and ``second``, which is another of the same packages."""

    def __init__(self, directory, address):
        self.packages = write(directory / "tiny", PACKAGES + BROKEN)
        write(directory / "second", PACKAGES)
        handler = partial(_Quiet, directory=directory)
        self.server = http.server.ThreadingHTTPServer((address, 0), handler)
        self.tiny, self.second = (f"http://{address}:{self.server.server_port}/{name}" for name in ("tiny", "second"))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def lockfile(self, *files):
        """Return a lockfile of conda-lock, of these files of the channel."""
        packages = [
            {
                "name": self.packages[file]["name"],
                "version": self.packages[file]["version"],
                "manager": "conda",
                "platform": "linux-64",
                "dependencies": {},
                "url": f"{self.tiny}/noarch/{file}",
                "hash": {kind: self.packages[file][kind] for kind in ("md5", "sha256")},
                "category": "main",
                "optional": False,
            }
            for file in files
        ]
        metadata = {
            "content_hash": {"linux-64": "0" * 64},
            "channels": [{"url": self.tiny, "used_env_vars": []}],
            "platforms": ["linux-64"],
            "sources": ["environment.yaml"],
        }
        return {"version": 1, "metadata": metadata, "package": packages}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass

"""The steps of a conda build that read or run what packages bring. The program conda-build starts this module as a
Unix user that owns one namespace's builds and package cache:

    python -m qhub_conda.steps [CACHE [PREFIX]]

Requests are lines of JSON on standard input, a socket: {"step": NAME, "arguments": {...}}. Each is answered with lines
{"log": TEXT} or {"data": BASE64}, and then one of {"result": ...}, {"failed": [STATUS, COMMAND, OUTPUT]} and
{"error": TRACEBACK}.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path

import qhub_conda.vendored  # noqa: F401

# isort: split
import conda_lock.conda_lock
from conda.common.path import strip_pkg_extension
from conda_lock.lookup import DEFAULT_MAPPING_URL
from conda_store_server._internal import action, schema
from conda_store_server._internal.action.add_conda_prefix_packages import list_conda_prefix_packages
from conda_store_server._internal.plugins.lock.conda_lock.conda_lock import CondaLock
from conda_store_server.plugins.plugin_context import PluginContext

PIECE = 1 << 20  # bytes of an archive that are sent at once


class Log:
    """A text stream whose lines go to the worker, which writes them into the build's log."""

    def __init__(self, send):
        self.send = send

    def write(self, text):
        self.send({"log": text})

    def flush(self):
        """Lines are sent at once."""


class Steps:
    """One method for each step; arguments and results are JSON."""

    def __init__(self, log, cache=None, prefix=None):
        self.log, self.cache, self.prefix = log, cache and Path(cache), prefix and Path(prefix)

    def lock(self, specification, platforms, conda_command, conda_flags):
        """Solve a specification; return the lock."""
        settings = types.SimpleNamespace(conda_command=conda_command)
        config = types.SimpleNamespace(conda_flags=conda_flags)
        conda_store = types.SimpleNamespace(get_settings=lambda: settings, config=config)
        context = PluginContext(conda_store=conda_store, stdout=self.log)
        specification = schema.CondaSpecification.model_validate(specification)
        # conda-lock needs to know where other names of Python packages are listed, which conda-store does not pass on.
        defaults = conda_lock.conda_lock.run_lock.__kwdefaults__ or {}
        conda_lock.conda_lock.run_lock.__kwdefaults__ = {**defaults, "mapping_url": DEFAULT_MAPPING_URL}
        return CondaLock().lock_environment(context=context, spec=specification, platforms=platforms)

    def fetch(self, lock):
        """Download the packages of a lock into the namespace's cache."""
        for package in lock["package"]:
            if package["manager"] == "conda":
                self.forget_another(package)
        action.action_fetch_and_extract_conda_packages(conda_lock_spec=lock, pkgs_dir=self.cache, stdout=self.log)

    def forget_another(self, package):
        """Remove a package of the same file name and other content, which conda would fetch again without a network."""
        archive = self.cache / Path(package["url"]).name
        directory = Path(strip_pkg_extension(str(archive))[0])
        try:
            record = json.loads((directory / "info/repodata_record.json").read_text())
        except (OSError, ValueError):
            record = {}
        if (record.get("url"), record.get("md5")) != (package["url"], package["hash"].get("md5")):
            archive.unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)

    def install(self, lock):
        """Install a lock into the build; packages run their scripts, and pip runs what its packages bring."""
        action.action_install_lockfile(conda_lock_spec=lock, conda_prefix=self.prefix, stdout=self.log)

    def permissions(self, permissions):
        """Set the modes of the build's files; the owner stays."""
        action.action_set_conda_prefix_permissions(
            conda_prefix=self.prefix, permissions=permissions, uid=None, gid=None, stdout=self.log
        )

    def packages(self):
        """Return the packages in the build."""
        return list_conda_prefix_packages(self.prefix)

    def stats(self):
        """Return how many bytes the build has."""
        return action.action_get_conda_prefix_stats(self.prefix, stdout=self.log).result

    def export(self, conda_command):
        """Return the build's content as conda exports it."""
        return action.action_generate_conda_export(
            conda_command=conda_command, conda_prefix=self.prefix, stdout=self.log
        ).result

    def pack(self):
        """Pack the build into an archive, and send the archive in pieces."""
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory, "environment.tar.gz")
            action.action_generate_conda_pack(conda_prefix=self.prefix, output_filename=archive, stdout=self.log)
            with archive.open("rb") as file:
                while piece := file.read(PIECE):
                    self.log.send({"data": base64.b64encode(piece).decode()})

    def clean(self):
        """Remove the packages of the cache that no build uses."""
        command = ["conda", "clean", "--quiet", "--yes", "--packages", "--tarballs"]
        subprocess.run(command, check=True, timeout=3600, stdout=subprocess.DEVNULL)


def main():
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)  # programs that the steps run do not inherit the socket
    requests = connection.makefile("r", encoding="utf-8")

    def send(content):
        connection.sendall(json.dumps(content, default=str).encode() + b"\n")

    steps = Steps(Log(send), *sys.argv[1:])
    for line in requests:
        request = json.loads(line)
        try:
            answer = {"result": getattr(steps, request["step"])(**request["arguments"])}
        except subprocess.CalledProcessError as error:
            answer = {"failed": [error.returncode, list(map(str, error.cmd)), error.output]}
        except (Exception, SystemExit):
            answer = {"error": traceback.format_exc()}
        send(answer)


if __name__ == "__main__":
    main()

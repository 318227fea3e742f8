"""The worker's part of a build. The module qhub_conda.steps does whatever reads or runs the content of packages, as the
Unix user of the build's namespace; this module puts those steps in the place of conda-store's own functions.

The program conda-build listens on two sockets. Behind ``online`` steps reach the network, behind ``offline`` they do
not: scripts of conda packages run offline. pip fetches and runs its packages in one go, so installing those is online.
"""

import base64
import contextlib
import functools
import json
import socket
import subprocess
import types
from pathlib import Path

from conda_store_server._internal import action, conda_utils, schema
from conda_store_server._internal.action import add_conda_prefix_packages
from conda_store_server._internal.plugins.lock.conda_lock.conda_lock import CondaLock
from conda_store_server._internal.worker import tasks

SOCKETS = "/run/conda-build/{}.sock"
LONGEST = 1 << 28  # characters of one line from a build, which is not trusted
CONNECT_TIMEOUT = 30  # seconds


class StepFailed(Exception):
    """A step ended with an error; the message is its traceback."""


class Connection:
    """Steps that run as one user, until the connection is closed."""

    def __init__(self, network, **request):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(CONNECT_TIMEOUT)
        self.socket.connect(SOCKETS.format(network))
        self.socket.settimeout(None)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.send(request)

    def send(self, content):
        self.socket.sendall(json.dumps(content).encode() + b"\n")

    def answer(self, log=None, file=None):
        """Return the result of the step that runs; its log goes to ``log``, the data it sends to ``file``."""
        while line := self.lines.readline(LONGEST):
            content = json.loads(line)
            if "log" in content:
                if log:
                    log.write(content["log"])
            elif "data" in content:
                file.write(base64.b64decode(content["data"]))
            elif "failed" in content:
                raise subprocess.CalledProcessError(*content["failed"])
            elif "error" in content:
                raise StepFailed(content["error"])
            else:
                return content["result"]
        raise StepFailed("The build's process ended before its time: journalctl -u 'conda-build-*'")

    def close(self):
        self.lines.close()
        self.socket.close()


class Builder:
    """The steps of one build, as the user of its namespace."""

    def __init__(self, **request):
        self.request, self.connections = request, {}

    def run(self, network, step, log=None, file=None, **arguments):
        if network not in self.connections:
            self.connections[network] = Connection(network, **self.request)
        connection = self.connections[network]
        connection.send({"step": step, "arguments": arguments})
        return connection.answer(log, file)

    def close(self):
        for connection in self.connections.values():
            connection.close()


def of_namespace(namespace, build=None):
    """Return the builder of a namespace (from the database), and of one of its builds by key."""
    return contextlib.closing(Builder(namespace=namespace.name, number=namespace.id, build=build))


def remove(path):
    """Remove ``store/NAMESPACE/BUILD`` or ``caches/NAMESPACE``."""
    with contextlib.closing(Connection("offline", remove=str(path))) as connection:
        connection.answer()


#: The builder of the task that runs: a process of the worker runs one at a time.
current: list[Builder] = []


def as_build(task):
    """Let a task, a function of ``(db, conda_store, build)``, have the builder of its build."""

    @functools.wraps(task)
    def wrapper(db, conda_store, build):
        namespace, key = build.environment.namespace, build.build_key
        prefix = Path(conda_store.config.store_directory, namespace.name, key)
        with of_namespace(namespace, key) as builder:
            current[:] = [builder]
            try:
                return task(db, conda_store, build)
            finally:
                with contextlib.suppress(OSError):  # a build that failed early leaves an empty directory
                    prefix.rmdir()

    return wrapper


def as_solve(task):
    """Let a task that only solves have a builder without a build."""

    @functools.wraps(task)
    def wrapper(db, conda_store, solve):
        with contextlib.closing(Builder(number=None)) as builder:
            current[:] = [builder]
            return task(db, conda_store, solve)

    return wrapper


def run(*arguments, **options):
    return types.SimpleNamespace(result=current[0].run(*arguments, **options))


def lock_environment(_self, context, spec, platforms=None):
    return run(
        "online",
        "lock",
        context.stdout,
        specification=spec.model_dump(),
        platforms=platforms or [conda_utils.conda_platform()],
        conda_command=context.conda_store.get_settings().conda_command,
        conda_flags=context.conda_store.config.conda_flags,
    ).result


def fetch(conda_lock_spec, pkgs_dir, stdout=None):  # noqa: ARG001
    return run("online", "fetch", stdout, lock=conda_lock_spec)


def install_lockfile(conda_lock_spec, conda_prefix, stdout=None):  # noqa: ARG001
    pip = any(package["manager"] == "pip" for package in conda_lock_spec["package"])
    return run("online" if pip else "offline", "install", stdout, lock=conda_lock_spec)


def set_permissions(conda_prefix, permissions, uid, gid, stdout=None):  # noqa: ARG001
    return run("offline", "permissions", stdout, permissions=permissions)


def list_packages(conda_prefix):  # noqa: ARG001
    return run("offline", "packages").result


def get_stats(conda_prefix, stdout=None):  # noqa: ARG001
    return run("offline", "stats", stdout)


def export(conda_command, conda_prefix, stdout=None):  # noqa: ARG001
    return run("offline", "export", stdout, conda_command=conda_command)


def pack(conda_prefix, output_filename, stdout=None):  # noqa: ARG001
    with Path(output_filename).open("wb") as file:
        return run("offline", "pack", stdout, file)


def delete_build_artifact(original, db, conda_store, artifact):
    """Delete what is kept of a build. Its directory belongs to the namespace's user."""
    if artifact.artifact_type == schema.BuildArtifactType.DIRECTORY:
        path = artifact.build.build_path(conda_store)
        remove(Path("store", path.parent.name, path.name))
        db.delete(artifact)
    else:
        original(db, conda_store, artifact)


def install():
    """Put these functions in the place of conda-store's own. For the worker, before it starts its processes."""
    conda_utils.conda_root_package_dir = lambda: None  # the steps know their cache
    CondaLock.lock_environment = lock_environment
    action.action_fetch_and_extract_conda_packages = fetch
    action.action_install_lockfile = install_lockfile
    action.action_set_conda_prefix_permissions = set_permissions
    add_conda_prefix_packages.list_conda_prefix_packages = list_packages
    action.action_get_conda_prefix_stats = get_stats
    action.action_generate_conda_export = export
    action.action_generate_conda_pack = pack
    for name in ("build_conda_environment", "build_conda_env_export", "build_conda_pack"):
        setattr(tasks, name, as_build(getattr(tasks, name)))
    tasks.solve_conda_environment = as_solve(tasks.solve_conda_environment)
    tasks.delete_build_artifact = functools.partial(delete_build_artifact, tasks.delete_build_artifact)

"""Removing what nobody needs any more: builds, what failed ones left on the disk, packages in no environment."""

import datetime
from pathlib import Path

BUSY, DONE = {"QUEUED", "BUILDING"}, "COMPLETED"


def superfluous(builds, current, limits, now):
    """
    Return which builds of one environment are to go.

    builds
        ``[(id, status, ended)]``: those that are there, ``ended`` in UTC or ``None``.
    current
        The id of the build that is used; it stays.
    limits
        ``{"builds", "failed_days"}``: completed builds that stay beside it, and days for which failed ones do; ``None``
        keeps all.
    now
        The time, UTC.
    """
    gone = []
    if limits["builds"] is not None:
        older = sorted((id for id, status, _ in builds if status == DONE and id != current), reverse=True)
        gone += older[limits["builds"] :]
    if limits["failed_days"] is not None:
        last = now - datetime.timedelta(days=limits["failed_days"])
        gone += [id for id, status, ended in builds if status == "FAILED" and id != current and ended and ended < last]
    return gone


def apply(conda_store, limits):
    """Remove what ``limits`` (the setting ``retention``) does not keep. The worker does the removing of builds."""
    from conda_store_server import api

    from qhub_conda import builds as steps

    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    store = Path(conda_store.config.store_directory)
    # In this order: what has a directory was in the database before that.
    directories = [path for path in store.glob("*/*") if path.is_dir()]
    caches = {path.name for path in store.with_name("caches").iterdir()}
    with conda_store.session_factory() as db:
        builds = api.list_builds(db).all()
        by_environment = {}
        for build in builds:
            by_environment.setdefault(build.environment, []).append((build.id, build.status.value, build.ended_on))
        needed = {build.build_path(conda_store) for build in builds if build.status.value in {*BUSY, DONE}}
        busy = any(build.status.value in BUSY for build in builds)
        for environment, listed in by_environment.items():
            for number in superfluous(listed, environment.current_build_id, limits, now):
                print(f"removing build {number} of {environment.namespace.name}/{environment.name}", flush=True)
                conda_store.delete_build(db, number)
        namespaces = {namespace.name: namespace for namespace in api.list_namespaces(db)}
        cached = [namespaces[name] for name in sorted(caches & set(namespaces))]
        if limits["packages"] and not busy:
            for namespace in cached:
                with steps.of_namespace(namespace) as builder:
                    builder.run("offline", "clean")
    for directory in set(directories) - needed:
        print(f"removing {directory}, which is of no build", flush=True)
        steps.remove(directory.relative_to(store.parent))
    for name in caches - set(namespaces):
        print(f"removing the package cache of {name}, which is no namespace", flush=True)
        steps.remove(f"caches/{name}")

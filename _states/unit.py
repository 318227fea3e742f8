"""
Keep services at the configuration that is on disk.

Salt's ``watch`` acts on files that changed in the same run. The action is lost if the run ends before, if another
requisite of the service fails, or if a reload fails while the service runs on. :func:`current` compares instead, and
so acts in the next run.
"""

import datetime
import time
from pathlib import Path

__opts__: dict
__salt__: dict
#: Set by Salt for each state: the run's states, and the outcomes of those that ran.
__lowstate__: list
__running__: dict

#: What one systemd unit tells of its last start and its last reload.
PROPERTIES = ("ActiveState", "ActiveEnterTimestamp", "StateChangeTimestamp", "ReloadResult")


def __virtual__():
    return True


def current(name):
    """
    Restart, or reload, each service of this run that has not loaded the files that the service watches.

    A service is one of the run's ``service.running`` with ``watch``; it is reloaded if it has ``reload: true``. Files
    are the watched ``file`` states, and the ``creates`` of watched ``cmd`` states. A service has loaded a file if it
    was started, or reloaded successfully, after the file was written. Services whose own state failed, or acted in
    this run, are left alone. To be the last state of a run.

    name
        Any text.

    ``changes`` is ``{unit: {"old": the newest file, "new": "restarted" or "reloaded"}}``.

    .. code-block:: yaml

        Services run with their files:
          unit.current:
            - order: last
    """
    changes, failed = {}, []
    for chunk in __lowstate__:
        if chunk["state"] != "service" or chunk["fun"] != "running" or not chunk.get("watch"):
            continue
        outcome = __running__.get(_tag(chunk)) or {}
        if outcome.get("result") is not True or outcome.get("changes"):
            continue
        loaded = loaded_at(_show(chunk["name"]), reload=bool(chunk.get("reload")))
        late = newest(_paths(chunk["watch"]), loaded) if loaded else None
        if not late:
            continue
        action = "reload" if chunk.get("reload") else "restart"
        changes[chunk["name"]] = {"old": f"started before {late} was written", "new": f"{action}ed"}
        if not __opts__["test"] and not __salt__[f"service.{action}"](chunk["name"]):
            failed.append(f"{chunk['name']}: {action} failed: journalctl -n 30 -u {chunk['name']}")
    result = False if failed else None if changes and __opts__["test"] else True
    comment = "\n".join(failed) or ("Services took up files." if changes else "Services run with their files.")
    return {"name": name, "changes": changes, "result": result, "comment": comment}


def loaded_at(shown, reload):
    """
    Return when a unit last loaded its files, in seconds since the epoch; ``None`` if the unit is not active.

    shown
        ``{property: value}`` of ``systemctl show --timestamp=us+utc``.
    reload
        Whether a reload counts as well, if it succeeded.
    """
    if shown.get("ActiveState") not in ("active", "reloading"):
        return None
    counts = reload and shown.get("ReloadResult") == "success"
    text = shown["StateChangeTimestamp" if counts else "ActiveEnterTimestamp"]
    moment = datetime.datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S.%f UTC")
    return moment.replace(tzinfo=datetime.UTC).timestamp()


def newest(paths, after):
    """Return the newest of the files (strings) that was written after ``after``; ``None`` if there is none."""
    now = time.time()
    found = [(written, str(path)) for path in paths for written, path in _written(Path(path))]
    # A time to come is that of a clock that was wrong.
    late = [pair for pair in found if after < pair[0] <= now]
    return max(late)[1] if late else None


def _written(path):
    """Yield ``(time, path)`` of a file, or of a directory's files; what Python compiles is left out."""
    if path.is_file():
        yield path.stat().st_mtime, path
    elif path.is_dir():
        for inner in path.rglob("*"):
            if inner.is_file() and "__pycache__" not in inner.parts:
                yield inner.stat().st_mtime, inner


def _paths(watched):
    """Yield the paths of what a service watches: ``[{state: id}]``."""
    for requisite in watched:
        for state, wanted in requisite.items():
            for chunk in __lowstate__:
                if chunk["state"] == state and wanted in (chunk["__id__"], chunk["name"]):
                    if state == "file" and chunk["fun"] != "absent":
                        yield chunk["name"]
                    elif state == "cmd" and isinstance(chunk.get("creates"), str):
                        yield chunk["creates"]


def _tag(chunk):
    """Return the key of a state's outcome."""
    return f"{chunk['state']}_|-{chunk['__id__']}_|-{chunk['name']}_|-{chunk['fun']}"


def _show(unit):
    """Return ``{property: value}`` of a unit."""
    argv = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", "--", unit]
    lines = __salt__["cmd.run_stdout"](argv, python_shell=False, timeout=20).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)

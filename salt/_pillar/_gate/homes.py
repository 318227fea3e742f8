"""
Homes and group folders on the master that are another name's: a person or a group that was renamed, or an id that was
given a second time.
"""

import os
from pathlib import Path

import yaml


def problems(pillar, roots):
    """
    Yield ``(path, value, allowed)`` for each person without a home, and each group without a folder, whose id a home or
    a folder of another name has.

    pillar
        The master's pillar.
    roots
        Directories (:class:`~pathlib.Path`) that formulas are in.
    """
    defaults = next(path for root in roots if (path := root / "people/defaults.yaml").is_file())
    settings = pillar.get("people")
    settings = {**yaml.safe_load(defaults.read_text())["default"], **(settings if isinstance(settings, dict) else {})}
    yield from taken(pillar, "users", "uid", settings["homes"], settings["group_folders"])
    yield from taken(pillar, "groups", "gid", settings["group_folders"])


def taken(pillar, section, key, place, other=None):
    """
    Yield the problems of one section.

    section, key
        ``users`` and ``uid``, or ``groups`` and ``gid``.
    place
        The directory that the homes or folders are in, ``None`` for none.
    other
        A directory that may be in ``place`` and is no home.
    """
    declared = pillar.get(section)
    if not isinstance(declared, dict) or not isinstance(place, str) or not Path(place).is_dir():
        return
    with os.scandir(place) as entries:
        present = {
            entry.name: entry
            for entry in entries
            if not entry.name.startswith(".") and entry.path != other and entry.is_dir(follow_symlinks=False)
        }
    ids = {name: entry.get(key) for name, entry in declared.items() if isinstance(entry, dict) and name not in present}
    if not ids:
        return
    owners = {}
    for name, entry in present.items():
        status = entry.stat(follow_symlinks=False)
        owners.setdefault(status.st_uid if key == "uid" else status.st_gid, name)
    for name, number in ids.items():
        if number in owners:
            old, new = Path(place, owners[number]), Path(place, name)
            what = "home" if key == "uid" else "folder"
            advice = f"if {owners[number]} is renamed, run first: mv {old} {new}"
            allowed = f"another {key}, as {old} has this one and {name} would get an empty {what} ({advice})"
            yield (section, name, key), number, allowed

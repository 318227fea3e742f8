"""
conda-store's environments, namespaces and settings as declared data.

The declared form is the one of ``pillar/environments.sls``; a key with a slash is an environment::

    global/analysis:
      channels: [conda-forge]              # default: conda-store's conda_default_channels
      dependencies: [python=3.13, numpy, {pip: [some-package]}]
      description: What most people need
      keep_builds: 3                       # the current one and the newest others; default: all
    global/pinned: {current_build: 12}     # this build and no other; nothing is built
    global/locked: {lockfile: salt://site/conda-lock.yml}
    namespaces:
      global: {roles: {physics: viewer}, metadata: {contact: ada}, settings: {conda_default_channels: [x]}}
    settings: {conda_included_packages: [ipykernel]}
    purge: owned

An environment also takes ``variables``, ``settings`` and ``rebuild``: text of one's own, which asks for another
build of the same specification each time it changes. What is left out is left alone.

What is compared
    The content: channels in their order, packages in any, with what conda-store adds to a specification by its
    settings. A declaration that equals an older build makes that one current instead of building again. A
    build that failed is not tried again until the declaration changes (or :func:`rebuild` is called); one that
    was cancelled, or that its worker left behind, is. The environment stays what it was until a build is complete.

Ownership
    The metadata of the namespace ``managed-by-salt``, which has no environments, says by id which environments
    and namespaces this module made; ``purge: owned`` removes only those. It also remembers which content the
    current builds have: no list of conda-store tells that, so this is what keeps one call per environment away.

What conda-store 2025.2.2 does, and what is done about it
    The settings of a namespace or environment leak into all others, until the same key is set for conda-store
    as a whole: so that is demanded. They can be set, but not unset, and those of a namespace that was deleted
    hold for the next one of its name. Two orders of the same channels are one specification: so the order is
    written into ``prefix``, which conda-store keeps and does not use. Deleted builds are listed as before, with
    size 0, and can be made current: they are left out. A build that is queued cannot be cancelled: after
    ``timeout`` it is not waited for any more. A namespace that others have roles in, or that has roles in
    others, cannot be deleted: roles go first.

Source: conda-store's REST API (``/api/v1``, and ``/api/v2`` for the list of environments).
"""

import base64
import copy
import datetime
import hashlib
import json
import os
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import requests
import yaml
from salt.exceptions import CommandExecutionError

__pillar__: dict
__salt__: dict

LEDGER = "managed-by-salt"  # the namespace whose metadata is the ledger
NEW = "new"  # the build that will be made, in changes
PAGE = 100  # conda-store gives no more, unless its max_page_size says so
SLOW = 120  # seconds for one answer
TAIL = 25  # lines of a log
SMALL = 5  # so many removals are always within purge_limit:share
CONNECTION = {
    "url": None,  # http://127.0.0.1:5000/conda-store
    "token": None,  # of an administrator of */*
    "ca": None,  # file of certificates to trust; default: the operating system's
    "timeout": 120,  # seconds to wait for conda-store
}
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
UNSOUND = ("QUEUED", "BUILDING", "FAILED", "CANCELED")
OFFLINE = re.compile(r"Max retries exceeded with url|Temporary failure in name resolution|Network is unreachable")
PYPI_UNREACHABLE = (
    "packages in {pip: [...]} come from the internet, which this machine does not reach; take them from a conda channel"
)
LEFT_BEHIND = "stuck in BUILDING state"  # what conda-store writes into the log of a build without a worker

__load__ = ["apply", "diff", "export", "rebuild", "token"]  # the rest is for tests and for these


def __virtual__():
    # Always there: a missing conda-store is said by the call that needs it.
    return True


# -- values: what is declared, in one canonical form -------------------------------------------------


class _Refused(ValueError):
    """A declared value is refused; the arguments: allowed values, path below the field, value to show."""

    def __init__(self, allowed, path="", value=None):
        super().__init__(allowed)
        self.allowed, self.path, self.value = allowed, path, value

    def line(self, path):
        """Return the line about it, the same that the pillar's gate prints; ``path`` is the field's."""
        value = "" if self.value is None else f"{shown(self.value)} is not allowed: "
        return f"{path}{self.path}: {value}{self.allowed}"


#: A user, a password or a token in an address, as in https://user:password@host and https://host/t/TOKEN/channel.
CREDENTIAL = re.compile(r"(?:https?|ftp)://[^/\s]*@|://[^/\s:]*:[^/\s]*@|://\S*/t/[^/\s]+")
PACKAGE_ALLOWED = "a package such as python=3.13: no option (-r, --...), no password or token in an address"
CHANNEL_ALLOWED = "a channel such as conda-forge, without a password or token in its address"


def masked(value):
    """Return ``value`` (text, or lists and mappings of it) with ``**`` for each credential in an address; pure."""
    if isinstance(value, dict):
        return {key: masked(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [masked(entry) for entry in value]
    if not isinstance(value, str) or "://" not in value:
        return value
    return re.sub(r"(://\S*?/t/)[^/\s]+", r"\1**", re.sub(r"://[^/\s]*@", "://**@", value))


def shown(value):
    """Return a text for a message: short, and without credentials; pure."""
    text = repr(masked(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value):
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Refused("text")
    return str(value)


def _count(value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _Refused("a whole number from 1")
    return value


def _flag(value):
    if not isinstance(value, bool):
        raise _Refused("true or false")
    return value


def _texts(value):
    if not isinstance(value, list) or not all(isinstance(entry, str) and entry.strip() for entry in value):
        raise _Refused("a list of texts")
    return [" ".join(entry.split()) for entry in value]


def _listed(value, pattern, allowed):
    """Return a list of texts that all match ``pattern`` and have no credential."""
    texts = _texts(value)
    for number, text in enumerate(texts):
        if not pattern.match(text) or CREDENTIAL.search(text):
            raise _Refused(allowed, f"[{number}]", text)
    return texts


def _channels(value):
    return _listed(value, re.compile(""), CHANNEL_ALLOWED)


def _channel_alias(value):
    return _channels([_text(value)])[0]


def _packages(value):
    return _listed(value, PACKAGE, PACKAGE_ALLOWED)


def _mapping(value):
    if not isinstance(value, dict):
        raise _Refused("a mapping")
    return value


def _choice(*choices):
    def choice(value):
        if value not in choices:
            raise _Refused(f"one of {', '.join(choices)}")
        return value

    return choice


def _artifacts(value):
    known = ("LOCKFILE", "YAML", "CONDA_PACK", "CONSTRUCTOR_INSTALLER", "LOGS", "DIRECTORY")
    if set(_texts(value)) - set(known):
        raise _Refused(f"a list of {', '.join(known)}")
    return value


PACKAGE = re.compile(r"(?:[^\s\[\]=<>]+::)?([A-Za-z0-9_][\w.-]*)")


def _package(text):
    """Return the package that a conda or PyPI dependency names, in small letters; ``""`` if none."""
    match = PACKAGE.match(text)
    return match[1].lower() if match else ""


def _dependencies(value):
    """Canonical: ``{"conda": [...], "pip": [...]}``, sorted; refuses what no build can install."""
    for number, entry in enumerate(value if isinstance(value, list) else [None]):
        path = f"[{number}]"
        try:
            if isinstance(entry, dict) and set(entry) == {"pip"}:
                path += ".pip"
                _packages(entry["pip"])
            else:
                _packages([entry])
        except _Refused as error:
            if error.value is None:
                allowed = "a list of packages such as python=3.13, at most one {pip: [...]}"
                raise _Refused(allowed, f"[{number}]") from None
            raise _Refused(error.allowed, path + error.path if "pip" in path else path, error.value) from None
    return kinds(value)


def from_pypi(specification):
    """Whether a specification or a lockfile has packages from PyPI; pure."""
    if lock := specification.get("lockfile"):
        return any(package["manager"] == "pip" for package in lock["package"])
    return bool(kinds(specification["dependencies"])["pip"])


def kinds(dependencies):
    """Return a specification's packages as ``{"conda": [...], "pip": [...]}``, sorted; pure."""
    conda, pip = set(), set()
    for entry in dependencies:
        if isinstance(entry, dict):
            pip.update(_texts(entry["pip"]))
        else:
            conda.update(_texts([entry]))
    return {"conda": sorted(conda), "pip": sorted(pip)}


def _variables(value):
    return {str(key): entry if isinstance(entry, int) else _text(entry) for key, entry in _mapping(value).items()}


def _roles(value):
    # editor is another word for developer, which conda-store answers.
    role = _choice("viewer", "developer", "editor", "admin")
    return {str(key): "developer" if role(entry) == "editor" else entry for key, entry in _mapping(value).items()}


def _lockfile(value):
    lock = _mapping(value)
    if not all(
        isinstance(entry, dict) and {"name", "url", "platform", "manager"} <= set(entry)
        for entry in lock.get("package") or [None]
    ):
        raise _Refused("a lockfile of conda-lock, or where one is (salt://..., a path)")
    for number, entry in enumerate(lock["package"]):
        if CREDENTIAL.search(str(entry["url"])):
            raise _Refused("an address without a password or token", f".package[{number}].url", entry["url"])
    return lock


SETTINGS = {  # conda-store's settings -> what they take
    **dict.fromkeys(("default_namespace", "filesystem_namespace", "default_permissions", "conda_command"), _text),
    **dict.fromkeys(("default_uid", "default_gid", "storage_threshold", "conda_max_solve_time"), _count),
    **dict.fromkeys(("conda_platforms", "conda_indexed_channels"), _texts),
    "build_artifacts_kept_on_deletion": _artifacts,
}
LOWER_SETTINGS = {  # those that namespaces and environments can have too
    "conda_solve_platforms": _texts,
    **dict.fromkeys(("conda_default_channels", "conda_allowed_channels"), _channels),
    **dict.fromkeys((f"conda_{kind}_packages" for kind in ("default", "required", "included")), _packages),
    **dict.fromkeys((f"pypi_{kind}_packages" for kind in ("default", "required", "included")), _packages),
    "conda_channel_alias": _channel_alias,
    "build_artifacts": _artifacts,
}
SETTINGS |= LOWER_SETTINGS


def _fields(table):
    """A mapping whose keys are those of ``table``."""

    def fields(value):
        for key, entry in _mapping(value).items():
            if key not in table:
                raise _Refused(f"one of {', '.join(sorted(table))}", f".{key}")
            try:
                table[key](entry)
            except _Refused as error:
                raise _Refused(error.allowed, f".{key}{error.path}", error.value) from None
        return {key: table[key](entry) for key, entry in value.items()}

    return fields


# key -> what it takes, and its canonical form. Everything else follows from these tables.
ENVIRONMENT = {
    "description": _text,
    "channels": _channels,
    "dependencies": _dependencies,
    "variables": _variables,
    "lockfile": _lockfile,
    "rebuild": _text,
    "current_build": _count,
    "keep_builds": _count,
    "settings": _fields(LOWER_SETTINGS),
}
NAMESPACE = {"metadata": _mapping, "roles": _roles, "settings": _fields(LOWER_SETTINGS)}
LIMIT = {"count": _count, "share": lambda value: value}
OPTIONS = {
    "settings": _fields(SETTINGS),
    "purge": _choice("none", "owned"),
    "purge_limit": _fields(LIMIT),
    "force": _flag,
    "timeout": _count,  # seconds one build may take
    "keep_builds": _count,  # of an environment that does not say itself
}
NAME = re.compile(r"[A-Za-z0-9+_@$&?^~=][A-Za-z0-9+_@$&?^~.=-]*")
NAME_ALLOWED = "letters, digits and + _ @ $ & ? ^ ~ . = -, not beginning with . or -"


class Declared(NamedTuple):
    """A declaration in canonical form."""

    environments: dict
    namespaces: dict
    settings: dict
    options: dict


def declare(environments):
    """Return ``(Declared, errors)`` of what the pillar says; pure. Errors are lines ``path: what is allowed``."""
    errors, found = [], {"environments": {}, "namespaces": {}}
    options: dict = {"purge": "none", "purge_limit": {}, "force": False, "timeout": 3600, "settings": {}}

    def take(path, table, entry):
        taken = {}
        for key, value in (entry or {}).items() if isinstance(entry, dict | None) else [(None, entry)]:
            if key not in table:
                errors.append(
                    f"{path}: a mapping" if key is None else f"{path}.{key}: one of {', '.join(sorted(table))}"
                )
                continue
            try:
                taken[key] = table[key](value)
            except _Refused as error:
                errors.append(error.line(f"{path}.{key}"))
        return taken

    if not isinstance(environments, dict):
        return Declared({}, {}, {}, options), ["environments: a mapping"]
    top = {key: value for key, value in environments.items() if "/" not in str(key) and key != "namespaces"}
    options |= take("environments", OPTIONS, top)
    for name, entry in environments.items():
        if "/" in str(name):
            path = f"environments.{name}"
            found["environments"][name] = take(path, ENVIRONMENT, entry)
            if not all(map(NAME.fullmatch, name.split("/"))) or name.count("/") != 1 or name.startswith(f"{LEDGER}/"):
                errors.append(f"{path}: namespace/name, each of {NAME_ALLOWED}")
            errors += [f"{path}: {allowed}" for allowed in _together(found["environments"][name])]
            found["namespaces"].setdefault(name.split("/")[0], {})
    namespaces = environments.get("namespaces") or {}
    if not isinstance(namespaces, dict):
        errors, namespaces = [*errors, "environments.namespaces: a mapping"], {}
    for name, entry in namespaces.items():
        found["namespaces"][name] = take(f"environments.namespaces.{name}", NAMESPACE, entry)
        if not NAME.fullmatch(str(name)) or name == LEDGER:
            errors.append(f"environments.namespaces.{name}: a name of {NAME_ALLOWED}")
    settings = options.pop("settings")
    for kind, path in (("namespaces", "environments.namespaces"), ("environments", "environments")):
        for name, entry in found[kind].items():
            for key in sorted(set(entry.get("settings", {})) - set(settings)):
                errors.append(
                    f"{path}.{name}.settings.{key}: only what is also in environments.settings, "
                    "without which conda-store lets it leak into other namespaces"
                )
    return Declared(found["environments"], found["namespaces"], settings, options), errors


def _together(entry):
    """Yield what is wrong with the keys of one environment together."""
    built = {"channels", "dependencies", "variables"} & set(entry)
    if "lockfile" in entry and built:
        yield f"a lockfile or {', '.join(sorted(built))}, not both"
    if not {"lockfile", "dependencies", "current_build"} & set(entry):
        yield "needs dependencies, a lockfile or current_build"


# -- content: what a specification comes to ----------------------------------------------------------


def effective(entry, settings):
    """Return what conda-store makes of a declared specification, in its own form, without the name; pure."""
    if "lockfile" in entry:
        return {"lockfile": entry["lockfile"]}
    dependencies = entry.get("dependencies", {"conda": [], "pip": []})
    found = {}
    for kind, word in (("conda", "conda"), ("pip", "pypi")):
        chosen = list(dependencies[kind] or settings[f"{word}_default_packages"])
        names = {_package(text) for text in chosen}
        included = [text for text in settings[f"{word}_included_packages"] if _package(text) not in names]
        found[kind] = sorted({*chosen, *included})
    return {
        "channels": entry.get("channels") or list(settings["conda_default_channels"]),
        "dependencies": found["conda"] + ([{"pip": found["pip"]}] if found["pip"] else []),
        "variables": entry.get("variables") or None,
    }


def disallowed(entry, settings):
    """Yield ``(key, what is allowed)`` where conda-store's settings refuse a declared specification; pure."""
    if "lockfile" in entry:
        return
    specification = effective(entry, settings)
    alias = settings["conda_channel_alias"].rstrip("/")

    def address(channel):
        return channel if "://" in channel else f"{alias}/{channel}"

    allowed = settings["conda_allowed_channels"]
    if odd := [c for c in specification["channels"] if allowed and address(c) not in map(address, allowed)]:
        yield "channels", f"{', '.join(odd)} is not among conda_allowed_channels ({', '.join(allowed)})"
    present = kinds(specification["dependencies"])
    for kind, word in (("conda", "conda"), ("pip", "pypi")):
        missing = {_package(p) for p in settings[f"{word}_required_packages"]} - {_package(p) for p in present[kind]}
        if missing:
            yield "dependencies", f"{', '.join(sorted(missing))} must be among them ({word}_required_packages)"


def content(specification):
    """Return the parts of a specification that make a build what it is, ``{field: value}``; pure."""
    if lock := specification.get("lockfile"):
        packages = ([p["platform"], p["manager"], p["name"], p["url"]] for p in lock["package"])
        custom = (lock.get("metadata") or {}).get("custom_metadata") or {}
        return {"lockfile": sorted(packages), "rebuild": custom.get("salt_rebuild", "")}
    told = re.match(r"salt rebuild=(.*) channels=", specification.get("prefix") or "")
    dependencies = kinds(specification["dependencies"])
    return {
        "channels": specification["channels"],
        "dependencies": dependencies["conda"] + ([{"pip": dependencies["pip"]}] if dependencies["pip"] else []),
        "variables": specification.get("variables") or {},
        "rebuild": told[1] if told else "",
    }


def digest(specification):
    """Return a short hash of :func:`content`; pure."""
    return hashlib.sha256(json.dumps(content(specification), sort_keys=True).encode()).hexdigest()[:16]


def mark(specification, rebuild):
    """Return the specification with what conda-store would forget: a word to build again, channels' order; pure."""
    specification = copy.deepcopy(specification)
    if "lockfile" in specification and rebuild:
        metadata = specification["lockfile"].setdefault("metadata", {})
        metadata["custom_metadata"] = {**(metadata.get("custom_metadata") or {}), "salt_rebuild": rebuild}
    elif "lockfile" not in specification and (rebuild or len(specification["channels"]) > 1):
        specification["prefix"] = f"salt rebuild={rebuild} channels={' '.join(specification['channels'])}"
    return specification


# -- difference --------------------------------------------------------------------------------------


class Live(NamedTuple):
    """What conda-store has, as plain data."""

    settings: dict  # that hold for "" (conda-store as a whole), a namespace, an environment: where they are needed
    namespaces: dict  # name: {id, owned, metadata, roles}, the last two where they are needed
    environments: dict  # name: {id, owned, build, digest, sound, description, kept, ...}; see _look
    ledger: dict


def levels(name, live, declared):
    """
    Return ``(old, now, new)`` settings of a namespace, or of an environment: as they are, as they would be if
    only the levels above changed, and as they will be; pure.
    """
    space, _, short = name.partition("/")
    if short:
        above, _, above_new = levels(space, live, declared)
        entry = declared.environments.get(name, {})
    else:
        above, above_new = live.settings[""], {**live.settings[""], **declared.settings}
        entry = declared.namespaces.get(name, {})
    old = live.settings.get(name, above)
    now = {key: above_new[key] if value == above[key] else value for key, value in old.items()}
    return old, now, {**now, **entry.get("settings", {})}


def wanted(name, live, declared):
    """Return the specification that an environment is to have, without name and description; pure."""
    entry = declared.environments[name]
    return mark(effective(entry, levels(name, live, declared)[2]), entry.get("rebuild", ""))


def unclear(name, live, declared):
    """Whether an environment needs a closer look than lists of environments give; pure."""
    entry, there = declared.environments[name], live.environments.get(name)
    if there is None:
        return False
    keep = entry.get("keep_builds", declared.options.get("keep_builds"))
    if there["busy"] or (keep and keep != there["kept"]):
        return True
    if pin := entry.get("current_build"):
        return there["build"] != pin
    return not there["sound"] or there["digest"] != digest(wanted(name, live, declared))


def choose(want, there, pin=None):
    """
    Return which build an environment is to have: an id, :data:`NEW`, or ``None`` if the last one failed; pure.

    want
        The digest that is declared.
    there
        The environment as :func:`_look` returns it; ``None`` if there is none.
    pin
        ``current_build``.
    """
    if pin or there is None:
        return pin or NEW
    builds = {build["id"]: build for build in there["builds"] or []}
    if there["sound"] and there["digest"] == want and builds.get(there["build"], {"usable": True})["usable"]:
        return there["build"]
    alike = [build for build in builds.values() if build["digest"] == want]
    for usable in (build["id"] for build in reversed(alike) if build["usable"]):
        return usable
    for running in (build["id"] for build in reversed(alike) if build["running"] and not build["stuck"]):
        return running
    last = there["builds"][-1] if there["builds"] else None
    return None if last and last["digest"] == want and last["status"] == "FAILED" else NEW


def kept(builds, current, keep):
    """Return the builds (of those, oldest first) that remain: the current one and the newest others; pure."""
    others = [build for build in builds if build != current]
    return sorted({*others[max(0, len(others) - keep + 1) :], current}, key=lambda build: (build == NEW, build))


def changed(old, new):
    """Return ``{key: {"old", "new"}}`` where two mappings differ in the keys of ``new``; pure."""
    return {k: {"old": old.get(k), "new": value} for k, value in new.items() if k not in old or old[k] != value}


def difference(live, declared, absent=None):
    """
    Return ``{object: {field: {"old":, "new":}}}`` that turns ``live`` into what is declared; pure.

    Objects are ``settings``, ``namespace/team`` and ``environment/team/analysis``.
    """
    changes, absent = defaultdict(dict), {"environment": (), "namespace": (), **(absent or {})}
    # What keeps a key from leaking is that it is set, not its value; only the ledger knows that it is.
    below = {key for level in declared[:2] for entry in level.values() for key in entry.get("settings", {})}
    told = {key: value for key, value in live.settings[""].items() if key not in below - set(live.ledger["settings"])}
    changes["settings"] = changed(told, declared.settings)
    for name, entry in declared.namespaces.items():
        there, label = live.namespaces.get(name), f"namespace/{name}"
        if there is None:
            changes[label]["namespace"] = {"old": "absent", "new": "present"}
        there = there or {}
        if "roles" in entry and entry["roles"] != there.get("roles", {}):
            changes[label]["roles"] = {"old": there.get("roles", {}), "new": entry["roles"]}
        metadata = changed(there.get("metadata") or {}, entry.get("metadata", {}))
        changes[label] |= {f"metadata.{key}": change for key, change in metadata.items()}
        changes[label] |= _settings(name, live, declared)
    for name in declared.environments:
        changes[f"environment/{name}"] = _environment(name, live, declared)
    for name, there in live.environments.items():
        gone = name in absent["environment"] or name.split("/")[0] in absent["namespace"]
        purged = declared.options["purge"] == "owned" and there["owned"] and name not in declared.environments
        if gone or purged:
            changes[f"environment/{name}"] = {"environment": {"old": "present", "new": "absent"}}
    going = {label.partition("/")[2] for label, fields in changes.items() if _absent(fields, "environment")}
    inhabited = {name.split("/")[0] for name in live.environments if name not in going}
    for name, there in live.namespaces.items():
        gone = name in absent["namespace"]
        purged = declared.options["purge"] == "owned" and there["owned"] and name not in declared.namespaces
        if gone or (purged and name not in inhabited):
            changes[f"namespace/{name}"] = {"namespace": {"old": "present", "new": "absent"}}
    return {label: fields for label, fields in changes.items() if fields}


def _absent(fields, kind):
    return fields.get(kind, {}).get("new") == "absent"


def _settings(name, live, declared):
    """Return ``{"settings.key": {"old", "new"}}`` of a namespace or environment."""
    old, now, new = levels(name, live, declared)
    return {f"settings.{key}": {"old": old[key], "new": new[key]} for key in changed(now, new)}


def _environment(name, live, declared):
    """Return the changes of one declared environment."""
    entry, there = declared.environments[name], live.environments.get(name)
    fields = _settings(name, live, declared)
    old = {"description": (there or {}).get("description") or ""}
    fields |= changed(old, {"description": entry.get("description", old["description"])})
    specification = wanted(name, live, declared)
    build = choose(digest(specification), there, entry.get("current_build"))
    current = there["build"] if there and there["sound"] else None
    for lost in (b for b in (there or {}).get("builds") or [] if b["stuck"] and b["status"] == "BUILDING"):
        fields[f"build {lost['id']}"] = {"old": "BUILDING", "new": "CANCELED"}
    if build is None:
        return fields
    if build != current:
        fields["build"] = {"old": current, "new": build}
        if "current_build" not in entry:
            old, new = content(there["specification"]) if there else {}, content(specification)
            fields |= {key: change for key, change in changed(old, new).items() if change["old"] or change["new"]}
    keep = entry.get("keep_builds", declared.options.get("keep_builds"))
    if keep and there and there["builds"] is not None:
        usable = [b["id"] for b in there["builds"] if b["usable"]] + [build] * (build == NEW)
        remaining = kept(usable, build, keep)
        if len(remaining) < len(usable):
            fields["builds"] = {"old": [b for b in usable if b != NEW], "new": remaining}
    return fields


def guard(changes, live, declared):
    """Raise CommandExecutionError if more would be removed than ``purge_limit`` allows; pure."""
    limit = {"count": 50, "share": 0.25, **declared.options["purge_limit"]}
    for kind, there, asked in (
        ("environment", live.environments, declared.environments),
        ("namespace", live.namespaces, declared.namespaces),
    ):
        count = sum(_absent(fields, kind) for fields in changes.values())
        if not count or declared.options["force"]:
            continue
        if not asked:
            reason = f"none is declared any more, and {count} would be removed"
        elif count > limit["count"]:
            reason = f"{count} would be removed, more than purge_limit:count = {limit['count']}"
        elif count > max(SMALL, limit["share"] * len(there)):
            reason = f"{count} of {len(there)} would be removed, more than purge_limit:share = {limit['share']}"
        else:
            continue
        raise CommandExecutionError(f"Refusing to remove {kind}s: {reason}. environments.force overrides.")


# -- conda-store -------------------------------------------------------------------------------------


class Answer(CommandExecutionError):
    """conda-store refused a request; the message is its own words."""

    def __init__(self, message, status):
        super().__init__(masked(message))
        self.status = status


class CondaStore:
    """One session with the REST API."""

    def __init__(self, connection):
        self.settings = {**CONNECTION, **connection}
        missing = [key for key in ("url", "token") if not self.settings[key]]
        if missing or set(self.settings) != set(CONNECTION):
            raise CommandExecutionError(
                f"conda_store_env's connection needs {', '.join(CONNECTION)}; missing: {', '.join(missing) or 'none'}, "
                f"unknown: {', '.join(sorted(set(self.settings) - set(CONNECTION))) or 'none'}"
            )
        self.url = self.settings["url"].rstrip("/")
        self.session = requests.Session()
        self.session.trust_env = False  # neither proxies nor another bundle from the environment
        self.session.verify = self.settings["ca"] or next((path for path in BUNDLES if Path(path).exists()), True)
        self.session.headers["Authorization"] = f"Bearer {self.settings['token']}"

    def __call__(self, method, path, body=None, missing=False, timeout=SLOW, **parameters):
        """Return the answer to one request, parsed; ``None`` for 404 where that may be."""
        try:
            response = self.session.request(
                method, f"{self.url}/api/{path}", json=body, params=parameters or None, timeout=timeout
            )
        except requests.exceptions.RequestException as error:
            raise CommandExecutionError(f"{method} {path}: conda-store did not answer: {error}") from None
        if response.status_code == 404 and missing:
            return None
        if not response.ok:
            # After an error of its own the server closes the connection, which the next request must not use.
            self.session.close()
            try:
                said = response.json().get("message") or response.text
            except ValueError:
                said = response.text
            raise Answer(f"{method} {path}: {response.status_code}: {said[:1000]}", response.status_code)
        kind = response.headers.get("Content-Type", "")
        return response.json() if kind.startswith("application/json") else response.text

    def wait(self):
        """Wait until conda-store answers and takes the token, or the deadline has passed."""

        def attempt():
            try:
                return self("GET", "v1/permission/", timeout=self.settings["timeout"])["data"]
            except Answer as error:
                if error.status < 500:
                    raise
                said.append(str(error))
            except CommandExecutionError as error:
                said.append(str(error))
            return None

        said = []
        failure = f"conda-store at {self.url} did not answer within {self.settings['timeout']} s"
        rights = until(self.settings["timeout"], lambda: f"{failure}: {said[-1]}", attempt)
        if not rights["authenticated"]:
            raise CommandExecutionError(f"conda-store at {self.url} does not take Salt's token")

    def pages(self, path, **parameters):
        """Return all of a list, asked for in pages."""
        rows, number = [], 1
        while True:
            page = self("GET", path, page=number, size=PAGE, **parameters)
            rows += page["data"]
            if len(rows) >= page["count"] or not page["data"]:
                return rows
            number += 1

    def environments(self, **parameters):
        """Return all environments; ``parameters`` as the API's."""
        rows, cursor = [], None
        while True:
            page = self("GET", "v2/environment/", limit=PAGE, cursor=cursor, **parameters)
            rows += page["data"]
            cursor = page["cursor"]
            if not cursor or not page["data"]:
                return rows

    def builds(self, name):
        """Return all builds of an environment, oldest first."""
        space, _, short = name.partition("/")
        return self.pages("v1/build/", namespace=space, name=short)

    def build(self, number):
        return self("GET", f"v1/build/{number}/")["data"]

    def log(self, number):
        """Return the log of a build, without the names of its steps before each line; ``""`` if there is none."""
        text = self("GET", f"v1/build/{number}/logs/", missing=True) or ""
        return re.sub(r"^(plugin-[\w-]+|action_\w+): ", "", text if isinstance(text, str) else "", flags=re.MULTILINE)


def until(timeout, failure, attempt):
    """Return what ``attempt`` returns; while that is ``None``, try again for ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (result := attempt()) is None:
        if time.monotonic() > deadline:
            raise CommandExecutionError(failure())
        time.sleep(0.5)
    return result


def _path(name):
    return "/".join(quote(part, safe="") for part in name.split("/"))


def read(store, declared):
    """Return :class:`Live` as far as lists tell it; the number of calls does not depend on environments."""
    ledger = (store("GET", f"v1/namespace/{LEDGER}/", missing=True) or {}).get("data", {}).get("metadata_") or {}
    ledger = {"settings": [], "namespaces": [], "environments": {}, **ledger}
    # What a namespace or environment had that was deleted still holds for a new one of its name.
    settings = {"": store("GET", "v1/setting/")["data"]}
    settings |= {name: store("GET", f"v1/setting/{_path(name)}/")["data"] for name in declared.namespaces}
    namespaces = {
        row["name"]: {"id": row["id"], "owned": row["id"] in ledger["namespaces"]}
        for row in store.pages("v1/namespace/")
        if row["name"] != LEDGER
    }
    for name in set(declared.namespaces) & set(namespaces):
        there, entry = namespaces[name], declared.namespaces[name]
        if "metadata" in entry:
            there["metadata"] = store("GET", f"v1/namespace/{_path(name)}/")["data"]["metadata_"] or {}
        if "roles" in entry:
            there["roles"] = _roles_of(store, name)
    rows = store.environments()
    unsound = {row["id"] for status in UNSOUND for row in store.environments(status=status)}
    busy = {row["environment_id"] for s in UNSOUND[:2] for row in store.pages("v1/build/", status=s)}
    environments = {}
    for row in rows:
        name, noted = f"{row['namespace']['name']}/{row['name']}", ledger["environments"].get(str(row["id"]), {})
        environments[name] = {
            "id": row["id"],
            "owned": noted.get("made", False),
            "build": row["current_build_id"],
            "sound": row["id"] not in unsound,
            "busy": row["id"] in busy,
            "description": row["description"],
            "digest": noted.get("digest") if noted.get("build") == row["current_build_id"] else None,
            "kept": noted.get("keep"),
            "builds": None,
        }
    live = Live(settings, namespaces, environments, ledger)
    for name, entry in declared.environments.items():
        if name not in environments or "settings" in entry or unclear(name, live, declared):
            settings[name] = store("GET", f"v1/setting/{_path(name)}/")["data"]
        if unclear(name, live, declared):
            environments[name] = _look(store, name, environments[name], declared.options["timeout"])
    return live


def _roles_of(store, name):
    return {row["other_namespace"]: row["role"] for row in store("GET", f"v1/namespace/{_path(name)}/roles")["data"]}


def _look(store, name, there, timeout):
    """
    Return an environment with its current specification and its builds, oldest first:
    ``{id, status, digest, usable, running, stuck}``. The digest is read where it can matter.
    """
    rows = [row for row in store.builds(name) if row["environment_id"] == there["id"]]
    specifications, builds = {}, []
    for row in rows:
        usable = row["status"] == "COMPLETED" and row["size"] > 0  # a deleted one has none
        running = row["status"] in UNSOUND[:2]
        if usable or running or row is rows[-1] or row["id"] == there["build"]:
            specifications[row["id"]] = store.build(row["id"])["specification"]["spec"]
        builds.append(
            {
                "id": row["id"],
                "status": _status(store, row) if row is rows[-1] else row["status"],
                "digest": digest(specifications[row["id"]]) if row["id"] in specifications else None,
                "usable": usable,
                "running": running,
                "stuck": running and _age(row["started_on"] or row["scheduled_on"]) > timeout,
            }
        )
    current = specifications.get(there["build"]) or store.build(there["build"])["specification"]["spec"]
    return {
        **there,
        "builds": builds,
        "specification": current,
        "digest": digest(current),
        "sound": any(build["id"] == there["build"] and build["usable"] for build in builds),
    }


def _status(store, row):
    """Return a build's status; one that its worker left behind has not failed, but was interrupted."""
    interrupted = row["status"] == "FAILED" and LEFT_BEHIND in store.log(row["id"])
    return "INTERRUPTED" if interrupted else row["status"]


def _age(stamp):
    """Return the seconds since one of conda-store's times, which are UTC without saying so."""
    then = datetime.datetime.fromisoformat(stamp).replace(tzinfo=datetime.timezone.utc)
    return (datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()


# -- what users call ---------------------------------------------------------------------------------


class _Plan:
    """A declaration beside what is live, checked."""

    def __init__(self, environments, pillar, connection, absent):
        if environments is None and pillar:
            environments = __pillar__.get("environments") or {}
        environments = {key: self.lockfile(value) for key, value in (environments or {}).items()}
        self.declared, self.errors = declare(environments)
        self.refuse()
        self.absent = absent or {}
        self.store = CondaStore(connection or __salt__["config.get"]("conda_store_env") or {})
        self.store.wait()
        self.live = read(self.store, self.declared)
        self.check()
        self.changes = difference(self.live, self.declared, self.absent)
        if not absent:
            guard(self.changes, self.live, self.declared)
        self.notes = []

    def lockfile(self, entry):
        """Read a lockfile that is named, not given."""
        if not isinstance(entry, dict) or not isinstance(entry.get("lockfile"), str):
            return entry
        source = entry["lockfile"]
        path = source if source.startswith("/") else __salt__["cp.cache_file"](source)
        try:
            return {**entry, "lockfile": yaml.safe_load(Path(path or source).read_text())}
        except (OSError, yaml.YAMLError) as error:
            raise CommandExecutionError(f"the lockfile {source} cannot be read: {error}") from None

    def refuse(self):
        if self.errors:
            lines = "\n".join(f"  - {line}" for line in self.errors)
            raise CommandExecutionError(f"what is declared is not right, nothing was changed:\n{lines}")

    def check(self):
        """Refuse what makes no sense beside what is live."""
        names = {*self.live.namespaces, *self.declared.namespaces}
        for name, entry in self.declared.namespaces.items():
            for other in sorted(set(entry.get("roles", {})) - names):
                path = f"environments.namespaces.{name}.roles.{other}"
                self.errors.append(f"{path}: a namespace that is there or declared")
        for name, entry in self.declared.environments.items():
            there, pin = self.live.environments.get(name), entry.get("current_build")
            if not pin:
                for key, allowed in disallowed(entry, levels(name, self.live, self.declared)[2]):
                    self.errors.append(f"environments.{name}.{key}: {allowed}")
            elif not there or there["builds"] is not None:
                usable = [str(build["id"]) for build in (there or {}).get("builds") or [] if build["usable"]]
                if str(pin) not in usable:
                    told = "one of its builds that are complete and not deleted"
                    self.errors.append(f"environments.{name}.current_build: {told}: {', '.join(usable) or 'none'}")
        self.refuse()

    def failed(self):
        """Return ``{environment: words}`` of those whose declaration has failed to build before."""
        told = {}
        for name, entry in self.declared.environments.items():
            there = self.live.environments.get(name)
            if not there or not there["builds"]:
                continue
            want = digest(wanted(name, self.live, self.declared))
            if choose(want, there, entry.get("current_build")) is None:
                last = there["builds"][-1]["id"]
                told[name] = (
                    "the declared specification has failed and is not built again until it, or `rebuild`, changes; "
                    f"{self.words(last)}"
                )
        return told

    def words(self, number):
        """Return how a build ended, with the end of its log."""
        build, log = self.store.build(number), self.store.log(number)
        if OFFLINE.search(log) and from_pypi(build["specification"]["spec"]):
            return f"build {number} is {build['status']}: {PYPI_UNREACHABLE}"
        solver = re.search(r'^  "message": (".+"),?$', log, re.MULTILINE)  # conda's own words, in JSON
        lines = json.loads(solver[1]).splitlines() if solver else log.splitlines()
        said = build["status_info"] or "\n".join([line.rstrip() for line in lines if line.strip()][-TAIL:])
        return f"build {number} is {build['status']}:\n{said}"

    def solve(self):
        """Add to the changes which packages the builds to come would change, by conda-store's own solver."""
        errors = {}
        for name in self.declared.environments:
            fields, there = self.changes.get(f"environment/{name}", {}), self.live.environments.get(name)
            specification = wanted(name, self.live, self.declared)
            if fields.get("build", {}).get("new") != NEW or "lockfile" in specification:
                continue
            asked = kinds(specification["dependencies"])
            old = self.packages(there["build"]) if there and there["sound"] else []
            seconds = self.live.settings[""]["conda_max_solve_time"] + 60
            question = {"channel": specification["channels"], "conda": asked["conda"], "pip": asked["pip"]}
            try:
                solved = self.store("GET", "v1/specification/", timeout=seconds, **question)["solve"]
            except Answer as error:
                errors[name] = f"conda-store cannot solve it, or not in time; its worker's log has the words ({error})"
                continue
            if there:
                fields |= _versions(old, self.named(solved, old, asked["conda"]))
        return errors

    def packages(self, build):
        return self.store.pages(f"v1/build/{build}/packages/")

    def named(self, solved, old, asked):
        """Return the packages of a solve, which has only their ids, as lists of packages have them."""
        known = {row["id"]: row for row in old}
        names = sorted({_package(text) for row in solved for text in row["depends"] or []} | set(map(_package, asked)))
        for name in names:
            if all(row["package_id"] in known for row in solved):
                break
            known |= {row["id"]: row for row in self.store.pages("v1/package/", search=name, exact="1")}
        return [known[row["package_id"]] for row in solved if row["package_id"] in known]


def _versions(old, new):
    """Return ``{"packages": {"old", "new"}}`` of two lists of packages, or ``{}`` if they are alike."""
    before, after = ({row["name"]: row["version"] for row in rows} for rows in (old, new))
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    if not names:
        return {}
    return {"packages": {"old": _only(before, names), "new": _only(after, names)}}


def _only(mapping, keys):
    return {key: mapping[key] for key in sorted(keys) if key in mapping}


class _Writer:
    """Makes the changes of a plan, in an order in which each can be made."""

    def __init__(self, plan):
        self.plan, self.store, self.changes = plan, plan.store, plan.changes
        self.live, self.declared = plan.live, plan.declared
        self.errors, self.building = {}, {}  # by environment: words, the build that is waited for
        self.ledger = copy.deepcopy(plan.live.ledger)

    def run(self):
        self.namespaces()
        for label, fields in self.changes.items():
            kind, _, name = label.partition("/")
            if kind == "environment" and not _absent(fields, "environment"):
                self.attempt(name, self.environment, name, fields)
        self.note()
        self.wait()
        for name in self.declared.environments:
            if name not in self.errors:
                self.attempt(name, self.finish, name, self.changes.get(f"environment/{name}", {}))
        self.remove()
        self.note()

    def attempt(self, name, function, *arguments):
        """Do one thing; what conda-store says against it does not keep the rest from being done."""
        try:
            function(*arguments)
        except CommandExecutionError as error:
            self.errors[name] = str(error)

    def namespaces(self):
        if "settings" in self.changes:
            self.store("PUT", "v1/setting/", {key: c["new"] for key, c in self.changes["settings"].items()})
            self.ledger["settings"] = sorted({*self.ledger["settings"], *self.changes["settings"]})
        labels = [label for label in self.changes if label.startswith("namespace/")]
        named = {label.partition("/")[2]: self.changes[label] for label in labels}
        for name, fields in named.items():
            if fields.get("namespace", {}).get("new") == "present":
                self.create(name)
                self.ledger["namespaces"].append(self.store("GET", f"v1/namespace/{_path(name)}/")["data"]["id"])
        for name, fields in named.items():
            if _absent(fields, "namespace"):
                continue
            entry, there = self.declared.namespaces[name], self.live.namespaces.get(name, {})
            if any(key.startswith("metadata.") for key in fields):
                metadata = {**(there.get("metadata") or {}), **entry["metadata"]}
                self.store("PUT", f"v1/namespace/{_path(name)}/metadata", metadata)
            self.settings(name, fields)
            if "roles" in fields:
                self.roles(name, fields["roles"]["old"], fields["roles"]["new"])

    def create(self, name):
        """Create a namespace; one of this name may still be going away."""

        def attempt():
            try:
                return self.store("POST", f"v1/namespace/{_path(name)}/")
            except Answer as error:
                if error.status != 409:
                    raise
                return None

        until(self.store.settings["timeout"], lambda: f"the namespace {name} is not deleted completely", attempt)

    def roles(self, name, old, new):
        path = f"v1/namespace/{_path(name)}/role"
        for other, role in new.items():
            if old.get(other) != role:
                self.store("PUT" if other in old else "POST", path, {"other_namespace": other, "role": role})
        for other in set(old) - set(new):
            self.store("DELETE", path, {"other_namespace": other})

    def settings(self, name, fields):
        values = {key.removeprefix("settings."): c["new"] for key, c in fields.items() if key.startswith("settings.")}
        if values:
            self.store("PUT", f"v1/setting/{_path(name)}/", values)

    def environment(self, name, fields):
        """Do what comes before the wait: settings, builds that are stuck, the build itself."""
        self.settings(name, fields)
        for key, change in fields.items():
            if change["new"] == "CANCELED":
                self.cancel(int(key.split()[1]))
        build = fields.get("build", {}).get("new")
        if build == NEW:
            self.building[name] = self.post(name)
        elif build and any(b["id"] == build and b["running"] for b in self.live.environments[name]["builds"]):
            self.building[name] = build

    def cancel(self, number):
        self.store("PUT", f"v1/build/{number}/cancel/")
        ended = ("CANCELED", "FAILED", "COMPLETED")
        until(
            self.store.settings["timeout"],
            lambda: f"build {number} was cancelled, but does not end",
            lambda: self.store.build(number)["status"] in ended or None,
        )

    def post(self, name):
        """Ask for a build and return its number."""
        space, _, short = name.partition("/")
        there, entry = self.live.environments.get(name, {}), self.declared.environments[name]
        specification = wanted(name, self.live, self.declared)
        description = entry.get("description", there.get("description") or "")
        body = {"namespace": space}
        if "lockfile" in specification:
            body |= {"is_lockfile": True, "environment_name": short, "environment_description": description}
            specification = specification["lockfile"]
        else:
            specification = {**specification, "name": short, "description": description}
        before = {row["id"] for row in self.store.builds(name)}

        def attempt():
            try:
                return self.store("POST", "v1/specification/", {**body, "specification": json.dumps(specification)})
            except Answer as error:
                # The server has none of its own words while its worker has not yet measured the disk.
                lost = {row["id"] for row in self.store.builds(name)} - before if error.status == 500 else {"no"}
                if lost:
                    raise
                said.append(str(error))
                return None

        said = []
        failure = "conda-store does not take the specification; is its worker running?"
        number = until(self.store.settings["timeout"], lambda: f"{failure} {said[-1]}", attempt)["data"]["build_id"]
        build = self.store.build(number)
        noted = self.ledger["environments"].setdefault(str(build["environment_id"]), {})
        if not there:
            noted["made"] = True
        if content(build["specification"]["spec"]) != content(wanted(name, self.live, self.declared)):
            differs = changed(content(wanted(name, self.live, self.declared)), content(build["specification"]["spec"]))
            raise CommandExecutionError(f"conda-store made another specification of it: {json.dumps(differs)}")
        return number

    def wait(self):
        """Wait for the builds, as long as one begins or ends within ``timeout``."""
        deadline, seen = time.monotonic(), None
        running = set(self.building.values())
        while running:
            states = {s: {row["id"] for row in self.store.pages("v1/build/", status=s)} for s in UNSOUND[:2]}
            running &= states["QUEUED"] | states["BUILDING"]
            if states != seen:
                deadline, seen = time.monotonic() + self.declared.options["timeout"], states
            if time.monotonic() > deadline:
                break
            time.sleep(0.5 if running else 0)
        for name, number in self.building.items():
            if self.store.build(number)["status"] != "COMPLETED":
                self.errors[name] = self.plan.words(number)

    def finish(self, name, fields):
        """Make the build current, remove old ones, note what there is now."""
        entry, path = self.declared.environments[name], f"v1/environment/{_path(name)}/"
        there = self.live.environments.get(name, {})
        build = self.building.get(name) or fields.get("build", {}).get("new") or there["build"]
        if "build" in fields and self.store("GET", path)["data"]["current_build_id"] != build:
            self.store("PUT", path, {"build_id": build})
        if "description" in fields and there:
            self.store("PUT", path, {"description": entry["description"]})
        if "builds" in fields:
            self.delete(name, set(fields["builds"]["old"]) - set(fields["builds"]["new"]))
        if there and fields.get("build", {}).get("new") == NEW:
            old = self.plan.packages(there["build"]) if there["sound"] else []
            fields |= _versions(old, self.plan.packages(build))
        if there and there["builds"] is None and not fields:
            return
        number = str(there.get("id") or self.store("GET", path)["data"]["id"])
        noted = self.ledger["environments"].setdefault(number, {})
        digests = {b["id"]: b["digest"] for b in there.get("builds") or []}
        noted |= {"build": build, "digest": digests.get(build) or digest(wanted(name, self.live, self.declared))}
        noted["keep"] = entry.get("keep_builds", self.declared.options.get("keep_builds"))

    def delete(self, name, numbers):
        """Delete builds and wait until they are gone."""
        for number in sorted(numbers):
            self.store("DELETE", f"v1/build/{number}/")

        def attempt():
            return all(row["size"] == 0 for row in self.store.builds(name) if row["id"] in numbers) or None

        until(self.store.settings["timeout"], lambda: f"builds {sorted(numbers)} are not deleted completely", attempt)

    def remove(self):
        """Remove environments, then namespaces."""
        for kind in ("environment", "namespace"):
            for label, fields in self.changes.items():
                if label.startswith(f"{kind}/") and _absent(fields, kind):
                    name = label.partition("/")[2]
                    self.attempt(name, getattr(self, f"remove_{kind}"), name)
        self.ledger["environments"] = {
            number: noted
            for number, noted in self.ledger["environments"].items()
            if noted.get("made") or any(str(there["id"]) == number for there in self.live.environments.values())
        }

    def remove_environment(self, name):
        path = f"v1/environment/{_path(name)}/"
        if self.live.environments[name]["busy"]:
            for row in self.store.builds(name):
                if row["status"] == "BUILDING":
                    self.cancel(row["id"])
        self.store("DELETE", path)
        gone = f"the environment {name} is not deleted completely; see the log of conda-store's worker"
        # One that is made anew before that would be deleted with it.
        until(
            self.store.settings["timeout"],
            lambda: gone,
            lambda: True if self.store("GET", path, missing=True) is None else None,
        )
        self.ledger["environments"].pop(str(self.live.environments[name]["id"]), None)

    def remove_namespace(self, name):
        for other in self.live.namespaces:
            if other != name and name in _roles_of(self.store, other):
                self.store("DELETE", f"v1/namespace/{_path(other)}/role", {"other_namespace": name})
        self.store("DELETE", f"v1/namespace/{_path(name)}/roles")
        self.store("DELETE", f"v1/namespace/{_path(name)}/")
        number = self.live.namespaces[name]["id"]
        self.ledger["namespaces"] = [other for other in self.ledger["namespaces"] if other != number]

    def note(self):
        """Write the ledger, if there is anything new in it."""
        if self.ledger != self.live.ledger:
            if self.store("GET", f"v1/namespace/{LEDGER}/", missing=True) is None:
                self.create(LEDGER)
            self.store("PUT", f"v1/namespace/{LEDGER}/metadata", self.ledger)


def diff(environments=None, pillar=False, solve=False, connection=None, absent=None):
    """
    Return what :func:`apply` would change, without changing it.

    environments
        What is declared, as in ``pillar/environments.sls``. What is left out is not managed.
    pillar
        Take it from the pillar's ``environments``. Default ``False``.
    solve
        Let conda-store solve each specification that would be built, and tell which packages change
        (``packages``); takes as long as the solver does, during which conda-store answers nobody else. It
        solves by its settings as a whole, not by those of a namespace. Default ``False``.
    connection
        ``{url:, token:, ca: file, timeout: seconds}``. Default: the pillar's or the minion configuration's
        ``conda_store_env``.
    absent
        What is removed whoever made it: ``{environment: [...], namespace: [...]}``, a namespace with all
        environments in it. Default: nothing.

    Returns ``{"changes": {object: {field: {"old":, "new":}}}, "notes": [text, ...], "error": ""}``; a build
    that would be made is ``new``. ``error`` names declarations that are known to fail.

    Raises CommandExecutionError if the declaration is refused, conda-store does not answer, or too much would
    be removed.

    CLI Example:

    .. code-block:: bash

        salt-call conda_store_env.diff pillar=true solve=true
    """
    plan = _Plan(environments, pillar, connection, absent)
    errors = plan.failed()
    if solve:
        errors |= plan.solve()
    return {"changes": masked(plan.changes), "notes": plan.notes, "error": _lines(errors)}


def _lines(errors):
    return masked("\n".join(f"{name}: {words}" for name, words in errors.items()))


def apply(environments=None, pillar=False, connection=None, absent=None):
    """
    Make conda-store what is declared, wait for builds, and return what was changed; arguments, result and
    errors as :func:`diff`. ``error`` has, by environment, how a build failed and the end of its log; the rest
    has been done then.

    CLI Example:

    .. code-block:: bash

        salt-call conda_store_env.apply pillar=true
    """
    plan = _Plan(environments, pillar, connection, absent)
    errors = plan.failed()
    stale = any(there["builds"] is not None for there in plan.live.environments.values())
    if plan.changes or stale:
        writer = _Writer(plan)
        writer.run()
        errors |= writer.errors
        for name in writer.errors:
            plan.changes.pop(f"environment/{name}", None)
        plan.notes += [f"{name}: build {number}" for name, number in writer.building.items() if name not in errors]
    if plan.changes:
        left = difference(read(plan.store, plan.declared), plan.declared, plan.absent)
        for label, fields in left.items():
            name = label.partition("/")[2]
            if name not in errors:
                errors[name] = f"conda-store took it, but still differs: {json.dumps(fields)[:500]}"
    return {"changes": masked(plan.changes), "notes": plan.notes, "error": _lines(errors)}


def export(connection=None):
    """
    Return what conda-store has in the declared form: declared, it changes nothing. Credentials in addresses, which
    nobody may declare, are ``**``.

    connection
        As of :func:`diff`.

    Returns the mapping of ``pillar/environments.sls``. Settings are those of namespaces and environments that
    differ from the level above, and the same keys of conda-store as a whole. An environment without a complete
    build is left out.

    CLI Example:

    .. code-block:: bash

        salt-call --out=yaml conda_store_env.export > environments.sls
    """
    store = CondaStore(connection or __salt__["config.get"]("conda_store_env") or {})
    store.wait()
    live = read(store, declare({})[0])
    told, pinned = {"namespaces": {}}, {}
    spaces = {name: store("GET", f"v1/setting/{_path(name)}/")["data"] for name in live.namespaces}

    def own(settings, upper):
        found = {key: value for key, value in settings.items() if value != upper[key]}
        pinned.update({key: live.settings[""][key] for key in found})
        return {"settings": found} if found else {}

    for name in live.namespaces:
        metadata = store("GET", f"v1/namespace/{_path(name)}/")["data"]["metadata_"]
        entry = {"metadata": metadata or None, "roles": _roles_of(store, name) or None}
        told["namespaces"][name] = {k: v for k, v in entry.items() if v} | own(spaces[name], live.settings[""])
    for name, there in live.environments.items():
        if not there["sound"]:
            continue
        specification = store.build(there["build"])["specification"]["spec"]
        parts = {key: value for key, value in content(specification).items() if value or key == "dependencies"}
        if "lockfile" in specification:
            parts["lockfile"] = specification["lockfile"]
        parts |= {"description": there["description"]} if there["description"] else {}
        told[name] = parts | own(store("GET", f"v1/setting/{_path(name)}/")["data"], spaces[name.split("/")[0]])
    return masked({**told, "settings": pinned} if pinned else told)


def rebuild(name, connection=None):
    """
    Build the current specification of an environment once more: for a build that failed for a reason that has
    gone, or to take in newer packages. Returns the number of the build, without waiting for it.

    name
        ``namespace/name``.
    connection
        As of :func:`diff`.

    CLI Example:

    .. code-block:: bash

        salt-call conda_store_env.rebuild global/analysis
    """
    store = CondaStore(connection or __salt__["config.get"]("conda_store_env") or {})
    store.wait()
    builds = store.builds(name)
    if not builds:
        raise CommandExecutionError(f"{name}: there is no such environment")
    return store("PUT", f"v1/build/{builds[-1]['id']}/")["data"]["build_id"]


def token(path, role_bindings, primary_namespace="default", days=365, renew=30, test=False, connection=None):  # noqa: PLR0917
    """
    Keep a token of limited rights in a file that only its owner reads; return what changed, never the token.

    path
        The file; an existing one keeps its owner. Its directory must exist.
    role_bindings
        ``{"team/*": [developer]}``; roles are viewer, developer and admin.
    primary_namespace
        The namespace the token is at home in. Default ``default``.
    days, renew
        How long a new token is valid, and how long before its end it is replaced, in days. Default 365, 30.
    test
        Only tell what would change.
    connection
        As of :func:`diff`.

    CLI Example:

    .. code-block:: bash

        salt-call conda_store_env.token /etc/dask-gateway/conda-store.token '{"*/*": [viewer]}'
    """
    store = CondaStore(connection or __salt__["config.get"]("conda_store_env") or {})
    store.wait()
    rights = {"role_bindings": role_bindings, "primary_namespace": primary_namespace}
    held, file = {}, Path(path)
    if file.exists():
        try:
            payload = file.read_text().split(".")[1]
            held = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            CondaStore({**store.settings, "token": file.read_text().strip()}).wait()
        except (IndexError, ValueError, CommandExecutionError):
            held = {}  # not a token, or not one of this conda-store
    changes = changed(held, rights)
    end = int(time.time()) + days * 86400
    if changes or held["exp"] < time.time() + renew * 86400:
        changes["expires"] = {"old": _day(held.get("exp")), "new": _day(end)}
    if changes and not test:
        expiration = datetime.datetime.fromtimestamp(end, datetime.timezone.utc).isoformat()
        made = store("POST", "v1/token/", {**rights, "expiration": expiration})["data"]["token"]
        owner = file.stat() if file.exists() else None
        fresh = file.with_name(f".{file.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(made + "\n")
        if owner:
            os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.replace(file)
    return changes


def _day(seconds):
    return seconds and datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).date().isoformat()

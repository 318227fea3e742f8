"""
Slurm's accounting database as declared data: accounts, associations, QOS, licences and reservations.

The declared form is the one of ``pillar/users.sls``; :func:`fields` lists every key::

    accounts:
      science: {description: Faculty of science}
      physics: {parent: science, grp_tres: {cpu: 100}, qos: [normal, long], user_defaults: {max_jobs: 50}}
    qos:
      long: {max_wall: "7-00:00:00", priority: 10, preempt: [normal]}
    users:
      ada: {accounts: [physics, science], default_account: physics, coordinator_of: [physics]}
      bob: {accounts: {physics: {fairshare: 5, partitions: {gpu: {max_jobs: 1}}}}}
    slurm_accounting:
      defaults: {max_submit_jobs: 1000}
      purge: owned

Limits of a user's association are layered: ``slurm_accounting:defaults``, then ``user_defaults`` of the
account's ancestors and of the account, then the user's own limits, the entry under ``accounts``, the entry
under ``partitions``. What no layer names is left as it is; ``null`` clears a limit. Every account of a user
is one association for all partitions, and one more for each entry under ``partitions``; ``any_partition:
false`` leaves the first out.

Ownership
    Whatever this module creates carries ``managed by salt``: an association (of a user or of an account) and
    a reservation in the comment, a QOS and a licence at the end of the description. ``purge: owned`` removes
    only that. What was made by hand and later declared is kept as declared, and stays when the declaration
    goes. The account ``root``, root's association in it and the QOS ``normal`` are never removed.

How it writes
    New accounts and associations go through one ``sacctmgr load`` (one transaction), everything else through
    one ``sacctmgr`` that reads commands on its standard input, equal changes of many objects being one
    command. So the number of processes does not depend on the number of users. Measured with Slurm 24.11 and
    12,000 associations: adding 10,000 users 15 s by ``load`` and 35 s by one ``add user`` per account;
    ``modify`` 0.2 s for one name and 0.3 s for 100; ``show assoc`` 0.2 s with ``wopl wopi`` and 1.1 s
    without, ``show user`` 0.04 s and 2.6 s with default accounts. ``load`` is not used for changes (it only
    adds to QOS lists) nor for wckeys (it rolls everything back and says it succeeded). slurmrestd (17 s per
    1,000 users) is no faster and one more daemon.

After writing, the database is read again; what still differs is an error, with what sacctmgr said. So
messages such as "Nothing new added" are none, and an interrupted run is finished by the next one.

Source: sacctmgr(1), scontrol(1).
"""

import contextlib
import datetime
import json
import re
import time
from collections import defaultdict
from typing import Any, NamedTuple

import salt.utils.path
from salt.exceptions import CommandExecutionError

__pillar__: dict
__salt__: dict

OWNER = "managed by salt"
# The comment of an association that takes no new jobs, by whether this module owns it: its person is locked, or it is
# removed when its last job has ended.
BLOCKED = {True: f"{OWNER}, blocked", False: "blocked by salt"}
BLOCKED_BEFORE = f"{OWNER}, leaving"  # how earlier versions marked an association that leaves
# Limits of an association that takes no new jobs. Both kinds, as a limit of the same kind in a QOS counts instead.
NO_NEW_JOBS = {"grp_submit_jobs": 0, "max_submit_jobs": 0}
# Limits of a locked person's association: jobs that wait go on waiting as well.
LOCKED = {**NO_NEW_JOBS, "grp_jobs": 0, "max_jobs": 0}
ROOT = "root"
CHUNK = 1000  # names in one command
FEW = 8  # so many different changes are not worth a load
SMALL = 5  # so many removals are always within purge_limit:share

__load__ = ["apply", "diff", "dump", "fields"]  # the rest is for tests and for these


def __virtual__():
    # Always there: a missing sacctmgr is said by the call that needs it.
    return True


# -- values: what is declared, and what sacctmgr prints, in one canonical form ---------------------


class _Refused(ValueError):
    """A declared value is not what its field allows."""


def _count(value):
    if value in (None, ""):
        return None
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value)) or int(value) >= 2**32 - 2:
        raise _Refused("a whole number from 0, or null")
    return int(value)


def _rank(value):
    return _count(value) or 0


def _fairshare(value):
    if value == "parent":
        return value
    try:
        return 1 if _count(value) is None else _count(value)
    except _Refused:
        raise _Refused("a whole number from 0, parent, or null") from None


def _number(default):
    def number(value):
        try:
            if value in (None, ""):
                return default
            if isinstance(value, bool) or float(value) < 0:
                raise ValueError
            return float(value)
        except (TypeError, ValueError):
            raise _Refused("a number from 0, or null") from None

    return number


_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?")


def _seconds_of(value, unit):
    """Return the seconds in a Slurm time; a lone number counts ``unit`` seconds."""
    match = isinstance(value, str) and _TIME.fullmatch(value)
    if not match:
        # A number would be ambiguous: YAML reads an unquoted 12:00:00 as 43200.
        raise _Refused("a quoted time such as '30', '12:00:00' or '7-00:00:00', or null")
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(parts) == 1:
        return parts[0] * unit
    if len(parts) == 2:
        return parts[0] * 60 + parts[1]
    return (parts[0] * 60 + parts[1]) * 60 + parts[2]


def _time_text(seconds):
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:{seconds:02}"


def _wall(value):
    """A limit that Slurm keeps in minutes, rounded up."""
    if value in (None, "", "UNLIMITED"):
        return None
    return _time_text(-(-_seconds_of(value, 60) // 60) * 60)


def _grace(value):
    return _time_text(_seconds_of(value or "00:00:00", 1))


def _exempt(value):
    return None if value in (None, "", "UNLIMITED") else _time_text(_seconds_of(value, 60))


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_AMOUNT = re.compile(r"(\d+)([KMGTP]?)")


def _tres(value):
    """Canonical: a mapping from TRES to a whole number, memory in MiB; empty is no limit."""
    if isinstance(value, str):
        value = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
    amounts = {}
    for name, amount in (value or {}).items() if isinstance(value or {}, dict) else [("", "")]:
        match = _AMOUNT.fullmatch(str(amount))
        if isinstance(amount, bool) or not match or not re.fullmatch(r"[a-z]+(/[\w.:-]+)?", str(name)):
            raise _Refused("a mapping from TRES to a whole number (memory in M, or with K, M, G, T), or null")
        base = "M" if name == "mem" or name.startswith("bb/") else ""
        amounts[name] = int(match[1]) * _UNITS[match[2] or base] // _UNITS[base]
    return dict(sorted(amounts.items()))


_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")


def _name(value):
    """A name as Slurm keeps it: in small letters."""
    if value in (None, ""):
        return None
    if not isinstance(value, str) or not _NAME.fullmatch(value.lower()):
        raise _Refused("a name of letters, digits, _ . and -")
    return value.lower()


def _names(value):
    if isinstance(value, str):
        value = [part for part in value.split(",") if part]
    if not isinstance(value or [], (list, tuple, set, frozenset)):
        raise _Refused("a list of names")
    return sorted({_name(part) for part in value or []})


def _qos_names(value):
    """QOS of an association: names, or ``+name`` and ``-name`` relative to the parent's."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part]
    if not isinstance(value or [], (list, tuple)):
        raise _Refused("a list of QOS")
    entries = sorted(
        {str(part)[:1] + _name(str(part)[1:]) if str(part)[:1] in "+-" else _name(part) for part in value or []}
    )
    if len({entry[0] in "+-" for entry in entries}) == 2:
        raise _Refused("a list of QOS, either all plain or all with + or -")
    return entries


def _text(value):
    """Free text; Slurm keeps it in small letters and its output cannot carry these characters."""
    if value is None:
        return ""
    if not isinstance(value, str) or re.search(r"[|'\"`\\#\n]", value):
        raise _Refused("text without | ' \" ` \\ # and line breaks")
    return value.strip().lower()


def _text_as_is(value):
    """Text whose letters Slurm keeps, in one word."""
    if value in (None, "", "(null)"):
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[^\s|'\"`\\]+", value):
        raise _Refused("one word")
    return value


def _instant(value):
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value):
        raise _Refused("a quoted time such as '2027-01-31T08:00:00'")
    return value


def _hosts(value):
    """A host list, expanded: Slurm prints w1,w2 as w[1-2]."""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if value in (None, ""):
        return []
    if not isinstance(value, str) or not re.fullmatch(r"ALL|[\w.,\[\]-]+", value):
        raise _Refused("a host list such as 'w[1-4],gpu1', or ALL")
    hosts = []
    for prefix, ranges, suffix in re.findall(r"([\w.-]+)(?:\[([\d,-]+)\])?([\w.-]*)", value):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1) if first else [""]
            hosts += [f"{prefix}{number:0{len(first)}}{suffix}" if first else prefix + suffix for number in numbers]
    return sorted(hosts)


def _reservation_flags(value):
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value or [], (list, tuple)):
        raise _Refused("a list of flags")
    # These say how the nodes were chosen; Slurm sets them.
    return sorted({str(flag).upper() for flag in value or []} - {"SPEC_NODES", "ALL_NODES", "PART_NODES", "", "(NULL)"})


def _choice(*choices):
    spelling = {choice.lower(): choice for choice in choices}

    def choice(value):
        try:
            return spelling[str(value or choices[0]).lower()]
        except KeyError:
            raise _Refused(f"one of {', '.join(choices)}") from None

    return choice


def _flags(*known):
    one = _choice(*known)

    def flags(value):
        if isinstance(value, str):
            value = [part for part in value.split(",") if part not in ("", "None")]
        if not isinstance(value or [], (list, tuple)):
            raise _Refused("a list of flags")
        return sorted({one(part) for part in value or []})

    return flags


class Field(NamedTuple):
    """How one declared key is spelled by sacctmgr and compared."""

    option: str
    normalise: Any
    clear: str = "-1"  # what sacctmgr wants to hear for "none"

    def empty(self):
        """The canonical value of a field that is not set."""
        return self.normalise(None)

    def words(self, old, new):
        """Return the words of sacctmgr commands that turn ``old`` into ``new``; several if order matters."""
        if self.normalise is _tres:
            gone = {name: -1 for name in old or {} if name not in new}
            return [f"{self.option}={','.join(f'{k}={v}' for k, v in {**new, **gone}.items())}"]
        if self.normalise is _qos_names and any(entry[0] in "+-" for entry in new):
            # +name adds to what is there, so that goes first.
            return ([f"{self.option}="] if old else []) + [f"{self.option}={','.join(new)}"]
        if self.normalise is _grace:
            return [f"{self.option}={_seconds_of(new, 1)}"]
        if self.normalise is _text:
            return [f"{self.option}='{new}'"]
        if isinstance(new, list):
            return [f"{self.option}={','.join(new) or self.clear}"]
        return [f"{self.option}={self.clear if new is None else new}"]


# pillar key -> how it is written and compared. Everything else follows from these tables.
ASSOCIATION = {
    "fairshare": Field("Fairshare", _fairshare),
    "priority": Field("Priority", _count),
    "qos": Field("QosLevel", _qos_names, ""),
    "default_qos": Field("DefaultQOS", _name),
    "grp_jobs": Field("GrpJobs", _count),
    "grp_jobs_accrue": Field("GrpJobsAccrue", _count),
    "grp_submit_jobs": Field("GrpSubmitJobs", _count),
    "grp_tres": Field("GrpTRES", _tres),
    "grp_tres_mins": Field("GrpTRESMins", _tres),
    "grp_tres_run_mins": Field("GrpTRESRunMins", _tres),
    "grp_wall": Field("GrpWall", _wall),
    "max_jobs": Field("MaxJobs", _count),
    "max_jobs_accrue": Field("MaxJobsAccrue", _count),
    "max_submit_jobs": Field("MaxSubmitJobs", _count),
    "max_tres": Field("MaxTRESPerJob", _tres),
    "max_tres_per_node": Field("MaxTRESPerNode", _tres),
    "max_tres_mins": Field("MaxTRESMinsPerJob", _tres),
    "max_wall": Field("MaxWall", _wall),
    "min_prio_threshold": Field("MinPrioThres", _count),
}
ACCOUNT = {
    "parent": Field("Parent", _name),
    "description": Field("Description", _text),
    "organization": Field("Organization", _text),
    "flags": Field("Flags", _flags("UsersAreCoords"), "NoUsersAreCoords"),
    **ASSOCIATION,
}
USER = {
    "default_account": Field("DefaultAccount", _name),
    "admin_level": Field("AdminLevel", _choice("none", "operator", "administrator")),
    "coordinator_of": Field("Coordinator", _names),
    "wckeys": Field("WCKeys", _names),
    "default_wckey": Field("DefaultWCKey", _name),
}
QOS = {
    "description": Field("Description", _text),
    "flags": Field(
        "Flags",
        _flags(
            "DenyOnLimit",
            "EnforceUsageThreshold",
            "NoDecay",
            "NoReserve",
            "OverPartQOS",
            "PartitionMaxNodes",
            "PartitionMinNodes",
            "PartitionTimeLimit",
            "Relative",
            "RequiresReservation",
            "UsageFactorSafe",
        ),
    ),
    "grace_time": Field("GraceTime", _grace),
    "grp_jobs": Field("GrpJobs", _count),
    "grp_jobs_accrue": Field("GrpJobsAccrue", _count),
    "grp_submit_jobs": Field("GrpSubmitJobs", _count),
    "grp_tres": Field("GrpTRES", _tres),
    "grp_tres_mins": Field("GrpTRESMins", _tres),
    "grp_tres_run_mins": Field("GrpTRESRunMins", _tres),
    "grp_wall": Field("GrpWall", _wall),
    "limit_factor": Field("LimitFactor", _number(None)),
    "max_jobs_accrue_per_account": Field("MaxJobsAccruePerAccount", _count),
    "max_jobs_accrue_per_user": Field("MaxJobsAccruePerUser", _count),
    "max_jobs_per_account": Field("MaxJobsPerAccount", _count),
    "max_jobs_per_user": Field("MaxJobsPerUser", _count),
    "max_submit_jobs_per_account": Field("MaxSubmitJobsPerAccount", _count),
    "max_submit_jobs_per_user": Field("MaxSubmitJobsPerUser", _count),
    "max_tres": Field("MaxTRESPerJob", _tres),
    "max_tres_per_account": Field("MaxTRESPerAccount", _tres),
    "max_tres_per_node": Field("MaxTRESPerNode", _tres),
    "max_tres_per_user": Field("MaxTRESPerUser", _tres),
    "max_tres_mins": Field("MaxTRESMinsPerJob", _tres),
    "max_tres_run_mins_per_account": Field("MaxTRESRunMinsPerAccount", _tres),
    "max_tres_run_mins_per_user": Field("MaxTRESRunMinsPerUser", _tres),
    "max_wall": Field("MaxWall", _wall),
    "min_prio_threshold": Field("MinPrioThres", _count),
    "min_tres": Field("MinTRESPerJob", _tres),
    "preempt": Field("Preempt", _names, ""),
    "preempt_exempt_time": Field("PreemptExemptTime", _exempt),
    "preempt_mode": Field("PreemptMode", _choice("cluster", "off", "cancel", "gang", "requeue", "suspend", "within")),
    "priority": Field("Priority", _rank),
    "usage_factor": Field("UsageFactor", _number(1.0)),
    "usage_threshold": Field("UsageThreshold", _number(None)),
}
RESOURCE = {
    "count": Field("Count", _rank),
    "allowed": Field("Allowed", _rank),
    "server_type": Field("ServerType", _text),
    "description": Field("Description", _text),
}
RESERVATION = {
    "start": Field("StartTime", _instant),
    "duration": Field("Duration", _wall),
    "nodes": Field("Nodes", _hosts),
    "node_count": Field("NodeCnt", _count),
    "partition": Field("PartitionName", _text_as_is),
    "users": Field("Users", _names),
    "accounts": Field("Accounts", _names),
    "features": Field("Features", _text_as_is),
    "licenses": Field("Licenses", _text_as_is),
    "flags": Field("Flags", _reservation_flags),
}
TABLES = {
    "cluster": {},
    "account": ACCOUNT,
    "association": ASSOCIATION,
    "user": USER,
    "qos": QOS,
    "resource": RESOURCE,
    "reservation": RESERVATION,
}
# What may be declared for one object beside its fields.
STRUCTURE = {
    "account": {"user_defaults"},
    "association": {"partitions", "any_partition"},
    "user": {"accounts", "locked", *ASSOCIATION},
}
SETTINGS = {  # slurm_accounting
    "defaults": {},  # limits of every user's association
    "purge": "owned",  # what of the undeclared is removed: none, owned (see above), all
    "purge_limit": {},  # refuse to remove more of one kind than count, or than share (0 to 1) of it
    "force": False,  # remove in spite of purge_limit and of an empty declaration
    "running_jobs": "block",  # what is removed while it has jobs: block (no new jobs, remove later), cancel
    "timeout": 300,  # seconds to wait for slurmdbd
    "resources": None,  # licences: {name@server: {count:, allowed: percent for this cluster, server_type:}}
    "reservations": None,  # {name: {start:, duration:, nodes:, users:, accounts:, flags: ...}}
}
PURGE_LIMIT = {"count": 50, "share": 0.25}
NAMED = {  # of slurm_accounting: what its names look like
    "resource": (r"[a-z0-9_.-]+@[a-z0-9_.-]+", "licence@server in small letters"),
    "reservation": (r"[A-Za-z0-9_.-]+", "a name of letters, digits, _ . and -"),
}
USER_NAME = (
    "a name of small letters, digits, _ . and -: Slurm keeps user names in small letters, "
    "so another spelling would never match the Unix user"
)


def fields(entity=None):
    """
    Return the names of the keys that can be declared.

    entity
        ``account``, ``user``, ``association``, ``qos``, ``resource``, ``reservation`` or ``settings``
        (``slurm_accounting``); leaving it out returns a mapping of all of them.

    CLI Example:

    .. code-block:: bash

        salt-call slurm_account.fields qos
    """
    names = {kind: sorted({*table, *STRUCTURE.get(kind, ())}) for kind, table in TABLES.items()}
    names["settings"] = sorted(SETTINGS)
    return names[entity] if entity else names


# -- the declared form and the tree ----------------------------------------------------------------
# A tree is {kind: {key: {field: canonical value}}}. An association's key is (user, account, partition or "").
# An account's own association is part of the account. Live trees have every field, others what is declared.


class _Report:
    """Collects what is wrong with a declaration, so that one message names all of it."""

    def __init__(self, errors=None, path="", strict=True):
        self.errors, self.path, self.strict = [] if errors is None else errors, path, strict

    def at(self, path, strict):
        """Return a report for what is below ``path``; ``strict``: unknown keys directly there are refused."""
        return _Report(self.errors, path, strict)

    def refuse(self, path, value, allowed):
        self.errors.append(f"{self.path}{path}: {json.dumps(value, default=str)} is not {allowed}")

    def entry(self, path, value, kind):
        """Return the canonical fields of one object, refusing what the tables do not know."""
        if not isinstance(value, dict):
            self.refuse(path, value, "a mapping")
            return {}
        result = {}
        for key, declared in value.items():
            if key in TABLES[kind]:
                try:
                    result[key] = TABLES[kind][key].normalise(declared)
                except _Refused as allowed:
                    self.refuse(f"{path}:{key}", declared, allowed)
            elif key not in STRUCTURE.get(kind, ()) and (self.strict or path):
                self.refuse(f"{path}:{key}", key, f"a key here; there are {', '.join(fields(kind))}")
        return result

    def name(self, path, value, taken=()):
        try:
            name = _name(value)
        except _Refused as allowed:
            self.refuse(path, value, allowed)
            return None
        if not name or name in taken:
            self.refuse(
                path,
                value,
                "a name of its own: Slurm keeps names in small letters, and this one is there twice",
            )
            return None
        return name


def normalise(declaration, strict=True):
    """
    Return ``(tree, settings)`` of a declaration; pure.

    declaration
        A mapping with any of ``accounts``, ``qos``, ``users`` and ``slurm_accounting``. A part that is
        missing or ``None`` is not managed at all.
    strict
        Refuse unknown keys of users. The pillar's entries are the whole person, so there it is ``False``.

    Raises CommandExecutionError with every path that is wrong and what is allowed there.
    """
    report = _Report()
    declared = {}
    for part in ("qos", "accounts", "users", "slurm_accounting"):
        declared[part] = declaration.get(part)
        if not isinstance(declared[part], dict | None):
            report.refuse(part, declared[part], "a mapping")
            declared[part] = None
    settings = _settings(declared["slurm_accounting"] or {}, report)
    tree = {}
    for part, kind in {"qos": "qos", "accounts": "account"}.items():
        if declared[part] is not None:
            tree[kind] = {}
            for key, value in declared[part].items():
                if name := report.name(f"{part}:{key}", key, tree[kind]):
                    tree[kind][name] = report.entry(f"{part}:{key}", value or {}, kind)
    for kind in NAMED:
        if settings[f"{kind}s"] is not None:
            tree[kind] = _named(kind, settings[f"{kind}s"], report)
    layers = _Layers(settings["defaults"], _user_defaults(declared, report), tree.get("account", {}))
    if declared["users"] is not None:
        tree["user"], tree["association"] = {}, {}
        for name, value in declared["users"].items():
            _user(name, value or {}, layers, tree, report.at(f"users:{name}", strict))
    if report.errors:
        raise _refusal("What is declared for Slurm's accounting is refused", report.errors)
    return tree, settings


def _named(kind, declared, report):
    pattern, allowed = NAMED[kind]
    for key in declared:
        if not re.fullmatch(pattern, str(key)):
            report.refuse(f"slurm_accounting:{kind}s:{key}", key, allowed)
    return {key: report.entry(f"slurm_accounting:{kind}s:{key}", value or {}, kind) for key, value in declared.items()}


def _user_defaults(declared, report):
    return {
        str(name).lower(): report.entry(f"accounts:{name}:user_defaults", value["user_defaults"] or {}, "association")
        for name, value in (declared["accounts"] or {}).items()
        if isinstance(value, dict) and "user_defaults" in value
    }


def _refusal(title, errors):
    more = [f"and {len(errors) - 20} more"] if len(errors) > 20 else []
    return CommandExecutionError("\n".join([f"{title}:", *errors[:20], *more]))


def _settings(declared, report):
    path = "slurm_accounting"
    for key in set(declared) - set(SETTINGS):
        report.refuse(f"{path}:{key}", key, f"a key here; there are {', '.join(fields('settings'))}")
    settings = {**SETTINGS, **declared}
    for key, choices in {"purge": ("none", "owned", "all"), "running_jobs": ("block", "cancel")}.items():
        if settings[key] not in choices:
            report.refuse(f"{path}:{key}", settings[key], "one of " + ", ".join(choices))
    settings["defaults"] = report.entry(f"{path}:defaults", settings["defaults"], "association")
    settings["purge_limit"] = limit = {**PURGE_LIMIT, **(settings["purge_limit"] or {})}
    if set(limit) != set(PURGE_LIMIT) or not all(isinstance(x, (int, float)) and x >= 0 for x in limit.values()):
        report.refuse(f"{path}:purge_limit", settings["purge_limit"], "{count: number of objects, share: 0 to 1}")
    return settings


class _Layers(NamedTuple):
    """Where the limits of a user's association come from, beside the user's own entry."""

    site: dict
    user_defaults: dict
    accounts: dict

    def of(self, account):
        chain, seen = [], set()
        while account and account not in seen:
            seen.add(account)
            chain.append(self.user_defaults.get(account, {}))
            account = self.accounts.get(account, {}).get("parent")
        merged = dict(self.site)
        for layer in reversed(chain):
            merged.update(layer)
        return merged


def _user(name, value, layers, tree, report):
    """Put one user's entry, with its associations, into the tree."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return report.refuse("", name, USER_NAME)
    if not isinstance(value, dict):
        return report.refuse("", value, "a mapping")
    own = report.entry("", value, "user")
    limits = report.entry("", {key: v for key, v in value.items() if key in ASSOCIATION}, "association")
    accounts = value.get("accounts") or {}
    if isinstance(accounts, list):
        accounts = dict.fromkeys(accounts)
    if not isinstance(accounts, dict):
        report.refuse(":accounts", accounts, "a list of accounts, or a mapping from account to limits")
        accounts = {}
    members = []
    for key, entry in accounts.items():
        path = f":accounts:{key}"
        specific = report.entry(path, entry or {}, "association")
        account = report.name(path, key, members)
        if account:
            members.append(account)
            base = {**layers.of(account), **limits, **specific}
            for partition, narrower in _partitions(path, entry or {}, report):
                tree["association"][name, account, partition] = {**base, **narrower}
    if members:
        default = own.setdefault("default_account", members[0])
        if default not in members:
            report.refuse(":default_account", default, f"one of the user's accounts ({', '.join(members)})")
        wckey = own.get("default_wckey")
        if wckey and wckey not in own.get("wckeys", [wckey]):
            report.refuse(":default_wckey", wckey, "one of the user's wckeys")
        if value.get("locked"):  # a job that still runs could lift the limits with these rights
            own.update({field: USER[field].empty() for field in ("admin_level", "coordinator_of") if field in own})
        tree["user"][name] = own
    elif (own or limits) and report.strict:
        report.refuse("", value, "a user of Slurm: that needs at least one account")
    return None


def locks(declaration):
    """Return whether each declared user is locked, ``{user: True or False}``; pure."""
    users = declaration.get("users") or {}
    return {name: isinstance(entry, dict) and bool(entry.get("locked")) for name, entry in users.items()}


def _partitions(path, entry, report):
    """Yield ``(partition, limits)`` of each association that an entry under ``accounts`` stands for."""
    partitions = (entry.get("partitions") if isinstance(entry, dict) else None) or {}
    if not isinstance(partitions, dict):
        return report.refuse(f"{path}:partitions", partitions, "a mapping from partition to limits")
    if not isinstance(entry, dict) or entry.get("any_partition", True):
        yield "", {}
    elif not partitions:
        report.refuse(f"{path}:any_partition", False, "enough: no partition is named")
    for partition, limits in partitions.items():
        yield (
            str(partition).lower(),
            report.entry(f"{path}:partitions:{partition}", limits or {}, "association"),
        )
    return None


def declare(tree):
    """Return the declared form of a live tree, so that declaring it changes nothing; pure."""

    def told(kind, entry, always=(), without=()):
        table = TABLES[kind]
        return {
            field: value
            for field, value in entry.items()
            if (field in always or value != table[field].empty()) and not (field in without and value == without[field])
        }

    accounts = {
        name: told("account", entry, ("description", "organization"), without={"parent": ROOT})
        for name, entry in tree["account"].items()
        if name != ROOT
    }
    # Of root, what is not as Slurm makes it.
    limits = {field: value for field, value in tree["account"][ROOT].items() if field in ASSOCIATION}
    if root := told("association", limits, without={"qos": ["normal"]}):
        accounts[ROOT] = root
    users = {}
    for (user, account, partition), entry in sorted(tree["association"].items()):  # "" before partitions
        own = users.setdefault(user, {"accounts": {}})["accounts"].setdefault(account, {})
        if not partition:
            own.update(told("association", entry))
            continue
        base = tree["association"].get((user, account, ""))
        if base is None:
            own["any_partition"] = False
        own.setdefault("partitions", {})[partition] = {
            name: None if value == field.empty() else value
            for (name, field), value in zip(ASSOCIATION.items(), entry.values(), strict=True)
            if value != (base[name] if base else field.empty())
        }
    for user, entry in tree["user"].items():
        if user in users:
            users[user].update(told("user", entry))
    root = users.get(ROOT)
    if root and root["accounts"] == {ROOT: {}}:
        del users[ROOT]
    return {
        "qos": {name: told("qos", entry, ("description",)) for name, entry in tree["qos"].items()},
        "accounts": accounts,
        "users": users,
        "slurm_accounting": {
            f"{kind}s": {
                # a reservation's nodes say how many they are
                key: told(kind, {f: v for f, v in entry.items() if f != "node_count" or not entry["nodes"]})
                for key, entry in tree[kind].items()
            }
            for kind in ("resource", "reservation")
            if tree[kind]
        },
    }


# -- reservations in time --------------------------------------------------------------------------

#: Flags of reservations that come again, and after how long; Slurm skips the days that WEEKDAY and WEEKEND leave out.
PERIODS = {
    "HOURLY": datetime.timedelta(hours=1),
    "DAILY": datetime.timedelta(days=1),
    "WEEKDAY": datetime.timedelta(days=1),
    "WEEKEND": datetime.timedelta(days=1),
    "WEEKLY": datetime.timedelta(days=7),
}


def due(entry, live, now):
    """
    Return a declared reservation as slurmctld has or takes it at the time ``now``; ``None`` if its time is past; pure.

    entry, live
        The reservation as declared, and as slurmctld has it (``None`` if it has not).
    now
        A :class:`~datetime.datetime` in local time.

    slurmctld deletes a reservation when its time is past and does not take it again. It moves the start of one that
    comes again, and it takes no start in the past: one whose time has begun is made for the time that is left.
    """
    if not entry.get("start"):
        return entry
    start = datetime.datetime.fromisoformat(entry["start"])
    period = next((PERIODS[flag] for flag in entry.get("flags") or [] if flag in PERIODS), None)
    there = datetime.datetime.fromisoformat(live["start"]) if live and live.get("start") else None
    if period and there and there >= start and not (there - start) % period:
        return {**entry, "start": live["start"]}
    if period:
        return {**entry, "start": (start - min((start - now) // period, 0) * period).isoformat()}
    if start >= now or not entry.get("duration"):
        return entry
    end = start + datetime.timedelta(seconds=_seconds_of(entry["duration"], 60))
    if there:
        same_end = there > start and there + datetime.timedelta(seconds=_seconds_of(live["duration"], 60)) == end
        return {**entry, "start": live["start"], "duration": live["duration"]} if same_end else entry
    return _rest(entry, now.replace(second=start.second, microsecond=0), end)


def _rest(entry, begin, end):
    """Return a reservation for the time that is left of it, ``None`` if that is less than a minute."""
    left = end - begin
    if left < datetime.timedelta(minutes=1):
        return None
    return {**entry, "start": begin.isoformat(), "duration": _time_text(int(left.total_seconds()))}


# -- the difference --------------------------------------------------------------------------------


class Live(NamedTuple):
    """What is in the database: a tree, and what is known about it beside its fields."""

    tree: dict
    owned: frozenset = frozenset()  # {(kind, key)}
    blocked: frozenset = frozenset()  # associations that are marked as taking no new jobs
    tres: frozenset = frozenset()  # names of TRES
    elsewhere: frozenset = frozenset()  # users with associations in other clusters
    ids: dict = {}  # association id -> key
    unread: tuple = ()  # what cannot be read, and why


class Change(NamedTuple):
    """One object to ``add``, ``modify``, ``remove``, ``block`` or ``unblock``, with the fields that change."""

    action: str
    kind: str
    key: Any
    old: dict
    new: dict


def check(live, wanted):
    """Return what is wrong with ``wanted`` given what is live, as a list of messages; pure."""
    accounts = {*live.tree["account"], *wanted.get("account", ())}
    errors = list(_tree_errors(accounts, live, wanted))
    orphans = defaultdict(set)
    for user, account, _ in wanted.get("association", ()):
        if account not in accounts:
            orphans[account].add(user)
    for account, users in sorted(orphans.items()):
        some = f"users:{min(users)}:accounts:{account}"
        errors.append(f"{some}: there is no account {account} (users that name it: {len(users)})")
    for user, entry in wanted.get("user", {}).items():
        for account in set(entry.get("coordinator_of", [])) - accounts:
            errors.append(f"users:{user}:coordinator_of: there is no account {account}")
    qos = {*live.tree["qos"], *wanted.get("qos", ())}
    for kind in ("account", "association", "qos"):
        for key, entry in wanted.get(kind, {}).items():
            errors += [f"{_label(kind, key)}: {error}" for error in _reference_errors(kind, entry, qos, live.tres)]
    return errors + list(_preemption_errors(live, wanted))


def _preemption_errors(live, wanted):
    """Yield an error for each declared QOS that would preempt itself, by way of others: Slurm refuses that half-way."""
    preempts = {name: entry.get("preempt") or [] for name, entry in live.tree["qos"].items()}
    preempts |= {name: entry["preempt"] or [] for name, entry in wanted.get("qos", {}).items() if "preempt" in entry}
    for name in sorted(wanted.get("qos", {})):
        reached, ahead = set(), list(preempts.get(name, []))
        while ahead:
            other = ahead.pop()
            if other not in reached:
                reached.add(other)
                ahead += preempts.get(other, [])
        if name in reached:
            yield f"qos:{name}:preempt: {name} would preempt itself, by way of {', '.join(sorted(reached))}"


def _tree_errors(accounts, live, wanted):
    parents = {name: _parent(name, live, wanted) for name in accounts}
    if "parent" in wanted.get("account", {}).get(ROOT, {}):
        yield "accounts:root:parent: root has no parent"
    for name, parent in parents.items():
        if parent and parent not in accounts:
            yield f"accounts:{name}:parent: there is no account {parent}"
        seen, above = {name}, parent
        while above in parents and above not in seen:
            seen.add(above)
            above = parents[above]
        if above in seen:
            yield f"accounts:{name}:parent: an account cannot be below itself ({parent})"


def _reference_errors(kind, entry, qos, tres):
    named = [*entry.get("qos", []), *entry.get("preempt", []), entry.get("default_qos") or "normal"]
    for name in sorted({name.lstrip("+-") for name in named} - qos):
        yield f"there is no QOS {name}; there are {', '.join(sorted(qos))}"
    for field, value in entry.items():
        if TABLES[kind][field].normalise is _tres and tres:
            for name in sorted(set(value) - tres):
                yield (
                    f"{field}: Slurm does not track {name}, but {', '.join(sorted(tres))} "
                    "(AccountingStorageTRES in slurm.conf)"
                )


def _parent(name, live, wanted):
    """Return an account's parent after the change; ``None`` for root."""
    if name == ROOT:
        return None
    declared = wanted.get("account", {}).get(name, {}).get("parent")
    return declared or live.tree["account"].get(name, {}).get("parent") or ROOT


def difference(live, wanted, purge="none", absent=None, locked=None):
    """
    Return the list of :class:`Change` that turns what is live into what is wanted; pure.

    Only declared fields are compared. ``purge`` (``none``, ``owned``, ``all``) decides what of the undeclared
    is removed, of the kinds that are declared at all; ``absent``, ``{kind: {key, ...}}``, is removed in any
    case. ``locked``, ``{user: True or False}``, blocks all associations of a user, also those that are not
    declared, or unblocks them.
    """
    changes, locked = [], locked or {}
    for kind, objects in wanted.items():
        for key, entry in objects.items():
            old = live.tree[kind].get(key)
            shut = kind == "association" and locked.get(key[0])
            target = {field: value for field, value in entry.items() if field not in LOCKED} if shut else entry
            if old is None:
                changes.append(Change("add", kind, key, {}, target))
                continue
            # An association that was blocked and is wanted again gets its limits back, and loses the mark.
            back = kind == "association" and not shut and key in live.blocked
            if back:
                target = {**{field: None for field in LOCKED if old[field] == 0}, **entry}
            changed = [field for field, value in target.items() if value != old[field]]
            if changed or back:
                action = "unblock" if back else "modify"
                changes.append(Change(action, kind, key, {f: old[f] for f in changed}, {f: target[f] for f in changed}))
    removals = _removals(live, wanted, purge, absent or {})
    return changes + removals + _locks(live, wanted, locked, {c.key for c in removals if c.kind == "association"})


def _locks(live, wanted, locked, gone):
    """Return the changes that block and unblock associations for the sake of ``locked``, but for those in ``gone``."""
    keys = {*live.tree["association"], *wanted.get("association", ())} - gone
    changes = []
    for key in sorted(key for key in keys if key[0] in locked):
        old = live.tree["association"].get(key, {})
        by_hand = key not in wanted.get("association", ()) and ("association", key) not in live.owned
        if locked[key[0]]:
            if key not in live.blocked or any(old[field] != value for field, value in LOCKED.items()):
                changes.append(Change("block", "association", key, {f: old.get(f) for f in LOCKED}, dict(LOCKED)))
        elif by_hand and key in live.blocked:
            shut = [field for field in LOCKED if old[field] == 0]
            changes.append(Change("unblock", "association", key, dict.fromkeys(shut, 0), dict.fromkeys(shut)))
    return changes


def _removals(live, wanted, purge, absent):
    gone = {}
    for kind in ("association", "account", "qos", "resource", "reservation"):
        gone[kind] = set(live.tree[kind]) & set(absent.get(kind, ()))
        if purge != "none" and kind in wanted:
            undeclared = set(live.tree[kind]) - set(wanted[kind])
            gone[kind] |= {key for key in undeclared if purge == "all" or (kind, key) in live.owned}
    for key in live.tree["association"]:
        if key[0] in absent.get("user", ()) or key[1] in absent.get("account", ()):
            gone["association"].add(key)
    gone["association"].discard((ROOT, ROOT, ""))
    gone["account"].discard(ROOT)
    gone["qos"].discard("normal")

    # An account stays for as long as anything in or below it does.
    staying = (set(live.tree["association"]) | set(wanted.get("association", ()))) - gone["association"]
    accounts = (set(live.tree["account"]) | set(wanted.get("account", ()))) - gone["account"]
    for account in accounts | {account for _, account, _ in staying}:
        while account:
            gone["account"].discard(account)
            account = _parent(account, live, wanted)  # noqa: PLW2901

    # A user without associations goes; one who loses the default account gets another first.
    left = defaultdict(list)
    for user, account, _ in sorted(staying):
        left[user].append(account)
    gone["user"], moved = set(), []
    for user in sorted({user for user, _, _ in gone["association"]} - set(wanted.get("user", ()))):
        default = live.tree["user"].get(user, {}).get("default_account")
        if not left[user]:
            gone["user"].add(user)
        elif default not in left[user]:
            new = {"default_account": left[user][0]}
            moved.append(Change("modify", "user", user, {"default_account": default}, new))
    order = ("association", "user", "account", "qos", "resource", "reservation")
    return moved + [Change("remove", kind, key, {}, {}) for kind in order for key in sorted(gone[kind])]


def guard(changes, live, wanted, settings):
    """Raise CommandExecutionError if more would be removed than ``purge_limit`` allows; pure."""
    if settings["force"] or settings["purge"] == "none":
        return
    limit = settings["purge_limit"]
    for kind in ("user", "account", "qos", "association", "resource", "reservation"):
        count = sum(change.action == "remove" and change.kind == kind for change in changes)
        if not count:
            continue
        total = len(live.tree[kind])
        if not wanted[kind] and count > 1:  # the last one may go
            reason = f"nothing of this kind is declared any more, and {count} would be removed"
        elif count > limit["count"]:
            reason = f"{count} would be removed, more than purge_limit:count = {limit['count']}"
        elif count > max(SMALL, limit["share"] * total):
            reason = f"{count} of {total} would be removed, more than purge_limit:share = {limit['share']}"
        else:
            continue
        raise CommandExecutionError(
            f"Refusing to remove objects of kind {kind}: {reason}. slurm_accounting:force overrides."
        )


def hold(changes, busy, live):
    """
    Return ``(changes, notes)`` with nothing removed that has jobs; pure.

    busy
        Mapping from association key to the number of its jobs.

    The associations concerned are blocked for new jobs instead; their users, their accounts and those above
    stay until the jobs have ended. A user whose default account goes gets one that stays as the default.
    """
    kept = {("association", c.key) for c in changes if c[:2] == ("remove", "association") and c.key in busy}
    for _, (user, account, _) in list(kept):
        kept.add(("user", user))
        above = account
        while above:
            kept.add(("account", above))
            above = live.tree["account"].get(above, {}).get("parent")
    accounts = {user: account for _, (user, account, _) in sorted(key for key in kept if key[0] == "association")}
    gone = {c.key[:2] for c in changes if c[:2] == ("remove", "association") and ("association", c.key) not in kept}
    result, notes = [], []
    for user in sorted(user for user in accounts if ("remove", "user", user) in {change[:3] for change in changes}):
        default = live.tree["user"].get(user, {}).get("default_account")
        if default != accounts[user] and (user, default) in gone:
            new = {"default_account": accounts[user]}
            result.append(Change("modify", "user", user, {"default_account": default}, new))
    for change in changes:
        if change.action != "remove" or (change.kind, change.key) not in kept:
            result.append(change)
        elif change.kind == "association":
            told = _label("association", change.key)
            notes.append(f"{told} takes no new jobs and goes when its {busy[change.key]} job(s) have ended")
            if change.key not in live.blocked:
                old = {field: live.tree["association"][change.key][field] for field in NO_NEW_JOBS}
                result.append(Change("block", "association", change.key, old, dict(NO_NEW_JOBS)))
    return result, notes


def _label(kind, key):
    if kind != "association":
        return f"{kind} {key}"
    user, account, partition = key
    return f"user {user} in {account}" + (f" on {partition}" if partition else "")


def report(changes):
    """Return ``{object: {field: {old:, new:}}}``; ``present`` tells of objects that come and go; pure."""
    told = {}
    for change in changes:
        entry = told.setdefault(_label(change.kind, change.key), {})
        if change.action in ("add", "remove"):
            entry["present"] = {"old": change.action == "remove", "new": change.action == "add"}
        for field, value in change.new.items():
            entry[field] = {"old": change.old.get(field), "new": value}
        if not entry:
            entry["blocked"] = {"old": True, "new": False}
    return told


# -- writing ---------------------------------------------------------------------------------------


def commands(changes, live, wanted, cluster):
    """
    Return the steps that make ``changes``, ``[(command, its standard input), ...]``; pure.

    Order: what others refer to, then what is new, then changes, then removals.
    """
    of = defaultdict(list)
    for change in changes:
        of[change.action, change.kind].append(change)
    first = [f"add cluster {cluster}"] if of["add", "cluster"] else []
    first += [*_resources(of, live, cluster), *_qualities(of, live)]
    changed, apart = _apart(of["modify", "association"], live)
    load = _load_file(of, apart, live, wanted, cluster)
    then = [*_accounts(of, live, wanted, cluster), *_users(of, live, cluster)]
    changed += of["block", "association"] + of["unblock", "association"]
    for options, clauses in _grouped(changed, of["add", "association"], live):
        then += [f"modify user where {where} cluster={cluster} set {words}" for where in clauses for words in options]
    then += _deletions(of, live, wanted, cluster)
    steps = [
        (["sacctmgr", "-i"], first),
        (["sacctmgr", "-i", "load", "/dev/stdin"], load),
        (["sacctmgr", "-i"], then),
    ]
    steps.append((["scontrol"], list(_reservations(of))))
    return [(words, "\n".join([*lines, ""])) for words, lines in steps if lines]


def _chunks(names):
    names = sorted(names)
    return [",".join(names[i : i + CHUNK]) for i in range(0, len(names), CHUNK)]


def _options(kind, change):
    """Return the options of the commands that make one change, one text per command."""
    words = []
    for field, new in change.new.items():
        *before, last = TABLES[kind][field].words(change.old.get(field), new)
        words = [*before, *words, last]
    clears = [word for word in words if word == "QosLevel=" and len(words) > 1]
    rest = [word for word in words if word not in clears]
    return (*clears, " ".join(rest))


def _described(kind, change, live):
    """Return the word that sets a description, with the owner's mark if the object is this module's."""
    text = change.new.get("description", change.key.partition("@")[0])
    mine = change.action == "add" or (kind, change.key) in live.owned
    return f"description='{' '.join(filter(None, (text, f'({OWNER})' if mine else '')))}'"


def _resources(of, live, cluster):
    def words(entry):
        return [word for name, value in entry.items() for word in RESOURCE[name].words(None, value)]

    for change in [*of["add", "resource"], *of["modify", "resource"]]:
        name, server = change.key.split("@")
        plain = {k: v for k, v in change.new.items() if k not in ("allowed", "description")}
        described = [_described("resource", change, live)]
        if change.action == "add":
            entry = {"count": 0, **plain, "allowed": change.new.get("allowed", 100)}
            options = " ".join([*words(entry), *described])
            yield f"add resource name={name} server={server} type=License cluster={cluster} {options}"
            continue
        if options := words(plain) + (described if "description" in change.new else []):
            yield f"modify resource where name={name} server={server} set {' '.join(options)}"
        if "allowed" in change.new:
            allowed = change.new["allowed"]
            yield f"modify resource where name={name} server={server} cluster={cluster} set allowed={allowed}"


def _qualities(of, live):
    # All names first: Preempt may name any of them, and sacctmgr reads the list of QOS once.
    for change in of["add", "qos"]:
        yield f"add qos name={change.key} {_described('qos', change, live)}"
    for change in [*of["add", "qos"], *of["modify", "qos"]]:
        plain = change._replace(new={k: v for k, v in change.new.items() if k != "description"})
        options = [word for word in _options("qos", plain) if word]
        if change.action == "modify" and "description" in change.new:
            options.append(_described("qos", change, live))
        if options:
            yield f"modify qos where name={change.key} set {' '.join(options)}"


def _apart(changes, live):
    """
    Return ``(changes, apart)``: apart are those that ``load`` had better make.

    Each command is a transaction, which with 10,000 users takes 0.05 to 0.3 s; ``load`` makes all in one. It
    is right for plain numbers and times, and pays if many users change each in a way of their own.
    """
    alike = defaultdict(list)
    for change in changes:
        alike[_options("association", change), change.key[2]].append(change)
    plain = (_count, _fairshare, _wall)
    apart = [
        change
        for change, *others in alike.values()
        if not others
        and all(ASSOCIATION[f].normalise in plain and v is not None for f, v in change.new.items())
        and "min_prio_threshold" not in change.new  # load overlooks it
    ]
    if len(apart) <= FEW:
        return changes, []
    return [change for change in changes if change not in apart], apart


def _grouped(changes, added, live):
    """
    Return ``[(options, [where, ...]), ...]``: changes of associations, equal ones together.

    A where clause names users, accounts and one partition, and matches their product; so a group becomes one
    clause only if that product has nothing else in it.
    """
    alike = defaultdict(set)
    for change in changes:
        options = _options("association", change)
        owned = ("association", change.key) in live.owned or change.key not in live.tree["association"]
        if change.action == "block":
            options = (f"{options[0]} comment='{BLOCKED[owned]}'",)
        elif change.action == "unblock":
            options = (*options[:-1], f"{options[-1]} comment='{OWNER if owned else ''}'".lstrip())
        alike[options, change.key[2]].add(change.key)
    accounts_of = _accounts_of([*live.tree["association"], *(change.key for change in added)])
    return [(options, _where(keys, partition, accounts_of)) for (options, partition), keys in alike.items()]


def _accounts_of(keys):
    accounts = defaultdict(set)
    for user, account, partition in keys:
        accounts[user, partition].add(account)
    return accounts


def _where(keys, partition, accounts_of):
    users, accounts = {user for user, _, _ in keys}, {account for _, account, _ in keys}
    product = sum(len(accounts_of[user, partition] & accounts) for user in users)
    if product == len(keys):
        parts = [(users, accounts)]
    else:
        parts = [({user for user, a, _ in keys if a == account}, {account}) for account in sorted(accounts)]
    return [
        f"name={names} account={','.join(sorted(accounts))} partition='{partition}'"
        for users, accounts in parts
        for names in _chunks(users)
    ]


def _load_file(of, apart, live, wanted, cluster):
    def line(what, name, entry):
        words = [
            word for field, new in entry.items() if field in ASSOCIATION for word in ASSOCIATION[field].words(None, new)
        ]
        quoted = [f"{option}='{value}'" for option, value in (word.split("=", 1) for word in words) if value]
        return ":".join([f"{what} - '{name}'", *quoted])

    owner = f":Comment='{OWNER}'"
    children = defaultdict(list)  # parent -> lines
    for change in of["add", "account"]:
        text = line("Account", change.key, change.new) + owner
        for field in ("description", "organization"):
            if change.new.get(field):
                text += f":{ACCOUNT[field].option}='{change.new[field]}'"
        children[_parent(change.key, live, wanted)].append((change.key, text))
    members = defaultdict(list)
    known = {user for user, _, _ in live.tree["association"]}
    for change in of["add", "association"]:
        user, account, partition = change.key
        text = line("User", user, change.new) + owner
        if partition:
            text += f":Partition='{partition}'"
        if user not in known:
            text += f":DefaultAccount='{wanted['user'][user]['default_account']}'"
            if wanted["user"][user].get("admin_level", "none") != "none":
                text += f":AdminLevel='{wanted['user'][user]['admin_level']}'"
        members[account].append(text)
    for change in apart:
        user, account, partition = change.key
        partition = f":Partition='{partition}'" if partition else ""
        members[account].append(line("User", user, change.new) + partition)
    if not children and not members:
        return []
    lines = [f"Cluster - '{cluster}'"]

    def descend(parent):
        lines.append(f"Parent - '{parent}'")
        lines.extend(text for _, text in children[parent])
        for name, _ in children[parent]:
            if children.get(name):
                descend(name)

    new = {name for entries in children.values() for name, _ in entries}
    for parent in list(children):
        if parent not in new:
            descend(parent)
    for account, texts in members.items():
        lines += [f"Parent - '{account}'", *texts]
    return lines


def _accounts(of, live, wanted, cluster):
    """What load leaves out, moves from the top down (no account is ever below itself), the rest."""

    def depth(name):
        return 0 if name == ROOT else 1 + depth(_parent(name, live, wanted))

    def here(names):
        return f"modify account where name={names} cluster={cluster} set"

    for change in of["add", "account"]:
        for field in ("description", "organization"):
            if change.new.get(field) == "":  # load would take the name
                yield f"{here(change.key)} {ACCOUNT[field].option}=''"
        if change.new.get("flags"):
            yield f"{here(change.key)} Flags={','.join(change.new['flags'])}"
    moved = [change for change in of["modify", "account"] if "parent" in change.new]
    for change in sorted(moved, key=lambda change: depth(change.key)):
        yield f"{here(change.key)} parent={change.new['parent']}"
    alike = defaultdict(list)
    for change in of["modify", "account"]:
        if new := {k: v for k, v in change.new.items() if k != "parent"}:
            alike[_options("account", change._replace(new=new))].append(change.key)
    for options, names in alike.items():
        for chunk in _chunks(names):
            yield from (f"{here(chunk)} {words}" for words in options)


def _users(of, live, cluster):
    here = f"cluster={cluster}"
    known = {user for user, _, _ in live.tree["association"]}
    alike = defaultdict(list)  # (order, command with {} for the names) -> users
    for change in [*of["add", "user"], *of["modify", "user"]]:
        for field, new in change.new.items():
            if field in ("wckeys", "coordinator_of"):
                old = set(change.old.get(field, ()))
                plus, minus = (",".join(sorted(names)) for names in (set(new) - old, old - set(new)))
                verbs = _WCKEYS if field == "wckeys" else _COORDINATORS
                for (order, command), names in zip(verbs, (plus, minus), strict=True):
                    if names:
                        alike[order, command.format("{}", here, names)].append(change.key)
            elif change.action == "modify" or change.key in known or (field == "default_wckey" and new):
                # load has given new users the rest; an admin level is of no cluster
                where = "" if field == "admin_level" else f" {here}"
                command = f"modify user where name={{}}{where} set {USER[field].option}={new or ''}"
                alike[2, command].append(change.key)
    for (_, command), users in sorted(alike.items()):
        yield from (command.format(names) for names in _chunks(users))


# wckeys are there before one is made the default, and go after that
_WCKEYS = ((1, "add user name={} {} wckeys={}"), (3, "delete user where name={} {} wckeys={}"))
_COORDINATORS = (
    (4, "add coordinator names={0} account={2}"),
    (5, "delete coordinator names={0} account={2}"),
)


def _deletions(of, live, wanted, cluster):
    whole = {change.key for change in of["remove", "user"]}
    for names in _chunks(whole - live.elsewhere):
        yield f"delete user where name={names}"
    for names in _chunks(whole & live.elsewhere):
        yield f"delete user where name={names} cluster={cluster}"
    going = {change.key for change in of["remove", "association"] if change.key[0] not in whole}
    if going:
        accounts_of = _accounts_of(live.tree["association"])
        deletions = [
            f"delete user where {where} cluster={cluster}"
            for partition in sorted({partition for _, _, partition in going})
            for where in _where({key for key in going if key[2] == partition}, partition, accounts_of)
        ]
        staying = {*live.tree["association"], *(change.key for change in of["add", "association"])} - going
        default = {
            user: entry["default_account"] for user, entry in {**live.tree["user"], **wanted.get("user", {})}.items()
        }
        both = {key[:2] for key in going} & {key[:2] for key in staying}
        stuck = {(user, account) for user, account in both if user != ROOT and default[user] == account}
        yield from _lent_default(stuck, deletions, cluster)
    for names in _chunks(change.key for change in of["remove", "account"]):
        yield f"delete account where name={names} cluster={cluster}"
    for names in _chunks(change.key for change in of["remove", "qos"]):
        yield f"delete qos where name={names}"
    for change in of["remove", "resource"]:
        name, server = change.key.split("@")
        yield f"delete resource where name={name} server={server}"


def _lent_default(stuck, deletions, cluster):
    """
    Wrap deletions in what lets Slurm accept them for the users in ``stuck``, ``{(user, account), ...}``.

    It refuses to touch a user's default account even if the user keeps another association in it. So these
    users are lent an association in root, in which they can run nothing, as the default in the meantime.
    """
    names = _chunks(user for user, _ in stuck)
    for chunk in names:
        yield f"add user name={chunk} account={ROOT} cluster={cluster} maxsubmitjobs=0 comment='{OWNER}'"
        yield f"modify user where name={chunk} cluster={cluster} set defaultaccount={ROOT}"
    yield from deletions
    for account in sorted({account for _, account in stuck}):
        for chunk in _chunks(user for user, a in stuck if a == account):
            yield f"modify user where name={chunk} cluster={cluster} set defaultaccount={account}"
    for chunk in names:
        yield f"delete user where name={chunk} account={ROOT} cluster={cluster}"


def _reservations(of):
    def words(change):
        for field, new in change.new.items():
            value = ",".join(new) if isinstance(new, list) else new
            yield f"{RESERVATION[field].option}={'' if value is None else value}"

    for change in of["add", "reservation"]:
        yield f"create reservationname={change.key} {' '.join(words(change))} comment='{OWNER}'"
    for change in of["modify", "reservation"]:
        old, new = set(change.old.get("flags", ())), set(change.new.get("flags", ()))
        plain = change._replace(new={k: v for k, v in change.new.items() if k != "flags"})
        for option in (*words(plain), f"flags+={','.join(new - old)}", f"flags-={','.join(old - new)}"):
            if not option.endswith(("+=", "-=")):
                yield f"update reservationname={change.key} {option}"
    for change in of["remove", "reservation"]:
        yield f"delete reservationname={change.key}"


# -- talking to Slurm ------------------------------------------------------------------------------


def _run(words, stdin=None, timeout=600):
    if not salt.utils.path.which(words[0]):
        raise CommandExecutionError(
            f"{words[0]} is not installed here, on the machine that manages Slurm's accounting."
        )
    return __salt__["cmd.run_all"](
        words, stdin=stdin, timeout=timeout, python_shell=False, ignore_retcode=True, output_loglevel="quiet",
        env={"LC_ALL": "C.UTF-8", "TERM": "dumb"},
    )  # fmt: skip


def _controller_is_up():
    # Anything else asked of a slurmctld that is down is retried for minutes.
    return "is UP" in _run(["scontrol", "ping"])["stdout"]


def _until(timeout, failure, attempt):
    """Return what ``attempt`` returns; while that is ``None``, try again for ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (result := attempt()) is None:
        if time.monotonic() > deadline:
            raise CommandExecutionError(failure())
        time.sleep(1)
    return result


def _show(entity, columns, timeout):
    """
    Return the rows of one ``sacctmgr show``, waiting until slurmdbd answers or the deadline has passed.

    sacctmgr separates columns by ``|`` and escapes nothing, so a free text is the last column.
    """
    words = ["sacctmgr", "-nP", "show", *entity.split(), f"format={','.join(columns)}"]
    answer = {}

    def attempt():
        answer.update(_run(words))
        if answer["retcode"] or "error" in answer["stderr"].lower():
            return None
        return [line.split("|", len(columns) - 1) for line in answer["stdout"].splitlines() if "|" in line]

    said = f"slurmdbd did not answer within {timeout} s, sacctmgr said: "
    return _until(timeout, lambda: said + (_said(answer) or "nothing"), attempt)


def _said(answer):
    """Return what a command complained of, each line once."""
    lines = [line.split("error: ")[-1].strip() for line in answer["stderr"].splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))[:2000]


def read(cluster, timeout=300, default_wckeys=True, reservations=True):
    """
    Return the live state as a :class:`Live`: one command per kind of object, however many objects there are.

    cluster
        The cluster's name.
    timeout
        Seconds to wait for slurmdbd; with 10,000 users it opens its port some minutes after it starts.
    default_wckeys
        Whether to ask for users' default wckeys, which takes slurmdbd seconds with many users.
    reservations
        Whether to ask slurmctld for its reservations.

    Raises CommandExecutionError when slurmdbd does not answer in time.
    """
    table = list(ASSOCIATION)
    columns = ["id", "cluster", "account", "user", "partition", "lineage"]
    columns += [*(ASSOCIATION[name].option for name in table), "comment"]
    rows = _show("assoc wopl wopi withrawqos", columns, timeout)
    tree = {kind: {} for kind in TABLES}
    owned, blocked, ids, unread = set(), set(), {}, []
    for number, where, account, user, partition, lineage, *values, comment in rows:
        if where != cluster:
            continue
        kind, key = ("association", (user, account, partition)) if user else ("account", account)
        tree["cluster"][cluster] = {}
        with _reading(unread, kind, account if kind == "account" else f"{user} in {account}"):
            tree[kind][key] = {name: ASSOCIATION[name].normalise(v) for name, v in zip(table, values, strict=True)}
        if key not in tree[kind]:
            continue
        ids[number] = key
        if not user and account != ROOT:
            tree[kind][key]["parent"] = ([ROOT] + [part for part in lineage.split("/") if part])[-2]
        if comment.startswith(OWNER):
            owned.add((kind, key))
        if comment in (*BLOCKED.values(), BLOCKED_BEFORE):
            blocked.add(key)
    if not tree["cluster"]:
        tree["account"][ROOT] = {name: field.empty() for name, field in ASSOCIATION.items()}
    _read_accounts(tree, timeout, unread)
    _read_users(tree, cluster, timeout, default_wckeys, unread)
    _read_described(tree, owned, cluster, timeout, unread)
    if reservations:
        for key, entry, mine in _read_reservations():
            tree["reservation"][key] = entry
            if mine:
                owned.add(("reservation", key))
    tres = {f"{kind}/{name}" if name else kind for kind, name in _show("tres", ["type", "name"], timeout)}
    elsewhere = frozenset(row[3] for row in rows if row[1] != cluster and row[3])
    return Live(
        tree, frozenset(owned), frozenset(blocked), frozenset(tres), elsewhere, ids, tuple(dict.fromkeys(unread))
    )


def _text_last(table):
    """Return the names of a table's fields, of which the description, a free text, is the last."""
    return [*(name for name in table if name != "description"), "description"]


def _read_accounts(tree, timeout, unread):
    """Read flags, descriptions and organizations of accounts: one query for each free text."""
    for column in ("flags", "description", "organization"):
        for name, value in _show("account", ["account", column], timeout):
            if name in tree["account"]:
                with _reading(unread, "account", name):
                    tree["account"][name][column] = ACCOUNT[column].normalise(value) if column == "flags" else value


def _read_described(tree, owned, cluster, timeout, unread):
    """Read QOS and licences; the description of an object that this module made ends in a mark."""

    def columns(table):
        return [table[name].option for name in _text_last(table)]

    rows = [("qos", name, row) for name, *row in _show("qos", ["name", *columns(QOS)], timeout)]
    licences = _show("resource withcluster", ["name", "server", "cluster", *columns(RESOURCE)], timeout)
    rows += [("resource", f"{name}@{server}", row) for name, server, where, *row in licences if where == cluster]
    for kind, key, row in rows:
        with _reading(unread, kind, key):
            entry = dict(zip(_text_last(TABLES[kind]), row, strict=True))
            text, mark, _ = entry.pop("description").partition(f"({OWNER})")
            values = {name: TABLES[kind][name].normalise(value) for name, value in entry.items()}
            tree[kind][key] = {name: values.get(name, text.strip().lower()) for name in TABLES[kind]}
            owned |= {(kind, key)} if mark else set()


@contextlib.contextmanager
def _reading(unread, kind, name):
    """Note an object whose row cannot be read, which then is left alone, and go on."""
    try:
        yield
    except (ValueError, _Refused) as error:
        unread.append(f"{kind} {name}: {error}")


def _read_users(tree, cluster, timeout, default_wckeys, unread):
    default = dict(_show(f"assoc wopl wopi onlydefaults cluster={cluster}", ["user", "account"], timeout))
    wckeys = defaultdict(set)
    for name, where, user in _show("wckey", ["wckey", "cluster", "user"], timeout):
        if where == cluster and name.strip("*"):
            wckeys[user].add(name.strip("*"))
    flagged = {name for name, entry in tree["account"].items() if "UsersAreCoords" in entry.get("flags", ())}
    implied = _implied(tree["association"], flagged)
    members = {user for user, _, _ in tree["association"]}
    columns = ["user", "admin", "coordinators"] + (["defaultwckey"] if default_wckeys else [])
    for user, admin, coordinators, *default_wckey in _show("user withcoord", columns, timeout):
        if user not in members:
            continue
        accounts = {name for name in coordinators.split(",") if name}
        with _reading(unread, "user", user):
            tree["user"][user] = {
                "default_account": default.get(user),
                "admin_level": USER["admin_level"].normalise(admin),
                "coordinator_of": _topmost(accounts, implied[user], tree["account"]),
                "wckeys": sorted(wckeys[user]),
                "default_wckey": "".join(default_wckey).strip("*") or None,
            }


def _implied(associations, flagged):
    """Return ``{user: accounts}`` that UsersAreCoords makes users coordinators of."""
    implied = defaultdict(set)
    for user, account, _ in associations if flagged else ():
        if account in flagged:
            implied[user].add(account)
    return implied


def _topmost(accounts, implied, tree):
    """
    Return the accounts that a coordinator was made one of: Slurm lists each with all accounts below it, and
    adds those that UsersAreCoords implies.
    """

    def above(account):
        while account := tree.get(account, {}).get("parent"):
            yield account

    covered = accounts | implied
    return sorted(account for account in accounts - implied if not covered & set(above(account)))


def _read_reservations():
    text = _run(["scontrol", "show", "reservation", "-o"])["stdout"]
    for line in text.splitlines():
        if line.startswith("ReservationName="):
            line, _, comment = line.partition(" Comment=")  # noqa: PLW2901
            values = dict(word.split("=", 1) for word in line.split() if "=" in word)
            entry = {
                k: f.normalise(None if (v := values.get(f.option)) == "(null)" else v) for k, f in RESERVATION.items()
            }
            if "ALL_NODES" in values["Flags"]:
                entry["nodes"] = ["ALL"]
            # scontrol keeps the quotes it needs.
            yield values["ReservationName"], entry, comment.strip("'").startswith(OWNER)


# -- what users call -------------------------------------------------------------------------------


class _Plan:
    """A declaration beside what is live, checked."""

    def __init__(self, cluster, pillar, inline, absent):
        parts = ("accounts", "qos", "users", "slurm_accounting")
        declared = {part: __pillar__.get(part) for part in parts} if pillar else {}
        declared.update({part: value for part, value in inline.items() if value is not None})
        self.wanted, self.settings = normalise(declared, strict=not pillar)
        self.locked = locks(declared)
        self.wanted["cluster"] = {cluster: {}}
        self.absent = {kind: set(keys) for kind, keys in (absent or {}).items()}
        self.cluster, self.error, self.notes, self.jobs = cluster, None, [], []
        self._mind_controller()
        self.live = self.read()
        if errors := check(self.live, self.wanted):
            raise _refusal("What is declared for Slurm's accounting does not fit", errors)
        self._mind_time()
        self.notes += [f"cannot be read, and is left alone: {each}" for each in self.live.unread]
        self._coordinators()
        self.changes = self.difference()
        guard(self.changes, self.live, self.wanted, self.settings)
        for kind, keys in self.absent.items():
            for key in keys & set(self.live.tree[kind]):
                if not any(change[:3] == ("remove", kind, key) for change in self.changes):
                    told = f"{_label(kind, key)} cannot be removed: Slurm needs it, or accounts are below it."
                    raise CommandExecutionError(told)
        self._mind_jobs()
        self._warn()

    def read(self):
        wckeys = any("default_wckey" in entry for entry in self.wanted.get("user", {}).values())
        reservations = "reservation" in self.wanted or "reservation" in self.absent
        return read(self.cluster, self.settings["timeout"], wckeys, reservations)

    def _mind_controller(self):
        """Leave reservations alone while slurmctld is down; that does not prevent changes of the database."""
        if "reservation" in self.wanted or "reservation" in self.absent:
            try:
                _until(min(self.settings["timeout"], 10), str, lambda: _controller_is_up() or None)
            except CommandExecutionError:
                self.error = "Reservations need slurmctld, which does not answer."
                self.wanted.pop("reservation", None)
                self.absent.pop("reservation", None)

    def _mind_time(self):
        """Compare reservations with what slurmctld makes of them in the course of time."""
        for name, entry in list(self.wanted.get("reservation", {}).items()):
            now = due(entry, self.live.tree["reservation"].get(name), datetime.datetime.now())
            if now is None:
                del self.wanted["reservation"][name]
                self.notes.append(
                    f"slurm_accounting:reservations:{name}: its time is past ({entry['start']}); left out"
                )
            else:
                self.wanted["reservation"][name] = now

    def difference(self):
        return difference(self.live, self.wanted, self.settings["purge"], self.absent, self.locked)

    def _coordinators(self):
        names = {*self.live.tree["account"], *self.wanted.get("account", ())}
        tree = {name: {"parent": _parent(name, self.live, self.wanted)} for name in names}
        flags = {
            **{name: entry.get("flags", ()) for name, entry in self.live.tree["account"].items()},
            **{n: entry["flags"] for n, entry in self.wanted.get("account", {}).items() if "flags" in entry},
        }
        members = {*self.live.tree["association"], *self.wanted.get("association", ())}
        implied = _implied(members, {name for name, given in flags.items() if "UsersAreCoords" in given})
        for user, entry in self.wanted.get("user", {}).items():
            if "coordinator_of" in entry:
                entry["coordinator_of"] = _topmost(set(entry["coordinator_of"]), implied[user], tree)

    def _mind_jobs(self):
        going = {c.key for c in self.changes if c.action == "remove" and c.kind == "association"}
        if not going:
            return
        jobs = {key: ids for key, ids in _jobs(self.cluster, self.live.ids).items() if key in going}
        if self.settings["running_jobs"] == "block":
            self.changes, notes = hold(self.changes, {key: len(ids) for key, ids in jobs.items()}, self.live)
            self.notes += notes
        else:
            self.jobs = sorted({job for ids in jobs.values() for job in ids})
            self.notes += [f"{len(self.jobs)} job(s) of removed associations are cancelled"] if self.jobs else []

    def _warn(self):
        """Note what makes the declaration less than it seems."""
        config = _run(["scontrol", "show", "config"])["stdout"] if _controller_is_up() else ""
        enforced = re.search(r"AccountingStorageEnforce\s*=\s*(\S+)", config)
        missing = {"associations", "limits", "qos"} - set(enforced[1].split(",")) if enforced else set()
        if enforced and missing:
            self.notes.append(f"Slurm ignores {', '.join(sorted(missing))}: AccountingStorageEnforce is {enforced[1]}")
        new = sorted({c.key[0] for c in self.changes if c.action == "add" and c.kind == "association"})
        if new:
            known = _passwd()
            some = [user for user in new if user not in known][:100]
            if some:  # some sources answer only when asked by name
                known |= _passwd(*some)
            if unknown := [user for user in some if user not in known]:
                self.notes.append(
                    f"not known to this machine yet: {', '.join(unknown[:10])} ({len(unknown)} in all); "
                    "once they are, scontrol reconfigure makes slurmctld look again"
                )


def _passwd(*names):
    return {line.split(":")[0] for line in _run(["getent", "passwd", *names])["stdout"].splitlines()}


def _jobs(cluster, ids):
    """Return ``{association: [job id, ...]}`` of the jobs that have not ended, as slurmdbd knows them."""
    words = ["sacct", "-aXnP", "-M", cluster, "-s", "PENDING,RUNNING,SUSPENDED,REQUEUED,RESIZING"]
    answer = _run([*words, "-o", "associd,jobidraw"])
    if answer["retcode"]:
        raise CommandExecutionError(f"sacct could not tell which jobs are running: {_said(answer)}")
    jobs = defaultdict(list)
    for line in answer["stdout"].splitlines():
        association, job = line.split("|")
        jobs[ids.get(association)].append(job)
    return jobs


def diff(cluster, pillar=False, accounts=None, qos=None, users=None, settings=None, absent=None):  # noqa: PLR0917
    """
    Return what :func:`apply` would change, without changing it.

    cluster
        The cluster's name (``ClusterName`` in slurm.conf).
    pillar
        Take ``accounts``, ``qos``, ``users`` and ``slurm_accounting`` from the pillar's keys of these names.
        Default ``False``.
    accounts, qos, users, settings
        The same given here; they win over the pillar's. ``settings`` is ``slurm_accounting``. A part that is
        left out is not managed.
    absent
        What is removed whoever made it: ``{kind: [name, ...]}``, kind as in :func:`fields`. Default: nothing.

    Returns ``{"changes": {object: {field: {"old":, "new":}}}, "notes": [text, ...], "error": text or None}``;
    the error is that of reservations while slurmctld does not answer, which does not prevent the rest.

    Raises CommandExecutionError if the declaration is refused, slurmdbd does not answer, or too much would be
    removed.

    CLI Example:

    .. code-block:: bash

        salt-call slurm_account.diff qhub pillar=true
    """
    plan = _plan(cluster, pillar, accounts, qos, users, settings, absent)
    return {"changes": report(plan.changes), "notes": plan.notes, "error": plan.error}


def _plan(cluster, pillar, accounts, qos, users, settings, absent):  # noqa: PLR0917
    inline = {"accounts": accounts, "qos": qos, "users": users, "slurm_accounting": settings}
    return _Plan(cluster, pillar, inline, absent)


def apply(cluster, pillar=False, accounts=None, qos=None, users=None, settings=None, absent=None):  # noqa: PLR0917
    """
    Make the database what is declared and return what was changed; arguments, result and errors as
    :func:`diff`.

    CLI Example:

    .. code-block:: bash

        salt-call slurm_account.apply qhub pillar=true
    """
    plan = _plan(cluster, pillar, accounts, qos, users, settings, absent)
    if plan.changes:
        _cancel(plan)
        said = []
        for words, text in commands(plan.changes, plan.live, plan.wanted, cluster):
            said.append(_said(_run(words, stdin=text, timeout=3600)))
        plan.live = plan.read()
        # What hold() kept is left over rightly.
        left = [change for change in plan.difference() if change.action != "remove" or change in plan.changes]
        if left:
            told, rest = "; ".join(filter(None, said)) or "nothing", json.dumps(report(left[:5]), default=str)
            raise CommandExecutionError(
                f"{len(left)} change(s) were not made. Slurm said: {told}. Still different: {rest}"
            )
    return {"changes": report(plan.changes), "notes": plan.notes, "error": plan.error}


def _cancel(plan):
    if plan.jobs:
        going = set(plan.jobs)
        _run(["scancel", "-M", plan.cluster, *plan.jobs])
        _until(
            plan.settings["timeout"],
            lambda: f"cancelled jobs have not ended: {', '.join(plan.jobs)}",
            lambda: None if going & {j for ids in _jobs(plan.cluster, {}).values() for j in ids} else True,
        )


def dump(cluster, timeout=300):
    """
    Return what is in the database in the declared form: put into the pillar, it changes nothing.

    cluster
        The cluster's name.
    timeout
        Seconds to wait for slurmdbd. Default 300.

    Returns a mapping with ``accounts``, ``qos``, ``users`` and ``slurm_accounting`` (licences and
    reservations).

    CLI Example:

    .. code-block:: bash

        salt-call --out=yaml slurm_account.dump qhub > users.sls
    """
    return declare(read(cluster, timeout, reservations=_controller_is_up()).tree)

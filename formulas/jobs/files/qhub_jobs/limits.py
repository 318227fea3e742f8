"""Who may have what of the cluster: pure functions of what Slurm prints. Times are minutes, memory is MiB."""

import re
from dataclasses import dataclass, field

UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}
WHAT = {"cpu": "CPUs", "mem": "MiB of memory", "gpu": "GPUs"}
NONE = ("", "N/A", "(null)", "NONE", "ALL")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Refused(Exception):
    """What somebody asks for is not to be had. The message is for them."""


def minutes(text):
    """Return Slurm's ``[days-]hours:minutes:seconds`` (or shorter) in minutes, ``None`` for no limit."""
    text = text.strip()
    if text in (*NONE, "UNLIMITED", "INVALID"):
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(each) for each in clock.split(":")]
    if days:  # days-hours[:minutes[:seconds]]
        hours, mins, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, mins, seconds = parts
    else:  # minutes[:seconds]
        hours, (mins, seconds) = 0, [*parts, 0][:2]
    return int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0)


def tres(text):
    """Return Slurm's ``cpu=4,mem=8G,gres/gpu=1`` as ``{"cpu": 4, "mem": 8192, "gpu": 1}``."""
    found = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        name = {"gres/gpu": "gpu"}.get(name, name)
        if name == "mem":
            unit = value[-1] if value[-1].isalpha() else "M"
            found[name] = int(float(value.rstrip("KMGTP")) * UNITS[unit])
        elif name in WHAT:
            found[name] = int(float(value))
    return found


def gpus(text):
    """Return how many GPUs ``gpu:a100:4(S:0-1),shard:8`` are."""
    counts = re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:([0-9]+)", text)
    return sum(map(int, counts))


def names(text):
    """Return a comma-separated list, ``None`` where Slurm means any."""
    return None if text in NONE else [each for each in text.split(",") if each]


def chain(account, above):
    """Return an account and those above it."""
    found = []
    while account in above and account not in found:
        found.append(account)
        account = above[account]
    return found


@dataclass
class Association:
    """One person's use of one account, perhaps in one partition only."""

    account: str
    partition: str
    qos: list
    default_qos: str
    wall: int | None
    most: dict


@dataclass
class Partition:
    """One partition: what its largest node has, and who may use it."""

    name: str
    default: bool
    wall: int | None
    default_wall: int | None
    up: bool
    hidden: bool
    accounts: list | None
    denied_accounts: list
    groups: list | None
    qos: list | None
    memory: int | None
    quality: str
    node: dict = field(default_factory=dict)


@dataclass
class Quality:
    """The limits of one quality of service for one job."""

    wall: int | None
    most: dict


def smallest(*limits):
    """Return the smallest of some limits (mappings), each by what it limits."""
    found = {}
    for limit in limits:
        for name, value in limit.items():
            found[name] = min(value, found.get(name, value))
    return found


@dataclass
class Cluster:
    """What Slurm said, ready to be asked."""

    people: dict
    partitions: dict
    qualities: dict
    above: dict  # the accounts above each account

    @classmethod
    def read(cls, associations, qos, partitions, nodes):
        """Return it from what sacctmgr, scontrol and sinfo print (qhub-jobs: ``limits``)."""
        rows = [line.split("|") for line in associations.splitlines() if line]
        above, group_limits = {}, {}
        for account, parent, user, _part, _qos, _default, _wall, _most, _node, group in rows:
            if not user:
                above[account], group_limits[account] = parent, tres(group)
        chains = {account: chain(account, above) for account in above}
        people = {}
        for account, _parent, user, part, qualities, default, wall, most, node, group in rows:
            if user:
                limits = [tres(most), tres(node), tres(group), *(group_limits[each] for each in chains[account])]
                people.setdefault(user, []).append(
                    Association(account, part, names(qualities) or [], default, minutes(wall), smallest(*limits))
                )
        found = cls(people, {}, {}, chains)
        for line in filter(None, qos.splitlines()):
            name, _flags, wall, most, node, user, group = line.split("|")
            found.qualities[name] = Quality(minutes(wall), smallest(*map(tres, (most, node, user, group))))
        for line in filter(None, partitions.splitlines()):
            partition = _partition(dict(word.split("=", 1) for word in line.split() if "=" in word))
            found.partitions[partition.name] = partition
        for line in filter(None, nodes.splitlines()):
            name, cpus, memory, gres = line.split("|")
            if name in found.partitions:
                largest = found.partitions[name].node
                has = {"cpu": int(cpus.rstrip("+")), "mem": int(memory.rstrip("+")), "gpu": gpus(gres)}
                for what, value in has.items():
                    largest[what] = max(value, largest.get(what, 0))
        return found

    def accounts(self, user):
        """Return the names of the accounts that somebody may use, in order."""
        return list(dict.fromkeys(each.account for each in self.people.get(user, [])))

    def association(self, user, account, partition):
        """Return the association that counts, ``None`` if there is none."""
        fitting = [each for each in self.people.get(user, []) if each.account == account]
        fitting = [each for each in fitting if each.partition in ("", partition)]
        return max(fitting, key=lambda each: bool(each.partition), default=None)

    def places(self, user, groups):
        """Yield each ``(association, partition)`` that somebody in these Unix groups may use."""
        for account in self.accounts(user):
            for partition in self.partitions.values():
                association = self.association(user, account, partition.name)
                if (
                    association
                    and partition.up
                    and not partition.hidden
                    and _lets_in(partition, self.above[account], groups)
                ):
                    yield association, partition

    def qualities_of(self, association, partition):
        """Return the names of the QOS that may be used there, the default first."""
        known = [each for each in association.qos if partition.qos is None or each in partition.qos]
        return sorted(known, key=lambda each: each != association.default_qos)

    def most(self, association, partition, quality):
        """Return ``(minutes, {"cpu", "mem", "gpu"})``: the most that one job may have there."""
        qualities = [self.qualities[each] for each in (quality, partition.quality) if each in self.qualities]
        own = {"mem": partition.memory} if partition.memory else {}
        walls = [association.wall, partition.wall, *(each.wall for each in qualities)]
        most = smallest(association.most, own, partition.node, *(each.most for each in qualities))
        return min((wall for wall in walls if wall is not None), default=None), most


def _partition(words):
    return Partition(
        name=words["PartitionName"],
        default=words.get("Default") == "YES",
        wall=minutes(words.get("MaxTime", "")),
        default_wall=minutes(words.get("DefaultTime", "")),
        up=words.get("State") == "UP" and words.get("RootOnly") != "YES",
        hidden=words.get("Hidden") == "YES",
        accounts=names(words.get("AllowAccounts", "")),
        denied_accounts=names(words.get("DenyAccounts", "")) or [],
        groups=names(words.get("AllowGroups", "")),
        qos=names(words.get("AllowQos", "")),
        memory=_number(words.get("MaxMemPerNode")),
        quality=words.get("QoS", ""),
    )


def _number(text):
    return int(text) if text and text.isdigit() and text != "0" else None


def _lets_in(partition, accounts, groups):
    """Whether a partition takes jobs of an account; ``accounts``: it and those above it, which stand for it too."""
    return (
        (partition.accounts is None or not set(accounts).isdisjoint(partition.accounts))
        and set(accounts).isdisjoint(partition.denied_accounts)
        and (partition.groups is None or not set(groups).isdisjoint(partition.groups))
    )


NO_ACCOUNT = (
    "You have no account to run jobs under. Ask the administrators of this cluster for one: it is the list "
    "'accounts' of your entry among the users."
)


class Offer:
    """What one person is offered, and what becomes of what they ask for."""

    def __init__(self, cluster, profiles, user, groups):
        self.cluster, self.user = cluster, user
        self.places = list(cluster.places(user, groups))
        accounts = {association.account for association, _ in self.places}
        self.profiles = {
            name: profile for name, profile in profiles.items() if profile and _is_for(profile, accounts, groups)
        }

    def reason(self):
        """Return why there is nothing, ``""`` if there is something."""
        if not self.cluster.accounts(self.user):
            return NO_ACCOUNT
        if not self.places:
            return "None of your accounts may use any of the partitions that are open. Ask the administrators."
        return "" if self.profiles else "There is no profile for you. Ask the administrators of this cluster."

    def accounts(self):
        """Return the accounts to choose from."""
        return list(dict.fromkeys(association.account for association, _ in self.places))

    def partitions(self, account=None):
        """Return the partitions to choose from, the default first."""
        found = {p.name: p for a, p in self.places if account in (None, a.account)}
        return sorted(found, key=lambda name: not found[name].default)

    def choices(self):
        """Return each combination that may be chosen, and the most that one job may have there (None: any number)."""
        found = []
        for association, partition in self.places:
            for quality in self.cluster.qualities_of(association, partition) or [""]:
                wall, most = self.cluster.most(association, partition, quality)
                words = {"account": association.account, "partition": partition.name, "qos": quality}
                limits = {"memory": most.get("mem"), "cpus": most.get("cpu"), "gpus": most.get("gpu", 0)}
                found.append({**words, "time": None if wall is None else wall / 60, **limits})
        first = self.partitions()
        return sorted(found, key=lambda choice: first.index(choice["partition"]))  # each account's default first

    def has_gpus(self):
        """Whether there is any GPU to choose."""
        return any(partition.node.get("gpu") for _, partition in self.places)

    def checked(self, asked):
        """Return what a job is to have, complete: what was asked for, within what is allowed, else from the profile.

        ``asked``: any of profile, account, partition, qos, time (hours), memory (MiB), cpus, gpus. Raises Refused.
        """
        if reason := self.reason():
            raise Refused(reason)
        unknown = set(asked) - {"profile", "account", "partition", "qos", "time", "memory", "cpus", "gpus"}
        if unknown:
            raise Refused(f"There is nothing called {', '.join(sorted(map(str, unknown)))} to choose.")
        name = self._one_of("profile", asked.get("profile"), list(self.profiles))
        profile = self.profiles[name]
        if not profile.get("choose", True):
            kept = {"profile", "account"} - ({"account"} & set(profile))
            asked = {key: value for key, value in asked.items() if key in kept}
        wanted = {**profile, **{key: value for key, value in asked.items() if value not in (None, "")}}
        account = self._one_of("account", wanted.get("account"), self.accounts())
        partition = self._one_of("partition", wanted.get("partition"), self.partitions(account))
        association, place = next((a, p) for a, p in self.places if a.account == account and p.name == partition)
        quality = self._one_of("QOS", wanted.get("qos"), self.cluster.qualities_of(association, place) or [""])
        wall, most = self.cluster.most(association, place, quality)
        time = _whole("time", float(_number_of("time", wanted.get("time", 1))) * 60, 1)
        if wall is not None and time > wall:
            raise Refused(f"{_hours(time)} of time is too much: {account} may use {partition} for {_hours(wall)}.")
        resources = {
            "cpu": _whole("cpus", wanted.get("cpus", 1), 1),
            "mem": _whole("memory", wanted.get("memory", 1000), 1),
            "gpu": _whole("gpus", wanted.get("gpus", 0), 0),
        }
        for what, value in resources.items():
            limit = most.get(what)
            if limit is not None and value > limit:
                raise Refused(f"{value} {WHAT[what]} is too much: {account} gets {limit} at most in {partition}.")
        return {
            "profile": name,
            "account": account,
            "partition": partition,
            "qos": quality,
            "time": time / 60,
            "memory": resources["mem"],
            "cpus": resources["cpu"],
            "gpus": resources["gpu"],
        }

    def _one_of(self, what, value, allowed):
        if value in (None, ""):
            return allowed[0]
        if value not in allowed:
            raise Refused(f"The {what} {str(value)[:80]!r} is not yours to use; choose from {', '.join(allowed)}.")
        if not NAME.fullmatch(value):
            raise Refused(f"The {what} {value!r} has a name that cannot be used here.")
        return value


def _is_for(profile, accounts, groups):
    only = [set(profile[key]) for key in ("accounts", "groups") if profile.get(key)]
    return not only or not set().union(*only).isdisjoint({*accounts, *groups})


def _number_of(what, value):
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Refused(f"{str(value)[:80]!r} is no number ({what}).") from None
    if not -1e9 < number < 1e9:  # also what is no number at all
        raise Refused(f"{str(value)[:80]!r} is out of any range ({what}).")
    return number


def _whole(what, value, least):
    number = _number_of(what, value)
    if number < least:
        raise Refused(f"{what}: at least {least}.")
    return int(number + 0.999999)


def _hours(value):
    return f"{value / 60:g} h"

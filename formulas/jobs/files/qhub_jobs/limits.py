"""Who may have what of the cluster: pure functions of what Slurm prints. Times are minutes, memory is MiB."""

import re
from dataclasses import dataclass, field

from qhub_jobs import parse

WHAT = {"cpu": "CPUs", "mem": "MiB of memory", "gpu": "GPUs"}
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ASSOCIATION_COLUMNS, QOS_COLUMNS = 10, 7  # of qhub-jobs's queries


class Refused(Exception):
    """A request that is beyond the person's limits. The message is for the person."""


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
    """One partition: who may use it, and what its nodes have."""

    name: str
    default: bool
    wall: int | None
    up: bool
    hidden: bool
    accounts: list | None
    denied_accounts: list
    groups: list | None
    qos: list | None
    denied_qos: list
    most: dict  # of one node, for one job
    memory_per_cpu: int | None
    quality: str
    nodes: list = field(default_factory=list)  # {"cpu", "mem", "gpu"} of each kind of node


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


def covers(one, other):
    """Return whether a job that fits ``other`` fits ``one`` too; both are ``{"cpu", "mem", "gpu"}``, each optional."""
    return all(one[what] >= other.get(what, float("inf")) for what in one)


def largest(nodes):
    """Return those of ``nodes`` that no other one covers, the one with most CPUs first."""
    found = []
    for node in sorted(nodes, key=lambda node: [node.get(what, float("inf")) for what in WHAT], reverse=True):
        if not any(covers(each, node) for each in found):
            found.append(node)
    return found


@dataclass
class Cluster:
    """Accounts, partitions and nodes, as Slurm has them."""

    people: dict
    partitions: dict
    qualities: dict
    above: dict  # the accounts above each account
    unread: list  # messages about what could not be read, each with a name

    @classmethod
    def read(cls, associations, qos, partitions, flags, nodes):
        """
        Return the cluster; a row that cannot be read is left out and reported in ``unread``.

        associations, qos
            Output of sacctmgr, see qhub-jobs.
        partitions, nodes
            Lists of objects from ``scontrol --json``.
        flags
            Output of ``scontrol --oneliner show partition``.
        """
        found = cls({}, {}, {}, {}, [])
        found._read_associations(associations)
        qualities = parse.rows(qos, QOS_COLUMNS, "QOS", found.unread)
        found.qualities = dict(parse.readable(qualities, _quality, lambda row: f"QOS {row[0]!r}", found.unread))
        on = parse.flags(flags)
        found.partitions = {
            each.name: each
            for each in parse.readable(
                partitions,
                lambda partition: _partition(partition, on.get(partition["name"], {"Hidden"})),
                lambda partition: f"partition {partition.get('name')!r}",
                found.unread,
            )
        }
        for places, node in parse.readable(nodes, _node, lambda node: f"node {node.get('name')!r}", found.unread):
            for place in places:
                if place in found.partitions:
                    found.partitions[place].nodes.append(node)
        for partition in found.partitions.values():
            partition.nodes = largest(partition.nodes)
        return found

    def _read_associations(self, text):
        rows = list(parse.rows(text, ASSOCIATION_COLUMNS, "association", self.unread))
        above = {account: parent for account, parent, user, *_ in rows if not user}
        self.above = {account: chain(account, above) for account in above}

        def group_limits(row):
            return row[0], parse.tres(row[-1])

        def name(row):
            return f"association of {'user ' + repr(row[2]) if row[2] else 'account'} in {row[0]!r}"

        limits_of = dict(parse.readable((row for row in rows if not row[2]), group_limits, name, self.unread))

        def association(row):
            account, _parent, user, place, qualities, default, wall, most, node, group = row
            limits = [*map(parse.tres, (most, node, group)), *(limits_of.get(each, {}) for each in self.line(account))]
            qualities = parse.names(qualities) or []
            return user, Association(account, place, qualities, default, parse.minutes(wall), smallest(*limits))

        for user, each in parse.readable((row for row in rows if row[2]), association, name, self.unread):
            self.people.setdefault(user, []).append(each)

    def line(self, account):
        """Return an account and those above it, as far as they could be read."""
        return self.above.get(account, [account])

    def accounts(self, user):
        """Return the names of the accounts that somebody may use, in order."""
        return list(dict.fromkeys(each.account for each in self.people.get(user, [])))

    def association(self, user, account, partition):
        """Return the association that counts, ``None`` if there is none; slurmdbd keeps ``gpu`` for a partition GPU."""
        fitting = [each for each in self.people.get(user, []) if each.account == account]
        fitting = [each for each in fitting if each.partition in ("", partition.lower())]
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
                    and _lets_in(partition, self.line(account), groups)
                ):
                    yield association, partition

    def qualities_of(self, association, partition):
        """Return the names of the QOS that may be used there, the default first."""
        allowed = set(association.qos) if partition.qos is None else set(partition.qos)
        known = [each for each in association.qos if each in allowed.difference(partition.denied_qos)]
        return sorted(known, key=lambda each: each != association.default_qos)

    def most(self, association, partition, quality):
        """
        Return ``(minutes, [{"cpu", "mem", "gpu"}, ...])``: the most time, and the most that one job may have there.

        Each entry is what one kind of node has together, within the person's limits; without nodes, only those limits.
        """
        qualities = [self.qualities[each] for each in (quality, partition.quality) if each in self.qualities]
        walls = [association.wall, partition.wall, *(each.wall for each in qualities)]
        limits = smallest(association.most, partition.most, *(each.most for each in qualities))
        found = [smallest(node, limits) for node in partition.nodes or [{}]]
        if partition.memory_per_cpu:
            found = [
                smallest(node, {"mem": node["cpu"] * partition.memory_per_cpu}) if "cpu" in node else node
                for node in found
            ]
        return min((wall for wall in walls if wall is not None), default=None), largest(found)


def _quality(row):
    name, _flags, wall, most, node, user, group = row
    return name, Quality(parse.minutes(wall), smallest(*map(parse.tres, (most, node, user, group))))


def _node(node):
    """Return the partitions of a node, and what jobs can have of it."""
    cpus = parse.number(node.get("effective_cpus") or node["cpus"])
    memory = parse.number(node["real_memory"]) - (parse.number(node.get("specialized_memory")) or 0)
    return node["partitions"], {"cpu": cpus, "mem": memory, "gpu": parse.gpus(node["gres"])}


def _partition(partition, flags):
    maximums = partition["maximums"]
    most = {"cpu": parse.number(maximums["cpus_per_node"]), "mem": parse.number(maximums["partition_memory_per_node"])}
    return Partition(
        name=partition["name"],
        default="Default" in flags,
        wall=parse.number(maximums["time"]),
        up="UP" in partition["partition"]["state"] and "RootOnly" not in flags,
        hidden="Hidden" in flags,
        accounts=parse.accounting_names(partition["accounts"]["allowed"]),
        denied_accounts=parse.accounting_names(partition["accounts"]["deny"]) or [],
        groups=parse.names(partition["groups"]["allowed"]),
        qos=parse.accounting_names(partition["qos"]["allowed"]),
        denied_qos=parse.accounting_names(partition["qos"]["deny"]) or [],
        most={what: value for what, value in most.items() if value},
        memory_per_cpu=parse.number(maximums["partition_memory_per_cpu"]),
        quality=partition["qos"]["assigned"].lower(),
    )


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
        """
        Return each combination that may be chosen, ``{"account", "partition", "qos", "time", "nodes"}``.

        time
            The most hours, ``None`` for any number.
        nodes
            ``[{"cpus", "memory", "gpus"}, ...]``: what one job may have together; memory in MiB, ``None``: any number.
        """
        found = []
        for association, partition in self.places:
            for quality in self.cluster.qualities_of(association, partition) or [""]:
                wall, most = self.cluster.most(association, partition, quality)
                words = {"account": association.account, "partition": partition.name, "qos": quality}
                nodes = [{"cpus": n.get("cpu"), "memory": n.get("mem"), "gpus": n.get("gpu", 0)} for n in most]
                found.append({**words, "time": None if wall is None else wall / 60, "nodes": nodes})
        first = self.partitions()
        return sorted(found, key=lambda choice: first.index(choice["partition"]))  # each account's default first

    def has_gpus(self):
        """Whether there is any GPU to choose."""
        return any(node["gpu"] for _, partition in self.places for node in partition.nodes)

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
        for key in ("account", "qos"):  # names that slurmdbd keeps in small letters
            if isinstance(wanted.get(key), str):
                wanted[key] = wanted[key].lower()
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
        _check_size(resources, most, f"{account} gets", partition)
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


def _check_size(resources, most, gets, partition):
    """Refuse what no entry of ``most`` (see :meth:`Cluster.most`) has together."""
    for what, value in resources.items():
        limits = [node.get(what) for node in most]
        if None not in limits and value > max(limits):
            raise Refused(f"{value} {WHAT[what]} is too much: {gets} {max(limits)} at most in {partition}.")
    if not any(all(value <= node.get(what, value) for what, value in resources.items()) for node in most):
        kinds = [" and ".join(f"{node[what]} {WHAT[what]}" for what in WHAT if node.get(what)) for node in most]
        asked = " and ".join(f"{value} {WHAT[what]}" for what, value in resources.items() if value)
        raise Refused(
            f"{asked} together is too much: on one node of {partition}, {gets} at most {', or '.join(kinds)}."
        )


def _is_for(profile, accounts, groups):
    only = [{each.lower() for each in profile.get("accounts") or ()}, set(profile.get("groups") or ())]
    return not any(only) or not only[0].isdisjoint(accounts) or not only[1].isdisjoint(groups)


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

"""What Slurm's own programs say, as plain data."""

import os
import re
import secrets
import subprocess
import time
from typing import NamedTuple

#: What squeue and sinfo are asked for; names of jobs, which anybody may choose, are not.
JOB = ("JobID", "ArrayTaskID", "State", "Partition", "Account", "UserName", "tres-alloc", "BatchHost", "EligibleTime",
       "StartTime", "Reason")  # fmt: skip
NODE = ("NodeList", "PartitionName", "StateComplete", "StateLong", "CPUsState", "Gres", "GresUsed", "Reason")
#: Times in seconds since 1970, and the tasks of an array however many they are.
ENVIRONMENT = {"LANG": "C.UTF-8", "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
UNITS = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
GPU = re.compile(r"(?:^|,)gpu(?::([^:,(]+))?:(\d+)(?=[,(]|$)")
RPC = re.compile(r"\t(\S+)\s+\(\s*\d+\) count:(\d+)\s+ave_time:\d+\s+total_time:(\d+)")
#: The marks that sinfo puts behind a state: not responding, powered down, in maintenance, ...
MARKS = "*~#!%$@^-+"


class SlurmError(Exception):
    """Slurm did not answer, or not as it should have; the message says what happened."""


class Job(NamedTuple):
    """A job, or all tasks of an array that have not started. Times are in seconds since 1970, or ``None``."""

    id: str
    tasks: int
    state: str
    partition: str
    account: str
    user: str
    cpus: int  # of one task, as its memory
    memory: int  # bytes
    ran: bool
    eligible: int | None
    started: int | None
    reason: str


class Node(NamedTuple):
    """A node."""

    partitions: list
    state: str
    flags: list
    shown: str  # the state as sinfo puts it, such as draining
    cpus: dict  # allocated, idle, other, total
    gpus: dict  # type -> (allocated, total)
    reason: str


class Statistics(NamedTuple):
    """What sdiag says: ``{(section, name): number}``, and ``{type: (calls, seconds)}`` of the calls to slurmctld."""

    values: dict
    calls: dict


def ask(timeout, count=lambda program: None):
    """
    Return ``(jobs, nodes, statistics)`` by three commands.

    timeout
        Seconds for all of them.
    count
        Is called with the name of each program that is started.

    Raises :class:`SlurmError`.
    """
    separator = f"|{secrets.token_hex(4)}|"  # which nobody can have put into a reason or a name
    deadline = time.monotonic() + timeout

    def output(*words):
        count(words[0])
        try:
            done = subprocess.run(
                words,
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=max(deadline - time.monotonic(), 0.1),
            )
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{words[0]}: no answer within {timeout} s") from None
        if done.returncode:
            raise SlurmError(f"{words[0]}: {done.stderr.strip()[-300:] or f'status {done.returncode}'}")
        return done.stdout

    # Those that ended a while ago too, which slurmctld sends in any case: they may have begun since the last time.
    queue = output("squeue", "--noheader", "--all", "--states=all", "--noconvert", columns(JOB, separator))
    nodes = output("sinfo", "--noheader", "--all", "--Node", columns(NODE, separator))
    return read_jobs(queue, separator), read_nodes(nodes, separator), read_statistics(output("sdiag"))


def columns(fields, separator):
    """Return the option that lets squeue and sinfo print fields in full, each followed by the separator."""
    return "--Format=" + ",".join(f"{field}:{separator}" for field in fields)


def records(text, separator, fields):
    """Return what was printed as tuples, whatever the fields have in them, line breaks too."""
    parts = text.split(separator)
    if len(parts) % len(fields) != 1 or parts[-1].strip():
        raise SlurmError(f"not the {len(fields)} fields that were asked for: {text[:100]!r}")
    found = zip(*[iter(parts)] * len(fields), strict=False)
    return [(first.removeprefix("\n"), *rest) for first, *rest in found]


def read_jobs(text, separator):
    """Return what squeue printed as a list of :class:`Job`."""
    jobs = []
    for number, array, state, partitions, account, user, tres, host, eligible, started, reason in records(
        text, separator, JOB
    ):
        wanted = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
        jobs.append(
            Job(
                id=number,
                tasks=tasks(array),
                state=state.lower(),
                partition=partitions.split(",")[0],  # the one it prefers
                account=account,
                user=user,
                cpus=int(wanted.get("cpu", 0)),
                memory=size(wanted.get("mem", "0")),
                ran=host not in ("", "n/a"),
                eligible=moment(eligible),
                started=moment(started),
                reason=reason_word(reason),
            )
        )
    return jobs


def tasks(array):
    """Return how many tasks ``1-9:2,20%5`` are; one job is one task."""
    count = 0
    for part in array.partition("%")[0].split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        count += (int(last) - int(first)) // int(step or 1) + 1 if last.isdigit() and first.isdigit() else 1
    return count


def size(text):
    """Return bytes of ``200M``; without a unit it is Slurm's, MiB."""
    unit = text[-1:] if text[-1:] in UNITS else ""
    return int(float(text.removesuffix(unit) or 0) * UNITS[unit])


def moment(text):
    """Return a time in seconds since 1970; ``None`` for what Slurm calls N/A, NONE or Unknown."""
    return int(text) if text.isdigit() else None


def reason_word(text):
    """Return the reason without what it is about: names of nodes and the like are different each time."""
    if text.startswith("Nodes required for job are DOWN"):
        return "NodesUnavailable"
    if text.endswith(" requeued held"):  # a launch failed, once or too often
        return text.replace(" ", "_")  # as scontrol writes it
    return re.split(r"\W", text.strip("("), maxsplit=1, flags=re.ASCII)[0] or "Other"


def read_nodes(text, separator):
    """Return what sinfo printed as ``{name: Node}``: it has one record for each partition of a node."""
    nodes = {}
    for name, partition, complete, shown, cpus, gres, used, reason in records(text, separator, NODE):
        if name in nodes:
            nodes[name].partitions.append(partition)
            continue
        state, *flags = complete.split("+")
        allocated = gpus(used)
        nodes[name] = Node(
            partitions=[partition],
            state=state,
            flags=sorted(flags),
            shown=shown.rstrip(MARKS),
            cpus=dict(zip(("allocated", "idle", "other", "total"), map(int, cpus.split("/")), strict=True)),
            gpus={kind: (allocated.get(kind, 0), total) for kind, total in gpus(gres).items()},
            reason="" if reason == "none" else reason,
        )
    return nodes


def gpus(gres):
    """Return ``{type: number}`` of ``gpu:a100:4(S:0-1),shard:8``."""
    found = {}
    for kind, number in GPU.findall(gres):
        found[kind or "untyped"] = found.get(kind or "untyped", 0) + int(number)
    return found


def read_statistics(text):
    """Return what sdiag printed as :class:`Statistics`."""
    section, values, calls = "", {}, {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if found := RPC.match(line):
            if "message type" in section:
                calls[found[1]] = (int(found[2]), int(found[3]) / 1e6)
        elif colon and value.strip().isdigit():
            values[section if line.startswith("\t") else "", name.strip()] = int(value)
        elif line and not line.startswith("\t"):
            section = name.strip()
    if ("", "Server thread count") not in values:
        raise SlurmError(f"sdiag: no statistics: {text[:100]!r}")
    return Statistics(values, calls)

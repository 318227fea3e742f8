"""Values and rows that Slurm's programs print, as plain data. Times are minutes, memory is MiB."""

import re

UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}
TRES = {"cpu": "cpu", "mem": "mem", "gres/gpu": "gpu"}  # Slurm's name -> the name used here
NONE = ("", "N/A", "(null)", "NONE", "ALL")
FLAG = re.compile(r"(Default|Hidden|RootOnly)=(YES|NO)")


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
        if name not in TRES:
            continue
        unit: float = 1
        if name == "mem" and value[-1:] in UNITS:
            value, unit = value[:-1], UNITS[value[-1]]
        found[TRES[name]] = int(float(value) * unit)
    return found


def gpus(text):
    """Return how many GPUs ``gpu:a100:4(S:0-1),shard:8`` are."""
    counts = re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:([0-9]+)", text)
    return sum(map(int, counts))


def names(text):
    """Return a comma-separated list, ``None`` where Slurm means any."""
    return None if text in NONE else [each for each in text.split(",") if each]


def accounting_names(text):
    """Return a comma-separated list of accounts or QOS in small letters, as slurmdbd keeps them."""
    found = names(text)
    return found and [each.lower() for each in found]


def number(value):
    """
    Return a number of Slurm's JSON, ``None`` for no limit.

    value
        A number, or ``{"set": true, "infinite": false, "number": 5}``.
    """
    if isinstance(value, dict):
        value = value["number"] if value["set"] and not value["infinite"] else None
    return None if value is None else int(value)


def rows(text, columns, what, unread):
    """
    Yield the rows that sacctmgr prints with ``--parsable2``, as lists of fields.

    columns
        Number of fields in a row.
    what
        Name of a row in messages, such as ``association``.
    unread
        List that gets a message for each row with another number of fields: sacctmgr escapes nothing in a name.
    """
    for line in filter(None, text.split("\n")):
        fields = line.split("|")
        if len(fields) == columns:
            yield fields
        else:
            unread.append(f"{what} {line[:200]!r}: {len(fields)} fields, not {columns}")


def readable(items, read, what, unread):
    """
    Yield ``read(item)`` for each item.

    what
        Function that returns the name of an item in messages.
    unread
        List that gets a message for each item that ``read`` fails for.
    """
    for item in items:
        try:
            yield read(item)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            unread.append(f"{what(item)[:200]}: {error!r}"[:400])


def flags(text):
    """
    Return ``{partition: {"Default", "Hidden", "RootOnly"}}``, of each partition the flags that are on.

    text
        Output of ``scontrol --oneliner show partition``: the JSON of Slurm 24.11 has no flags of partitions.
    """
    found = {}
    for line in filter(None, text.split("\n")):
        first, *words = line.split()
        pairs = filter(None, map(FLAG.fullmatch, words))
        found[first.removeprefix("PartitionName=")] = {pair[1] for pair in pairs if pair[2] == "YES"}
    return found

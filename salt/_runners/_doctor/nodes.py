"""
Checks of Salt and of the nodes, on what these reported.
"""

from .ask import command
from .engine import Fault

#: Seconds that a node's clock may differ, beside those that asking it took.
CLOCK = 1
#: A file system is full with less than this free: a share of it, and bytes; and a share of its inodes.
FREE_SHARE, FREE_BYTES, FREE_INODES = 0.05, 5 * 2**30, 0.02


def pillar(site):
    """The pillar is valid."""
    if site.errors:
        raise Fault(*(line for error in site.errors for line in error.splitlines() if line.strip()))
    return ", ".join(f"{len(site.pillar.get(part) or {})} {part}" for part in ("nodes", "partitions", "users"))


def keys(site):
    """Accepted keys are those of the pillar's nodes, all of them."""
    known = {site.master, *site.pillar["nodes"]}
    strangers = [f"{name} is accepted and not in nodes.sls" for name in sorted(site.accepted - known)]
    missing = sorted(known - site.accepted)
    if strangers:
        raise Fault(*strangers)
    if missing:
        advice = f"salt-ssh {missing[0]} state.apply bootstrap.minion"
        raise Fault(*(f"{name} is in nodes.sls and has not joined" for name in missing), nodes=missing, advice=advice)
    return f"{len(known)} accepted, no strangers"


def salt_master(site):
    """The Salt master takes a job."""
    site.reports.result()
    return "takes jobs"


def minions(site):
    """Every member's minion answers."""
    reports = site.reports.result()
    errors = {name: reports.get(name, {"error": "no answer"}).get("error") for name in site.members}
    silent = {name: error for name, error in errors.items() if error}
    if silent:
        silent |= drained_as_dead(silent)
        raise Fault(*(f"{name}: {error}" for name, error in sorted(silent.items())), nodes=silent)
    return f"all {len(reports)} answer"


def drained_as_dead(silent):
    """Return ``{node: Slurm's reason}`` of those nodes of ``silent`` that ``membership.look_for_dead`` has drained."""
    try:
        out = command("sinfo", "--noheader", "--Node", "--format=%N|%E").stdout
    except Fault:  # another check says so
        return {}
    reasons = dict(line.split("|", 1) for line in out.splitlines())
    return {node: reasons[node] for node in silent if reasons.get(node, "").startswith("dead since ")}


def roles(site):
    """Every minion claims the roles that the pillar gives it."""
    wrong = {}
    for name, report in site.reported().items():
        claimed, given = report["roles"] or [], site.members[name]["roles"]
        if sorted(claimed) != sorted(given):
            wrong[name] = (
                f"{name} claims {', '.join(claimed) or 'none'}; the pillar gives it {', '.join(given) or 'none'}"
            )
    tell(wrong)
    return "as the pillar says"


def names(site):
    """Every node finds the master and the front door by name."""
    wrong = []
    for node, report in site.reported().items():
        for name, (found, error) in report["names"].items():
            if error:
                wrong.append(f"{node}: {name}: {error}")
            elif name == site.master and node != site.master and found != site.address:
                wrong.append(f"{node}: {name} is {found}, not {site.address}")
    if wrong:
        raise Fault(*wrong)
    return "every node finds the master"


def clocks(site):
    """Every node's clock is the master's."""
    wrong, reports = {}, site.reported()
    for name, report in reports.items():
        off = clock_error(report["sent"], report["now"], report["received"])
        if abs(off) > CLOCK:
            wrong[name] = f"{name} is {abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} the master"
        elif site.settings("base")["time_sync"] and report["in_time"][""][0] is False:
            wrong[name] = f"{name} follows no time server"
    tell(wrong)
    return f"within {CLOCK} s of the master's"


def clock_error(sent, now, received):
    """
    Return the seconds that a clock is ahead (below 0: behind) for sure, which said ``now`` between two times of
    another clock.
    """
    return max(now - received, 0) or min(now - sent, 0)


def units(site, others):
    """No unit is in trouble but those (``others``) that other checks are about."""
    troubled, silent = [], []
    for node, report in site.reported().items():
        found, error = report["units"][""]
        if error:
            silent.append((node, error))
        else:
            troubled += [(node, unit, state) for unit, state in sorted(found.items()) if unit not in others]
    if troubled or silent:
        lines = [f"{node}: {unit}: {state}" for node, unit, state in troubled]
        lines += [f"{node}: its units are not known: {error}" for node, error in silent]
        if troubled:
            node, unit, _ = troubled[0]
            advice = f"salt {node} cmd.run 'journalctl -n 30 -u {unit}; systemctl restart {unit}'"
        else:
            advice = f"salt {silent[0][0]} cmd.run 'uptime; systemctl list-jobs'; salt-run cluster.doctor"
        raise Fault(*lines, nodes={node for node, *_ in (*troubled, *silent)}, advice=advice)
    return "none failed, all that are enabled run"


def space(site):
    """No file system is full."""
    wrong, fullest = {}, 0
    for node, report in site.reported().items():
        seen = set()
        for directory, (found, error) in sorted(report["space"].items()):
            if error:
                wrong[node] = f"{node}: {directory}: {error}"
            elif found and found["device"] not in seen:
                seen.add(found["device"])
                if said := full(found):
                    wrong[node] = f"{node}: {directory}: {said}"
                fullest = max(fullest, 1 - found["free"] / (found["size"] or 1))
    tell(wrong)
    return f"the fullest file system is {fullest:.0%} full"


def full(found):
    """Return what is short on a file system, ``""`` if nothing."""
    if found["size"] and found["free"] < min(FREE_SHARE * found["size"], FREE_BYTES):
        return f"{found['free'] / 2**20:.0f} MiB of {found['size'] / 2**20:.0f} are free"
    if found["inodes"] and found["free_inodes"] < FREE_INODES * found["inodes"]:
        return f"{found['free_inodes']} of {found['inodes']} inodes are free"
    return ""


def secrets(site):
    """Nobody reads a secret but the service whose it is."""
    wrong = {}
    for node, report in site.reported().items():
        found, error = report["secrets"][""]
        for path, mode, uid in found or ([[error, 0, 0]] if error else []):
            wrong.setdefault(node, f"{node}: {path} has mode {mode:04o} and uid {uid}")
    tell(wrong)
    return "readable by their services only"


def shared(site):
    """What the master writes into a shared directory is seen on every worker, and the other way around."""
    wrong, settings = {}, site.settings("nfs")
    reports = {name: report for name, report in site.reported().items() if name in site.workers}
    for name, export in settings["exports"].items():
        mount = export and (export.get("mount") or export["path"])
        for node, report in reports.items() if export else ():
            said, error = report["shared"].get(mount, [None, f"the master cannot write to {export['path']}"])
            if error or said:
                wrong[node] = f"{node}: {mount}: {error or said}"
            elif export["access"] == "rw" and node not in site.notes["left"][name]:
                wrong[node] = f"{node}: {mount}: the master does not see what is written there"
    tell(wrong)
    return f"{count(reports)} see what the master writes"


def count(nodes):
    """Return how many workers that are, in words."""
    return f"{len(nodes)} worker{'' if len(nodes) == 1 else 's'}"


def tell(wrong):
    """Raise a fault of what is wrong: ``{node: line}``."""
    if wrong:
        raise Fault(*(wrong[node] for node in sorted(wrong)), nodes=wrong)

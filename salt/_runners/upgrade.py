"""
What the checkout and the packages' sources have that is newer than what is installed, for the orchestration
``orch.upgrade``. docs/operations/upgrade.md says in which order it comes and what stops for how long.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import yaml
from packaging.version import Version
from salt.exceptions import CommandExecutionError

__opts__: dict
__salt__: dict

INSTALLED, LOCKS = Path("/opt/qhub"), Path("/etc/qhub/locks")
#: Formula -> the package of its lock that it is about.
LOCKED = {
    "jupyterhub": "jupyterhub",
    "jupyterlab": "jupyterlab",
    "conda_store": "conda-store-server",
    "dask_gateway": "dask-gateway-server",
    "sshgate": "asyncssh",
}
#: Services of the master in the order in which they are upgraded: those that others include come first. What is not
#: here comes with the highstate. Each: what it is made of, its states, and the checks of the doctor that must be in
#: order before the next.
STAGES = {
    "traefik": {"components": ["traefik"], "sls": ["traefik"], "checks": ["certificates"]},
    "keycloak": {"components": ["keycloak"], "sls": ["keycloak", "keycloak.realm"], "checks": ["rights", "/auth/"]},
    "jupyterhub": {"components": ["jupyterhub", "jupyterlab"], "sls": ["jupyterhub"], "checks": ["/"]},
    "conda-store": {"components": ["conda_store"], "sls": ["conda_store"], "checks": ["builder", "/conda-store/"]},
    "dask-gateway": {"components": ["dask_gateway"], "sls": ["dask_gateway"], "checks": ["/gateway/"]},
}
#: For Slurm to take over what another version left: releases, of which there are two a year.
RELEASES = 3
#: How the reason ends is known to ``membership.prove``.
REASON = "not upgraded yet (orch.upgrade)"
DATABASES = ("/var/lib/mysql", "/var/lib/postgresql")
#: Where a database is dumped, or converted.
ROOM = ("/var/lib/mysql", "/var/lib/postgresql", "/var/lib/qhub-backup", "/var/backups")
#: Seconds that services get to answer after they were started anew.
PATIENCE = 180


def plan():
    """
    Return what ``orch.upgrade`` would bring, and touch nothing; only the lists of packages are fetched.

    ``{"summary", "services": {name: version}, "slurm": {node: version}, "away": [id, ...], "silent": {id: error},
    "salt": {id: command}}``, where a version that comes is written ``installed -> coming``. Workers that are ``away``
    keep what they have, nodes that are ``silent`` are connected and do not answer, and those under ``salt`` get a new
    version of Salt itself by that command.

    CLI Example:

    .. code-block:: bash

        salt-run upgrade.plan
    """
    seen = _survey()
    slurm = {node: slurm_versions(packages) for node, packages in seen["slurm"].items()}
    pairs = [*seen["services"].values(), *slurm.values()]
    count = sum(installed != coming for installed, coming in pairs)
    shown = {
        "summary": f"{count} of {len(pairs)} are to be upgraded" if count else "nothing is to be upgraded",
        "services": {name: _arrow(pair) for name, pair in seen["services"].items()},
        "slurm": {node: _arrow(pair) for node, pair in slurm.items()},
        "away": seen["away"],
        "silent": seen["silent"],
        "salt": {node: f"salt-ssh {node} state.apply bootstrap.minion" for node in seen["salt"]},
    }
    return {key: value for key, value in shown.items() if value}


def preflight(batch=1, timeout=3600):
    """
    See that an upgrade can begin, or go on where it stopped; change nothing.

    batch
        Workers that are out of service at a time.
    timeout
        Seconds to wait for the jobs of each batch.

    Returns what ``orch.upgrade`` goes by, ``{"backup": bool, "batches": [{"nodes", "prove", "sls"}, ...], "others":
    [id, ...], "stages": [one of STAGES, ...], "reason", "timeout"}``. Raises
    :class:`~salt.exceptions.CommandExecutionError` with everything that is in the way.

    CLI Example:

    .. code-block:: bash

        salt-run upgrade.preflight
    """
    seen, begun = _survey(), _begun()
    rows, master = __salt__["membership.reasons"](), __opts__["id"]
    excused = {*seen["away"], *drained_by_others(rows)}
    faults = [f"{node}: {error}" for node, error in seen["silent"].items()]
    faults += [*older(seen["services"]), *slurm_faults(seen["slurm"], master), *full(_stored(), _free())]
    # What is wrong half-way may be what the rest mends.
    faults += [] if begun else sick(__salt__["doctor.examine"](), excused)
    if faults:
        raise CommandExecutionError("\n".join(faults))
    new = {name for name, (installed, coming) in seen["services"].items() if installed != coming}
    differ = {node for node, packages in seen["slurm"].items() if len(set(slurm_versions(packages))) > 1}
    halfway = {node for node, (_, _, reason) in rows.items() if reason == REASON and node in seen["slurm"]}
    batches = in_batches(differ | halfway, batch, master, workers=seen["workers"], held=drained_by_others(rows))
    stopped = {node for each in batches for node in each["nodes"]}
    return {
        "backup": bool(new or differ) and not begun,
        "batches": batches,
        "others": [node for node in seen["workers"] if node not in {*stopped, *seen["away"], master}],
        "stages": [{"name": name, **stage} for name, stage in STAGES.items() if new & set(stage["components"])],
        "reason": REASON,
        "timeout": timeout,
    }


def begin():
    """
    Remember what there is before the upgrade, unless one is under way, and let who is away be brought in anew.

    Returns the ids (a list) of those that are away.

    CLI Example:

    .. code-block:: bash

        salt-run upgrade.begin
    """
    if not _begun():
        _mark().write_text(json.dumps({"time": time.time(), "before": _installed(_survey())}))
    return __salt__["membership.expect_absent"]()


def prove(checks):
    """
    Wait until these checks of the doctor (a list of names), and those that they need, are in order.

    Returns the names. Raises :class:`~salt.exceptions.CommandExecutionError` with what is not.

    CLI Example:

    .. code-block:: bash

        salt-run upgrade.prove '[/auth/]'
    """
    _wait_until_well(only=checks)
    return checks


def end():
    """
    Wait until the doctor finds nothing wrong but workers that are away or drained, and tell what is new.

    Returns a list of lines. Raises :class:`~salt.exceptions.CommandExecutionError` with what is wrong.

    CLI Example:

    .. code-block:: bash

        salt-run upgrade.end
    """
    _wait_until_well()
    seen, begun = _survey(), _begun()
    now = _installed(seen)
    before = begun.get("before", now)
    told = [
        f"{name}: {_arrow((before.get(name), version))}" for name, version in now.items() if before.get(name) != version
    ]
    told += [f"{node} is away: run this again when it is back" for node in seen["away"]]
    told += [f"Salt on {node}: salt-ssh {node} state.apply bootstrap.minion" for node in seen["salt"]]
    _mark().unlink(missing_ok=True)
    return told or ["everything was of this version"]


# What follows from what there is


def older(services):
    """Return what of ``{name: (installed, coming)}`` would go back, a list of lines."""
    return [
        f"{name}: {installed} is installed, and {coming} is older: what it has stored does not go back"
        for name, (installed, coming) in services.items()
        if installed and Version(coming.split()[0]) < Version(installed)
    ]


def slurm_versions(packages):
    """Return ``(installed, coming)`` of ``{package: [installed, coming]}``: of one that changes, if there is one."""
    pairs = [tuple(pair) for pair in packages.values()] or [(None, None)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])


def release(version):
    """Return the number of a release of Slurm among all, of which there are two a year: ``24.11.5-4`` -> 49."""
    year, month = map(int, version.split(".")[:2])
    return 2 * year + (month > 6)


def slurm_faults(slurm, master):
    """Return why Slurm would not take this, a list of lines; of ``{node: {package: [installed, coming]}}``."""
    faults, (_, masters) = [], slurm_versions(slurm.get(master, {}))
    for node, packages in slurm.items() if masters else ():
        installed, coming = slurm_versions(packages)
        if not installed:
            continue
        if _precedes(coming, installed):
            faults.append(f"Slurm on {node}: {installed} is installed, and {coming} is older")
        if release(masters) - release(installed) > RELEASES:
            faults.append(f"Slurm on {node}: {masters} takes over nothing from {installed}: go by a release in between")
        if release(coming) > release(masters):
            faults.append(f"Slurm on {node}: {coming} would be newer than {masters}, the master's")
    return faults


def full(stored, free):
    """
    Return where there is no room for another copy of the databases, a list of lines.

    stored
        The bytes of the databases.
    free
        ``{directory: bytes free there}``.
    """
    return [
        f"{directory}: {there / 2**20:.0f} MiB are free, and the databases are {stored / 2**20:.0f} MiB"
        for directory, there in free.items()
        if there < stored
    ]


def sick(found, excused):
    """Return what the doctor found wrong, a list of lines, but for what is only about the nodes ``excused``."""
    return [
        f"the doctor: {check['name']}: {line}"
        for check in found["checks"]
        if check["state"] == "failed" and not (check["nodes"] and set(check["nodes"]) <= excused)
        for line in check["says"]
    ]


def drained_by_others(rows):
    """Return the nodes (a set) that somebody drained; ``rows`` as ``membership.reasons`` returns them."""
    return {node for node, (state, _, reason) in rows.items() if state.startswith("drain") and reason != REASON}


def in_batches(nodes, size, master, workers, held):
    """
    Return the batches (a list) in which ``nodes`` get another Slurm, the master before all others.

    workers
        The nodes that run jobs.
    held
        Nodes that somebody drained: they stay so.

    Each is ``{"nodes": [id, ...], "prove": [id, ...], "sls": [SLS, ...]}``: those that are to run a job afterwards, and
    what is applied to them, nothing for all of their states.
    """
    rest = sorted(set(nodes) - {master})
    parts = [[master]] * (master in nodes) + [rest[i : i + size] for i in range(0, len(rest), size)]
    slurm = ["slurm.controller", "slurm.accounting", *(["slurm.worker"] if master in workers else [])]
    return [
        {
            "nodes": part,
            "prove": [node for node in part if node in workers and node not in held],
            "sls": slurm if part == [master] else [],
        }
        for part in parts
    ]


# What there is


def _survey():
    """
    Return what is installed and what there is to install.

    ``{"services": {name: (installed, coming)}, "slurm": {node: {package: [installed, coming]}}, "salt": [id of a worker
    with another Salt], "workers": [id], "away": [id], "silent": {id: error}}``.
    """
    pillar, errors = __salt__["cluster.compiled_pillar"]()
    if errors:
        raise CommandExecutionError("\n".join(errors))
    lock = digest(_served("bootstrap/requirements.lock"))
    if (INSTALLED / "salt").readlink().name != f"salt-{lock}":
        raise CommandExecutionError("Salt itself is of another version: run salt/bootstrap/master.sh first")
    members, connected = pillar["members"], __salt__["membership.connected"](pillar["members"])
    slurm, silent = _ask(connected, "cmd.script", ["salt://slurm/files/qhub-slurm-upgrade", "--check"])
    links, _ = _ask(connected, "file.readlink", [str(INSTALLED / "salt")])
    for node, said in slurm.items():
        if not said["stdout"].startswith("{"):
            silent[node] = said["stderr"] or said["stdout"]
    return {
        "services": {**dict(_programs(pillar)), **dict(_locked(pillar))},
        "slurm": {node: json.loads(said["stdout"]) for node, said in sorted(slurm.items()) if node not in silent},
        "salt": sorted(node for node, link in links.items() if not str(link).endswith(f"-{lock}")),
        "workers": sorted(node for node, member in members.items() if "worker" in member["roles"]),
        "away": sorted(set(members) - set(connected)),
        "silent": silent,
    }


def _ask(nodes, function, arguments):
    """Return what minions say, ``{id: return}``, and ``{id: error}`` of those that do not."""
    said = __salt__["salt.execute"](nodes, function, arguments, tgt_type="list", timeout=60)
    silent = {node: f"{function}: {said.get(node, 'no answer')}" for node in nodes if said.get(node) in (None, False)}
    return {node: answer for node, answer in said.items() if node not in silent}, silent


def _programs(pillar):
    """Yield ``name, (installed, coming)`` of the programs of salt/artifacts.json that this site has."""
    for name, entry in json.loads(_served("artifacts.json").read_text()).items():
        if name != "grafana" or pillar["monitoring"]["page"] == "grafana":
            link = INSTALLED / name
            yield name, (link.readlink().name.removeprefix(f"{name}-") if link.is_symlink() else None, entry["version"])


def _locked(pillar):
    """Yield ``formula, (installed, coming)`` of what the locks of formulas list; a version is the main package's."""
    for formula, package in LOCKED.items():
        defaults = yaml.safe_load(_served(f"{formula}/defaults.yaml").read_text())["default"]
        # Only what all nodes share is elsewhere.
        parent = (
            Path({**defaults, **(pillar.get(formula) or {})}["directory"]) if formula == "jupyterlab" else INSTALLED
        )
        lock, link = _served(f"{formula}/requirements.lock"), parent / formula
        coming = version_in(lock.read_text(), package)
        if not link.is_symlink():
            yield formula, (None, coming)
        elif link.readlink().name == f"{formula}-{digest(lock)}":
            yield formula, (coming, coming)
        else:
            installed = version_in((LOCKS / f"{formula}.lock").read_text(), package)
            yield formula, (installed, coming if coming != installed else f"{coming} with other dependencies")


def version_in(lock, package):
    """Return the version of a package in the text of a lock."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))[package]


def digest(lock):
    """Return by what an environment of this lock is called (salt/bootstrap/environment.sh)."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def _installed(seen):
    """Return ``{name: version}`` of all that is installed."""
    services = {name: installed for name, (installed, _) in seen["services"].items()}
    return services | {f"Slurm on {node}": slurm_versions(packages)[0] for node, packages in seen["slurm"].items()}


def _arrow(pair):
    before, after = pair
    return str(after) if before == after else f"{before or 'none'} -> {after}"


def _served(path):
    """Return a file that the master serves."""
    return next(found for root in __opts__["file_roots"]["base"] if (found := Path(root, path)).exists())


def _precedes(one, other):
    words = ["dpkg", "--compare-versions", one, "lt", other]
    return not subprocess.run(words, capture_output=True, timeout=10, check=False).returncode


def _stored():
    """Return the bytes of all databases."""
    files = (Path(top, name) for root in DATABASES for top, _, names in os.walk(root) for name in names)
    return sum(path.lstat().st_size for path in files if path.exists())


def _free():
    """Return ``{directory: bytes free}``."""
    paths = (next(each for each in (Path(path), *Path(path).parents) if each.exists()) for path in ROOM)
    return {str(path): shutil.disk_usage(path).free for path in paths}


def _mark():
    """Return the file that is there while an upgrade is under way."""
    return Path(__opts__["cachedir"], "upgrade.json")


def _begun():
    """Return what :func:`begin` wrote, ``{}`` if no upgrade is under way."""
    return json.loads(_mark().read_text()) if _mark().exists() else {}


def _wait_until_well(only=None):
    deadline = time.monotonic() + PATIENCE
    while True:
        excused = set() if only else {*_away(), *drained_by_others(__salt__["membership.reasons"]())}
        if not (faults := sick(__salt__["doctor.examine"](only), excused)):
            return
        if time.monotonic() > deadline:
            raise CommandExecutionError("\n".join(faults))
        time.sleep(1)


def _away():
    members = __salt__["membership.members"]()
    return set(members) - set(__salt__["membership.connected"](members))

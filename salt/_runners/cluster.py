"""
The cluster as its master sees it.
"""

import json
import logging
import time
from pathlib import Path

import salt.pillar
from _doctor import slurm_config

__opts__: dict
__salt__: dict


def validate():
    """
    Check the site's pillar as the master would compile it, and touch nothing. The master need not run. Where Slurm is
    installed, Slurm's programs read the configuration that would come of the pillar.

    Returns one line saying what is in the pillar. A problem makes ``salt-run`` end with status 1 and the
    message that ``state.apply`` would refuse with.

    CLI Example:

    .. code-block:: bash

        salt-run cluster.validate
    """
    log = logging.getLogger("salt.pillar")
    log.disabled, before = True, log.disabled  # problems are returned: do not log them with a traceback too
    try:
        pillar, errors = compiled_pillar()
    finally:
        log.disabled = before
    errors = errors or slurm_config.refusals(pillar, __opts__)
    if errors:
        return {"pillar is not valid": errors, "retcode": 1}
    sections = ("nodes", "partitions", "users", "groups", "accounts", "qos")
    counts = (f"{len(pillar.get(section, {}))} {section}" for section in sections)
    return f"pillar is valid: {', '.join(counts)}"


def doctor():
    """
    Look at every service of the cluster as who uses it would, and say what to do about each failure.

    Ends with status 1 if something is wrong. A check that needs another one that failed is not made. Changes nothing,
    but runs a job of a second in each partition that has a free node. ``--out=json`` prints what ``doctor.examine``
    returns.

    CLI Example:

    .. code-block:: bash

        salt-run cluster.doctor
    """
    return {"outputter": "doctor", "data": __salt__["doctor.examine"]()}


def compiled_pillar():
    """Return the pillar of the master's own minion, and a list of errors."""
    pillar = salt.pillar.Pillar(dict(__opts__), {}, __opts__["id"], "base").compile_pillar()
    errors = pillar.get("_errors", [])
    if not errors and "members" not in pillar:
        errors = [f"cluster.master.id: has to be {__opts__['id']!r}, the id of this master's minion"]
    return pillar, errors


def drift():
    """
    Tell which nodes are not as declared, as far as their last scheduled highstate told, and since when.

    A run in test mode (``salt.highstate.mode: test``) tells what it would change, one that enforces what it had to
    mend. For news at once: ``salt '*' schedule.run_job highstate force=True``.

    Returns ``{"summary": ..., "nodes": {id: {"last run", "failed since", "failed", "drifted since", "drifted" or
    "mended"}}}`` with only those nodes that are not as declared, or of which no run is known.

    CLI Example:

    .. code-block:: bash

        salt-run cluster.drift
        salt-run cluster.drift --out=json
    """
    path = Path(__opts__["cachedir"], "highstates.json")
    runs = json.loads(path.read_text()) if path.exists() else {}
    members = __salt__["membership.members"]()
    nodes = {node: _differs(runs.get(node)) for node in sorted(members)}
    differ = {node: found for node, found in nodes.items() if found}
    return {"summary": f"{len(nodes) - len(differ)} of {len(nodes)} nodes are as declared", "nodes": differ}


def _differs(run):
    """Return what is not as declared on a node, ``{}`` if all is."""
    if not run:
        return {"last run": "none yet"}
    found = {}
    for kind, word in (("failed", "failed"), ("drifted", "drifted" if run["test"] else "mended")):
        if run[kind]:
            found[f"{word} since"] = _when(run[f"{kind}_since"])
            found[word] = run[kind]
    return {"last run": _when(run["time"]), **found} if found else {}


def _when(seconds):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))

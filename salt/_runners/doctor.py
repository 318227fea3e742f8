"""
The doctor: every service of the cluster looked at as who uses it would, see ``cluster.doctor``.
"""

import logging
import time
from pathlib import Path

# Not a package that Salt loads: its loader, when it loads a package again, asks what is gone.
from _doctor import engine, reports, table
from _doctor.site import Site

__opts__: dict
__salt__: dict

#: Seconds for all of it.
DEADLINE = 35


def examine(only=None):
    """
    Return how the cluster is.

    ``{"cluster", "healthy", "seconds", "checks", "retcode"}``; each check is ``{"group", "name", "state", "says",
    "advice", "because", "nodes", "seconds"}``, see :class:`~engine.Outcome`.

    only
        Names of checks (a list) to make, with those that they need, instead of all.

    CLI Example:

    .. code-block:: bash

        salt-run doctor.examine
    """
    start = time.monotonic()
    pillar, errors = _pillar()
    keys = Path(__opts__["pki_dir"], "minions")
    asleep = frozenset(__salt__["membership.asleep"]())
    site = Site(
        pillar=pillar,
        errors=errors,
        members={name: member for name, member in pillar.get("members", {}).items() if name not in asleep},
        asleep=asleep,
        accepted=frozenset(path.name for path in keys.iterdir() if not path.name.startswith(".")),
        formulas=__opts__["file_roots"]["base"],
    )
    made = engine.with_needs(table.CHECKS, only) if only else table.CHECKS
    asked = not errors and any(check.name == "salt-master" for check in made)
    outcomes = engine.examine(made, site, DEADLINE, (lambda: reports.gather(site, __opts__)) if asked else None)
    checks = [
        {
            "group": check.group,
            "name": check.name,
            **{key: getattr(outcomes[check.name], key) for key in ("state", "advice", "because", "seconds")},
            "nodes": sorted(outcomes[check.name].nodes),
            "says": list(outcomes[check.name].says),
        }
        for check in made
    ]
    healthy = all(check["state"] in (engine.OK, engine.WARNED, engine.ABSENT) for check in checks)
    return {
        "cluster": pillar.get("cluster", {}).get("name", ""),
        "healthy": healthy,
        "seconds": round(time.monotonic() - start, 1),
        "checks": checks,
        "retcode": 0 if healthy else 1,
    }


def _pillar():
    log = logging.getLogger("salt.pillar")
    log.disabled, before = True, log.disabled  # what is wrong is returned
    try:
        return __salt__["cluster.compiled_pillar"]()
    finally:
        log.disabled = before

"""
The doctor: every service of the cluster looked at as who uses it would, see ``cluster.doctor``.
"""

import logging
import time
from pathlib import Path

__opts__: dict
__salt__: dict

#: Seconds for all of it.
DEADLINE = 35


def examine():
    """
    Return how the cluster is.

    ``{"cluster", "healthy", "seconds", "checks", "retcode"}``; each check is ``{"group", "name", "state", "says",
    "advice", "because", "seconds"}``, see :class:`~engine.Outcome`.

    CLI Example:

    .. code-block:: bash

        salt-run doctor.examine
    """
    from . import engine, reports, table  # the loader knows this package only when it is loaded
    from .site import Site

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
    gather = None if errors else lambda: reports.gather(site, __opts__)
    outcomes = engine.examine(table.CHECKS, site, DEADLINE, gather)
    checks = [
        {
            "group": check.group,
            "name": check.name,
            **{key: getattr(outcomes[check.name], key) for key in ("state", "advice", "because", "seconds")},
            "says": list(outcomes[check.name].says),
        }
        for check in table.CHECKS
    ]
    healthy = all(check["state"] in (engine.OK, engine.ABSENT) for check in checks)
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

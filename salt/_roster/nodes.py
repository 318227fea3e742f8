"""
The salt-ssh roster: the pillar's ``nodes``, as root over SSH.

Host keys are checked: each has to be in root's ``known_hosts`` on the master.
"""

import salt.pillar
from salt.exceptions import SaltSystemExit

__opts__: dict
__utils__: dict


def targets(tgt, tgt_type="glob", **kwargs):
    """
    Return ``{id: {"host", "user"}}`` of the nodes that ``tgt`` matches.

    Raises :class:`~salt.exceptions.SaltSystemExit` with the pillar's own message when the pillar is not valid.
    """
    opts = {**__opts__, "file_client": "local"}
    pillar = salt.pillar.Pillar(opts, {}, opts["id"], "base").compile_pillar()
    if "_errors" in pillar:
        raise SaltSystemExit(msg="\n".join(pillar["_errors"]))
    hosts = {name: {"host": node["address"], "user": "root"} for name, node in pillar["nodes"].items()}
    return __utils__["roster_matcher.targets"](hosts, tgt, tgt_type, "ipv4")

"""
The salt-ssh roster: the pillar's ``nodes``, as root over SSH.

Host keys are checked: each has to be in root's ``known_hosts`` on the master.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import salt.pillar
from salt.exceptions import SaltSystemExit

__opts__: dict
__utils__: dict

#: What a node has to be able to run: a file is written where salt-ssh puts its own, and nothing is printed.
TRIAL = 'f=$(mktemp /var/tmp/qhub.XXXXXX) && head -c 4194304 /dev/zero >"$f"; s=$?; rm -f "$f"; exit $s'
#: Seconds for that, and how many nodes are tried at a time.
TRIAL_TIMEOUT, AT_A_TIME = 30, 16
#: The status with which ssh itself fails; salt-ssh says then why.
SSH_FAILED = 255


def targets(tgt, tgt_type="glob", **kwargs):
    """
    Return ``{id: {"host", "user"}}`` of the nodes that ``tgt`` matches.

    A node on which salt-ssh could not do its work is refused first: salt-ssh takes a copy that failed for a run of no
    state, and calls that a success.

    Raises :class:`~salt.exceptions.SaltSystemExit` with the pillar's own message when the pillar is not valid, and with
    the reason for each node that is refused.
    """
    opts = {**__opts__, "file_client": "local"}
    pillar = salt.pillar.Pillar(opts, {}, opts["id"], "base").compile_pillar()
    if "_errors" in pillar:
        raise SaltSystemExit(msg="\n".join(pillar["_errors"]))
    hosts = {name: {"host": node["address"], "user": "root"} for name, node in pillar["nodes"].items()}
    chosen = __utils__["roster_matcher.targets"](hosts, tgt, tgt_type, "ipv4")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        faults = [fault for fault in pool.map(_fault, chosen, (node["host"] for node in chosen.values())) if fault]
    if faults:
        raise SaltSystemExit(msg="\n".join(faults))
    return chosen


def _fault(name, host):
    """Return why salt-ssh cannot work on a node, ``""`` if it can or is not let in."""
    options = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-i", __opts__["ssh_priv"], "-l", "root")
    try:
        trial = subprocess.run(
            ["ssh", *options, host, TRIAL], capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, timeout=TRIAL_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{name}: root's shell did not answer within {TRIAL_TIMEOUT} seconds"
    if trial.stdout:
        first = trial.stdout.splitlines()[0][:60]
        return (
            f"{name}: root's shell prints {first!r} when a command is run over SSH, with which files cannot be copied: "
            "take that out of root's .bashrc there, or print it in interactive shells only"
        )
    if trial.returncode not in (0, SSH_FAILED):
        return f"{name}: files cannot be written in /var/tmp: {trial.stderr.strip()[-300:]}"
    return ""

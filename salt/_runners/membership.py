"""
Nodes that join and leave, seen from the master. The orchestrations ``orch.converge`` and ``orch.remove`` use these;
what they decide comes from accepted keys, the pillar and Slurm, never from an event.
"""

import logging
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import salt.utils.network
from salt.exceptions import CommandExecutionError

__opts__: dict
__salt__: dict

log = logging.getLogger(__name__)

# Of Slurm's node states: the node has registered, answers, and is not given up. "*" means it does not answer.
_GONE = ("down", "unknown", "future", "invalid", "power")
# Slurm's reason for a node that it has given up by itself. One that somebody set down or drained has that person's.
_GIVEN_UP = "Not responding"
# The marks of nodes that Slurm has switched off, or is about to, or has switched on and waits for.
_SWITCHED = ("~", "%", "#")
# How many nodes are proved at a time.
_AT_ONCE = 16
# How the reason ends of those that were drained here because they are dead.
_FOUND = "does not answer (found by the cluster's master)"
# How the reasons end for which nodes are drained by an orchestration, until they have run a job.
_OWN = (_FOUND, "(orch.upgrade)")


def members():
    """
    Return the members of the cluster: ``{id: {"address", "roles", ...}}``.

    Members are the master and the pillar's nodes whose key is accepted. Raises
    :class:`~salt.exceptions.CommandExecutionError` with all problems if the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt-run membership.members
    """
    pillar, errors = __salt__["cluster.compiled_pillar"]()
    if errors:
        raise CommandExecutionError("\n".join(errors))
    return pillar["members"]


def joining():
    """
    Return the ids (a list) of workers that are connected to the master and not in service in Slurm, or new over SSH, or
    back from the dead (:func:`look_for_dead`).

    Raises :class:`~salt.exceptions.CommandExecutionError` if the pillar is not valid or slurmctld does not answer:
    without it nobody can join.

    CLI Example:

    .. code-block:: bash

        salt-run membership.joining
    """
    in_service = {name for name, state in node_states().items() if serves(state)} - set(returned(reasons()))
    known = members()
    return [
        name
        for name in connected(known)
        if "worker" in known[name]["roles"] and (name not in in_service or _mark(name).exists())
    ]


def connected(known=None):
    """
    Return the ids (a list) of members whose minion is connected to the master, and the master's own.

    known
        The members as :func:`members` returns them, if the caller has asked already.

    CLI Example:

    .. code-block:: bash

        salt-run membership.connected
    """
    addresses = salt.utils.network.local_port_tcp(int(__opts__["publish_port"]))
    return [
        name
        for name, member in sorted((known or members()).items())
        if member["address"] in addresses or "master" in member["roles"]
    ]


def expect_absent():
    """
    Let members that are away be brought in anew when they come, with what they have missed, even if Slurm takes them.

    Returns their ids (a list).

    CLI Example:

    .. code-block:: bash

        salt-run membership.expect_absent
    """
    known = members()
    absent = sorted(set(known) - set(connected(known)))
    for name in absent:
        _mark(name).parent.mkdir(parents=True, exist_ok=True)
        _mark(name).touch()
    return absent


def asleep():
    """
    Return the ids (a list) of nodes that are off on purpose, or on their way there or back: Slurm has switched them off
    and does so on again for a job. There are none while slurmctld does not answer.

    CLI Example:

    .. code-block:: bash

        salt-run membership.asleep
    """
    try:
        states = node_states()
    except CommandExecutionError:
        return []
    return sorted(node for node, state in states.items() if state.endswith(_SWITCHED) and not state.startswith("down"))


def suspend_idle(after):
    """
    Have Slurm switch off the workers that may be (``power: true``) and have had no job for ``after`` seconds.

    Returns their ids (a list). One that is yet to be brought in stays on.

    CLI Example:

    .. code-block:: bash

        salt-run membership.suspend_idle 1800
    """
    may = {name for name, member in members().items() if member["power"] and not _mark(name).exists()}
    shown = _slurm("scontrol", "--oneliner", "show", "node").stdout
    found = sorted(may & idle(shown, time.time() - after))
    for node in found:
        _slurm("scontrol", "update", f"nodename={node}", "state=power_down")
    return found


def idle(shown, before):
    """
    Return the nodes (a set) that are idle, have no other mark, and had their last job before a time.

    shown
        What ``scontrol --oneliner show node`` prints.
    before
        Seconds since 1970.
    """
    found = set()
    for line in shown.splitlines():
        fields = dict(word.partition("=")[::2] for word in reversed(line.split()))  # the first one of a name counts
        busy = fields.get("LastBusyTime", "Unknown")
        if fields.get("State") == "IDLE+DYNAMIC_NORM" and busy != "Unknown" and _seconds(busy) < before:
            found.add(fields["NodeName"])
    return found


def set_down(node, reason):
    """
    Let Slurm take ``node`` for down: jobs that wait for it go elsewhere.

    CLI Example:

    .. code-block:: bash

        salt-run membership.set_down w2 'fire'
    """
    _slurm("scontrol", "update", f"nodename={node}", "state=down", f"reason={reason}")


def bring_in():
    """
    Bring every connected worker that is not in service into it, by ``orch.converge``.

    Returns what that did; where there is none, the names (a list) of the nodes that are in service.

    CLI Example:

    .. code-block:: bash

        salt-run membership.bring_in
    """
    if joining():
        return __salt__["state.orchestrate"]("orch.converge")
    return sorted(name for name, state in node_states().items() if serves(state))


def unexpected():
    """
    Return the ids (a list) whose keys are accepted although the pillar does not name them. They get nothing.

    CLI Example:

    .. code-block:: bash

        salt-run membership.unexpected
    """
    accepted = {path.name for path in Path(__opts__["pki_dir"], "minions").iterdir() if not path.name.startswith(".")}
    return sorted(accepted - set(members()))


def node_states():
    """
    Return ``{node: state}`` as ``sinfo`` has it.

    Raises :class:`~salt.exceptions.CommandExecutionError` while slurmctld does not answer.
    """
    result = _slurm("sinfo", "--noheader", "--Node", "--format=%N %T")
    return dict(line.split() for line in result.stdout.splitlines())


def reasons():
    """
    Return ``{node: (state, since, reason)}`` of all nodes, in Slurm's words, which has some for none too.

    Raises :class:`~salt.exceptions.CommandExecutionError` while slurmctld does not answer.
    """
    result = _slurm("sinfo", "--noheader", "--Node", "--format=%N|%T|%H|%E")
    rows = (line.split("|", 3) for line in result.stdout.splitlines())
    return {node: (state, since, reason) for node, state, since, reason in rows}


def serves(state):
    """Whether a node in this state of ``sinfo`` (such as ``idle``, ``down*``) has registered and answers."""
    return not state.endswith("*") and not state.startswith(_GONE)


def look_for_dead(after):
    """
    Drain the workers that are dead: Slurm gave them up more than ``after`` seconds ago. Nothing is deleted.

    Each is told as the event ``qhub/node/<id>/dead`` with the time since when. A worker that somebody set down or
    drained is left alone. One that comes back stays drained until it has joined anew (``orch.converge``).

    Returns the ids (a list) of workers that were drained so, and answer again. Raises
    :class:`~salt.exceptions.CommandExecutionError` while slurmctld does not answer.

    CLI Example:

    .. code-block:: bash

        salt-run membership.look_for_dead 3600
    """
    rows = reasons()
    for node, since in dead(rows, time.time() - after).items():
        reason = f"dead since {since}: {_FOUND}"
        _slurm("scontrol", "update", f"nodename={node}", "state=drain", f"reason={reason}")
        log.error("%s is drained: %s", node, reason)
        _tell(node, "dead", {"since": since})
    return returned(rows)


def dead(rows, before):
    """
    Return ``{node: since}`` of those that Slurm gave up before a time, and nobody else has touched.

    rows
        ``{node: (state, since, reason)}``, as ``sinfo`` has them.
    before
        Seconds since 1970.
    """
    return {
        node: since
        for node, (state, since, reason) in rows.items()
        if (state, reason) == ("down*", _GIVEN_UP) and _seconds(since) < before
    }


def returned(rows):
    """Return the nodes (a list) that were drained as dead and answer again; ``rows`` as for :func:`dead`."""
    return sorted(node for node, (state, _, reason) in rows.items() if reason.endswith(_FOUND) and serves(state))


def prove(nodes, timeout=60):
    """
    Wait until Slurm has each of ``nodes`` (a list of ids) in service, and run a job there. One that was drained as dead
    or for its upgrade is drained no more, unless the job does not run.

    Each node that did is told as the event ``qhub/node/<id>/ready``, each other one as ``qhub/node/<id>/failed``, with
    the seconds it took or the reason.

    timeout
        Seconds for all of them together.

    Returns the ids that are ready. Raises :class:`~salt.exceptions.CommandExecutionError` naming the others.

    CLI Example:

    .. code-block:: bash

        salt-run membership.prove '[w1, w2]'
    """
    start = time.monotonic()
    ready, waiting, resumed = [], list(nodes), {}
    wrong = dict.fromkeys(waiting, "is not in Slurm")
    while waiting and time.monotonic() < start + timeout:
        rows = reasons()
        serving = []
        for name in [name for name in waiting if name in rows]:
            state, _, reason = rows[name]
            wrong[name] = f"is {state} in Slurm"
            if serves(state):
                serving.append(name)
                if reason.endswith(_OWN):
                    resumed[name] = reason
                    _slurm("scontrol", "update", f"nodename={name}", "state=resume")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            ran = dict(zip(serving, pool.map(_runs_a_job, serving), strict=True))
        for name in [name for name in serving if ran[name]]:
            waiting.remove(name)
            ready.append(name)
            _mark(name).unlink(missing_ok=True)
            _tell(name, "ready", {"seconds": round(time.monotonic() - start, 1)})
        if waiting:
            time.sleep(0.3)
    for name in waiting:
        if name in resumed:
            _slurm("scontrol", "update", f"nodename={name}", "state=drain", f"reason={resumed[name]}")
        _tell(name, "failed", {"reason": wrong[name]})
    if waiting:
        raise CommandExecutionError("; ".join(f"{name} {wrong[name]} after {timeout} s" for name in waiting))
    return ready


def drain(node, reason, timeout=3600):
    """
    Let no new job start on a node and wait until the running ones have ended. One that is drained already keeps its
    reason.

    node
        Its id, or a list of ids.
    reason
        What Slurm shows to users.
    timeout
        Seconds to wait; then the nodes stay drained.

    Returns ``True``. A node that Slurm does not know has nothing to wait for. Raises
    :class:`~salt.exceptions.CommandExecutionError` naming the jobs that were not over in time.

    CLI Example:

    .. code-block:: bash

        salt-run membership.drain w2 'new disk'
    """
    rows = reasons()
    names = [name for name in ([node] if isinstance(node, str) else node) if name in rows]
    for name in names:
        state, _, why = rows[name]
        if not state.startswith("drain"):
            why = reason
            _slurm("scontrol", "update", f"nodename={name}", "state=drain", f"reason={why}")
        if state.endswith("*"):
            # Nothing ends on a dead machine: let Slurm requeue or fail what it has there.
            _slurm("scontrol", "update", f"nodename={name}", "state=down", f"reason={why}")
    deadline, on_them = time.monotonic() + timeout, f"--nodelist={','.join(names)}"
    while names and (jobs := _slurm("squeue", "--noheader", on_them, "--format=%A").stdout.split()):
        if time.monotonic() > deadline:
            raise CommandExecutionError(
                f"{', '.join(names)}: drained, but after {timeout} s still runs the jobs {', '.join(jobs)}"
            )
        time.sleep(1)
    return True


def forget(node):
    """
    Delete ``node`` from Slurm, and its minion key in every form.

    Returns ``True``, also when there was nothing to delete.

    CLI Example:

    .. code-block:: bash

        salt-run membership.forget w2
    """
    if node in node_states():
        # A node that still answers could register again.
        _slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=removed")
        _slurm("scontrol", "delete", f"nodename={node}")
    _mark(node).unlink(missing_ok=True)
    pki = Path(__opts__["pki_dir"])
    for path in (pki / "preseeded" / f"{node}.pem", pki / "preseeded" / f"{node}.pub"):
        path.unlink(missing_ok=True)
    for state in ("minions", "minions_pre", "minions_rejected", "minions_denied"):
        (pki / state / node).unlink(missing_ok=True)
    _tell(node, "removed", {})
    return True


def _mark(node):
    """Return the file that is there for a node that is new or has missed something, until it has run a job."""
    return Path(__opts__["cachedir"], "joining", node)


def _seconds(moment):
    """Return a time of Slurm's in seconds since 1970."""
    return time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%S"))


def _runs_a_job(node):
    limits = ("--nodes=1", "--ntasks=1", "--mem=1", "--time=1", "--immediate=10")
    try:
        result = _slurm("srun", "--quiet", f"--nodelist={node}", "--job-name=join", *limits, "true", check=False)
    except CommandExecutionError:  # a job that hangs there is no reason to give up the others
        return False
    # A node that users fill the moment it is there has proved itself too.
    return result.returncode == 0 or node_states().get(node) in ("mixed", "allocated")


def _slurm(*command, check=True):
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandExecutionError(f"{command[0]}: {error}") from error
    if check and result.returncode:
        raise CommandExecutionError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result


def _tell(node, what, content):
    log.info("Node %s is %s %s", node, what, content)
    __salt__["event.send"](f"qhub/node/{node}/{what}", content)

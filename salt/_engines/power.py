"""
Switch nodes off and on for Slurm, which decides it and may not do it: slurmctld runs as a user of its own.

What slurmctld wants of a node (formulas/slurm/files/power) is a symbolic link with the node's name to ``resume`` or
``suspend``, which is read and never followed. It is a request and no more: a node is switched if it is a member that
``nodes.sls`` lets be. A request is there until it is met; a Salt master that stops meanwhile goes on with it.
"""

import logging
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import salt.runner
import salt.utils.event

__opts__: dict

log = logging.getLogger(__name__)

ASKED, TAKEN = Path("/var/spool/qhub-power/asked"), Path("/var/spool/qhub-power/taken")
DONE = {"resume": "resumed", "suspend": "suspended"}
TICK = 1  # seconds between two looks at what is asked for
LOOK = 60  # seconds, at most, between two looks for nodes without a job
RETRY = 15  # seconds until what could not be done is tried again
MOST = 16  # nodes that are switched at a time
LONGEST = 200  # characters of what a command says


def start(resume, suspend, idle, resume_timeout, suspend_timeout):
    """
    Switch nodes for ever.

    resume, suspend
        Commands that switch a node on and off, with ``{node}`` for its id.
    idle
        Seconds after which a node without a job is switched off.
    resume_timeout, suspend_timeout
        Seconds that a command may take.
    """
    commands = {"resume": (resume, resume_timeout), "suspend": (suspend, suspend_timeout)}
    with (
        salt.utils.event.get_event("master", opts=__opts__, sock_dir=__opts__["sock_dir"], listen=False) as bus,
        salt.runner.RunnerClient(__opts__) as runners,
        ThreadPoolExecutor(MOST) as pool,
    ):
        switching, due = {}, 0.0
        while True:
            try:
                end(switching, bus, runners.functions)
                for node, action in allowed(taken(switching), runners.functions):
                    command, timeout = commands[action]
                    log.warning("%s of %s", action, node)
                    bus.fire_event({}, f"qhub/node/{node}/{action}")
                    switching[node] = action, pool.submit(switch, words(command, node), timeout)
                if time.monotonic() > due:
                    due = time.monotonic() + min(LOOK, idle)
                    runners.functions["membership.suspend_idle"](idle)
            except Exception as error:  # whatever it is, what was asked for stays
                log.warning("Nodes cannot be switched yet: %s", error)
                time.sleep(RETRY)
            time.sleep(TICK)


def taken(switching):
    """Take what is asked for, but of nodes being switched; return it, and what was left over: ``{node: action}``."""
    for path in ASKED.iterdir():
        # One with a dot is only being made.
        if path.is_symlink() and not path.name.startswith(".") and path.name not in switching:
            path.replace(TAKEN / path.name)
    return {path.name: str(path.readlink()) for path in TAKEN.iterdir() if path.name not in switching}


def allowed(asked, functions):
    """Yield ``(node, action)`` of what may be done; forget the rest."""
    members = functions["membership.members"]() if asked else {}
    for node, action in asked.items():
        if action in DONE and node in members and members[node]["power"]:
            yield node, action
        else:
            log.error("Refused: %.60r of %.60r, which nodes.sls does not let be switched (power)", action, node)
            (TAKEN / node).unlink()


def end(switching, bus, functions):
    """Tell of nodes for which a command has ended; Slurm, if it failed."""
    for node, (action, command) in list(switching.items()):
        if not command.done():
            continue
        if said := command.result():
            log.error("%s of %s failed: %s", action, node, said)
            functions["membership.set_down"](node, f"{action} failed (journal of salt-master)")
            bus.fire_event({"action": action, "said": said}, f"qhub/node/{node}/power-failed")
        else:
            bus.fire_event({}, f"qhub/node/{node}/{DONE[action]}")
        (TAKEN / node).unlink()
        del switching[node]


def words(command, node):
    """Return a command as words; the node's id, being no more than a host name, is put into each."""
    return [word.replace("{node}", node) for word in shlex.split(command)]


def switch(command, timeout):
    """Run a command; return ``""``, or what it said last if it failed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {timeout} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
    return "".join(each if each.isprintable() else "?" for each in lines[-1][-LONGEST:])

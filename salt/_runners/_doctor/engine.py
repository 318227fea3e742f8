"""
Checks that need each other, all at once: a fault is told once, by the check that is about it.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import NamedTuple

#: How a check ends.
OK, WARNED, FAILED, UNCHECKED, ABSENT = "ok", "warning", "failed", "not checked", "absent"


class Fault(Exception):
    """
    What a check found wrong: one line of text for each.

    nodes
        The nodes that it is about. Later checks leave them out and look at the others.
    advice
        What to do, if it is not what the table says.
    """

    def __init__(self, *lines, nodes=(), advice=None):
        super().__init__("\n".join(lines))
        self.lines, self.nodes, self.advice = list(lines), frozenset(nodes), advice


class Warned(Fault):
    """What a check found that works and should be changed: shown with the advice, and the cluster counts as healthy."""


class Absent(Exception):
    """The site does not have what the check is about."""


class Check(NamedTuple):
    """
    One check.

    group, name
        What it is shown as.
    function
        Takes the site, returns what there is in a few words; raises :class:`Fault`, :class:`Warned` or :class:`Absent`.
    advice
        A command to type when it fails.
    needs
        Checks without which this one says nothing: unless they are all in order, it is not made.
    after
        Checks that come first: this one leaves out the nodes that they blame.
    units
        systemd units that this check is about, so that no other check speaks of them.
    """

    group: str
    name: str
    function: Callable
    advice: str
    needs: tuple = ("pillar",)
    after: tuple = ()
    units: tuple = ()


class Outcome(NamedTuple):
    """How a check ended. ``says`` are lines; ``because`` is the check whose fault it is that this was not made."""

    state: str
    says: tuple = ()
    advice: str = ""
    because: str = ""
    nodes: frozenset = frozenset()
    seconds: float = 0.0


def examine(checks, site, seconds, meanwhile=None):
    """
    Make all ``checks`` at once and return ``{name: Outcome}``, in their order.

    site
        What they are given: with ``members``, and ``without(nodes, failed)``, which returns the same without some.
    seconds
        After so many, whatever has not ended has failed.
    meanwhile
        Called at once in this thread.
    """
    deadline = time.monotonic() + seconds
    futures = {check.name: Future() for check in checks}
    for check in checks:
        threading.Thread(target=_make, args=(check, site, futures), daemon=True).start()
    if meanwhile:
        meanwhile()
    wait(futures.values(), timeout=max(0, deadline - time.monotonic()))
    outcomes = {}
    for check in checks:
        late = Outcome(FAILED, (f"did not end within {seconds:.0f} s",), check.advice, seconds=seconds)
        future = futures[check.name]
        outcomes[check.name] = future.result() if future.done() else prevented(check, outcomes) or late
    return outcomes


def with_needs(checks, names):
    """Return those of ``checks`` (a list) that have these names, and those that they come after, in their order."""
    wanted = set(names)
    for check in reversed(checks):  # a check is below those that it needs
        if check.name in wanted:
            wanted |= {*check.needs, *check.after}
    return [check for check in checks if check.name in wanted]


def prevented(check, outcomes):
    """Return the :class:`Outcome` of a check that cannot be made after these outcomes, ``None`` if it can."""
    needed = [(name, outcomes[name]) for name in check.needs]
    for name, outcome in needed:
        if outcome.state in (FAILED, UNCHECKED):
            return Outcome(UNCHECKED, because=outcome.because or name)
    return Outcome(ABSENT) if any(outcome.state == ABSENT for _, outcome in needed) else None


def left_nothing(earlier):
    """Return the :class:`Outcome` of a check for which earlier ones, that blame every node, leave nothing."""
    return Outcome(UNCHECKED, because=next(name for name, outcome in earlier.items() if outcome.nodes))


def made(check, site):
    """Return the :class:`Outcome` of a check that can be made."""
    start = time.monotonic()
    try:
        outcome = Outcome(OK, (check.function(site),))
    except Absent:
        outcome = Outcome(ABSENT)
    except Warned as found:
        outcome = Outcome(WARNED, tuple(found.lines), found.advice or check.advice)
    except Fault as fault:
        outcome = Outcome(FAILED, tuple(fault.lines), fault.advice or check.advice, nodes=fault.nodes)
    except Exception as error:  # whatever it is, the other checks go on
        outcome = Outcome(FAILED, (f"{type(error).__name__}: {error}",), check.advice)
    return outcome._replace(seconds=round(time.monotonic() - start, 2))


def _make(check, site, futures):
    earlier = {name: futures[name].result() for name in (*check.needs, *check.after)}
    failed = {name for name, outcome in earlier.items() if outcome.state == FAILED}
    blamed = frozenset().union(*(outcome.nodes for outcome in earlier.values()))
    rest = site.without(blamed, failed)
    outcome = prevented(check, earlier) or (made(check, rest) if rest.members or not blamed else left_nothing(earlier))
    with contextlib.suppress(Exception):  # nobody waits any more
        futures[check.name].set_result(outcome)

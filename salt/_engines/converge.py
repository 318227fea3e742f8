"""
Bring joining workers into service, and take dead ones out.

A minion that starts is a reason to look, and no more: nothing in the event is used, it may be forged. Events that
arrive while one run is under way lead to one more run, however many they are.
"""

import logging
import time

import salt.runner
import salt.utils.event

__opts__: dict

log = logging.getLogger(__name__)

SETTLE = 1  # seconds: machines that start together are brought in together
RETRY = 15  # seconds until a look that failed is repeated, and between two looks for the dead
AGAIN = 300  # seconds until one who is back from the dead and failed to join is tried again


def start(dead_after=None):
    """
    Run ``orch.converge`` when a minion has started or a worker is back from the dead, if workers are not in service.

    dead_after
        Seconds after which a worker that Slurm has given up is drained as dead; ``None``: never.
    """
    with (
        salt.utils.event.get_event("master", opts=__opts__, sock_dir=__opts__["sock_dir"], listen=True) as bus,
        salt.runner.RunnerClient(__opts__) as runners,
    ):
        seen, tried = _converge(runners), time.monotonic()  # workers may have come while the master was away
        back, due = [], time.monotonic()
        while True:
            started = _is_start(bus.get_event(wait=RETRY, tag="salt/minion/", match_type="startswith", full=True))
            if started:
                time.sleep(SETTLE)
                while bus.get_event(wait=0.01, tag="salt/minion/", match_type="startswith"):
                    pass
            before = back
            if dead_after is not None and time.monotonic() > due:
                back, due = _back_from_the_dead(runners, dead_after, before), time.monotonic() + RETRY
            news = set(back) - set(before) or (back and time.monotonic() > tried + AGAIN)
            if started or not seen or news:
                seen, tried = _converge(runners), time.monotonic()


def _is_start(event):
    return bool(event) and event["tag"].endswith("/start")


def _back_from_the_dead(runners, dead_after, before):
    """Drain who is dead; return who was and answers again, those of ``before`` while that cannot be told."""
    try:
        return runners.functions["membership.look_for_dead"](dead_after)
    except Exception as error:  # the bus must be read on, whatever happened
        log.warning("Who is dead cannot be told yet: %s", error)
        return before


def _converge(runners):
    """
    Bring those who are joining into service, and those who came meanwhile: the bus drops a reader that takes its time.

    Returns whether there was an answer to who is joining.
    """
    tried = set()
    while True:
        try:
            for stranger in runners.functions["membership.unexpected"]():
                log.error("Refused: the key of %s is accepted, but the pillar does not name it (nodes.sls)", stranger)
            joining = runners.functions["membership.joining"]()
        except Exception as error:  # the bus must be read on, whatever happened
            log.warning("Who is joining cannot be told yet: %s", error)
            return False
        if not set(joining) - tried:
            return True
        log.warning("Joining: %s", ", ".join(joining))
        runners.cmd("state.orchestrate", ["orch.converge"], print_event=False)
        tried.update(joining)

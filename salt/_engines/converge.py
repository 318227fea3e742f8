"""
Bring joining workers into service.

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
RETRY = 15  # seconds until a look that failed is repeated


def start():
    """Run ``orch.converge`` whenever a minion has started and workers are not in service."""
    with (
        salt.utils.event.get_event("master", opts=__opts__, sock_dir=__opts__["sock_dir"], listen=True) as bus,
        salt.runner.RunnerClient(__opts__) as runners,
    ):
        seen = _converge(runners)  # workers may have come while the master was away
        while True:
            started = _is_start(bus.get_event(wait=RETRY, tag="salt/minion/", match_type="startswith", full=True))
            if started:
                time.sleep(SETTLE)
                while bus.get_event(wait=0.01, tag="salt/minion/", match_type="startswith"):
                    pass
            if started or not seen:
                seen = _converge(runners)


def _is_start(event):
    return bool(event) and event["tag"].endswith("/start")


def _converge(runners):
    """Return whether there was an answer to who is joining; bring those into service."""
    try:
        for stranger in runners.functions["membership.unexpected"]():
            log.error("Refused: the key of %s is accepted, but the pillar does not name it (nodes.sls)", stranger)
        joining = runners.functions["membership.joining"]()
    except Exception as error:  # the bus must be read on, whatever happened
        log.warning("Who is joining cannot be told yet: %s", error)
        return False
    if joining:
        log.warning("Joining: %s", ", ".join(joining))
        runners.cmd("state.orchestrate", ["orch.converge"], print_event=False)
    return True

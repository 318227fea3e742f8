"""
Bring joining workers into service.

A minion that starts is a reason to look, and no more: nothing in the event is used, it may be forged. Events that arrive
while one run is under way lead to one more run, however many they are.
"""

import logging
import time

import salt.runner
import salt.utils.event

log = logging.getLogger(__name__)

SETTLE = 1  # seconds: machines that start together are brought in together


def start():
    """Run ``orch.converge`` whenever a minion has started and workers are not in service."""
    with salt.utils.event.get_event("master", opts=__opts__, sock_dir=__opts__["sock_dir"], listen=True) as bus:
        look = True  # workers may have come while the master was away
        while True:
            if look:
                time.sleep(SETTLE)
                _drain(bus)
                _converge()
            look = _is_start(bus.get_event(wait=60, tag="salt/minion/", match_type="startswith", full=True))


def _is_start(event):
    return bool(event) and event["tag"].endswith("/start")


def _drain(bus):
    while bus.get_event(wait=0.01, tag="salt/minion/", match_type="startswith"):
        pass


def _converge():
    try:
        with salt.runner.RunnerClient(__opts__) as runners:
            if joining := runners.cmd("membership.joining", print_event=False):
                log.info("Joining: %s", ", ".join(joining))
                runners.cmd("state.orchestrate", ["orch.converge"], print_event=False)
    except Exception:  # the bus must be read on, whatever happened
        log.exception("Bringing workers into service failed")

"""What people may choose of a cluster, within what Slurm and the settings allow them."""

import time
from pathlib import Path

from aiohttp import web
from dask_gateway_server.options import Float, Integer, Options, Select
from qhub_jobs.limits import WHAT, Offer, Refused
from qhub_jobs.people import unix_groups
from qhub_jobs.slurm import SlurmError, limits

PATIENCE = 30  # seconds for which limits are remembered
MIB = 1 << 20
CHOOSE = {"account": "Account", "partition": "Partition", "qos": "QOS"}


def environments(directory, default):
    """Return the environments that a cluster can run in, ``{NAMESPACE/NAME: path}``, the default first."""
    found = {
        str(path.relative_to(directory)): str(path)
        for path in sorted(Path(directory).glob("*/*"))
        if next(path.glob("lib/python3*/site-packages/dask_gateway/scheduler_preload.py"), None)
    }
    return {name: found[name] for name in sorted(found, key=lambda name: name != default)}


def bounds(settings, groups):
    """Return ``limits`` for a member of Unix ``groups``: a group's instead of everybody's, the largest counts."""
    found = dict(settings["limits"])
    for key in found:
        own = [
            settings["group_limits"][group][key] for group in groups if key in settings["group_limits"].get(group, {})
        ]
        if own:
            found[key] = None if None in own else max(own)
    return found


class Choice:
    """Called by the gateway for each request: what this person is offered now."""

    def __init__(self, settings):
        self.settings = settings

    async def __call__(self, user):
        settings, groups = self.settings, unix_groups(user.name)
        try:
            cluster = await limits.get(time.monotonic() - PATIENCE)
        except SlurmError as error:
            raise web.HTTPServiceUnavailable(reason="Slurm does not answer just now. Try again in a minute.") from error
        offer = Offer(cluster, {"dask": {"time": settings["time"], **settings["worker"]}}, user.name, groups)
        if reason := offer.reason():
            raise web.HTTPForbidden(reason=reason)
        known = environments(settings["environments"], settings["environment"])
        if not known:
            raise web.HTTPForbidden(reason="There is no environment yet that has dask-gateway in it.")
        worker, most = settings["worker"], bounds(settings, groups)
        choices = {key: list(dict.fromkeys(choice[key] for choice in offer.choices())) for key in CHOOSE}

        # No nanny: Slurm and the gateway see to workers, and who is gone is replaced. And where Debian's Python 3.13
        # meets OpenSSL 3.5, a connection that ends, as a nanny's first one does, takes others of the scheduler with it.
        def configuration(chosen, _user):
            number = workers(most, {"cpus": chosen["cpus"], "memory": chosen["memory"]})
            asked = {key: chosen[key] for key in ("account", "partition", "qos", "time", "cpus", "memory", "gpus")}
            offer.checked({**asked, **settings["scheduler"], "gpus": 0})
            got = offer.checked(asked)
            return {
                **{key: got[key] for key in ("account", "partition", "qos", "gpus")},
                "minutes": max(1, round(got["time"] * 60)),
                "worker_cores": got["cpus"],
                "worker_memory": got["memory"] * MIB,
                "scheduler_cores": settings["scheduler"]["cpus"],
                "scheduler_memory": settings["scheduler"]["memory"] * MIB,
                "scheduler_cmd": [f"{known[chosen['environment']]}/bin/dask", "scheduler"],
                "worker_cmd": [f"{known[chosen['environment']]}/bin/dask", "worker", "--no-nanny"],
                "cluster_max_workers": number,
            }

        return Options(
            Select("environment", list(known), label="Environment"),
            *(Select(key, choices[key], label=label) for key, label in CHOOSE.items()),
            Float("time", settings["time"], label="Hours", min=0.01),
            Integer("cpus", worker["cpus"], label="CPUs of a worker", min=1),
            Integer("memory", worker["memory"], label="MiB of a worker", min=1),
            Integer("gpus", worker["gpus"], label="GPUs of a worker", min=0),
            handler=configuration,
        )


def workers(most, worker):
    """Return how many such workers a cluster may have, ``None`` for any number.

    most
        What :func:`bounds` returns.
    worker
        ``{"cpus", "memory"}`` of one worker, memory in MiB.

    Raises Refused if one is too many.
    """
    found = [most["workers"]]
    for key, what in (("cpus", WHAT["cpu"]), ("memory", WHAT["mem"])):
        if most[key] is None:
            continue
        if worker[key] > most[key]:
            raise Refused(f"{worker[key]} {what} is too much: all workers of a cluster together get {most[key]}.")
        found.append(most[key] // worker[key])
    return min((each for each in found if each is not None), default=None)

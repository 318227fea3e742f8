"""Clusters whose scheduler and workers are Slurm jobs of the person, started through qhub-jobs (formulas/jobs)."""

import asyncio
import json
import pwd
import shlex
import socket
import time
from pathlib import Path

from aiohttp import web
from dask_gateway_server.backends.base import ClusterConfig, PublicException
from dask_gateway_server.backends.db_base import DBBackendBase, JobStatus
from dask_gateway_server.traitlets import Type
from qhub_jobs.people import unix_groups
from qhub_jobs.slurm import SlurmError, ask, queue
from traitlets import Dict, Integer, Unicode

from qhub_dask.addresses import refused
from qhub_dask.options import bounds

MIB = 1 << 20
PEOPLE = Path("/etc/qhub/people.json")  # written by formulas/jobs: who may have jobs started
# The keys come in the environment, as files need a directory that is there before the job is.
SCRIPT = """\
#!/bin/bash -l
{options}
keys=$(mktemp -d) || exit 1
trap 'rm -rf "$keys"' EXIT
(umask 077; printf %s "$TLS_KEY" > "$keys/dask.pem"; printf %s "$TLS_CERT" > "$keys/dask.crt")
unset TLS_KEY TLS_CERT
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$keys/dask.crt"
export DASK_DISTRIBUTED__COMM__TLS__{role}__KEY="$keys/dask.pem"
export DASK_DISTRIBUTED__COMM__TLS__{role}__CERT="$keys/dask.crt"
{command}
"""


class SlurmClusterConfig(ClusterConfig):
    """What a cluster's jobs ask of Slurm."""

    account = Unicode(help="Account of the jobs.", config=True)
    partition = Unicode(help="Partition of the jobs.", config=True)
    qos = Unicode(help="QOS of the jobs, or nothing.", config=True)
    minutes = Integer(60, help="Minutes that each job may take.", config=True)
    gpus = Integer(0, help="GPUs of a worker.", config=True)


class SlurmBackend(DBBackendBase):
    """Submits, finds and cancels jobs through qhub-jobs; all clusters share one look at the queue."""

    cluster_config_class = Type(
        "qhub_dask.backend.SlurmClusterConfig",
        klass="dask_gateway_server.backends.base.ClusterConfig",
        help="The cluster config class to use",
        config=True,
    )
    settings = Dict(help="The settings of formulas/dask_gateway.").tag(config=True)

    async def do_setup(self):
        self.task_pool.spawn(self.end_others())

    async def end_others(self):
        """End the clusters of who may have none any more, being locked or removed."""
        while True:
            try:
                people = json.loads(PEOPLE.read_text())["people"]
            except (OSError, ValueError) as error:
                self.log.warning("Who may have clusters is not known: %s", error)
            else:
                for cluster in [each for each in self.db.active_clusters() if each.username not in people]:
                    self.log.info("%s may have no clusters any more", cluster.username)
                    await self.stop_cluster(cluster.name, failed=True)
            await asyncio.sleep(self.cluster_status_period)

    async def start_cluster(self, user, cluster_options):
        most = bounds(self.settings, unix_groups(user.name))["clusters"]
        mine = [each for each in self.db.active_clusters() if each.username == user.name]
        if most is not None and len(mine) >= most:
            raise PublicException(f"You have {len(mine)} clusters, which is as many as you may have. Shut one down.")
        return await super().start_cluster(user, cluster_options)

    async def on_cluster_heartbeat(self, cluster_name, msg):
        cluster = self.db.get_cluster(cluster_name)
        if cluster is not None and cluster.status != JobStatus.RUNNING:  # addresses are taken until it runs
            first, last = self.settings["job_ports"].split("-")
            lines = refused(msg, await self.node_of(cluster), range(int(first), int(last) + 1))
            if lines:
                self.log.warning("Cluster %s of %s: %s", cluster_name, cluster.username, "; ".join(lines))
                raise web.HTTPForbidden(reason="; ".join(lines))
        await super().on_cluster_heartbeat(cluster_name, msg)

    async def node_of(self, cluster):
        """Return the IPv4 address of the node that runs a cluster's scheduler. Raises HTTPServiceUnavailable."""
        try:
            job = (await queue.get(time.monotonic())).get(cluster.state.get("job"))
            if job is None or job[0] != "RUNNING":
                raise SlurmError("the job of the scheduler does not run")
            found = await asyncio.get_running_loop().getaddrinfo(job[1], None, family=socket.AF_INET)
        except (SlurmError, OSError) as error:
            raise web.HTTPServiceUnavailable(reason=" ".join(str(error).split())) from error
        address = str(found[0][4][0])
        # As Debian's hosts file says of this machine's own name, if it is a worker too.
        return self.settings["master_address"] if address.startswith("127.") else address

    async def do_start_cluster(self, cluster):
        yield await self.submit(cluster, "SCHEDULER", self.get_scheduler_command(cluster))

    async def do_start_worker(self, worker):
        yield await self.submit(worker.cluster, "WORKER", self.get_worker_command(worker.cluster, worker.name))

    async def do_stop_cluster(self, cluster):
        await cancel(cluster)

    async def do_stop_worker(self, worker):
        await cancel(worker)

    async def do_check_clusters(self, clusters):
        return await present(clusters)

    async def do_check_workers(self, workers):
        return await present(workers)

    async def submit(self, cluster, role, command):
        """Start a job; return what is to be remembered of it."""
        config, kind = cluster.config, role.lower()
        home = pwd.getpwnam(cluster.username).pw_dir
        options = {
            "comment": f"Dask {kind}",  # which everybody sees; who knows a cluster's name knows its address
            "account": config.account,
            "partition": config.partition,
            "qos": config.qos,
            "time": config.minutes,
            "nodes": 1,
            "ntasks": 1,
            "cpus-per-task": config[f"{kind}_cores"],
            "mem": f"{config[f'{kind}_memory'] // MIB}M",
            "gpus": config.gpus if role == "WORKER" else 0,
            "chdir": home,
            "output": f"{home}/.dask-{kind}.log",
            "open-mode": "append" if role == "WORKER" else "truncate",
        }
        lines = [f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in options.items() if value]
        script = SCRIPT.format(
            options="\n".join([*lines, "#SBATCH --no-requeue"]), role=role, command=shlex.join(command)
        )
        keys = {"TLS_KEY": cluster.tls_key.decode(), "TLS_CERT": cluster.tls_cert.decode()}
        environment = {**self.get_env(cluster), **keys}
        answer = await ask("submit", user=cluster.username, script=script, environment=environment)
        self.log.info("Job %s is a %s of cluster %s", answer["job"], kind, cluster.name)
        return {"job": str(answer["job"])}


async def cancel(started):
    """End the job of a cluster or of a worker."""
    if job := started.state.get("job"):
        await ask("cancel", job=int(job))


async def present(started):
    """Return for each whether its job waits or runs; if Slurm does not say, nothing is taken for lost."""
    try:
        jobs = await queue.get(time.monotonic())
    except SlurmError:
        return [True] * len(started)
    return [each.state.get("job") in jobs for each in started]

"""
Every check there is: what it needs, and what to do when it fails.
"""

from functools import partial

from . import door, nodes, services, slurm, stores, watch
from .engine import Check

APPLY = "salt-run state.orchestrate orch.apply"


def look(unit):
    """Return the advice about a unit on the master."""
    return f"journalctl -n 30 -u {unit}; systemctl restart {unit}"


def there(unit):
    """Return the advice about a unit on another node."""
    return f"on that node: {look(unit)}"


#: What looks at the nodes' reports needs them, and knows the nodes without one.
REPORTS = {"needs": ("salt-master",), "after": ("minions",)}
# fmt: off
SERVICES = [
    Check("Salt", "pillar", nodes.pillar, "edit /etc/qhub/pillar; salt-run cluster.validate", needs=()),
    Check("Salt", "keys", nodes.keys, "salt-key --delete NAME, or name it in /etc/qhub/pillar/nodes.sls"),
    Check("Salt", "salt-master", nodes.salt_master, look("salt-master"), units=("salt-master.service",)),
    Check("Salt", "minions", nodes.minions, there("salt-minion"),
          needs=("salt-master",), after=("keys",), units=("salt-minion.service",)),
    Check("Salt", "roles", nodes.roles, "salt-ssh NAME state.apply bootstrap.minion", **REPORTS),

    Check("Nodes", "names", nodes.names, f"getent hosts NAME; {APPLY}", **REPORTS),
    Check("Nodes", "clocks", nodes.clocks, "on that node: chronyc sources; chronyc makestep", **REPORTS),
    Check("Nodes", "space", nodes.space, "on that node: du -xhd1 DIRECTORY | sort -h", **REPORTS),
    Check("Nodes", "secrets", nodes.secrets, "on that node: chmod o= FILE; replace what it holds", **REPORTS),

    Check("Stores", "mariadb", stores.mariadb, look("mariadb"), units=("mariadb.service",)),
    Check("Stores", "postgresql", stores.postgresql, look("postgresql@17-main"),
          units=("postgresql@17-main.service", "postgresql.service")),
    Check("Stores", "redis", stores.redis, look("redis-server"), units=("redis-server.service",)),
    Check("Stores", "nfs", stores.nfs, "systemctl status 'nfs-*'; salt-call state.apply nfs",
          units=("nfs-server.service", "nfs-ganesha.service", "nfs-ganesha-lock.service")),
    Check("Stores", "shared", nodes.shared, "on that node: findmnt DIRECTORY; ls DIRECTORY",
          needs=("salt-master", "nfs"), after=("minions",)),

    # Daemons run on with the configuration that they have loaded, and would not start with one that cannot be read.
    Check("Slurm", "slurm.conf", slurm.slurm_conf, "salt-call state.apply slurm.config; do not restart slurmctld"),
    Check("Slurm", "slurmdbd", slurm.slurmdbd, look("slurmdbd"),
          needs=("mariadb", "slurm.conf"), units=("slurmdbd.service",)),
    Check("Slurm", "slurmctld", slurm.slurmctld, look("slurmctld"),
          needs=("slurm.conf",), units=("slurmctld.service",)),
    Check("Slurm", "configuration", slurm.configuration, f"{APPLY}; do not restart slurmctld", needs=("slurmctld",)),
    Check("Slurm", "slurmd", slurm.slurmd, there("slurmd"), after=("keys", "minions"), units=("slurmd.service",)),
    Check("Slurm", "nodes", slurm.nodes, "scontrol update nodename=NAME state=resume",
          needs=("slurmctld",), after=("keys", "minions", "slurmd")),
    Check("Slurm", "jobs", slurm.jobs, "squeue; tail /var/log/slurm/slurmctld.log",
          needs=("slurmctld",), after=("keys", "minions", "slurmd", "nodes")),
    Check("Slurm", "accounting", slurm.accounting, look("slurmctld"), needs=("slurmdbd", "jobs")),

    Check("Front door", "traefik", door.traefik, look("traefik"), units=("traefik.service",)),
    Check("Front door", "certificates", door.certificates, "salt-call state.apply traefik", needs=("traefik",)),
    Check("Front door", "sshgate", door.ssh, look("sshgate"), needs=("traefik",), units=("sshgate.service",)),

    Check("Signing in", "keycloak", services.keycloak, look("keycloak"),
          needs=("postgresql",), units=("keycloak.service",)),
    Check("Signing in", "rights", services.rights, "salt-call state.apply keycloak", needs=("keycloak",)),
    Check("Signing in", "/auth/", door.realm, "salt-call state.apply keycloak.realm",
          needs=("keycloak", "certificates")),

    Check("Notebooks", "job starter", services.starter, look("qhub-jobs.socket"), units=("qhub-jobs.socket",)),
    Check("Notebooks", "jupyterhub", services.jupyterhub, look("jupyterhub"),
          needs=("postgresql", "job starter"), units=("jupyterhub.service",)),
    Check("Notebooks", "/", door.hub, "salt-call state.apply jupyterhub", needs=("jupyterhub", "/auth/")),

    Check("Environments", "conda-store", services.conda_store, look("conda-store-server"),
          needs=("postgresql", "redis"), units=("conda-store-server.service",)),
    Check("Environments", "builder", services.builder, look("conda-store-worker"),
          needs=("conda-store",), units=("conda-store-worker.service",)),
    Check("Environments", "/conda-store/", door.conda_store, "salt-call state.apply conda_store",
          needs=("conda-store", "/auth/")),

    Check("Dask", "dask-gateway", services.dask_gateway, look("dask-gateway"),
          needs=("job starter",), units=("dask-gateway.service", "dask-gateway-proxy.service")),
    Check("Dask", "/gateway/", door.gateway, "salt-call state.apply dask_gateway",
          needs=("dask-gateway", "certificates")),

    Check("Monitoring", "prometheus", watch.prometheus, look("prometheus"), units=("prometheus.service",)),
    Check("Monitoring", "/monitoring/", door.monitoring, "salt-run state.orchestrate orch.apply",
          needs=("prometheus", "/auth/"), units=("qhub-page.service", "grafana-server.service")),
]
# fmt: on
UNITS = Check(
    "Nodes",
    "units",
    partial(nodes.units, others=frozenset(unit for check in SERVICES for unit in check.units)),
    "systemctl --failed",
    **REPORTS,
)
NAMES = tuple(check.name for check in (*SERVICES, UNITS))
# What is known already is not told again: a target by its service's check, an alert if anything at all has failed.
TARGETS = Check("Monitoring", "targets", watch.targets, look("prometheus"), needs=("prometheus", "units"), after=NAMES)
ALERTS = Check("Monitoring", "alerts", watch.alerts, "see /monitoring/", needs=(*NAMES, "targets"))
#: A check is below those that it needs.
CHECKS = [*SERVICES, UNITS, TARGETS, ALERTS]

"""Print figures: ``python3 -m tests.bench [NAME ...]``, all of them if none is named."""

import sys

from . import (
    backup,
    bursts,
    cluster,
    conda_store_env,
    dask,
    jupyterhub,
    keycloak_realm,
    prometheus,
    slurm_account,
    slurm_exporter,
)

FIGURES = {
    "highstate": cluster.highstate,
    "join": cluster.join,
    "bursts": bursts.main,
    "users": cluster.users,
    "slurm_account": slurm_account.main,
    "slurm_exporter": slurm_exporter.main,
    "keycloak_realm": keycloak_realm.main,
    "jupyterhub": jupyterhub.main,
    "dask": dask.main,
    "conda_store_env": conda_store_env.main,
    "backup": backup.main,
    "prometheus": prometheus.main,
}


def main():
    chosen = sys.argv[1:] or list(FIGURES)
    if unknown := set(chosen) - set(FIGURES):
        sys.exit(f"bench: no {', '.join(unknown)}; there are: {', '.join(FIGURES)}")
    sys.argv[1:] = []
    for name in chosen:
        print(f"\n== {name}", flush=True)
        FIGURES[name]()


if __name__ == "__main__":
    main()

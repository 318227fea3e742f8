#!/usr/bin/env python3
"""Generate the secrets of a cluster that do not exist yet.

    secrets.py DIRECTORY

DIRECTORY becomes a pillar root that only root can read: ``secrets/master.sls`` is for the master alone,
``secrets/nodes.sls`` for every node. A secret that exists is not changed; ``orch.rotate`` does that.
"""

import base64
import json
import os
import sys
from pathlib import Path


def password():
    """Return 43 random letters, digits, ``-`` and ``_``."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


GENERATE = {
    "master": {
        "keycloak_database_password": password,
        "keycloak_salt_secret": password,
        # Services that people sign in to, each a client of the realm.
        "jupyterhub_client_secret": password,
        "grafana_client_secret": password,
        "conda_store_client_secret": password,
        # Grafana's own: its one local account, for when Keycloak is away, and what it seals in its database.
        "grafana_admin_password": password,
        "grafana_secret_key": password,
        # The Hub's own: what its cookies and its memory of sign-ins are sealed with, and who may read its metrics.
        "jupyterhub_cookie_secret": password,
        "jupyterhub_crypt_key": password,
        "jupyterhub_metrics_token": password,
        # Dask-Gateway's own: what the keys of clusters are sealed with, and how its proxy and the Hub know it.
        "dask_gateway_database_key": password,
        "dask_gateway_proxy_token": password,
        "dask_gateway_hub_token": password,
        # conda-store's own: what its tokens are signed with, and by which one Salt comes in.
        "conda_store_token_key": password,
        "conda_store_salt_token": password,
        # What backups are encrypted with. The administrator keeps a copy elsewhere: no backup can be read without it.
        "backup_password": password,
        # What the tokens are made from by which a node's highstates are known to be its own.
        "highstate_key": password,
        # What cookies of Prometheus's page are sealed with.
        "monitoring_page_key": password,
    },
    # auth/slurm takes any bytes; text survives YAML.
    "nodes": {"slurm_key": lambda: base64.b64encode(os.urandom(768)).decode()},
}


def read(path):
    """Return the secrets in a pillar file, ``{name: value}``; ``{}`` if there is none."""
    return json.loads(path.read_text())["secrets"] if path.exists() else {}


def write(path, secrets):
    """Write a pillar file of secrets for root alone, at once or not at all."""
    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_text(json.dumps({"secrets": secrets}, indent=1) + "\n")  # JSON is YAML
    part.replace(path)


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    os.umask(0o077)
    directory = Path(sys.argv[1], "secrets")
    directory.mkdir(parents=True, exist_ok=True)
    for audience, generators in GENERATE.items():
        path = directory / f"{audience}.sls"
        kept = read(path)
        missing = {name: generate() for name, generate in generators.items() if name not in kept}
        if missing or not path.exists():
            write(path, kept | missing)


if __name__ == "__main__":
    main()

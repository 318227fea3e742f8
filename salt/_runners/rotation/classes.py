"""
What is rotated together, and what by hand.
"""

from salt.exceptions import CommandExecutionError

#: class -> the pillar's secrets in it, and the states that put them to use on the master and on the workers.
CLASSES = {
    "database": {"secrets": ["keycloak_database_password"], "master": ["keycloak"]},
    "keycloak": {"secrets": ["keycloak_salt_secret"], "master": ["keycloak.realm"]},
    "clients": {
        "secrets": [
            "jupyterhub_client_secret", "conda_store_client_secret", "grafana_client_secret", "monitoring_page_key",
        ],
        "master": ["keycloak.realm", "jupyterhub", "conda_store", "prometheus.page", "grafana"],
    },
    "hub": {
        "secrets": ["jupyterhub_cookie_secret", "jupyterhub_crypt_key", "jupyterhub_metrics_token"],
        "master": ["jupyterhub"],
    },
    "dask": {"secrets": ["dask_gateway_database_key", "dask_gateway_proxy_token"], "master": ["dask_gateway"]},
    "conda-store": {"secrets": ["conda_store_token_key", "conda_store_salt_token"], "master": ["conda_store"]},
    "backup": {"secrets": ["backup_password"], "master": ["backup"]},
    "slurm": {"secrets": ["slurm_key"], "master": ["slurm.controller"], "workers": ["slurm.worker"]},
    "authority": {"orch": ["orch.rotate.authority"]},
    "salt": {"orch": ["orch.rotate.salt"]},
}  # fmt: skip
#: What is not in a class, and what to do instead.
BY_HAND = {
    "highstate_key": "tells only whose highstates count: delete it from secrets/master.sls, run master.sh",
    "grafana_admin_password": "Grafana takes it at its first start only: grafana cli admin reset-admin-password",
    "grafana_secret_key": "Grafana's database is sealed with it: grafana cli admin secrets-migration",
}


def chosen(secrets):
    """Return the classes (a list) that ``secrets`` means, in the order of :data:`CLASSES`."""
    asked = list(CLASSES) if secrets == "all" else [secrets] if isinstance(secrets, str) else list(secrets or [])
    if not asked or (unknown := [each for each in asked if each not in CLASSES]):
        given = ", ".join(map(str, unknown)) if asked else "nothing"
        by_hand = "".join(f"\n{name} is not rotated by this: {what}" for name, what in BY_HAND.items())
        raise CommandExecutionError(f"secrets: {given} is not allowed: {', '.join(CLASSES)}, or all{by_hand}")
    return [each for each in CLASSES if each in asked]


def secrets_of(classes):
    """Return the names (a list) of the pillar's secrets in these classes."""
    return [name for each in chosen(classes) for name in CLASSES[each].get("secrets", [])]

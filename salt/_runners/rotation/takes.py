"""
Whether what uses a secret takes it.
"""

import contextlib
import http.client
import json
import os
import subprocess
import time
import urllib.parse
from pathlib import Path

from salt.exceptions import CommandExecutionError

from .sealed import opens
from .values import current

KEYCLOAK, CONDA_STORE = "http://127.0.0.1:8080/auth", "http://127.0.0.1:5000/conda-store"
HUB, DASK = "http://127.0.0.1:8081/hub", "http://127.0.0.1:8010"
PEOPLE, PAGE = Path("/etc/keycloak/people.json"), Path("/etc/qhub/page/secrets.conf")
SLURM_KEY = Path("/etc/slurm/slurm.key")
OK = 200
#: Seconds that services get to answer after they were started anew.
PATIENCE = 90


def wait(names, old, new):
    """
    Wait until the secrets ``names`` are taken and those of before are not.

    old, new
        ``{name: value}``.

    Raises :class:`~salt.exceptions.CommandExecutionError` naming what is not so in time.
    """
    deadline = time.monotonic() + PATIENCE
    for name in names:
        while wrong := fault(name, old[name], new[name]):
            if time.monotonic() > deadline:
                raise CommandExecutionError(f"{name}: {wrong}")
            time.sleep(0.2)


def fault(name, old, new):
    """Return what is wrong with who takes the secret ``name``, in words; ``""`` if nothing."""
    takes = TAKES[name]
    try:
        if not takes(new):
            return "the new one does not work"
        if takes(old):
            return "that of before still works"
    except (OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
        return f"cannot be tried: {type(error).__name__}"  # whose text may hold it
    return ""


def _logs_in(password):
    words = ["psql", "--no-psqlrc", "--host=127.0.0.1", "--username=keycloak", "--command=SELECT 1", "keycloak"]
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "10"}
    return not subprocess.run(words, env=environment, capture_output=True, timeout=30, check=False).returncode


def _is_clients(client, realm=None):
    """Return a function: whether a secret is that of a client of a realm (default: the one that people are in)."""

    def takes(secret):
        name = realm or json.loads(PEOPLE.read_text())["realm"]
        url = f"{KEYCLOAK}/realms/{urllib.parse.quote(name)}/protocol/openid-connect/token/introspect"
        return _ask(url, form={"token": "-", "client_id": client, "client_secret": secret})[0] == OK

    return takes


def _lets_in(url, kind="Bearer"):
    """Return a function: whether an address lets in who shows a token."""
    return lambda token: _ask(url, {"Authorization": f"{kind} {token}"})[0] == OK


def _runs_with(unit, name):
    """Return a function: whether a service was handed a secret when it started."""
    return lambda secret: Path("/run/credentials", f"{unit}.service", name).read_text().strip() == secret


def _authenticates(token):
    """Whether conda-store knows whose a token is."""
    status, body = _ask(f"{CONDA_STORE}/api/v1/permission/", {"Authorization": f"Bearer {token}"})
    return status == OK and json.loads(body)["data"]["authenticated"]


def _opens_repository(password):
    opened = opens(password)
    return Path("/etc/qhub/backup/password").read_text().strip() == password if opened is None else opened


def _seals_page(key):
    if not PAGE.exists():  # Grafana is there instead
        return key == current()["monitoring_page_key"]
    return key in PAGE.read_text()


def _is_slurms(key):
    return SLURM_KEY.read_text() == key


def _ask(url, headers=None, form=None):
    """Return the HTTP status and the body of an answer."""
    there = urllib.parse.urlsplit(url)
    body = urllib.parse.urlencode(form) if form else None
    headers = {**(headers or {}), **({"Content-Type": "application/x-www-form-urlencoded"} if form else {})}
    with contextlib.closing(http.client.HTTPConnection(there.netloc, timeout=10)) as connection:
        try:
            connection.request("POST" if form else "GET", there.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError("no answer") from error


#: secret -> whether it is taken where it is used. What only seals things is what the service was started with.
TAKES = {
    "keycloak_database_password": _logs_in,
    "keycloak_salt_secret": _is_clients("salt", realm="master"),
    "jupyterhub_client_secret": _is_clients("jupyterhub"),
    "conda_store_client_secret": _is_clients("conda-store"),
    "grafana_client_secret": _is_clients("grafana"),
    "monitoring_page_key": _seals_page,
    "jupyterhub_cookie_secret": _runs_with("jupyterhub", "cookie_secret"),
    "jupyterhub_crypt_key": _runs_with("jupyterhub", "crypt_key"),
    "jupyterhub_metrics_token": _lets_in(f"{HUB}/metrics"),
    "dask_gateway_database_key": _runs_with("dask-gateway", "database_key"),
    "dask_gateway_proxy_token": _lets_in(f"{DASK}/api/v1/routes", "token"),
    "conda_store_token_key": _runs_with("conda-store-server", "token_key"),
    "conda_store_salt_token": _authenticates,
    "backup_password": _opens_repository,
    "slurm_key": _is_slurms,
}

"""
New secrets in the place of old ones, for the orchestration ``orch.rotate``. docs/operations/rotation.md says what a
class is and what its rotation stops for how long. No secret is ever returned, logged, or in a command line.
"""

import contextlib
import http.client
import importlib.machinery
import json
import os
import sqlite3
import subprocess
import tempfile
import time
import types
import urllib.parse
from pathlib import Path

from cryptography.fernet import Fernet, MultiFernet
from salt.exceptions import CommandExecutionError

__opts__: dict
__salt__: dict

#: class -> the pillar's secrets in it, and the states that put them to use on the master and on the workers.
CLASSES = {
    # First: the gateway is stopped until its states, and they are not to wait for Keycloak's.
    "dask": {
        "secrets": ["dask_gateway_database_key", "dask_gateway_proxy_token", "dask_gateway_hub_token"],
        "master": ["dask_gateway"],
    },
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
    "conda-store": {"secrets": ["conda_store_token_key", "conda_store_salt_token"], "master": ["conda_store"]},
    "backup": {"secrets": ["backup_password"], "master": ["backup"]},
    "slurm": {"secrets": ["slurm_key"], "master": ["slurm.controller"], "workers": ["slurm.worker"]},
    "authority": {"orch": ["orch.rotate.authority"]},
    "salt": {"orch": ["orch.rotate.salt"]},
}  # fmt: skip
#: What is not in a class, and what to do instead.
BY_HAND = {
    "highstate_key": "tells only whose highstates count: delete it from secrets/master.sls; master.sh, then orch.apply",
    "grafana_admin_password": "Grafana takes it at its first start only: docs/operations/rotation.md has the command",
    "grafana_secret_key": "Grafana's database is sealed with it: Grafana's manual has how to change it",
}

PILLAR = Path("/var/lib/qhub/pillar")
#: In it, the secrets of before, ``{name: value}``, until the new ones are proved.
REPLACED = "replaced.json"
KEYCLOAK, CONDA_STORE = "http://127.0.0.1:8080/auth", "http://127.0.0.1:5000/conda-store"
HUB, DASK = "http://127.0.0.1:8081/hub", "http://127.0.0.1:8010"
PEOPLE, PAGE = Path("/etc/keycloak/people.json"), Path("/etc/qhub/page/secrets.conf")
SLURM_KEY = Path("/etc/slurm/slurm.key")
DASK_DATABASE = Path("/var/lib/dask-gateway/gateway.sqlite")
OK, NO_REPOSITORY, WRONG_PASSWORD = 200, 10, 12  # of HTTP; of restic
#: Seconds that services get to answer after they were started anew.
PATIENCE = 90


def plan(secrets=None):
    """
    Return what a rotation of these classes takes.

    secrets
        A class, a list of classes, or ``all``.

    Returns ``{"classes": [class, ...], "master": [SLS, ...], "workers": [SLS, ...], "orch": [SLS, ...], "connected":
    [id, ...]}``: the states of the classes, their own orchestrations, and the workers that there are to apply states
    to. Raises :class:`~salt.exceptions.CommandExecutionError` with the classes that there are if one is unknown.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.plan hub
    """
    classes = _chosen(secrets)
    master, workers, orch = (
        list(dict.fromkeys(name for each in classes for name in CLASSES[each].get(part, [])))
        for part in ("master", "workers", "orch")
    )
    connected = [name for name in __salt__["membership.connected"]() if name != __opts__["id"]]
    return {"classes": classes, "master": master, "workers": workers, "orch": orch, "connected": connected}


def renew(classes):
    """
    Generate new secrets for these classes, keep those of before until :func:`prove`, and seal anew what they seal.

    One that an earlier run replaced and did not prove stays as it is: that rotation is completed. Workers that are away
    are brought in anew when they come, if they hold one of the secrets.

    Returns the names (a list) of the secrets that are being rotated.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.renew '[hub]'
    """
    names, bootstrap, before = _names(classes), _bootstrap(), _before()
    for audience, generators in bootstrap.GENERATE.items():
        kept = bootstrap.read(_file(audience))
        new = _renewed({name: generators[name] for name in names if name in generators}, kept, before)
        if new:
            before |= {name: kept[name] for name in new}
            _keep(before)
            bootstrap.write(_file(audience), kept | new)
    now = _now()
    for name in names:
        if name in SEALS:
            SEALS[name](before[name], now[name])
    if any("workers" in CLASSES[each] for each in _chosen(classes)):
        __salt__["membership.expect_absent"]()
    return names


def prove(classes):
    """
    See that what uses the secrets of these classes takes the new ones and not those of before; then forget these.

    Returns what was seen, a list of lines. Raises :class:`~salt.exceptions.CommandExecutionError` naming what is not as
    it should be; then the secrets of before are kept, and the rotation is completed by running it again.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.prove '[hub]'
    """
    before, now = _before(), _now()
    names = [name for name in _names(classes) if name in before]
    deadline = time.monotonic() + PATIENCE
    for name in names:
        while wrong := _fault(name, before[name], now[name]):
            if time.monotonic() > deadline:
                raise CommandExecutionError(f"{name}: {wrong}")
            time.sleep(0.2)
    _keep({name: value for name, value in before.items() if name not in names})
    return [f"{name}: the new one works, that of before does not" for name in names]


def _chosen(secrets):
    """Return the classes (a list) that ``secrets`` means, in the order of :data:`CLASSES`."""
    asked = list(CLASSES) if secrets == "all" else [secrets] if isinstance(secrets, str) else list(secrets or [])
    if not asked or (unknown := [each for each in asked if each not in CLASSES]):
        given = ", ".join(map(str, unknown)) if asked else "nothing"
        by_hand = "".join(f"\n{name} is not rotated by this: {what}" for name, what in BY_HAND.items())
        raise CommandExecutionError(f"class: {given} is not allowed: {', '.join(CLASSES)}, or all{by_hand}")
    return [each for each in CLASSES if each in asked]


def _names(classes):
    """Return the names (a list) of the pillar's secrets in these classes."""
    return [name for each in _chosen(classes) for name in CLASSES[each].get("secrets", [])]


def _renewed(generators, kept, before):
    """
    Return ``{name: new value}`` for those secrets that no earlier run has replaced; pure but for the dice.

    generators
        ``{name: function}`` of the secrets asked for.
    kept, before
        The values that are in the pillar, and those of before.
    """
    return {
        name: generate()
        for name, generate in generators.items()
        if name not in before or before[name] == kept[name]  # or an earlier run did not come to write it
    }


def _fault(name, old, new):
    """Return what is wrong with who takes the secret ``name``, in words; ``""`` if nothing."""
    takes = TAKES[name]
    try:
        if not takes(new):
            return "the new one does not work"
        if name in WITHDRAWS:
            WITHDRAWS[name](old)
        if takes(old):
            return "that of before still works"
    except (OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
        return f"cannot be tried: {type(error).__name__}"  # whose text may hold it
    return ""


# Where secrets are


def _bootstrap():
    """Return salt/bootstrap/secrets.py, which says how secrets are made, as a module."""
    path = Path(__file__).parents[1] / "bootstrap/secrets.py"
    loader = importlib.machinery.SourceFileLoader("qhub_bootstrap_secrets", str(path))
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    return module


def _file(audience):
    """Return the pillar file with the secrets of ``master`` or of ``nodes``."""
    return PILLAR / "secrets" / f"{audience}.sls"


def _now():
    """Return all of the pillar's secrets, ``{name: value}``."""
    bootstrap = _bootstrap()
    return {name: value for each in bootstrap.GENERATE for name, value in bootstrap.read(_file(each)).items()}


def _before():
    """Return the secrets of before that are not proved to be of no use, ``{name: value}``."""
    path = PILLAR / REPLACED
    return json.loads(path.read_text()) if path.exists() else {}


def _keep(before):
    """Keep these secrets of before, or none."""
    path = PILLAR / REPLACED
    if not before:
        path.unlink(missing_ok=True)
        return
    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_text(json.dumps(before))
    part.replace(path)


# What keeps a secret in a store of its own


def _rekey_repository(old, new):
    """Let the repository of backups have the new password alone, if there is one."""
    if _opens(new) is False:
        with _files(old, new) as (before, after):
            _run("qhub-backup", "restic", "--password-file", before, "key", "passwd", "--new-password-file", after)


def _opens(password):
    """Whether a password opens the repository of backups; ``None`` if there is none."""
    with _files(password) as (file,):
        done = _run("qhub-backup", "restic", "--password-file", file, "cat", "config", check=False)
    if done.returncode in (0, WRONG_PASSWORD):
        return not done.returncode
    if done.returncode == NO_REPOSITORY:
        return None
    raise CommandExecutionError(f"the repository of backups cannot be opened: {done.stderr.strip()}")


@contextlib.contextmanager
def _files(*texts):
    """Yield the paths of files with these texts, which only root can read, and which are gone then."""
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        paths = [Path(directory, str(number)) for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        yield [str(path) for path in paths]


def _revoke_of(service):
    """Return a function that takes a service's token out of the Hub's database, where it stays otherwise."""
    script = f"DELETE FROM api_tokens USING services WHERE service_id = services.id AND name = '{service}' AND prefix ="  # noqa: S608
    words = ["runuser", "-u", "postgres", "--", "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "jupyterhub"]
    return lambda token: _run(*words, input=f"{script} '{token[:4]}'")


def _rekey_dask(old, new):
    """Seal what Dask-Gateway keeps of clusters with the new key; its states start it again. Clusters run on."""
    if not DASK_DATABASE.exists():
        return
    _run("systemctl", "stop", "dask-gateway")
    both = MultiFernet([Fernet(key + "=") for key in (new, old)])
    with contextlib.closing(sqlite3.connect(DASK_DATABASE)) as database, database:
        for cluster, *sealed in database.execute("SELECT id, token, tls_credentials FROM clusters").fetchall():
            anew = [both.rotate(bytes(each)) for each in sealed]
            database.execute("UPDATE clusters SET token = ?, tls_credentials = ? WHERE id = ?", (*anew, cluster))


# Who takes a secret


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
    opened = _opens(password)
    return Path("/etc/qhub/backup/password").read_text().strip() == password if opened is None else opened


def _seals_page(key):
    if not PAGE.exists():  # Grafana is there instead
        return key == _now()["monitoring_page_key"]
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


def _run(*words, check=True, **options):
    """Run a command and return the finished process with its output as text; raise if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=180, check=False, **options)
    if check and done.returncode:
        raise CommandExecutionError(f"{' '.join(words[:3])}: {done.stderr.strip()}")
    return done


#: secret -> what seals anew, or tells a store of its own; to do it twice does no harm.
SEALS = {
    "backup_password": _rekey_repository,
    "dask_gateway_database_key": _rekey_dask,
}
#: secret -> what withdraws that of before once the new one works.
WITHDRAWS = {"jupyterhub_metrics_token": _revoke_of("prometheus"), "dask_gateway_hub_token": _revoke_of("dask-gateway")}
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
    "dask_gateway_hub_token": _lets_in(f"{HUB}/api/user", "token"),
    "conda_store_token_key": _runs_with("conda-store-server", "token_key"),
    "conda_store_salt_token": _authenticates,
    "backup_password": _opens_repository,
    "slurm_key": _is_slurms,
}

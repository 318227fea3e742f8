"""
What keeps a secret in a store of its own: sealed with the new one, or told that the one of before is none.
"""

import contextlib
import sqlite3
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, MultiFernet
from salt.exceptions import CommandExecutionError

from .command import run

DASK_DATABASE = Path("/var/lib/dask-gateway/gateway.sqlite")
NO_REPOSITORY, WRONG_PASSWORD = 10, 12  # restic's statuses


def again(old, new):
    """
    Seal anew what is sealed with secrets that are being rotated. To do it twice does no harm.

    old, new
        ``{name: value}`` of those secrets.
    """
    for name, change in CHANGES.items():
        if name in old:
            change(old[name], new[name])


def rekey_repository(old, new):
    """Let the repository of backups have the new password alone, if there is one."""
    if opens(new) is False:
        with files(old, new) as (before, after):
            run("qhub-backup", "restic", "--password-file", before, "key", "passwd", "--new-password-file", after)


def opens(password):
    """Whether a password opens the repository of backups; ``None`` if there is none."""
    with files(password) as (file,):
        done = run("qhub-backup", "restic", "--password-file", file, "cat", "config", check=False)
    if done.returncode in (0, WRONG_PASSWORD):
        return not done.returncode
    if done.returncode == NO_REPOSITORY:
        return None
    raise CommandExecutionError(f"the repository of backups cannot be opened: {done.stderr.strip()}")


@contextlib.contextmanager
def files(*texts):
    """Yield the paths of files with these texts, which only root can read, and which are gone then."""
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        paths = [Path(directory, str(number)) for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        yield [str(path) for path in paths]


def revoke(token, _):
    """Take a token out of the Hub's database: those of its configuration stay there when they leave that."""
    script = "DELETE FROM api_tokens USING services WHERE service_id = services.id AND name = 'prometheus' AND prefix ="
    words = ["runuser", "-u", "postgres", "--", "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "jupyterhub"]
    run(*words, input=f"{script} '{token[:4]}'")


def rekey_dask(old, new):
    """Seal what Dask-Gateway keeps of clusters with the new key; its states start it again. Clusters run on."""
    if not DASK_DATABASE.exists():
        return
    run("systemctl", "stop", "dask-gateway")
    both = MultiFernet([Fernet(key + "=") for key in (new, old)])
    with contextlib.closing(sqlite3.connect(DASK_DATABASE)) as database, database:
        for cluster, *sealed in database.execute("SELECT id, token, tls_credentials FROM clusters").fetchall():
            anew = [both.rotate(bytes(each)) for each in sealed]
            database.execute("UPDATE clusters SET token = ?, tls_credentials = ? WHERE id = ?", (*anew, cluster))


CHANGES = {
    "backup_password": rekey_repository,
    "dask_gateway_database_key": rekey_dask,
    "jupyterhub_metrics_token": revoke,
}

"""
The cluster's certificate authority, and another beside it: all trust both while certificates are issued anew. For
the orchestration ``orch.rotate.authority``.
"""

import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from salt.exceptions import CommandExecutionError

__salt__: dict

KEYS, SERVED, SERVICES = Path("/var/lib/qhub/ca"), Path("/var/lib/qhub/files/ca"), Path("/etc/qhub/tls")
#: What makes the states of ``ca`` keep a next one; and the certificate of before, until the change is proved.
NEXT, BEFORE = KEYS / "next", KEYS / "before.crt"
#: Services that read whom to trust when they start.
TRUSTING = (
    "keycloak", "jupyterhub", "sshgate", "conda-store-server", "dask-gateway", "grafana-server", "qhub-page",
    "prometheus-blackbox-exporter", "prometheus-alertmanager",
)  # fmt: skip
#: Seconds they get.
PATIENCE = 120


def begin():
    """
    Let there be a certificate authority beside the present one; the states of ``ca`` make its key and its certificate.

    One that an interrupted rotation began stays: that is completed. Returns ``True``.

    CLI Example:

    .. code-block:: bash

        salt-run authority.begin
    """
    if not BEFORE.exists():  # else an earlier run has begun
        NEXT.mkdir(mode=0o700, exist_ok=True)
        (NEXT / "generation").write_text(f"{_generation() + 1}\n")
    __salt__["membership.expect_absent"]()
    return True


def change():
    """
    Let the authority beside the present one be the one that certifies, and the other the one beside it, still trusted.

    Returns ``True``.

    CLI Example:

    .. code-block:: bash

        salt-run authority.change
    """
    if not NEXT.exists():
        return True
    present, beside = SERVED / "ca.crt", SERVED / "beside.crt"
    if not BEFORE.exists():
        shutil.copyfile(present, BEFORE)
    for path in _certificates_of_before():
        path.with_suffix(".key").unlink(missing_ok=True)
    beside.replace(present)
    present.touch()  # or the system would not be told
    shutil.copyfile(BEFORE, beside)
    (NEXT / "ca.key").replace(KEYS / "ca.key")
    (NEXT / "generation").replace(KEYS / "generation")
    NEXT.rmdir()
    return True


def end():
    """
    Let nobody trust the authority of before any more, from each node's next states on. Returns ``True``.

    CLI Example:

    .. code-block:: bash

        salt-run authority.end
    """
    (SERVED / "beside.crt").unlink(missing_ok=True)
    return True


def prove():
    """
    See that the front door's certificate is good for who trusts the authority, and not for who trusts that of before.

    Services that read whom to trust when they start are started anew before. Returns what was seen. Raises
    :class:`~salt.exceptions.CommandExecutionError` if it is not so.

    CLI Example:

    .. code-block:: bash

        salt-run authority.prove
    """
    pillar, errors = __salt__["cluster.compiled_pillar"]()
    if errors:
        raise CommandExecutionError("\n".join(errors))
    # Not every cluster has them all.
    subprocess.run(["systemctl", "try-restart", *TRUSTING], capture_output=True, timeout=180, check=False)
    deadline = time.monotonic() + PATIENCE
    while wrong := _fault(pillar):
        if time.monotonic() > deadline:
            raise CommandExecutionError(wrong)
        time.sleep(0.2)
    BEFORE.unlink(missing_ok=True)
    return "the front door is trusted by who trusts the new authority, and not by who trusts that of before"


def _generation():
    """Return the number of the present authority: how many there have been."""
    return int((KEYS / "generation").read_text()) if (KEYS / "generation").exists() else 1


def _fault(pillar):
    """Return what is wrong with whom services are certified by, in words; ``""`` if nothing."""
    if old := _certificates_of_before():
        return f"{', '.join(map(str, old))}: from the authority of before"
    master = pillar["cluster"]["master"]
    name = f"{master['id']}.{pillar['cluster']['domain']}"
    source = pillar.get("traefik", {}).get("certificate", {}).get("source", "internal")
    if source == "internal" and not _verifies(master["address"], name, SERVED / "ca.crt"):
        return f"{name}: not trusted by who trusts the new authority"
    if BEFORE.exists() and _verifies(master["address"], name, BEFORE):
        return f"{name}: still trusted by who trusts the authority of before"
    return ""


def _certificates_of_before():
    """Return the paths of services' certificates that the authority of before has issued."""
    return [path for path in sorted(SERVICES.glob("*.crt")) if BEFORE.exists() and _issued_by(path, BEFORE)]


def _issued_by(path, authority):
    """Whether the first certificate in a file is signed by that in another."""
    first, above = (x509.load_pem_x509_certificate(each.read_bytes()) for each in (path, authority))
    try:
        first.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _verifies(address, name, authority):
    """Whether the front door's certificate is good for who trusts nothing but ``authority``."""
    context = ssl.create_default_context(cafile=authority)
    try:
        with socket.create_connection((address, 443), 10) as plug, context.wrap_socket(plug, server_hostname=name):
            return True
    except ssl.SSLCertVerificationError:
        return False

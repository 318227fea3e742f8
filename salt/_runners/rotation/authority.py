"""
The cluster's certificate authority, and another beside it: everybody trusts both while certificates are issued anew.
"""

import shutil
import socket
import ssl
import time
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from salt.exceptions import CommandExecutionError

from .command import run

KEYS, SERVED, SERVICES = Path("/var/lib/qhub/ca"), Path("/var/lib/qhub/files/ca"), Path("/etc/qhub/tls")
#: What makes the states of ``ca`` keep a next one; and the certificate of before, until the change is proved.
NEXT, BEFORE = KEYS / "next", KEYS / "before.crt"
#: Services that read whom to trust when they start.
TRUSTING = ("keycloak", "jupyterhub", "sshgate", "conda-store-server", "dask-gateway", "grafana-server")
#: Seconds they get.
PATIENCE = 120


def begin():
    """Let there be a next authority, with a number of its own."""
    NEXT.mkdir(mode=0o700, exist_ok=True)
    if not (NEXT / "generation").exists():
        (NEXT / "generation").write_text(f"{generation() + 1}\n")


def generation():
    """Return the number of the present authority: how many there have been."""
    return int((KEYS / "generation").read_text()) if (KEYS / "generation").exists() else 1


def change():
    """Let the next authority be the present one. Keys that have certificates of that of before are to be new too."""
    if not NEXT.exists():
        return
    present, beside = SERVED / "ca.crt", SERVED / "beside.crt"
    if not BEFORE.exists():
        shutil.copyfile(present, BEFORE)
    for path in certificates_of_before():
        path.with_suffix(".key").unlink(missing_ok=True)
    beside.replace(present)
    present.touch()  # or the system would not be told
    shutil.copyfile(BEFORE, beside)
    (NEXT / "ca.key").replace(KEYS / "ca.key")
    (NEXT / "generation").replace(KEYS / "generation")
    NEXT.rmdir()


def end():
    """Let nobody be told to trust that of before any more."""
    (SERVED / "beside.crt").unlink(missing_ok=True)


def prove(pillar):
    """Start services anew that trusted that of before, wait until it is good for nothing, and forget it."""
    run("systemctl", "try-restart", *TRUSTING)
    deadline = time.monotonic() + PATIENCE
    while wrong := fault(pillar):
        if time.monotonic() > deadline:
            raise CommandExecutionError(wrong)
        time.sleep(0.2)
    BEFORE.unlink(missing_ok=True)


def fault(pillar):
    """Return what is wrong with whom services are certified by, in words; ``""`` if nothing."""
    if old := certificates_of_before():
        return f"{', '.join(map(str, old))}: from the authority of before"
    master = pillar["cluster"]["master"]
    name = f"{master['id']}.{pillar['cluster']['domain']}"
    source = pillar.get("traefik", {}).get("certificate", {}).get("source", "internal")
    if source == "internal" and not verifies(master["address"], name, SERVED / "ca.crt"):
        return f"{name}: not trusted by who trusts the new authority"
    if BEFORE.exists() and verifies(master["address"], name, BEFORE):
        return f"{name}: still trusted by who trusts the authority of before"
    return ""


def certificates_of_before():
    """Return the paths of services' certificates that the authority of before has issued."""
    return [path for path in sorted(SERVICES.glob("*.crt")) if BEFORE.exists() and issued_by(path, BEFORE)]


def issued_by(path, authority):
    """Whether the first certificate in a file is signed by that in another."""
    first, above = (x509.load_pem_x509_certificate(each.read_bytes()) for each in (path, authority))
    try:
        first.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def verifies(address, name, authority):
    """Whether the front door's certificate is good for who trusts nothing but ``authority``."""
    context = ssl.create_default_context(cafile=authority)
    try:
        with socket.create_connection((address, 443), 10) as plug, context.wrap_socket(plug, server_hostname=name):
            return True
    except ssl.SSLCertVerificationError:
        return False

"""Logs, specifications and archives of builds, as files that only addresses with a signature lead to.

conda-store's API checks that somebody may see a build and then sends the browser to the file's address, at which
conda-store asks for nothing. The address therefore ends after a minute and has a signature of the server.
"""

import hmac
import time
from pathlib import Path
from urllib.parse import quote, urlencode

from conda_store_server.storage import LocalStorage
from fastapi import HTTPException
from fastapi.responses import FileResponse
from traitlets import Unicode

LIFETIME = 60  # seconds


class SignedStorage(LocalStorage):
    """LocalStorage whose addresses are signed; the server alone has the key."""

    secret = Unicode(help="The key of signatures.").tag(config=True)

    def get_url(self, key):
        """Return the address of a file for the next minute."""
        expires = int(time.time()) + LIFETIME
        query = {"expires": expires, "signature_": signature(self.secret, key, expires)}
        return f"{self.storage_url}/{quote(key)}?{urlencode(query)}"


def signature(secret, key, expires):
    """Return the signature of a file's address that is good until ``expires`` (seconds of the epoch)."""
    return hmac.new(secret.encode(), f"{expires} {key}".encode(), "sha256").hexdigest()


def route(directory, secret):
    """Return the function that answers for a file below ``directory``."""

    def stored_file(key: str, expires: int = 0, signature_: str = ""):
        good = hmac.compare_digest(signature_.encode(), signature(secret, key, expires).encode())
        if not good or expires < time.time():
            raise HTTPException(status_code=403, detail="Open the file from the page of its build again.")
        path = Path(directory, key)
        if not path.is_file():
            raise HTTPException(status_code=404)
        return FileResponse(path)

    return stored_file

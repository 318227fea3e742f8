"""
How checks ask: a command, a service over HTTP, a socket. What goes wrong is a Fault in the other side's own words.
"""

import http.client
import json
import socket
import ssl
import subprocess
from typing import NamedTuple
from urllib.parse import urlsplit

from .engine import Fault

#: Whom every node trusts, the cluster's own authority among them (formulas/base).
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
#: Seconds for one answer.
PATIENCE = 10


class Answer(NamedTuple):
    """What a service answered."""

    status: int
    headers: http.client.HTTPMessage
    text: str


def command(*words, timeout=PATIENCE, check=True, **options):
    """Return the ``CompletedProcess`` of a command; unless ``check`` is false, another status than 0 is a fault."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False, **options
        )
    except subprocess.TimeoutExpired:
        raise Fault(f"{words[0]}: no answer within {timeout} s") from None
    except OSError as error:
        raise Fault(f"{words[0]}: {error.strerror}") from None
    if check and done.returncode:
        raise Fault(f"{words[0]}: {last_line(done.stderr or done.stdout) or f'status {done.returncode}'}")
    return done


def last_line(text):
    """Return the last line of a text that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def fetch(url, expect=(200,), headers=None, timeout=PATIENCE):
    """Return the :class:`Answer` to a GET; redirections are answers. Another status than expected is a fault."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=TRUSTED)
        connection = http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=context)
    shown = f"{parts.scheme}://{parts.netloc}{parts.path}"  # what follows a path can be a secret
    try:
        connection.request("GET", f"{parts.path or '/'}?{parts.query}".rstrip("?"), headers=headers or {})
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        raise Fault(f"{shown}: {reason(error)}") from None
    finally:
        connection.close()
    if answer.status not in expect:
        raise Fault(f"{shown}: {answer.status} {words(answer.text)}".rstrip())
    return answer


def fetch_json(url, **options):
    """Return the JSON that is at ``url``; ``options`` as of :func:`fetch`."""
    text = fetch(url, **options).text
    try:
        return json.loads(text)
    except ValueError:
        raise Fault(f"{url}: another service's answer: {words(text)}") from None


def words(text):
    """Return the beginning of what a service said, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= 160 else f"{line[:157]}..."


def reason(error):
    """Return an error of the network in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def connect(address, timeout=PATIENCE):
    """Return a socket that is connected to ``(host, port)``, or to a path."""
    name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    try:
        if isinstance(address, str):
            plug = socket.socket(socket.AF_UNIX)
            plug.settimeout(timeout)
            plug.connect(address)
            return plug
        return socket.create_connection(address, timeout)
    except OSError as error:
        raise Fault(f"{name}: {reason(error)}") from None


def exchange(address, message=b"", timeout=PATIENCE):
    """Send ``message`` to ``(host, port)`` or a path, and return the first of what comes back (bytes)."""
    with connect(address, timeout) as plug:
        try:
            plug.sendall(message)
            return plug.recv(4096)
        except OSError as error:
            name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
            raise Fault(f"{name}: {reason(error)}") from None

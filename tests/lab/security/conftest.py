"""What several attacks need."""

import http.client
import socket
import ssl

import pytest

from tests.lab.browser import ROOT
from tests.lab.harness import settings
from tests.lab.hub import CA


@pytest.fixture(scope="session")
def ask(lab, tmp_path_factory):
    """Return a function that asks the front door, with the path exactly as given, for (status, headers, body).

    ``origin`` is the origin that is asked.
    """
    ca = tmp_path_factory.mktemp("ca") / "ca.crt"
    ca.write_text(lab.master.read(CA))
    context = ssl.create_default_context(cafile=ca)

    def ask(path, headers=None, method="GET", origin=ROOT, body=None):
        host = origin.removeprefix("https://")
        connection = http.client.HTTPSConnection(host, timeout=30)
        plain = socket.create_connection((settings.ADDRESSES["master"], 443), timeout=30)
        connection.sock = context.wrap_socket(plain, server_hostname=host)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for key, value in (headers or {}).items():
                connection.putheader(key, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body.encode())))
            connection.endheaders(body.encode() if body is not None else None)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode(errors="replace")
        finally:
            connection.close()

    return ask

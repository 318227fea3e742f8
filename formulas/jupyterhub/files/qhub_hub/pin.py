"""The certificate of a notebook server: the Hub and the front door talk to nobody else at the server's address."""

import re
import ssl

from jupyterhub_traefik_proxy.fileprovider import TraefikFileProviderProxy

#: One certificate and nothing else. A certificate of a notebook server has some 600 characters.
PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]{100,4000}\n-----END CERTIFICATE-----\n")


def pinned(certificate):
    """Return a TLS context for connections to the holder of a certificate (PEM); ``ValueError`` if it is not one."""
    if not PEM.fullmatch(certificate):
        raise ValueError("not a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate itself is what the server is known by
    try:
        context.load_verify_locations(cadata=certificate)
    except ssl.SSLError as error:
        raise ValueError(f"not a certificate: {error}") from error
    return context


class PinnedProxy(TraefikFileProviderProxy):
    """Writes the certificate of each notebook server beside its route, for qhub-hub-routes."""

    async def add_route(self, routespec, target, data):
        if "user" in data:
            spawner = self.app.users[data["user"]].spawners[data["server_name"]]
            data = {**data, "certificate": spawner.certificate}
        await super().add_route(routespec, target, data)

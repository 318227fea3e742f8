"""Coming in with a token of the Hub's."""

from aiohttp import web
from dask_gateway_server.auth import JupyterHubAuthenticator, unauthorized


class HubAuthenticator(JupyterHubAuthenticator):
    """JupyterHubAuthenticator, which takes a token that the Hub does not know for an error of its own."""

    async def authenticate(self, request):
        try:
            return await super().authenticate(request)
        except web.HTTPInternalServerError as error:
            if error.reason.startswith("Permission failure"):
                raise unauthorized("jupyterhub") from error
            raise

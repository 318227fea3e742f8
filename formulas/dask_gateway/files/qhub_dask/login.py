"""Coming in with a token of the Hub's."""

from types import SimpleNamespace

from aiohttp import web
from dask_gateway_server.auth import JupyterHubAuthenticator, unauthorized
from traitlets import Unicode

from qhub_dask.dashboards import Dashboards


class HubAuthenticator(JupyterHubAuthenticator):
    """JupyterHubAuthenticator, which takes a token that the Hub does not know for an error of its own."""

    public_url = Unicode(help="Where the front door is.").tag(config=True)
    people_name = Unicode(help="Host name of people's servers, or *.DOMAIN.").tag(config=True)
    oauth_secret = Unicode(help="The gateway's secret as an OAuth client of the Hub.").tag(config=True)

    async def setup(self, app):
        await super().setup(app)
        dashboards = Dashboards(
            self.public_url, self.people_name, self.jupyterhub_api_url, self.oauth_secret, self.name_of
        )
        app.add_routes(dashboards.routes())

    async def name_of(self, token):
        """Return the name of the person a token is for. Raises HTTPUnauthorized."""
        asked = SimpleNamespace(headers={"Authorization": f"jupyterhub {token}"})
        return (await self.authenticate(asked)).name

    async def authenticate(self, request):
        try:
            return await super().authenticate(request)
        except web.HTTPInternalServerError as error:
            if error.reason.startswith("Permission failure"):
                raise unauthorized("jupyterhub") from error
            raise

"""Dashboards of clusters: each is shown to the cluster's owner alone, who is signed in at the Hub.

The front door asks :meth:`Dashboards.allowed` before it passes on a request for ``/gateway/clusters/NAME/...``
(Traefik's forwardAuth). A dashboard is its owner's program, so it is shown at the host name of the owner's servers. A
browser without a session there is sent to :meth:`Dashboards.sign_in` at the public name, and on to the Hub, of which
the gateway is an OAuth client. The browser comes back to :meth:`Dashboards.signed_in` with a code, for which the
gateway gets a token, and takes a ticket to :meth:`Dashboards.enter` at the other host name. The token stays here; the
browser gets a cookie with a random key. Sessions are kept in memory: after a restart of the gateway the browser is
sent through the Hub again, which asks nothing of somebody who is signed in there.
"""

import asyncio
import base64
import re
import secrets
import time
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from qhub_jobs.hosts import host_of

RECHECK = 30  # seconds after which the Hub is asked again whether a token is good
FORGET = 12 * 3600  # seconds after which a session that nobody uses is forgotten
BEGUN = 600  # seconds that somebody has to sign in
TICKET = 60  # seconds that a browser has to go from one host name to the other
SESSION, STATE = "dask-dashboards", "dask-dashboards-state-"  # names of cookies
CLIENT = "service-dask-gateway"
PATH = "/gateway/"  # of the cookies
CLUSTER = re.compile(r"/gateway/clusters/([0-9a-f]{32})(?:[/?].{0,2000})?", re.DOTALL)
CODE = re.compile(r"[A-Za-z0-9_-]{1,200}")


class Session:
    """Somebody who is signed in: the token, the name, and when the Hub was asked last."""

    def __init__(self, token, name):
        self.token, self.name, self.checked, self.lock = token, name, time.monotonic(), asyncio.Lock()


class Dashboards:
    """Says whether somebody may see a dashboard, and lets people sign in.

    public_url, hub_url
        The front door, and the Hub's API as the gateway reaches it.
    people_name
        Host name of people's servers, or ``*.DOMAIN``.
    secret
        The secret of the gateway as the Hub's OAuth client.
    name_of
        Coroutine function that returns the name of the person a token is for. Raises HTTPUnauthorized.
    """

    def __init__(self, public_url, people_name, hub_url, secret, name_of):
        self.public_url, self.people_name, self.hub_url = public_url, people_name, hub_url
        self.secret, self.name_of = secret, name_of
        self.callback = f"{public_url}/gateway/dashboards/signed-in"
        self.sessions, self.tickets = {}, {}

    def routes(self):
        """Return the routes for the gateway's application."""
        handlers = (self.allowed, self.sign_in, self.signed_in, self.enter)
        return [web.get(f"/dashboards/{each.__name__.replace('_', '-')}", each) for each in handlers]

    async def allowed(self, request):
        """Answer the front door: 200 for the owner of the cluster; else what the browser gets."""
        path = request.headers.get("X-Forwarded-Uri", "")
        match = CLUSTER.fullmatch(path)
        if not match:
            raise web.HTTPNotFound
        name = await self.person(request)
        host = request.headers.get("X-Forwarded-Host", "")
        if name is None or host != host_of(name, self.people_name):
            if "text/html" not in request.headers.get("Accept", ""):
                raise web.HTTPUnauthorized
            raise web.HTTPFound(f"{self.public_url}/gateway/dashboards/sign-in?{urlencode({'next': path})}")
        cluster = await request.app["backend"].get_cluster(match[1])
        if cluster is None or cluster.username != name:
            raise web.HTTPForbidden(
                text="This is no cluster of yours. A dashboard is shown to the cluster's owner alone."
            )
        return web.Response()

    async def person(self, request):
        """Return the name of the person whose session a request belongs to, ``None`` without a session."""
        key = request.cookies.get(SESSION, "")
        session = self.sessions.get(key)
        if session is None:
            return None
        async with session.lock:
            if session.checked < time.monotonic() - RECHECK:
                try:
                    session.name = await self.name_of(session.token)
                except web.HTTPUnauthorized:
                    self.sessions.pop(key, None)
                    session.name = None
                except aiohttp.ClientError as error:
                    raise web.HTTPBadGateway(text="JupyterHub does not answer. Try again in a minute.") from error
                session.checked = time.monotonic()
        return session.name

    async def sign_in(self, request):
        """Send a browser to the Hub; a cookie remembers where it comes back to."""
        path = request.query.get("next", "")
        if not CLUSTER.fullmatch(path):
            raise web.HTTPBadRequest(text="This is no dashboard.")
        state = secrets.token_urlsafe(16)
        asked = {"client_id": CLIENT, "response_type": "code", "redirect_uri": self.callback, "state": state}
        response = web.HTTPFound(f"{self.public_url}/hub/api/oauth2/authorize?{urlencode(asked)}")
        self.set_cookie(response, STATE + state, base64.urlsafe_b64encode(path.encode()).decode().rstrip("="), BEGUN)
        return response

    async def signed_in(self, request):
        """Take a browser back from the Hub."""
        state, code = request.query.get("state", ""), request.query.get("code", "")
        begun = request.cookies.get(STATE + state) if CODE.fullmatch(state) else None
        if begun is None:
            raise web.HTTPBadRequest(
                text="This sign-in did not begin here, or it took too long. Open the dashboard again."
            )
        path = base64.urlsafe_b64decode(begun + "==").decode()
        if not CLUSTER.fullmatch(path):
            raise web.HTTPBadRequest(text="This is no dashboard.")
        if not CODE.fullmatch(code):
            raise web.HTTPForbidden(text="JupyterHub did not let you in.")
        try:
            token = await self.token(code)
            session = Session(token, await self.name_of(token))
        except aiohttp.ClientError as error:
            raise web.HTTPForbidden(text="JupyterHub did not confirm who you are. Open the dashboard again.") from error
        now = time.monotonic()
        self.tickets = {key: each for key, each in self.tickets.items() if each[0].checked > now - TICKET}
        ticket = secrets.token_urlsafe()
        self.tickets[ticket] = session, path
        host = host_of(session.name, self.people_name)
        response = web.HTTPFound(f"https://{host}/gateway/dashboards/enter?{urlencode({'ticket': ticket})}")
        response.del_cookie(STATE + state, path=PATH)
        return response

    async def enter(self, request):
        """Give a browser with a ticket its session, at the host name of the person's servers."""
        session, path = self.tickets.pop(request.query.get("ticket", ""), (None, ""))
        now = time.monotonic()
        if session is None or session.checked < now - TICKET or request.host != host_of(session.name, self.people_name):
            raise web.HTTPBadRequest(text="This sign-in took too long. Open the dashboard again.")
        self.sessions = {key: each for key, each in self.sessions.items() if each.checked > now - FORGET}
        key = secrets.token_urlsafe()
        self.sessions[key] = session
        response = web.HTTPFound(path)
        self.set_cookie(response, SESSION, key)
        return response

    async def token(self, code):
        """Return the Hub's token for an authorization code."""
        form = {
            "client_id": CLIENT,
            "client_secret": self.secret,
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.callback,
        }
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), raise_for_status=True) as session,
            session.post(f"{self.hub_url}/oauth2/token", data=form) as answer,
        ):
            return (await answer.json())["access_token"]

    @staticmethod
    def set_cookie(response, name, value, seconds=None):
        """Set a cookie that only the gateway's paths get."""
        response.set_cookie(name, value, max_age=seconds, path=PATH, secure=True, httponly=True, samesite="Lax")

"""Signing in with the cluster's realm, and out of it."""

import urllib.parse

from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthLogoutHandler
from traitlets import Unicode


class LogoutHandler(OAuthLogoutHandler):
    """Ends the session in the realm with that in the Hub."""

    async def get(self):
        user = self.current_user
        state = (await user.get_auth_state()) if user else None
        self.id_token = ((state or {}).get("token_response") or {}).get("id_token")
        await super().get()

    async def render_logout_page(self):
        words = {"client_id": self.authenticator.client_id, "post_logout_redirect_uri": self.authenticator.after_logout}
        if self.id_token:
            words["id_token_hint"] = self.id_token
        self.redirect(f"{self.authenticator.end_session_url}?{urllib.parse.urlencode(words)}", permanent=False)


class RealmAuthenticator(GenericOAuthenticator):
    """GenericOAuthenticator, with a realm's way out. Groups are the token's, and its roles without a slash."""

    logout_handler = LogoutHandler
    end_session_url = Unicode(help="Where the realm ends sessions.").tag(config=True)
    after_logout = Unicode(help="Where people go then.").tag(config=True)


def groups(auth_state):
    """Return JupyterHub's groups of somebody: paths in the realm (/accounts/physics) and roles (developer)."""
    claims = auth_state["oauth_user"]
    return sorted({*claims.get("groups", []), *claims.get("roles", [])})

"""Signing in with the cluster's realm, and what that allows in conda-store.

Role in the realm      in conda-store
admin                  everything
developer              everything but its settings in the namespace of the own name; in those of the own Slurm
                       accounts, making environments, not removing them
viewer                 looking at the environments of the own accounts
everybody              looking at the shared namespace's
"""

import base64
import datetime
import hashlib
import json
import os
import re
import secrets
from urllib.parse import urlencode, urlsplit

import requests
from conda_store_server import api
from conda_store_server._internal import utils
from conda_store_server.server import auth
from conda_store_server.server import schema as auth_schema
from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from traitlets import Integer, Unicode, default

from . import names

TIMEOUT = 30  # seconds that Keycloak may take


def role_bindings(person, roles, groups, shared, people):
    """Return conda-store's role bindings of somebody: ``{"NAMESPACE/*": [role]}``; ``{}`` for nobody of ours.

    ``roles`` are those of the realm's client, ``groups`` the paths of the realm's groups, ``people`` all names: what is
    somebody's own namespace is not that of an account of the same name.
    """
    if "admin" in roles:
        return {"*/*": ["admin"]}
    accounts = {group.removeprefix("/accounts/") for group in groups if group.startswith("/accounts/")} - set(people)
    found = {}
    if "developer" in roles:
        found = {**dict.fromkeys(accounts, "developer"), person: "admin"}
    elif "viewer" in roles:
        found = dict.fromkeys(accounts, "viewer")
    else:
        return {}
    bindings = {f"{name}/*": [role] for name, role in found.items() if names.NAMESPACE.fullmatch(name)}
    return {**bindings, f"{shared}/*": ["viewer"]}


class RealmToken(auth_schema.AuthenticationToken):
    """conda-store's token, which also says whose it is. One that Salt makes for a program is nobody's."""

    person: str | None = None


auth_schema.AuthenticationToken = RealmToken  # wherever conda-store makes or reads one
utils.compile_arn_sql_like = names.like  # wherever it lists what somebody may see


class RealmTokens(auth.AuthenticationBackend):
    """Refuses tokens of people who are no longer there or may do less than theirs says: none can be called back."""

    people_file = Unicode(help="JSON: the people who may come in, and the paths of their groups in the realm.").tag(
        config=True
    )

    def authenticate(self, token):
        entity = super().authenticate(token)
        if entity is None or entity.person is None:
            return entity
        people = self.people()
        groups = people.get(entity.person, [])
        roles = {group.removeprefix("/") for group in groups}
        now = RealmToken(
            primary_namespace=entity.person,
            role_bindings=role_bindings(entity.person, roles, groups, self.parent.shared_namespace, people),
            person=entity.person,
        )
        return entity if self.parent.authorization.is_subset_entity_permissions(now, entity) else None

    def people(self):
        stamp = os.stat(self.people_file).st_mtime_ns  # noqa: PTH116
        if getattr(self, "_people", (None,))[0] != stamp:
            with open(self.people_file) as file:  # noqa: PTH123
                self._people = stamp, json.load(file)
        return self._people[1]


class RealmAuthorization(auth.RBACAuthorizationBackend):
    """
    Who makes a token out of another makes it for the same person and, short of admins, the same namespace. A namespace
    that somebody may build in comes into being with signing in or, by token, with the first environment.
    """

    @default("role_mappings")
    def _role_mappings(self):
        return {
            "viewer": self._viewer_permissions,
            "editor": self._editor_permissions | {auth_schema.Permissions.NAMESPACE_CREATE},
            "admin": self._admin_permissions,
        }

    compile_arn_regex = staticmethod(names.expression)

    @staticmethod
    def is_arn_subset(arn_1, arn_2):
        """Whether ``arn_1`` is within ``arn_2``."""
        return names.within(arn_1, arn_2)

    def get_entity_binding_permissions(self, entity):
        """Only who administers all namespaces changes settings: those of a namespace replace the site's."""
        settings = {auth_schema.Permissions.SETTING_UPDATE}
        found = super().get_entity_binding_permissions(entity)
        return {each: allowed if each == "*/*" else allowed - settings for each, allowed in found.items()}

    def is_subset_entity_permissions(self, entity, new_entity):
        if not entity.role_bindings:  # nobody: conda-store would make out a token to anyone
            return False
        new_entity.person = entity.person
        same = new_entity.primary_namespace == entity.primary_namespace
        return (same or "*/*" in entity.role_bindings) and super().is_subset_entity_permissions(entity, new_entity)


class RealmAuthentication(auth.GenericOAuthAuthentication):
    """Signing in by authorization code with PKCE."""

    public_url = Unicode(help="Where the front door is.").tag(config=True)
    realm_url = Unicode(help="Where the realm is.").tag(config=True)
    shared_namespace = Unicode(help="The namespace for everybody.").tag(config=True)
    session_hours = Integer(8, help="Hours after which people sign in again.").tag(config=True)

    def authenticate_request(self, request: auth.Request, require=False):
        """Solve only for people who make environments: conda-store asks for no permission, and pip runs code then."""
        entity = super().authenticate_request(request, require)
        if request.method == "GET" and request.url.path.rstrip("/").endswith("/v1/specification"):
            needed = {auth_schema.Permissions.ENVIRONMENT_SOLVE}
            if not entity or not self.authorization.authorize(entity, f"{entity.primary_namespace}/solve", needed):
                raise HTTPException(403, "request not authorized")
        return entity

    @property
    def home(self):
        return f"{self.public_url}/conda-store/"

    @property
    def callback(self):
        return f"{self.home}oauth_callback/"

    def get_login_method(self, request: auth.Request, next: str | None = None):  # noqa: A002
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe()
        request.session.update(oauth_state=state, oauth_verifier=verifier, next=self.inside(next))
        digest = hashlib.sha256(verifier.encode()).digest()
        words = {
            "client_id": self.client_id,
            "redirect_uri": self.callback,
            "response_type": "code",
            "scope": "openid profile",
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return RedirectResponse(f"{self.realm_url}/protocol/openid-connect/auth?{urlencode(words)}", status_code=303)

    async def post_login_method(self, request: auth.Request):
        """Take people back from the realm. (conda-store's own name of it is in its routes.)"""
        session = {key: request.session.pop(key, None) for key in ("oauth_state", "oauth_verifier", "next")}
        state = request.query_params.get("state", "")
        if not session["oauth_state"] or not secrets.compare_digest(session["oauth_state"], state):
            raise HTTPException(400, "This is not the sign-in that was begun here: begin again.")
        code = request.query_params.get("code", "")
        claims = await run_in_threadpool(self.claims, code, session["oauth_verifier"])
        person = claims["preferred_username"]
        people, roles, groups = self.authentication.people(), claims.get("roles", []), claims.get("groups", [])
        bindings = role_bindings(person, roles, groups, self.shared_namespace, people)
        if not bindings or person not in people:
            raise HTTPException(403, f"{person} has no role in conda-store.")
        await run_in_threadpool(self.make_namespaces, bindings)
        lifetime = datetime.timedelta(hours=self.session_hours)
        token = RealmToken(
            exp=datetime.datetime.now(datetime.timezone.utc) + lifetime,
            primary_namespace=person,
            role_bindings=bindings,
            person=person,
        )
        # The cookie is strict: it goes along from a page of ours only, not with a redirection that the realm began.
        response = await self._post_login_method_response(session["next"] or self.home)
        response.set_cookie(
            self.cookie_name,
            self.authentication.encrypt_token(token),
            max_age=int(lifetime.total_seconds()),
            path="/conda-store",
            secure=True,
            httponly=True,
            samesite="strict",
        )
        return response

    def post_logout_method(self, request: auth.Request, next: str | None = None):  # noqa: A002
        words = {"client_id": self.client_id, "post_logout_redirect_uri": self.home}
        response = RedirectResponse(
            f"{self.realm_url}/protocol/openid-connect/logout?{urlencode(words)}", status_code=303
        )
        response.delete_cookie(self.cookie_name, path="/conda-store", secure=True, httponly=True, samesite="strict")
        return response

    def inside(self, address):
        """Return a page of conda-store that somebody is to come back to; ``None`` if it is none."""
        if not address:
            return None
        there, here = urlsplit(address), urlsplit(self.home)
        elsewhere = (there.scheme or there.netloc) and (there.scheme, there.netloc) != (here.scheme, here.netloc)
        if elsewhere or not there.path.startswith(here.path) or not re.fullmatch(r"[\w.~%/?&=+,:@-]*", address):
            return None
        return there._replace(scheme=here.scheme, netloc=here.netloc).geturl()

    def make_namespaces(self, bindings):
        """Make the namespaces that somebody with these role bindings builds in: the page offers what there is."""
        with self.authentication_db() as database:
            for binding, roles in bindings.items():
                if binding != "*/*" and roles != ["viewer"]:
                    api.ensure_namespace(database, binding.removesuffix("/*"))

    def claims(self, code, verifier):
        """Return what the realm says of who signed in."""
        grant = requests.post(
            f"{self.realm_url}/protocol/openid-connect/token",
            data={
                "grant_type": "authorization_code",
                "code": code,
                "code_verifier": verifier,
                "redirect_uri": self.callback,
                "client_id": self.client_id,
                "client_secret": self.client_secret,
            },
            timeout=TIMEOUT,
        )
        if not grant.ok:
            raise HTTPException(403, f"The realm does not vouch for this sign-in: {grant.json().get('error', '')}")
        headers = {"Authorization": f"Bearer {grant.json()['access_token']}"}
        answer = requests.get(f"{self.realm_url}/protocol/openid-connect/userinfo", headers=headers, timeout=TIMEOUT)
        answer.raise_for_status()
        return answer.json()

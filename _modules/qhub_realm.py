"""
The Keycloak realm of this system, made from the pillar: people, accounts, roles and the services to sign in to.

``formulas/keycloak/realm.sls`` hands :func:`representation` to ``keycloak_realm.managed``. What it makes:

groups
    ``/admin``, ``/developer`` and ``/viewer``, one of which every person is in (``users:NAME:role``), and
    ``/accounts/NAME`` for each Slurm account.
clients
    ``jupyterhub``, ``grafana`` and ``conda-store``, each with the client roles ``admin``, ``developer`` and
    ``viewer``, which the groups of these names have. A token's claim ``roles`` has the person's roles in that
    client, ``groups`` the paths of the groups. Keycloak's own client ``admin-cli`` gives no token for a password
    alone: the browser flow, which may ask for a one-time password, is the only way to sign in.
roles
    The default role of the realm has no ``offline_access``: every session of a person ends.
users
    Everybody in ``users``, without a password. A person with ``locked: true`` cannot sign in.

A site's ``realm:representation`` is laid over it: mappings key by key, lists of named objects name by name.

Source: Keycloak's RealmRepresentation (Admin REST API, 26).
"""

import json

__pillar__: dict

ROLES = {
    "admin": "Administers the service",
    "developer": "Uses the service",
    "viewer": "Sees what is shared",
}
#: What the group admin may do in Keycloak's own console.
#: Without view-clients, which shows the clients' secrets.
CONSOLE = ["view-realm", "view-events", "manage-events", "manage-users"]
#: client: (name, where it lives, where Keycloak sends people back to, the secret's name in the pillar)
CLIENTS = {
    "jupyterhub": ("JupyterHub", "/", "/hub/oauth_callback", "jupyterhub_client_secret"),
    "grafana": ("Grafana", "/monitoring/", "/monitoring/login/generic_oauth", "grafana_client_secret"),
    "conda-store": ("conda-store", "/conda-store/", "/conda-store/oauth_callback/", "conda_store_client_secret"),
}
#: Keycloak's client for its own command line, which nothing here uses.
ADMIN_CLI = {"clientId": "admin-cli", "directAccessGrantsEnabled": False}
#: The roles of every person.
DEFAULT_ROLES = {"realm": ["uma_authorization"], "client": {"account": ["manage-account", "view-profile"]}}
#: Seconds that a client's access tokens last, if not the realm's. When its token has ended, Grafana asks Keycloak
#: again, which refuses a person who was locked or removed.
LIFESPANS = {"grafana": {"access.token.lifespan": "60"}}
#: The default scopes of a client, if not the realm's. Grafana keeps a mail address for one person only, so that it is
#: given none: of two people with one address, the second could not sign in.
SCOPES = {"grafana": ["acr", "basic", "profile", "roles", "web-origins"]}
ACCOUNTS, DIRECTORIES = "accounts", "directories"
OTP_ROLE = "otp-required"
#: vendor: (attribute of the user name, of the entry's name, of the stable id, object classes)
LDAP_VENDORS = {
    "other": ("uid", "uid", "entryUUID", "inetOrgPerson, organizationalPerson"),
    "ad": ("sAMAccountName", "cn", "objectGUID", "person, organizationalPerson, user"),
    "rhds": ("uid", "uid", "nsuniqueid", "inetOrgPerson, organizationalPerson"),
    "edirectory": ("uid", "uid", "guid", "inetOrgPerson, organizationalPerson"),
}
#: What names an object in a list of the representation.
NAMES = ("clientId", "username", "alias", "name", "flowAlias", "authenticator")

__load__ = ["representation"]  # the rest is for tests


def __virtual__():
    return True


def representation():
    """
    Return the realm that the minion's pillar asks for, a RealmRepresentation (a mapping) as
    ``keycloak_realm.managed`` takes it. It holds secrets: for states, not for printing.

    Uses the pillar's ``cluster``, ``realm``, ``users``, ``accounts`` and ``secrets``, which are checked before
    any minion gets them (``salt-run cluster.validate``).

    .. code-block:: yaml

        Realm is as declared:
          keycloak_realm.managed:
            - name: qhub
            - representation: __slot__:salt:qhub_realm.representation()
    """
    return realm(__pillar__)


def realm(pillar):
    """Return the RealmRepresentation for a whole ``pillar`` (the master's, as the gate let it through)."""
    settings, people = pillar["realm"], pillar.get("users") or {}
    declared = {
        "displayName": f"{pillar['cluster']['name']} cluster",
        **SETTINGS,
        "clients": [*(client(name, pillar) for name in CLIENTS), ADMIN_CLI],
        "roles": {
            "realm": [
                {"name": OTP_ROLE, "description": "Signs in with a one-time password as well"},
                {"name": f"default-roles-{settings['name'].lower()}", "composites": DEFAULT_ROLES},
            ],
            "client": {name: [{"name": r, "description": text} for r, text in ROLES.items()] for name in CLIENTS},
        },
        "groups": groups(settings, pillar.get("accounts") or {}),
        "users": [user(name, entry, bool(settings["ldap"])) for name, entry in people.items()],
        "components": {
            "org.keycloak.userprofile.UserProfileProvider": [
                {"providerId": "declarative-user-profile", "config": {"kc.user.profile.config": [USER_PROFILE]}}
            ],
        },
        **browser_flow(),
    }
    if settings["ldap"]:
        declared["components"]["org.keycloak.storage.UserStorageProvider"] = [
            directory(name, entry) for name, entry in settings["ldap"].items()
        ]
    return laid_over(declared, settings["representation"])


SETTINGS = {
    "enabled": True,
    "sslRequired": "external",
    "registrationAllowed": False,
    "loginWithEmailAllowed": False,
    "duplicateEmailsAllowed": True,
    "editUsernameAllowed": False,
    "resetPasswordAllowed": False,
    "rememberMe": False,
    "passwordPolicy": "length(12) and notUsername(undefined) and notEmail(undefined)",
    # After five wrong passwords an account waits: a minute, then longer, a quarter of an hour at most.
    "bruteForceProtected": True,
    "permanentLockout": False,
    "failureFactor": 5,
    "waitIncrementSeconds": 60,
    "maxFailureWaitSeconds": 900,
    "maxDeltaTimeSeconds": 43200,
    "accessTokenLifespan": 300,
    "ssoSessionIdleTimeout": 12 * 3600,
    "ssoSessionMaxLifespan": 24 * 3600,
    "eventsEnabled": True,
    "eventsExpiration": 90 * 86400,
    "adminEventsEnabled": True,
    "adminEventsDetailsEnabled": False,
}


def _profile_attribute(name, label, longest):
    """Return one attribute of the user profile: people see it, the pillar says it."""
    return {
        "name": name,
        "displayName": f"${{{label}}}",
        "permissions": {"view": ["admin", "user"], "edit": ["admin"]},
        "validations": {"length": {"max": longest}},
        "multivalued": False,
    }


USER_PROFILE = json.dumps(
    {
        "attributes": [
            _profile_attribute("username", "username", 255),
            _profile_attribute("email", "email", 255),
            _profile_attribute("firstName", "firstName", 255),
            _profile_attribute("lastName", "lastName", 255),
        ],
        "unmanagedAttributePolicy": "ADMIN_EDIT",
    }
)


def client(name, pillar):
    """Return the ClientRepresentation of one service: confidential, authorization code with PKCE, nothing else."""
    title, home, callback, secret = CLIENTS[name]
    root = f"https://{pillar['cluster']['public_name']}"
    shown = {"id.token.claim": "true", "access.token.claim": "true", "userinfo.token.claim": "true"}
    return {
        "clientId": name,
        "name": title,
        "protocol": "openid-connect",
        "enabled": True,
        "publicClient": False,
        "clientAuthenticatorType": "client-secret",
        "secret": pillar["secrets"][secret],
        "standardFlowEnabled": True,
        "implicitFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "serviceAccountsEnabled": False,
        "fullScopeAllowed": False,
        "rootUrl": root,
        "baseUrl": f"{root}{home}",
        "redirectUris": [f"{root}{callback}"],
        "webOrigins": ["+"],
        **({"defaultClientScopes": SCOPES[name]} if name in SCOPES else {}),
        "attributes": {
            "pkce.code.challenge.method": "S256",
            "post.logout.redirect.uris": f"{root}/*",
            **LIFESPANS.get(name, {}),
        },
        "protocolMappers": [
            {
                "name": "groups",
                "protocol": "openid-connect",
                "protocolMapper": "oidc-group-membership-mapper",
                "config": {"claim.name": "groups", "full.path": "true", **shown},
            },
            {
                "name": "roles",
                "protocol": "openid-connect",
                "protocolMapper": "oidc-usermodel-client-role-mapper",
                "config": {
                    "usermodel.clientRoleMapping.clientId": name,
                    "claim.name": "roles",
                    "jsonType.label": "String",
                    "multivalued": "true",
                    **shown,
                },
            },
        ],
    }


def groups(settings, accounts):
    """Return the GroupRepresentations: one per role, one per account, one per directory with groups of its own."""
    found: list[dict] = []
    for role in ROLES:
        clients = {name: [role] for name in CLIENTS}
        if role == "admin":
            clients["realm-management"] = CONSOLE
        realm_roles = [OTP_ROLE] if role in settings["otp_for"] else []
        found.append({"name": role, "realmRoles": realm_roles, "clientRoles": clients})
    found.append({"name": ACCOUNTS, "subGroups": [{"name": name} for name in accounts]})
    directories = [name for name, entry in settings["ldap"].items() if "groups_dn" in entry]
    if directories:
        found.append({"name": DIRECTORIES, "subGroups": [{"name": name} for name in directories]})
    return found


def user(name, entry, in_directory):
    """
    Return the UserRepresentation of one person; ``in_directory``: name and mail are the directory's to say.
    """
    first, _, last = entry.get("full_name", name).rpartition(" ")
    own = {"email": entry.get("email"), "emailVerified": "email" in entry, "firstName": first or last, "lastName": last}
    if not first:
        own["lastName"] = None
    return {
        "username": name,
        "enabled": not entry.get("locked", False),
        **({} if in_directory else own),
        "groups": [
            f"/{entry.get('role', 'developer')}",
            *(f"/{ACCOUNTS}/{account}" for account in entry.get("accounts", [])),
        ],
    }


def directory(name, entry):
    """Return the component of one LDAP server, whose people are read and never written."""
    username, rdn, uuid, classes = LDAP_VENDORS[entry.get("vendor", "other")]
    config = {
        "enabled": "true",
        "vendor": entry.get("vendor", "other"),
        "connectionUrl": entry["url"],
        "startTls": str(entry.get("start_tls", False)).lower(),
        "useTruststoreSpi": "always",
        "authType": "simple" if "bind_dn" in entry else "none",
        "usersDn": entry["users_dn"],
        "usernameLDAPAttribute": entry.get("username_attribute", username),
        "rdnLDAPAttribute": rdn,
        "uuidLDAPAttribute": entry.get("uuid_attribute", uuid),
        "userObjectClasses": classes,
        "customUserSearchFilter": entry.get("user_filter"),
        "bindDn": entry.get("bind_dn"),
        "bindCredential": entry.get("bind_password"),
        "searchScope": "2",
        "editMode": "READ_ONLY",
        "importEnabled": "true",
        "syncRegistrations": "false",
        "trustEmail": "true",
        "pagination": "true",
        "connectionTimeout": "5000",
        "readTimeout": "10000",
    }
    found = {"name": name, "providerId": "ldap", "config": _listed(config)}
    if "groups_dn" in entry:
        mapping = {
            "groups.dn": entry["groups_dn"],
            "groups.path": f"/{DIRECTORIES}/{name}",
            "group.name.ldap.attribute": "cn",
            "group.object.classes": "group" if entry.get("vendor") == "ad" else "groupOfNames",
            "membership.ldap.attribute": "member",
            "membership.attribute.type": "DN",
            "membership.user.ldap.attribute": config["usernameLDAPAttribute"],
            "preserve.group.inheritance": "false",
            "user.roles.retrieve.strategy": "LOAD_GROUPS_BY_MEMBER_ATTRIBUTE",
            "mode": "READ_ONLY",
        }
        found["subComponents"] = {
            "org.keycloak.storage.ldap.mappers.LDAPStorageMapper": [
                {"name": "groups", "providerId": "group-ldap-mapper", "config": _listed(mapping)}
            ]
        }
    return found


def _listed(config):
    """Return a component's configuration: every value is a list; what is ``None`` is left out."""
    return {key: [value] for key, value in config.items() if value is not None}


def browser_flow():
    """
    Return how people sign in: password, and then a one-time password for whoever has to (role ``otp-required``,
    who is made to set one up) or wants to (has set one up).
    """

    def step(authenticator, requirement, config=None):
        return {
            "authenticator": authenticator,
            "requirement": requirement,
            **({"authenticatorConfig": config} if config else {}),
        }

    def inner(alias, requirement):
        return {"flowAlias": alias, "authenticatorFlow": True, "requirement": requirement}

    def flow(alias, description, steps, top=False):
        executions = [{**each, "priority": 10 * place} for place, each in enumerate(steps, 1)]
        return {
            "alias": alias,
            "description": description,
            "providerId": "basic-flow",
            "topLevel": top,
            "builtIn": False,
            "authenticationExecutions": executions,
        }

    top, forms = "sign in", "sign in with a form"
    must, may = "one-time password by role", "one-time password by choice"
    return {
        "browserFlow": top,
        "authenticationFlows": [
            flow(
                top,
                "How people sign in to the cluster's services",
                [
                    step("auth-cookie", "ALTERNATIVE"),
                    step("identity-provider-redirector", "ALTERNATIVE"),
                    inner(forms, "ALTERNATIVE"),
                ],
                top=True,
            ),
            flow(
                forms,
                "Password, then a one-time password",
                [
                    step("auth-username-password-form", "REQUIRED"),
                    inner(must, "CONDITIONAL"),
                    inner(may, "CONDITIONAL"),
                ],
            ),
            flow(
                must,
                "For whoever has the role",
                [step("conditional-user-role", "REQUIRED", "has to"), step("auth-otp-form", "REQUIRED")],
            ),
            flow(
                may,
                "For whoever has set one up",
                [
                    step("conditional-user-role", "REQUIRED", "does not have to"),
                    step("conditional-user-configured", "REQUIRED"),
                    step("auth-otp-form", "REQUIRED"),
                ],
            ),
        ],
        "authenticatorConfig": [
            {"alias": "has to", "config": {"condUserRole": OTP_ROLE, "negate": "false"}},
            {"alias": "does not have to", "config": {"condUserRole": OTP_ROLE, "negate": "true"}},
        ],
    }


def laid_over(base, extra):
    """
    Return ``base`` with a site's ``extra`` over it: mappings key by key, lists of named objects name by name,
    anything else as ``extra`` has it. Neither is changed.
    """
    if isinstance(base, dict) and isinstance(extra, dict):
        merged = dict(base)
        for key, value in extra.items():
            merged[key] = laid_over(base[key], value) if key in base else value
        return merged
    if isinstance(base, list) and isinstance(extra, list):
        key = next((key for key in NAMES if extra and all(isinstance(e, dict) and key in e for e in extra)), None)
        if key and all(isinstance(each, dict) and key in each for each in base):
            own = {each[key]: each for each in extra}
            kept = [laid_over(each, own.pop(each[key], {})) for each in base]
            return kept + list(own.values())
    return extra

"""A sample of each kind of object of a realm: what may be declared of it, and what Keycloak then has.

The declared form is Keycloak's own (RealmRepresentation); what Keycloak has is asked for by hand.
"""

import copy
import dataclasses
import json
from collections.abc import Callable

USER_PROFILE = "org.keycloak.userprofile.UserProfileProvider"
KEYS = "org.keycloak.keys.KeyProvider"
CERTIFICATE = "MIICmzCCAYMCBgFYmRGZ2zANBgkqhkiG9w0BAQsFADARMQ8wDQYDVQQDDAZtYXN0ZXI="


def one(objects, field, value):
    """Return that of the objects whose field has this value, or nothing."""
    return next((entry for entry in objects if entry.get(field) == value), {})


NAMES = ("clientId", "username", "alias", "name", "providerId")


def identity(entry):
    """Return what tells an object from others in its list."""
    return next((entry[field] for field in NAMES if field in entry), json.dumps(entry))


def merged(*representations):
    """Return representations as one: objects of one name become one, lists follow each other."""
    result = {}
    for representation in copy.deepcopy(representations):
        for key, value in representation.items():
            if isinstance(value, dict):
                result[key] = merged(result.get(key, {}), value)
            elif value and isinstance(value, list) and isinstance(value[0], dict):
                entries = {identity(entry): entry for entry in result.get(key, [])}
                for entry in value:
                    entries[identity(entry)] = merged(entries.get(identity(entry), {}), entry)
                result[key] = list(entries.values())
            elif isinstance(value, list):
                result[key] = list(dict.fromkeys([*(result.get(key) or []), *value]))
            else:
                result[key] = value
    return result


def contains(live, declared):
    """Tell whether Keycloak's answer has all that is declared; lists in any order, objects in them by name."""
    if isinstance(declared, dict):
        return isinstance(live, dict) and all(contains(live.get(key), value) for key, value in declared.items())
    if isinstance(declared, list):
        if declared and isinstance(declared[0], dict):
            return len(live or []) == len(declared) and all(any(contains(x, y) for x in live) for y in declared)
        return sorted(live or []) == sorted(declared)
    if declared is None:
        return live in (None, "", [], {})
    if isinstance(declared, str) and declared[:1] in ("[", "{"):  # a document within a text
        return contains(json.loads(live or "null"), json.loads(declared))
    return live == declared


@dataclasses.dataclass
class Kind:
    """One kind of object.

    ``key``: its name in ``changes``. ``declare``: fields -> representation. ``live``: realm -> what Keycloak has.
    ``minimal``, ``full``, ``changed``: samples of fields; the last two differ in each field.
    ``cleared``: fields that may be declared as null, and what Keycloak has then.
    ``by_hand``: realm -> changes it in Keycloak; ``damaged``: the fields that this changes.
    ``beside``: what else is declared with it. ``least``: fields without which it cannot be declared.
    ``given``: Keycloak makes it with the realm. ``single``: the state that manages it alone, and its name there.
    """

    key: str
    declare: Callable
    live: Callable
    minimal: dict
    full: dict
    changed: dict
    cleared: dict
    by_hand: Callable
    damaged: tuple
    beside: dict = dataclasses.field(default_factory=dict)
    least: dict = dataclasses.field(default_factory=dict)
    given: bool = False
    single: tuple = ()

    def representation(self, fields):
        return merged(self.beside, self.declare(fields))


# -- the realm itself ------------------------------------------------------------------------------


def profile(*attributes, **more):
    """Return a user profile with the standard attributes and these."""
    both = {"view": ["admin", "user"], "edit": ["admin", "user"]}
    standard = [
        {"name": "username", "displayName": "${username}", "permissions": both, "multivalued": False},
        {"name": "email", "displayName": "${email}", "permissions": both, "multivalued": False},
        {"name": "firstName", "displayName": "${firstName}", "permissions": both, "multivalued": False},
        {"name": "lastName", "displayName": "${lastName}", "permissions": both, "multivalued": False},
    ]
    return {"attributes": [*standard, *attributes], **more}


def profile_component(document):
    config = {"kc.user.profile.config": [json.dumps(document)]}
    return {"components": {USER_PROFILE: [{"providerId": "declarative-user-profile", "config": config}]}}


UNMANAGED = profile_component(profile(unmanagedAttributePolicy="ADMIN_EDIT"))
OFFICE = {"name": "office", "displayName": "Office", "permissions": {"view": ["admin"], "edit": ["admin"]}}


def localization(realm):
    return {
        **realm.hand("GET"),
        "localizationTexts": {
            locale: realm.hand("GET", f"localization/{locale}") for locale in realm.hand("GET", "localization")
        },
    }


REALM = {
    "realm settings": Kind(
        key="realm",
        given=True,
        declare=dict,
        live=lambda realm: realm.hand("GET"),
        minimal={"enabled": True},
        full={
            "displayName": "Physics",
            "displayNameHtml": "<b>Physics</b>",
            "registrationAllowed": True,
            "resetPasswordAllowed": True,
            "rememberMe": True,
            "loginWithEmailAllowed": False,
            "sslRequired": "none",
            "bruteForceProtected": True,
            "failureFactor": 5,
            "maxFailureWaitSeconds": 600,
            "accessTokenLifespan": 600,
            "ssoSessionIdleTimeout": 3600,
            "passwordPolicy": "length(12) and upperCase(1) and notUsername(undefined)",
            "otpPolicyType": "totp",
            "otpPolicyAlgorithm": "HmacSHA256",
            "otpPolicyDigits": 8,
            "otpPolicyPeriod": 60,
            "webAuthnPolicyRpEntityName": "physics",
            "webAuthnPolicySignatureAlgorithms": ["ES256", "RS256", "ES512"],
            "loginTheme": "keycloak",
            "browserSecurityHeaders": {"xFrameOptions": "DENY"},
            "attributes": {"frontendUrl": "https://one.example.org/auth", "site": "one"},
        },
        changed={
            "displayName": "Chemistry",
            "displayNameHtml": "<i>Chemistry</i>",
            "registrationAllowed": False,
            "resetPasswordAllowed": False,
            "rememberMe": False,
            "loginWithEmailAllowed": True,
            "sslRequired": "external",
            "bruteForceProtected": False,
            "failureFactor": 7,
            "maxFailureWaitSeconds": 700,
            "accessTokenLifespan": 700,
            "ssoSessionIdleTimeout": 3700,
            "passwordPolicy": "length(10)",
            "otpPolicyType": "hotp",
            "otpPolicyAlgorithm": "HmacSHA512",
            "otpPolicyDigits": 6,
            "otpPolicyPeriod": 30,
            "webAuthnPolicyRpEntityName": "chemistry",
            "webAuthnPolicySignatureAlgorithms": ["ES256"],
            "loginTheme": "base",
            "browserSecurityHeaders": {"xFrameOptions": "SAMEORIGIN"},
            "attributes": {"frontendUrl": "https://two.example.org/auth", "site": "two"},
        },
        cleared={"displayName": None, "passwordPolicy": None, "loginTheme": None},
        by_hand=lambda realm: realm.edit("", displayName="By hand", failureFactor=30),
        damaged=("displayName", "failureFactor"),
    ),
    "events": Kind(
        key="realm",
        given=True,
        declare=dict,
        live=lambda realm: {**realm.hand("GET"), **realm.hand("GET", "events/config")},
        minimal={"eventsEnabled": True},
        full={
            "eventsEnabled": True,
            "eventsExpiration": 86400,
            "eventsListeners": ["jboss-logging", "email"],
            "enabledEventTypes": ["LOGIN", "LOGIN_ERROR", "LOGOUT"],
            "adminEventsEnabled": True,
            "adminEventsDetailsEnabled": True,
        },
        changed={
            "eventsEnabled": False,
            "eventsExpiration": 3600,
            "eventsListeners": ["jboss-logging"],
            "enabledEventTypes": ["LOGIN"],
            "adminEventsEnabled": False,
            "adminEventsDetailsEnabled": False,
        },
        cleared={},
        by_hand=lambda realm: realm.edit("events/config", eventsEnabled=False, enabledEventTypes=["LOGOUT"]),
        damaged=("eventsEnabled", "enabledEventTypes"),
    ),
    "mail": Kind(
        key="realm",
        given=True,
        declare=dict,
        live=lambda realm: realm.hand("GET"),
        minimal={"smtpServer": {"host": "mail.example.org", "from": "auth@example.org"}},
        full={
            "smtpServer": {
                "host": "mail.example.org",
                "port": "587",
                "from": "auth@example.org",
                "fromDisplayName": "Physics",
                "starttls": "true",
                "auth": "true",
                "user": "auth",
            }
        },
        changed={
            "smtpServer": {
                "host": "smtp.example.org",
                "port": "25",
                "from": "login@example.org",
                "fromDisplayName": "Chemistry",
                "starttls": "false",
                "auth": "true",
                "user": "login",
            }
        },
        cleared={"smtpServer": None},
        by_hand=lambda realm: realm.edit("", smtpServer={"host": "evil.example.org", "from": "x@example.org"}),
        damaged=("smtpServer",),
    ),
    "localisation": Kind(
        key="realm",
        given=True,
        declare=dict,
        live=localization,
        minimal={"internationalizationEnabled": True, "supportedLocales": ["en", "de"]},
        full={
            "internationalizationEnabled": True,
            "supportedLocales": ["en", "de"],
            "defaultLocale": "de",
            "localizationTexts": {"de": {"greeting": "Hallo", "bye": "Tschüss"}, "en": {"greeting": "Hello"}},
        },
        changed={
            "internationalizationEnabled": False,
            "supportedLocales": ["en", "fr"],
            "defaultLocale": "en",
            "localizationTexts": {"de": {"greeting": "Guten Tag", "bye": "Ade"}, "en": {"greeting": "Hi"}},
        },
        cleared={},
        by_hand=lambda realm: realm.hand("POST", "localization/de", {"greeting": "Moin"}),
        damaged=("localizationTexts",),
    ),
    "user profile": Kind(
        key="user_profile",
        declare=lambda fields: profile_component(profile(**fields)),
        live=lambda realm: realm.hand("GET", "users/profile"),
        minimal={"unmanagedAttributePolicy": "ENABLED"},
        full={
            "unmanagedAttributePolicy": "ADMIN_VIEW",
            "groups": [{"name": "where", "displayHeader": "Where"}],
        },
        changed={
            "unmanagedAttributePolicy": "ADMIN_EDIT",
            "groups": [{"name": "where", "displayHeader": "Whereabouts"}],
        },
        least={"unmanagedAttributePolicy": "ADMIN_VIEW", "groups": [{"name": "where", "displayHeader": "Where"}]},
        cleared={},
        by_hand=lambda realm: realm.hand("PUT", "users/profile", profile(unmanagedAttributePolicy="ENABLED")),
        damaged=("unmanagedAttributePolicy",),
        given=True,
    ),
    "default groups": Kind(
        key="realm",
        given=True,
        declare=dict,
        live=lambda realm: {"defaultGroups": [group["path"] for group in realm.hand("GET", "default-groups")]},
        beside={"groups": [{"name": "a"}, {"name": "b", "subGroups": [{"name": "c"}]}]},
        minimal={"defaultGroups": ["/a"]},
        full={"defaultGroups": ["/a", "/b/c"]},
        changed={"defaultGroups": ["/b"]},
        cleared={"defaultGroups": []},
        by_hand=lambda realm: realm.hand("PUT", f"default-groups/{realm.hand('GET', 'group-by-path/b')['id']}"),
        damaged=("defaultGroups",),
    ),
    "default client scopes": Kind(
        key="realm",
        given=True,
        declare=dict,
        live=lambda realm: {
            f"default{kind.title()}ClientScopes": [
                scope["name"] for scope in realm.hand("GET", f"default-{kind}-client-scopes")
            ]
            for kind in ("default", "optional")
        },
        beside={"clientScopes": [{"name": name, "protocol": "openid-connect"} for name in ("one", "two")]},
        minimal={"defaultDefaultClientScopes": ["profile", "email", "basic", "roles", "web-origins", "one"]},
        full={
            "defaultDefaultClientScopes": ["profile", "email", "basic", "roles", "web-origins", "one"],
            "defaultOptionalClientScopes": ["two", "address"],
        },
        changed={
            "defaultDefaultClientScopes": ["profile", "email", "basic", "two"],
            "defaultOptionalClientScopes": ["one", "offline_access"],
        },
        cleared={},
        by_hand=lambda realm: realm.hand(
            "DELETE", f"default-default-client-scopes/{one(realm.hand('GET', 'client-scopes'), 'name', 'one')['id']}"
        ),
        damaged=("defaultDefaultClientScopes",),
    ),
}

# -- clients ---------------------------------------------------------------------------------------


def mapper(name, claim, protocol="openid-connect"):
    """Return a protocol mapper that puts a user attribute into tokens or assertions."""
    if protocol == "saml":
        kind = "saml-user-attribute-mapper"
        config = {"user.attribute": claim, "attribute.name": claim, "attribute.nameformat": "Basic"}
    else:
        kind = "oidc-usermodel-attribute-mapper"
        config = {"user.attribute": claim, "claim.name": claim, "jsonType.label": "String", "id.token.claim": "true"}
    return {"name": name, "protocol": protocol, "protocolMapper": kind, "config": config}


def client(realm, name="app"):
    return one(realm.hand("GET", "clients", clientId=name), "clientId", name)


def edit_client(realm, **fields):
    realm.edit(f"clients/{client(realm)['id']}", **fields)


def scope(realm, name="scope"):
    return one(realm.hand("GET", "client-scopes"), "name", name)


def remap(realm, owner, **config):
    """Change a mapper of a client or client scope by hand."""
    mappers = f"{owner}/protocol-mappers/models"
    entry = realm.hand("GET", mappers)[0]
    entry["config"] |= config
    realm.hand("PUT", f"{mappers}/{entry['id']}", entry)


def authorization(path, enforcement, decision):
    """Return what Keycloak decides for an application: who may use its printer."""
    readers = {"name": "readers", "type": "role", "logic": "POSITIVE", "decisionStrategy": decision}
    prints = {"name": "may print", "type": "scope", "logic": "POSITIVE", "decisionStrategy": decision}
    return {
        "policyEnforcementMode": enforcement,
        "decisionStrategy": decision,
        "resources": [{"name": "printer", "uris": [path], "scopes": [{"name": "use"}]}],
        "scopes": [{"name": "use"}],
        "policies": [
            {**readers, "config": {"roles": json.dumps([{"id": "offline_access", "required": True}])}},
            {
                **prints,
                "config": {
                    "resources": json.dumps(["printer"]),
                    "scopes": json.dumps(["use"]),
                    "applyPolicies": json.dumps(["readers"]),
                },
            },
        ],
    }


def authorized(realm):
    found = client(realm)
    server = f"clients/{found['id']}/authz/resource-server"
    return {**found, "authorizationSettings": realm.hand("GET", f"{server}/settings")}


CLIENTS = {
    "OIDC client": Kind(
        key="client/app",
        declare=lambda fields: {"clients": [{"clientId": "app", **fields}]},
        live=client,
        minimal={"redirectUris": ["https://app.example.org/*"]},
        full={
            "name": "The application",
            "description": "An application",
            "rootUrl": "https://app.example.org",
            "baseUrl": "/home",
            "adminUrl": "https://app.example.org/admin",
            "redirectUris": ["https://app.example.org/b", "https://app.example.org/a"],
            "webOrigins": ["https://app.example.org", "+"],
            "publicClient": True,
            "standardFlowEnabled": True,
            "implicitFlowEnabled": True,
            "directAccessGrantsEnabled": True,
            "consentRequired": True,
            "fullScopeAllowed": False,
            "attributes": {"pkce.code.challenge.method": "S256", "post.logout.redirect.uris": "+"},
            "protocolMappers": [mapper("first", "office"), mapper("second", "floor")],
            "defaultClientScopes": ["profile", "email", "basic"],
            "optionalClientScopes": ["address"],
        },
        changed={
            "name": "The programme",
            "description": "A programme",
            "rootUrl": "https://two.example.org",
            "baseUrl": "/start",
            "adminUrl": "https://two.example.org/admin",
            "redirectUris": ["https://app.example.org/a", "https://app.example.org/c"],
            "webOrigins": ["https://app.example.org"],
            "publicClient": False,
            "standardFlowEnabled": False,
            "implicitFlowEnabled": False,
            "directAccessGrantsEnabled": False,
            "consentRequired": False,
            "fullScopeAllowed": True,
            "attributes": {"pkce.code.challenge.method": "plain", "post.logout.redirect.uris": "https://x/"},
            "protocolMappers": [mapper("first", "desk"), mapper("third", "floor")],
            "defaultClientScopes": ["profile", "roles"],
            "optionalClientScopes": ["email", "phone"],
        },
        cleared={"name": None, "description": None, "baseUrl": None},
        by_hand=lambda realm: edit_client(realm, description="By hand", redirectUris=["https://evil.example.org/*"]),
        damaged=("description", "redirectUris"),
        single=("client", "app"),
    ),
    "SAML client": Kind(
        key="client/urn:app",
        declare=lambda fields: {"clients": [{"clientId": "urn:app", "protocol": "saml", **fields}]},
        live=lambda realm: client(realm, "urn:app"),
        minimal={"redirectUris": ["https://saml.example.org/*"]},
        full={
            "name": "A SAML application",
            "redirectUris": ["https://saml.example.org/*"],
            "adminUrl": "https://saml.example.org/saml",
            "frontchannelLogout": True,
            "attributes": {
                "saml.assertion.signature": "true",
                "saml.client.signature": "true",
                "saml.signing.certificate": CERTIFICATE,
                "saml_name_id_format": "email",
                "saml_assertion_consumer_url_post": "https://saml.example.org/acs",
            },
            "protocolMappers": [mapper("first", "office", "saml"), mapper("second", "floor", "saml")],
        },
        changed={
            "name": "Another SAML application",
            "redirectUris": ["https://saml.example.org/x"],
            "adminUrl": "https://saml.example.org/other",
            "frontchannelLogout": False,
            "attributes": {
                "saml.assertion.signature": "false",
                "saml.client.signature": "false",
                "saml_name_id_format": "username",
                "saml_assertion_consumer_url_post": "https://saml.example.org/acs2",
            },
            "protocolMappers": [mapper("first", "desk", "saml")],
        },
        cleared={"name": None, "adminUrl": None},
        by_hand=lambda realm: remap(realm, f"clients/{client(realm, 'urn:app')['id']}", **{"user.attribute": "x"}),
        damaged=("protocolMappers",),
        single=("client", "urn:app"),
    ),
    "protocol mapper of a client": Kind(
        key="client/app",
        declare=lambda fields: {"clients": [{"clientId": "app", "redirectUris": ["https://a/"], **fields}]},
        live=client,
        minimal={"protocolMappers": [mapper("first", "office")]},
        full={"protocolMappers": [mapper("first", "office"), mapper("second", "floor")]},
        changed={"protocolMappers": [mapper("second", "floor")]},
        cleared={"protocolMappers": []},
        by_hand=lambda realm: remap(realm, f"clients/{client(realm)['id']}", **{"claim.name": "by_hand"}),
        damaged=("protocolMappers",),
    ),
    "authorization of a client": Kind(
        key="client/app",
        declare=lambda fields: {
            "clients": [
                {
                    "clientId": "app",
                    "redirectUris": ["https://a/"],
                    "serviceAccountsEnabled": True,
                    "authorizationServicesEnabled": True,
                    **fields,
                }
            ]
        },
        live=authorized,
        minimal={"authorizationServicesEnabled": True},
        full={"authorizationSettings": authorization("/print", "ENFORCING", "AFFIRMATIVE")},
        changed={"authorizationSettings": authorization("/paper", "PERMISSIVE", "UNANIMOUS")},
        cleared={},
        by_hand=lambda realm: realm.edit(
            f"clients/{client(realm)['id']}/authz/resource-server", policyEnforcementMode="DISABLED"
        ),
        damaged=("authorizationSettings",),
    ),
    "client scope": Kind(
        key="client_scope/scope",
        declare=lambda fields: {"clientScopes": [{"name": "scope", "protocol": "openid-connect", **fields}]},
        live=scope,
        minimal={},
        full={
            "description": "A scope",
            "attributes": {"include.in.token.scope": "true", "display.on.consent.screen": "true"},
            "protocolMappers": [mapper("first", "office"), mapper("second", "floor")],
        },
        changed={
            "description": "Another scope",
            "attributes": {"include.in.token.scope": "false", "display.on.consent.screen": "false"},
            "protocolMappers": [mapper("first", "desk")],
        },
        cleared={"description": None, "protocolMappers": []},
        by_hand=lambda realm: remap(realm, f"client-scopes/{scope(realm)['id']}", **{"claim.name": "by_hand"}),
        damaged=("protocolMappers",),
        single=("client_scope", "scope"),
    ),
}

# -- roles, groups, people -------------------------------------------------------------------------


def role(realm, path):
    """Return a role with what it consists of, as in a RealmRepresentation."""
    composites = realm.hand("GET", f"{path}/composites")
    names = {entry["id"]: entry["clientId"] for entry in realm.hand("GET", "clients")}
    split: dict = {"realm": [], "client": {}}
    for entry in composites:
        if entry["clientRole"]:
            split["client"].setdefault(names[entry["containerId"]], []).append(entry["name"])
        else:
            split["realm"].append(entry["name"])
    return {**realm.hand("GET", path), "composites": split}


def app_role(realm):
    return f"clients/{client(realm)['id']}/roles/viewer"


def granted(realm, path):
    """Return the roles of a user or group, as in a RealmRepresentation."""
    found = realm.hand("GET", f"{path}/role-mappings")
    return {
        "realmRoles": [
            entry["name"] for entry in found.get("realmMappings", []) if not entry["name"].startswith("default-roles-")
        ],
        "clientRoles": {
            name: [entry["name"] for entry in mapping["mappings"]]
            for name, mapping in found.get("clientMappings", {}).items()
        },
    }


def group(realm, path="lab"):
    found = realm.hand("GET", f"group-by-path/{path}")
    return {**found, **granted(realm, f"groups/{found['id']}"), "id": found["id"]}


def user(realm, name="ada"):
    found = realm.hand("GET", "users", username=name, exact="true")[0]
    memberships = [entry["path"] for entry in realm.hand("GET", f"users/{found['id']}/groups")]
    return {**found, **granted(realm, f"users/{found['id']}"), "groups": memberships}


def edit_user(realm, **fields):
    """Change a user by hand."""
    path = f"users/{user(realm)['id']}"
    realm.hand("PUT", path, {**realm.hand("GET", path), **fields})


ROLES = {
    "clients": [{"clientId": "app", "redirectUris": ["https://app.example.org/*"]}],
    "roles": {
        "realm": [{"name": "reader"}, {"name": "writer"}],
        "client": {"app": [{"name": "user"}, {"name": "admin"}]},
    },
}
GRANTS = {"realmRoles": ["reader"], "clientRoles": {"app": ["user", "admin"]}}
OTHER_GRANTS = {"realmRoles": ["writer"], "clientRoles": {"app": ["user"]}}

PEOPLE = {
    "realm role": Kind(
        key="role/boss",
        declare=lambda fields: {"roles": {"realm": [{"name": "boss", **fields}]}},
        live=lambda realm: role(realm, "roles/boss"),
        beside=ROLES,
        minimal={},
        full={
            "description": "The boss",
            "attributes": {"floor": ["3"], "rooms": ["a", "b"]},
            "composites": {"realm": ["reader", "writer"], "client": {"app": ["admin"]}},
        },
        changed={
            "description": "A boss",
            "attributes": {"floor": ["4"], "rooms": ["b", "c"]},
            "composites": {"realm": ["reader"], "client": {"app": ["user"]}},
        },
        cleared={"description": None, "attributes": {}, "composites": {"realm": [], "client": {}}},
        by_hand=lambda realm: realm.edit("roles/boss", description="By hand"),
        damaged=("description",),
        single=("role", "boss"),
    ),
    "client role": Kind(
        key="client_role/app:viewer",
        declare=lambda fields: {"roles": {"client": {"app": [{"name": "viewer", **fields}]}}},
        live=lambda realm: role(realm, app_role(realm)),
        beside=ROLES,
        minimal={},
        full={
            "description": "Looks",
            "attributes": {"floor": ["3"]},
            "composites": {"realm": ["reader"], "client": {"app": ["user"]}},
        },
        changed={
            "description": "Watches",
            "attributes": {"floor": ["4"]},
            "composites": {"realm": ["writer"], "client": {"app": ["admin"]}},
        },
        cleared={"description": None, "attributes": {}},
        by_hand=lambda realm: realm.edit(app_role(realm), attributes={"floor": ["by hand"]}),
        damaged=("attributes",),
        single=("client_role", "app:viewer"),
    ),
    "group": Kind(
        key="group/lab",
        declare=lambda fields: {"groups": [{"name": "lab", **fields}]},
        live=group,
        beside=ROLES,
        minimal={},
        full={"attributes": {"gid": ["30001"], "rooms": ["a", "b"]}, **GRANTS},
        changed={"attributes": {"gid": ["30002"], "rooms": ["b", "c"]}, **OTHER_GRANTS},
        cleared={"attributes": {}, "realmRoles": [], "clientRoles": {}},
        by_hand=lambda realm: realm.edit(f"groups/{group(realm)['id']}", attributes={"gid": ["0"]}),
        damaged=("attributes",),
        single=("group", "/lab"),
    ),
    "subgroup": Kind(
        key="group/lab/cold",
        single=("group", "/lab/cold"),
        declare=lambda fields: {"groups": [{"name": "lab", "subGroups": [{"name": "cold", **fields}]}]},
        live=lambda realm: group(realm, "lab/cold"),
        beside=merged(ROLES, {"groups": [{"name": "lab"}]}),
        minimal={},
        full={"attributes": {"gid": ["30001"]}, **GRANTS},
        changed={"attributes": {"gid": ["30002"]}, **OTHER_GRANTS},
        cleared={"attributes": {}, "realmRoles": []},
        by_hand=lambda realm: realm.hand(
            "DELETE",
            f"groups/{group(realm, 'lab/cold')['id']}/role-mappings/realm",
            [realm.hand("GET", "roles/reader")],
        ),
        damaged=("realmRoles",),
    ),
    "user": Kind(
        key="user/ada",
        declare=lambda fields: {"users": [{"username": "ada", "enabled": True, **fields}]},
        live=user,
        beside=merged(ROLES, UNMANAGED, {"groups": [{"name": "lab", "subGroups": [{"name": "cold"}]}, {"name": "x"}]}),
        minimal={},
        full={
            "email": "ada@example.org",
            "emailVerified": True,
            "firstName": "Ada",
            "lastName": "Lovelace",
            "attributes": {"office": ["1"], "phones": ["12", "34"]},
            "requiredActions": ["UPDATE_PASSWORD", "CONFIGURE_TOTP"],
            "groups": ["/lab/cold", "/x"],
            **GRANTS,
        },
        changed={
            "email": "king@example.org",
            "emailVerified": False,
            "firstName": "Augusta",
            "lastName": "King",
            "attributes": {"office": ["2"], "phones": ["34"]},
            "requiredActions": ["UPDATE_PROFILE"],
            "groups": ["/lab"],
            **OTHER_GRANTS,
        },
        cleared={
            "email": None,
            "firstName": None,
            "attributes": {},
            "requiredActions": [],
            "groups": [],
            "realmRoles": [],
            "clientRoles": {},
        },
        by_hand=lambda realm: edit_user(realm, firstName="By hand", enabled=False, requiredActions=[]),
        damaged=("firstName", "enabled", "requiredActions"),
        single=("user", "ada"),
    ),
}

# -- identity providers ----------------------------------------------------------------------------


def provider(realm, name="partner"):
    return realm.hand("GET", f"identity-provider/instances/{name}")


def provider_mapper(realm):
    return realm.hand("GET", "identity-provider/instances/partner/mappers")[0]


def edit_provider_mapper(realm):
    entry = provider_mapper(realm)
    entry["config"]["attribute"] = "by hand"
    realm.hand("PUT", f"identity-provider/instances/partner/mappers/{entry['id']}", entry)


def oidc(**config):
    return {
        "clientId": "us",
        "authorizationUrl": "https://partner.example.org/authorize",
        "tokenUrl": "https://partner.example.org/token",
        **config,
    }


OIDC = {"alias": "partner", "providerId": "oidc", "config": oidc()}

PROVIDERS = {
    "OIDC identity provider": Kind(
        key="identity_provider/partner",
        declare=lambda fields: {"identityProviders": [{"alias": "partner", "providerId": "oidc", **fields}]},
        live=provider,
        minimal={"config": oidc()},
        full={
            "displayName": "Partner",
            "enabled": True,
            "trustEmail": True,
            "storeToken": True,
            "linkOnly": True,
            "firstBrokerLoginFlowAlias": "first broker login",
            "config": oidc(defaultScope="openid email", syncMode="FORCE", validateSignature="false"),
        },
        changed={
            "displayName": "Colleague",
            "enabled": False,
            "trustEmail": False,
            "storeToken": False,
            "linkOnly": False,
            "firstBrokerLoginFlowAlias": "browser",
            "config": oidc(
                defaultScope="openid",
                syncMode="IMPORT",
                validateSignature="true",
                useJwksUrl="true",
                jwksUrl="https://p/k",
            ),
        },
        cleared={"displayName": None},
        by_hand=lambda realm: realm.edit("identity-provider/instances/partner", trustEmail=False, enabled=False),
        damaged=("trustEmail", "enabled"),
        single=("identity_provider", "partner"),
    ),
    "SAML identity provider": Kind(
        key="identity_provider/partner",
        declare=lambda fields: {"identityProviders": [{"alias": "partner", "providerId": "saml", **fields}]},
        live=provider,
        minimal={"config": {"singleSignOnServiceUrl": "https://partner.example.org/sso", "entityId": "us"}},
        full={
            "displayName": "Partner",
            "config": {
                "singleSignOnServiceUrl": "https://partner.example.org/sso",
                "entityId": "us",
                "nameIDPolicyFormat": "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
                "postBindingResponse": "true",
                "validateSignature": "false",
            },
        },
        changed={
            "displayName": "Colleague",
            "config": {
                "singleSignOnServiceUrl": "https://partner.example.org/sso2",
                "entityId": "we",
                "nameIDPolicyFormat": "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
                "postBindingResponse": "false",
                "validateSignature": "false",
            },
        },
        cleared={"displayName": None},
        by_hand=lambda realm: realm.edit("identity-provider/instances/partner", displayName="By hand"),
        damaged=("displayName",),
        single=("identity_provider", "partner"),
    ),
    "identity provider mapper": Kind(
        key="identity_provider_mapper/partner:attr",
        declare=lambda fields: {
            "identityProviderMappers": [
                {
                    "name": "attr",
                    "identityProviderAlias": "partner",
                    "identityProviderMapper": "hardcoded-attribute-idp-mapper",
                    **fields,
                }
            ]
        },
        live=provider_mapper,
        beside={"identityProviders": [OIDC]},
        minimal={"config": {"attribute": "from", "attribute.value": "partner"}},
        full={"config": {"attribute": "from", "attribute.value": "partner", "syncMode": "INHERIT"}},
        changed={"config": {"attribute": "origin", "attribute.value": "colleague", "syncMode": "FORCE"}},
        cleared={},
        by_hand=edit_provider_mapper,
        damaged=("config",),
    ),
}

# -- keys, flows, policies, organizations ----------------------------------------------------------


def component(realm, name):
    return one(realm.hand("GET", "components"), "name", name)


def flow(realm, alias="ours"):
    """Return a flow with its executions, as in a RealmRepresentation but for what is in its sub-flows."""
    found = one(realm.hand("GET", "authentication/flows"), "alias", alias)
    rows = realm.hand("GET", f"authentication/flows/{alias}/executions")
    return {
        **found,
        "authenticationExecutions": [
            {
                "authenticatorFlow": row.get("authenticationFlow", False),
                "flowAlias" if row.get("authenticationFlow") else "authenticator": row.get("providerId")
                or row["displayName"],
                "requirement": row["requirement"],
                "priority": row["priority"],
            }
            for row in rows
            if row["level"] == 0
        ],
    }


def edit_execution(realm):
    row = realm.hand("GET", "authentication/flows/ours/executions")[0]
    realm.hand("PUT", "authentication/flows/ours/executions", {**row, "requirement": "DISABLED"})


def execution(name, requirement="REQUIRED", priority=10, **more):
    """Return an execution of an authenticator, or of the flow ``flowAlias``."""
    kind = {"flowAlias": name} if more.get("authenticatorFlow") else {"authenticator": name}
    return {"authenticatorFlow": False, "requirement": requirement, "priority": priority, **kind, **more}


def ours(*executions, **fields):
    return {"alias": "ours", "providerId": "basic-flow", "topLevel": True, "builtIn": False,
            "authenticationExecutions": list(executions), **fields}  # fmt: skip


def theirs(*executions):
    return {**ours(*executions), "alias": "form", "topLevel": False}


def organization(realm, name="physics"):
    found = one(realm.hand("GET", "organizations", search=name), "name", name)
    return realm.hand("GET", f"organizations/{found['id']}") if found else {}


def policy(**fields):
    return {
        "name": "strict",
        "enabled": True,
        "conditions": [{"condition": "client-access-type", "configuration": {"type": ["public"]}}],
        "profiles": ["pkce"],
        **fields,
    }


def policies(realm):
    profiles = realm.hand("GET", "client-policies/profiles")["profiles"]
    return {
        "clientProfiles": {"profiles": profiles},
        "clientPolicies": {"policies": realm.hand("GET", "client-policies/policies")["policies"]},
    }


PKCE = {
    "name": "pkce",
    "description": "",
    "executors": [{"executor": "pkce-enforcer", "configuration": {"auto-configure": "true"}}],
}

SERVER = {
    "key provider": Kind(
        key="component/KeyProvider/signing",
        declare=lambda fields: {"components": {KEYS: [{"name": "signing", "providerId": "rsa-generated", **fields}]}},
        live=lambda realm: component(realm, "signing"),
        minimal={"config": {"priority": ["110"]}},
        full={"config": {"priority": ["120"], "keySize": ["2048"], "active": ["true"], "algorithm": ["RS256"]}},
        changed={"config": {"priority": ["130"], "keySize": ["2048"], "active": ["false"], "algorithm": ["RS256"]}},
        cleared={},
        by_hand=lambda realm: realm.edit(
            f"components/{component(realm, 'signing')['id']}",
            config={**component(realm, "signing")["config"], "priority": ["1"]},
        ),
        damaged=("config",),
    ),
    "authentication flow": Kind(
        key="flow/ours",
        declare=lambda fields: {
            "authenticationFlows": [
                {"alias": "ours", "providerId": "basic-flow", "topLevel": True, "builtIn": False, **fields}
            ]
        },
        live=flow,
        minimal={"authenticationExecutions": [execution("auth-cookie", "ALTERNATIVE")]},
        full={
            "description": "Ours",
            "authenticationExecutions": [
                execution("auth-cookie", "ALTERNATIVE"),
                execution("auth-username-password-form", "ALTERNATIVE", 20),
            ],
        },
        changed={
            "description": "Our own",
            "authenticationExecutions": [
                execution("auth-username-password-form", "REQUIRED", 10),
                execution("auth-otp-form", "DISABLED", 20),
            ],
        },
        cleared={"description": None},
        by_hand=edit_execution,
        damaged=("authenticationExecutions",),
        single=("flow", "ours"),
    ),
    "required action": Kind(
        key="required_action/TERMS_AND_CONDITIONS",
        given=True,
        declare=lambda fields: {"requiredActions": [{"alias": "TERMS_AND_CONDITIONS", **fields}]},
        live=lambda realm: realm.hand("GET", "authentication/required-actions/TERMS_AND_CONDITIONS"),
        minimal={"enabled": True},
        full={"name": "Our terms", "enabled": True, "defaultAction": True, "priority": 5},
        changed={"name": "Terms", "enabled": False, "defaultAction": False, "priority": 15},
        cleared={},
        by_hand=lambda realm: realm.edit("authentication/required-actions/TERMS_AND_CONDITIONS", enabled=False),
        damaged=("enabled",),
        single=("required_action", "TERMS_AND_CONDITIONS"),
    ),
    "client policies": Kind(
        key="realm",
        given=True,
        declare=dict,
        live=policies,
        minimal={"clientProfiles": {"profiles": [PKCE]}},
        full={"clientProfiles": {"profiles": [PKCE]}, "clientPolicies": {"policies": [policy()]}},
        changed={
            "clientProfiles": {"profiles": [{**PKCE, "description": "PKCE"}]},
            "clientPolicies": {"policies": [policy(enabled=False, description="off")]},
        },
        cleared={},
        by_hand=lambda realm: realm.hand("PUT", "client-policies/policies", {"policies": []}),
        damaged=("clientPolicies",),
    ),
    "organization": Kind(
        key="organization/physics",
        declare=lambda fields: {"organizations": [{"name": "physics", **fields}]},
        live=organization,
        beside={"organizationsEnabled": True},
        minimal={"domains": [{"name": "physics.example.org"}]},
        full={
            "enabled": True,
            "description": "Physics",
            "redirectUrl": "https://physics.example.org/",
            "attributes": {"budget": ["1"]},
            "domains": [{"name": "physics.example.org", "verified": True}, {"name": "p.example.org"}],
        },
        changed={
            "enabled": False,
            "description": "All of physics",
            "redirectUrl": "https://physics.example.org/home",
            "attributes": {"budget": ["2"]},
            "domains": [{"name": "physics.example.org", "verified": False}],
        },
        cleared={"description": None, "redirectUrl": None, "attributes": {}},
        by_hand=lambda realm: realm.edit(f"organizations/{organization(realm)['id']}", description="By hand"),
        damaged=("description",),
        single=("organization", "physics"),
    ),
}

KINDS = REALM | CLIENTS | PEOPLE | PROVIDERS | SERVER

# Of the same name as another.
ALIKE = ("user profile", "protocol mapper of a client", "authorization of a client", "SAML identity provider")
#: A realm with all of these in it.
EVERYTHING = merged(*(kind.representation(kind.full) for name, kind in KINDS.items() if name not in ALIKE))

# -- what tests have in common ----------------------------------------------------------------------

URIS = {"redirectUris": ["https://x/"]}
GONE = {"old": "present", "new": "absent"}
APP = {"clientId": "app", "redirectUris": ["https://app.example.org/*"]}
DIRECT = {**APP, "publicClient": True, "directAccessGrantsEnabled": True}


def person(name, **fields):
    """Return a user who can sign in at once."""
    return {
        "username": name,
        "enabled": True,
        "email": f"{name}@example.org",
        "emailVerified": True,
        "firstName": name.title(),
        "lastName": "Example",
        **fields,
    }


def password(value, temporary=False):
    return {"credentials": [{"type": "password", "value": value, "temporary": temporary}]}


def login(realm, name, secret, **options):
    return realm.keycloak.grant(realm.name, client_id="app", username=name, password=secret, **options)


def listed(path, field):
    """Return what lists the names of a kind of object in Keycloak."""
    return lambda realm: {entry[field] for entry in realm.hand("GET", path)}


def named(*names, part="clients", **fields):
    field = {"clients": "clientId", "users": "username", "identityProviders": "alias"}.get(part, "name")
    return {part: [{field: name, **fields} for name in names]}


LDAP = "org.keycloak.storage.UserStorageProvider"


def directory(secret):
    config = {
        "vendor": ["other"],
        "connectionUrl": ["ldap://127.0.0.1:389"],
        "usersDn": ["ou=people,dc=example,dc=org"],
        "authType": ["simple"],
        "bindDn": ["cn=admin,dc=example,dc=org"],
        "bindCredential": [secret],
        "editMode": ["READ_ONLY"],
        "usernameLDAPAttribute": ["uid"],
        "rdnLDAPAttribute": ["uid"],
        "uuidLDAPAttribute": ["entryUUID"],
        "userObjectClasses": ["inetOrgPerson"],
    }
    return {"components": {LDAP: [{"name": "directory", "providerId": "ldap", "config": config}]}}

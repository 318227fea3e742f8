"""
A Keycloak realm as declared data: settings, clients, scopes, roles, groups, users, providers, flows.

The declared form is Keycloak's own RealmRepresentation, as ``kc.sh export`` and :func:`export` print it, so an
exported realm can be declared as it is::

    passwordPolicy: length(12)
    roles: {realm: [{name: admin}], client: {grafana: [{name: editor}]}}
    groups: [{name: physics, attributes: {gid: [30001]}, subGroups: [{name: lab, realmRoles: [admin]}]}]
    clients: [{clientId: grafana, redirectUris: ["https://x/*"], secret: ..., protocolMappers: [...]}]
    users: [{username: ada, email: ada@x.org, groups: [/physics/lab],
             credentials: [{type: password, value: ..., temporary: true}]}]
    components: {org.keycloak.storage.UserStorageProvider: [{name: ldap, providerId: ldap, config: {...}}]}

What is compared
    Only what is declared. A list that is declared is the whole list (redirectUris, protocolMappers, a user's
    groups); of a mapping (attributes, config) only the keys that are declared are compared; ``null`` clears.
    Roles (``clientRoles``, ``composites``) are whole where declared; a user's ``clientRoles`` are looked at in
    the clients that any declared user or ``roles.client`` names. Keys this module does not know are passed to
    Keycloak and compared in the same way. ``credentials`` of a user are used when the user is made, and never
    looked at again; federated users are never removed. Of ``authorizationSettings`` nothing is removed, and
    what is declared no longer is told as an error. Flows below others are part of the flow at the top.

Names
    Groups are told apart by their place in the tree. A path names one where a slash within a name is written
    ``~/`` and a ``~`` before a slash or at a name's end ``~~``: ``/app ~/ org1/lab`` is the group ``lab`` below
    ``app / org1``. Keycloak's own paths, which escape nothing unless it is started with an option, are accepted
    where they mean one group. ``client:role`` is written in the same way, with ``~:`` for a colon in a name.

Ownership
    What this module makes carries the attribute ``managed-by: salt`` (clients, client scopes, roles, groups,
    users, organizations). For users the user profile gets an attribute of this name that only administrators
    see. The rest (providers, mappers, flows) is listed by id in the realm's attribute ``managed-by.salt``.
    ``purge: owned`` removes only that; ``all`` also what was made by hand, but never what Keycloak itself made,
    and of components only what is ours.

Secrets
    Where Keycloak answers ``**********``, the value that was last applied is remembered as a salted scrypt hash,
    tied to the object's id, in the realm's attribute ``managed-by.salt.secrets``; so a change by hand of such
    a secret is not seen. ``**********`` declared leaves the secret as it is; ``${vault.x}`` passes through.

How it reads and writes
    One ``partial-export`` brings all but users, organizations and client secrets, which come in pages. Who is
    in which group or role is asked for each group and role, or for each user, whichever is fewer. Keycloak's
    time for one answer grows with the square of its size until its caches are warm (26.7: 500 clients 7 s in
    one page, 2 s in pages of 100), so full representations come in small pages, clients before the export,
    which then finds them in the cache. A page of a role's users costs 1 s with 10,000 of them, so those are large.
    New roles, groups, clients and users go through ``partialImport``, which makes many in one transaction; if
    that is refused, one by one, so that the error names the object and the others get made. A flow that
    changes is built beside the old one and takes its place when it is complete. A federation is only ever
    updated in place: making it anew would remove its users.

After writing, the realm is read again; what still differs is an error.

Source: Keycloak's Admin REST API; RealmRepresentation and those in it.
"""

import base64
import copy
import hashlib
import hmac
import json
import os
import re
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import requests
import requests.adapters
from salt.exceptions import CommandExecutionError

__salt__: dict

MARK, OWNER = "managed-by", "salt"  # an attribute of what this module made
LEDGER, HASHES = "managed-by.salt", "managed-by.salt.secrets"  # attributes of the realm, for the rest
MASK = "**********"  # what Keycloak answers instead of a secret
PAGE, SMALL_PAGE = 1000, 100  # brief representations, full ones
MEMBERS = 5000  # of a group or role: Keycloak sorts all of them for each page, 1 s with 10,000
BATCH = 100  # objects in one partialImport; fewer if each has a password, which takes Keycloak 50 ms to hash
THREADS = 4
SLOW = 300  # seconds for one answer
CONNECTION = {
    "url": None,  # http://127.0.0.1:8080/auth
    "realm": "master",  # where the service account is
    "client_id": "salt",
    "client_secret": None,
    "ca": None,  # file of certificates to trust; default: the operating system's
    "timeout": 60,  # seconds to wait for Keycloak
}
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

__load__ = ["apply", "diff", "export"]  # the rest is for tests and for these


def __virtual__():
    # Always there: a missing Keycloak is said by the call that needs it.
    return True


# -- values: what is declared, and what Keycloak answers, in one canonical form ---------------------


class _Refused(ValueError):
    """A declared value is not what its field allows; the first argument is a path below the field."""

    def __init__(self, allowed, path=""):
        super().__init__(allowed)
        self.path = path


class Whole(dict):
    """A mapping that is declared as a whole: a key that is not there is declared not to be there."""


class Named(Whole):
    """A list of objects, keyed by the field that names them."""

    def __init__(self, identity, objects=()):
        super().__init__(objects)
        self.identity = identity

    def __deepcopy__(self, memo):
        return Named(self.identity, {key: copy.deepcopy(value, memo) for key, value in self.items()})


def joined(names, separator):
    """Return one key for the names of an object and of those above it; ``~`` escapes a separator in a name; pure."""
    return separator.join(re.sub(rf"{separator}|~(?=[~{separator}]|\Z)", r"~\g<0>", name) for name in names)


def split(key, separator):
    """Return the names in a key of :func:`joined`; pure."""
    words = re.findall(rf"(?:^|{separator})((?:~[~{separator}]|[^{separator}])*)", key)
    return [re.sub(rf"~([~{separator}])", r"\1", word) for word in words]


class Spellings:
    """
    The texts that may name an object whose key is :func:`joined`.

    A key names one object; a text without escapes may name several. Keycloak's own paths of groups are such
    texts: it escapes a slash in a name only when its option ``escape-slashes-in-group-path`` is set.
    """

    def __init__(self, separator, keys):
        self.separator, self.keys, self.texts = separator, set(keys), defaultdict(set)
        for key in self.keys:
            names = split(key, separator)
            for words in (names, [name.replace(separator, f"~{separator}") for name in names]):
                self.texts[separator.join(words)].add(key)

    def find(self, text):
        """Return the keys that a text may mean: one, none or several."""
        if text in self.keys:
            return {text}
        return self.texts.get(text) or {joined(filter(None, split(text, self.separator)), self.separator)} & self.keys


def _scalar(value):
    return isinstance(value, (str, int, float))


def _text(value):
    """A text; YAML has numbers and booleans where Keycloak keeps text."""
    if value is not None and not _scalar(value):
        raise _Refused("text")
    return str(value).lower() if isinstance(value, bool) else value if value is None else str(value)


def _lower(value):
    return value and _text(value).lower()


def _flag(value):
    if value not in (None, True, False, "true", "false"):
        raise _Refused("true or false")
    return value in (True, "true")


def _number(value):
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise _Refused("a whole number")
    return value


def _sequence(value):
    if not isinstance(value or [], list) or not all(map(_scalar, value or [])):
        raise _Refused("a list of texts")
    return [_text(entry) for entry in value or []]


def _names(value):
    return sorted(set(_sequence(value)))


def _own_roles(value):
    """Realm roles of a user, who has the default role in any case."""
    return [name for name in _names(value) if not name.startswith(DEFAULT_ROLE)]


def _mapping_of(each, kind=dict):
    def mapping(value):
        if not isinstance(value, dict | None):
            raise _Refused("a mapping")
        result = kind()
        for key, entry in (value or {}).items():
            try:
                result[str(key)] = each(entry)
            except _Refused as error:
                raise _Refused(str(error), f".{key}{error.path}") from None
        # None for the whole clears it; {} declares nothing.
        return None if value is None and kind is dict else result

    return mapping


def _list_value(value):
    return None if value is None else _names([value] if _scalar(value) else value)


_texts = _mapping_of(_text)
_lists = _mapping_of(_list_value)


def _client_roles(value):
    return Whole({client: names for client, names in _mapping_of(_names)(value or {}).items() if names})


def _composites(value):
    if not isinstance(value or {}, dict):
        raise _Refused("a mapping with realm and client")
    value = value or {}
    return Whole(realm=_names(value.get("realm")), client=_client_roles(value.get("client")))


def _named(identity, fields=None, required=()):
    """A list of objects that have a name; ``fields`` are those whose values are not just anything."""

    def named(value):
        if not isinstance(value or [], list):
            raise _Refused("a list")
        result = Named(identity)
        for number, entry in enumerate(value or []):
            if not isinstance(entry, dict):
                raise _Refused("a mapping", f"[{number}]")
            name = entry.get(identity)
            if not name or not isinstance(name, str) or name in result:
                raise _Refused("a name of its own", f"[{number}].{identity}")
            for field in required:
                if not isinstance(entry.get(field), str):
                    raise _Refused("text", f"[{number}].{field}")
            result[name] = {}
            for field, declared in entry.items():
                if field not in (identity, "id"):
                    try:
                        result[name][field] = (fields or {}).get(field, _anything)(declared)
                    except _Refused as error:
                        raise _Refused(str(error), f"[{number}].{field}{error.path}") from None
        return result

    return named


_mappers = _named("name", {"config": _texts, "consentRequired": _flag}, ["protocolMapper"])


def _json(text):
    """JSON within a text, as Keycloak writes it: without spaces."""
    try:
        return json.dumps(json.loads(text), separators=(",", ":"), sort_keys=True)
    except ValueError:
        return text


def _anything(value):
    """A value whose shape is Keycloak's business: lists of texts in any order, objects with names by name."""
    if isinstance(value, dict):
        return {str(key): _anything(entry) for key, entry in value.items()}
    if isinstance(value, str) and value[:1] in ("[", "{"):
        return _json(value)
    if not isinstance(value, list):
        return value
    if all(isinstance(entry, dict) for entry in value) and value:
        for identity in ("name", "alias"):
            names = [entry.get(identity) for entry in value]
            if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
                return _named(identity)(value)
        return [_anything(entry) for entry in value]
    return sorted(set(value), key=str) if all(map(_scalar, value)) else value


def _without_mark(value):
    """The user profile's attributes, without the one for this module's mark."""
    attributes = _named("name")(value)
    attributes.pop(MARK, None)
    return attributes


def render(value):
    """Return a canonical value as Keycloak's representation has it; pure."""
    if isinstance(value, Named):
        return [{value.identity: name, **render(entry)} for name, entry in value.items()]
    if isinstance(value, dict):
        return {key: render(entry) for key, entry in value.items() if entry is not None}
    return [render(entry) for entry in value] if isinstance(value, list) else value


def _dict(value):
    return value if isinstance(value, dict) else {}


def same(declared, live):
    """Tell whether what is live is what is declared; both canonical; pure."""
    if isinstance(declared, dict) and (isinstance(live, dict) or not live):
        keys = {*declared, *_dict(live)} if isinstance(declared, Whole) else declared
        return all(same(declared.get(key), _dict(live).get(key)) for key in keys)
    if isinstance(declared, list) and isinstance(live, list) and len(declared) == len(live):
        return all(same(*pair) for pair in zip(declared, live, strict=True))
    # Keycloak leaves out, or answers with, what is nothing; a text "false" is something.
    return declared == live or (not declared and not live)


def merged(live, declared):
    """Return the live value with what is declared put into it; pure."""
    if isinstance(declared, Named):
        return Named(declared.identity, {key: merged(_dict(live).get(key), entry) for key, entry in declared.items()})
    if isinstance(declared, dict) and not isinstance(declared, Whole):
        result = {**_dict(live), **{key: merged(_dict(live).get(key), value) for key, value in declared.items()}}
        return {key: value for key, value in result.items() if value is not None}
    return declared


def parts(declared, live):
    """Return ``(old, new)`` of a field that differs: of mappings just the keys that do; pure."""
    if not isinstance(declared, dict) or (live and not isinstance(live, dict)):
        return render(live), render(declared)
    keys = {**declared, **_dict(live)} if isinstance(declared, Whole) else declared
    differing = [key for key in keys if not same(declared.get(key), _dict(live).get(key))]
    pairs = {key: parts(declared.get(key), _dict(live).get(key)) for key in differing}
    return tuple({key: pair[side] for key, pair in pairs.items()} for side in (0, 1))


# -- what there is in a realm ----------------------------------------------------------------------


class Kind(NamedTuple):
    """One kind of object: where it is declared, how its fields compare, and where Keycloak keeps it."""

    part: str  # of the representation
    name: str  # the field that names it
    fields: dict = {}  # those whose values are not just anything
    ignored: frozenset = frozenset()  # what says nothing or is handled elsewhere
    path: str = ""  # of the collection; of one: {path}/{id}
    at: str = ""  # path of one, if it is another
    key: str = "id"  # what {id} is
    fixed: tuple = ()  # fields that cannot be changed in place
    partial: bool = False  # Keycloak takes a part of the fields for an update
    marked: bool = False  # has attributes for the mark
    clears: Any = None  # what clears a key of a mapping; None: leaving it out does


PROFILE = "org.keycloak.userprofile.UserProfileProvider"
FEDERATION = "org.keycloak.storage.UserStorageProvider"
ROLE = {"composites": _composites, "attributes": _lists, "description": _text}
COMPONENT = {"config": _lists, "providerId": _text}
FLOWS = {
    "browserFlow": "browser",
    "registrationFlow": "registration",
    "directGrantFlow": "direct grant",
    "resetCredentialsFlow": "reset credentials",
    "clientAuthenticationFlow": "clients",
    "dockerAuthenticationFlow": "docker auth",
    "firstBrokerLoginFlow": "first broker login",
}
SCOPES = {"defaultDefaultClientScopes": "default", "defaultOptionalClientScopes": "optional"}
NOISE = frozenset({"id", "containerId", "access", "self"})

KINDS = {
    "realm": Kind(
        "",
        "realm",
        {
            **dict.fromkeys(("attributes", "smtpServer", "browserSecurityHeaders"), _texts),
            "localizationTexts": _mapping_of(_texts),
            **dict.fromkeys((*SCOPES, "defaultGroups", "supportedLocales", "eventsListeners"), _names),
            "webAuthnPolicySignatureAlgorithms": _sequence,
            "webAuthnPolicyPasswordlessSignatureAlgorithms": _sequence,
            **dict.fromkeys((*FLOWS, "displayName", "passwordPolicy", "loginTheme", "sslRequired"), _text),
            "enabled": _flag,
        },
        partial=True,
    ),
    "user_profile": Kind("components", "config", {"attributes": _without_mark}),
    "required_action": Kind(
        "requiredActions", "alias", {"config": _texts, "enabled": _flag, "defaultAction": _flag, "priority": _number},
        path="authentication/required-actions", key="alias",
    ),
    "role": Kind("roles.realm", "name", ROLE, frozenset({"composite", "clientRole"}), "roles", "roles-by-id/{id}",
                 marked=True),
    "client_scope": Kind(
        "clientScopes", "name", {"attributes": _texts, "protocolMappers": _mappers}, path="client-scopes", marked=True,
    ),
    "flow": Kind("authenticationFlows", "alias", fixed=("providerId",)),
    "client": Kind(
        "clients", "clientId",
        {
            **dict.fromkeys(("redirectUris", "webOrigins", "defaultClientScopes", "optionalClientScopes"), _names),
            **dict.fromkeys(("enabled", "publicClient", "bearerOnly", "standardFlowEnabled", "consentRequired"), _flag),
            **dict.fromkeys(("serviceAccountsEnabled", "directAccessGrantsEnabled", "fullScopeAllowed"), _flag),
            "attributes": _texts, "protocolMappers": _mappers, "authenticationFlowBindingOverrides": _texts,
            "secret": _text,
        },
        path="clients", partial=True, marked=True, clears="",
    ),
    "client_role": Kind("roles.client", "name", ROLE, frozenset({"composite", "clientRole"}), "", "roles-by-id/{id}",
                        marked=True),
    "scope_mapping": Kind("scopeMappings", "", {"roles": _names, "clientRoles": _mapping_of(_names)}),
    "group": Kind(
        "groups", "name", {"attributes": _lists, "realmRoles": _names, "clientRoles": _client_roles},
        frozenset({"path", "subGroups", "subGroupCount", "parentId"}), "groups", marked=True,
    ),
    "identity_provider": Kind(
        "identityProviders", "alias", {"config": _texts, "enabled": _flag}, frozenset({"internalId", "types"}),
        "identity-provider/instances", key="alias", fixed=("providerId",),
    ),
    "identity_provider_mapper": Kind(
        "identityProviderMappers", "name", {"config": _texts}, frozenset({"identityProviderAlias"}),
    ),
    "federation": Kind("components", "name", COMPONENT, frozenset({"subComponents", "parentId", "providerType"}),
                       "components", fixed=("providerId",), clears=()),
    "federation_mapper": Kind("components", "name", COMPONENT, frozenset({"subComponents", "parentId", "providerType"}),
                              "components", fixed=("providerId",), clears=()),
    "component": Kind("components", "name", COMPONENT, frozenset({"subComponents", "parentId", "providerType"}),
                      "components", fixed=("providerId", "subType"), clears=()),
    "user": Kind(
        "users", "username",
        {
            **dict.fromkeys(("groups", "requiredActions"), _names),
            **dict.fromkeys(("enabled", "emailVerified"), _flag),
            **dict.fromkeys(("firstName", "lastName"), _text),
            "attributes": _lists, "clientRoles": _client_roles, "email": _lower, "realmRoles": _own_roles,
        },
        frozenset({
            "credentials", "createdTimestamp", "totp", "disableableCredentialTypes", "notBefore", "origin",
            "federatedIdentities", "federationLink", "serviceAccountClientId", "userProfileMetadata", "clientConsents",
        }),
        "users", partial=True, marked=True,
    ),
    "organization": Kind(
        "organizations", "name",
        {
            "attributes": _lists, "domains": _named("name"), "enabled": _flag,
            "members": lambda value: _names([x.get("username") if isinstance(x, dict) else x for x in value or []]),
            "identityProviders": lambda value: _names([x["alias"] if isinstance(x, dict) else x for x in value or []]),
        },
        frozenset({"groups"}), "organizations", fixed=("alias",), marked=True,
    ),
}  # fmt: skip
# Parts of a representation that are no settings of the realm.
NOT_SETTINGS = frozenset(
    {kind.part.partition(".")[0] for kind in KINDS.values()}
    | {"id", "realm", "keycloakVersion", "authenticatorConfig", "clientScopeMappings", "defaultRole", "defaultRoles"}
    | {"federatedUsers", "userFederationProviders", "userFederationMappers", "access"}
)
# What Keycloak makes of itself, and what a new realm therefore has.
BUILT_IN = {
    "client": {
        "account", "account-console", "admin-cli", "admin-permissions", "broker", "realm-management",
        "security-admin-console",
    },
    "client_scope": {
        "acr", "address", "AuthnContextClassRef", "basic", "email", "microprofile-jwt", "offline_access",
        "organization", "phone", "profile", "role_list", "roles", "saml_organization", "service_account",
        "web-origins",
    },
    "role": {"offline_access", "uma_authorization"},
    "flow": set(FLOWS.values()),
}  # fmt: skip
DEFAULT_ROLE = "default-roles-"
REQUIREMENTS = ("REQUIRED", "ALTERNATIVE", "DISABLED", "CONDITIONAL")
PURGE_LIMIT = {"count": 50, "share": 0.25}
SMALL = 5  # so many removals are always within purge_limit:share
SEPARATORS = {"group": "/", "client_role": ":", "identity_provider_mapper": ":", "federation_mapper": ":"}
SECRET = re.compile(r"(?i).*(secret|password|credential|private[._]?key)")


class Live(NamedTuple):
    """A realm: its tree ``{kind: {key: {field: canonical value}}}`` and what is known beside it."""

    tree: dict
    raw: dict = {}  # (kind, key) -> representation
    paths: dict = {}  # (kind, key) -> where it is in the representation
    owned: frozenset = frozenset()  # {(kind, key)}
    twice: frozenset = frozenset()  # components that cannot be told apart
    exists: bool = True
    hashes: dict = {}  # id and field of a masked secret -> its hash
    ledger: tuple = ()  # ids of what is ours and has no attributes
    known: dict = {}  # names that Keycloak knows, of kinds that are no objects of the realm
    told: dict = {}  # the representation it comes from


def default_role(representation):
    """Return the name of the role that holds the roles that everybody has; pure."""
    return f"{DEFAULT_ROLE}{str(representation.get('realm')).lower()}"


def _entries(value, path, errors):
    if not isinstance(value or [], list):
        errors.append(f"{path}: is not a list")
        return
    for number, entry in enumerate(value or []):
        if isinstance(entry, dict):
            yield f"{path}[{number}]", entry
        else:
            errors.append(f"{path}[{number}]: is not a mapping")


def _part(representation, path, errors):
    """Return the mapping at ``path``, ``{}`` if there is none."""
    value = representation
    for word in path.split("/"):
        value = value.get(word) or {}
        if not isinstance(value, dict):
            errors.append(f"{path}: is not a mapping")
            return {}
    return value


def _objects(representation, errors):
    """Yield ``(kind, path, entry, key)`` of all that is in a representation; a missing name makes no key."""
    settings = {key: value for key, value in representation.items() if key not in NOT_SETTINGS}
    if settings:
        yield "realm", "", settings, representation.get("realm") or "realm"
    for path, entry in _entries(_part(representation, "roles", errors).get("realm"), "roles.realm", errors):
        name = entry.get("name")
        if str(name).startswith(DEFAULT_ROLE):  # named after the realm, which may have been another
            name = default_role(representation)
        yield "role", path, {**entry, "name": name}, name
    for client, roles in (_part(representation, "roles", errors).get("client") or {}).items():
        for path, entry in _entries(roles, f"roles.client.{client}", errors):
            yield "client_role", path, entry, _below(client, entry)
    for kind in ("client_scope", "client", "identity_provider", "required_action", "organization", "user"):
        for path, entry in _entries(representation.get(KINDS[kind].part), KINDS[kind].part, errors):
            name = entry.get(KINDS[kind].name)
            yield kind, path, entry, name.lower() if kind == "user" and isinstance(name, str) else name
    for path, entry in _entries(representation.get("identityProviderMappers"), "identityProviderMappers", errors):
        yield "identity_provider_mapper", path, entry, _below(entry.get("identityProviderAlias"), entry)
    yield from _groups(representation.get("groups"), "groups", [], errors)
    yield from _components(_part(representation, "components", errors), errors)
    yield from _scope_mappings(representation, errors)
    yield from _flows(representation, errors)


def _below(owner, entry):
    """Return the key of an object that belongs to another one, ``None`` for an object without a name."""
    return joined((str(owner), str(entry["name"])), ":") if entry.get("name") else None


def _groups(entries, path, above, errors):
    """``above``: the names of the groups above these."""
    for at, entry in _entries(entries, path, errors):
        names = [*above, str(entry["name"])] if entry.get("name") else []
        if not above and entry.get("path"):  # a group of which the one above is not declared with it
            names = _placed(str(entry["path"]), names)
        named = {**entry, "name": entry.get("name") or next(reversed(names), None)}
        yield "group", at, named, joined(names, "/") or None
        if names:
            yield from _groups(entry.get("subGroups"), f"{at}.subGroups", names, errors)


def _placed(path, names):
    """Return the names in the path of a group; ``names`` has the group's own name, if that is declared too."""
    for name in names:
        for form in (joined([name], "/"), name):
            if f"/{path}".endswith(f"/{form}"):
                return [*_placed(path.removesuffix(form), []), name]
    return [name for name in split(path, "/") if name]


def resolve_paths(representation, live, wanted):
    """Put every path that means one group into the form of the groups' keys, in place; tell whether any changed."""
    keys = {*live.tree.get("group", ()), *wanted.tree.get("group", ())}
    above = {key: joined(split(key, "/")[:-1], "/") for key in keys}
    known, changed = Spellings("/", (key for key in keys if above[key] in ("", *keys))), False

    def resolved(path):
        nonlocal changed
        found = known.find(str(path).removeprefix("/")) if str(path).startswith("/") else ()
        new = f"/{next(iter(found))}" if len(found) == 1 else path
        changed |= new != path
        return new

    for entry in representation.get("groups") or []:
        if entry.get("path"):
            entry["path"] = resolved(entry["path"])
    for field, entries in {"defaultGroups": [representation], "groups": representation.get("users") or []}.items():
        for entry in entries:
            if entry.get(field):
                entry[field] = [resolved(path) for path in entry[field]]
    return changed


def resolve_absent(absent, live):
    """Turn the names of the objects in ``absent`` into keys, in place; return the errors in the names."""
    errors = []
    for kind, names in absent.items():
        if kind == "user":
            absent[kind] = {name.lower() for name in names}
        if kind not in SEPARATORS:
            continue
        known, absent[kind] = Spellings(SEPARATORS[kind], live.tree.get(kind, ())), set()
        for name in names:
            found = known.find(name.removeprefix("/") if kind == "group" else name)
            absent[kind] |= found
            if len(found) > 1:
                errors.append(f"absent.{kind}: {name} may be any of {', '.join(sorted(found))}")
    return errors


def _document(entry, path, errors):
    """Return the user profile, which is JSON within the representation."""
    try:
        document = json.loads(entry["config"]["kc.user.profile.config"][0])
        if isinstance(document, dict):
            return document
    except (KeyError, TypeError, ValueError, IndexError):
        pass
    errors.append(f"{path}: is not a list with one JSON document")
    return {}


def _components(components, errors):
    for provider_type, listed in components.items():
        for path, entry in _entries(listed, f"components.{provider_type}", errors):
            if provider_type == PROFILE:
                path += ".config.kc.user.profile.config"  # noqa: PLW2901
                yield "user_profile", path, _document(entry, path, errors), "user_profile"
                continue
            name, provider = entry.get("name"), {"providerType": provider_type}
            if provider_type == FEDERATION:
                yield "federation", path, {**entry, **provider}, name
                for sub_type, listed_below in (entry.get("subComponents") or {}).items():
                    for at, below in _entries(listed_below, f"{path}.subComponents.{sub_type}", errors):
                        yield "federation_mapper", at, {**below, "providerType": sub_type}, _below(name, below)
            else:
                words = (provider_type.rpartition(".")[2], entry.get("subType"), name)
                yield "component", path, {**entry, **provider}, name and "/".join(filter(None, words))


def _scope_mappings(representation, errors):
    """Roles that tokens may carry: realm roles in one list, client roles in one mapping of another shape."""
    found, paths = {}, {}
    lists = [("", "scopeMappings", representation.get("scopeMappings"))]
    by_client = _part(representation, "clientScopeMappings", errors)
    lists += [(client, f"clientScopeMappings.{client}", entries) for client, entries in by_client.items()]
    for client, part, entries in lists:
        for path, entry in _entries(entries, part, errors):
            field = "client" if entry.get("client") else "clientScope"
            key = f"{'client' if field == 'client' else 'client_scope'}/{entry.get(field)}"
            paths.setdefault(key, path)
            fields = found.setdefault(key, {})
            if client:
                fields.setdefault("clientRoles", {})[client] = entry.get("roles")
            else:
                fields["roles"] = entry.get("roles")
    for key, fields in found.items():
        yield "scope_mapping", paths[key], fields, key


def _flows(representation, errors):
    """Yield the flows at the top, with their executions, the flows below them and configurations nested."""
    listed = list(_entries(representation.get("authenticationFlows"), "authenticationFlows", errors))
    flows = {entry.get("alias"): (path, entry) for path, entry in listed}
    configs = {
        entry.get("alias"): entry.get("config")
        for _, entry in _entries(representation.get("authenticatorConfig"), "authenticatorConfig", errors)
    }
    below = {e.get("flowAlias") for _, flow in listed for e in flow.get("authenticationExecutions") or []}

    def executions(path, flow, above):
        result = []
        for at, entry in _entries(flow.get("authenticationExecutions"), f"{path}.authenticationExecutions", errors):
            if entry.get("requirement") not in REQUIREMENTS:
                errors.append(f"{at}.requirement: is not one of {', '.join(REQUIREMENTS)}")
            canonical = {"requirement": entry.get("requirement")}
            alias, config = entry.get("flowAlias"), entry.get("authenticatorConfig")
            if alias and (alias not in flows or alias in above):
                errors.append(f"{at}.flowAlias: {alias} is not a flow declared here, below others only once")
            elif alias:
                path_below, other = flows[alias]
                canonical |= {"flow": alias, "description": other.get("description"),
                              "providerId": other.get("providerId") or "basic-flow",
                              "authenticationExecutions": executions(path_below, other, {*above, alias})}  # fmt: skip
            if entry.get("authenticator"):
                canonical["authenticator"] = entry["authenticator"]
            elif not alias:
                errors.append(f"{at}.authenticator: is missing")
            if config and config not in configs:
                errors.append(f"{at}.authenticatorConfig: {config} is not declared under authenticatorConfig")
            elif config:
                canonical["config"] = {"alias": config, "config": _texts(configs[config])}
            result.append((entry.get("priority") or 0, at, {k: v for k, v in canonical.items() if v}))
        # Where all have a priority, that is the order; else it is that of the list.
        if all(priority for priority, _, _ in result):
            result.sort(key=lambda entry: entry[0])
        return [{**canonical, "path": at} for _, at, canonical in result]

    for path, entry in listed:
        alias = entry.get("alias")
        if not entry.get("topLevel", True) and alias not in below:
            errors.append(f"{path}.topLevel: is false, and no flow declared here has {alias} in it")
        if entry.get("topLevel", alias not in below):
            told = {"authenticationExecutions": executions(path, entry, {alias})}
            yield "flow", path, {key: told.get(key, value) for key, value in entry.items()}, alias


def _plain_flow(fields):
    """Return a flow's fields without what helps only to check or write them."""

    def executions(entries):
        return [
            {k: executions(v) if k == "authenticationExecutions" else v for k, v in entry.items() if k != "path"}
            for entry in entries
        ]

    plain = {key: fields[key] for key in ("description", "providerId", "authenticationExecutions") if key in fields}
    if "authenticationExecutions" in plain:
        plain["authenticationExecutions"] = executions(plain["authenticationExecutions"])
    return plain


def flatten(representation, declared=True):
    """
    Return a representation as :class:`Live`; pure. What is declared and what is live both go through here.

    declared
        Refuse what is malformed or there twice. Otherwise only components that are there twice are noted.

    Raises CommandExecutionError with every path that is wrong and what is allowed there.
    """
    errors, tree, raw, paths, twice = [], {}, {}, {}, set()
    for kind, path, entry, key in _objects(representation, errors):
        objects = tree.setdefault(kind, {})
        name = KINDS[kind].name
        if not isinstance(key, str) or not key or key in objects:
            if declared:
                told = "is there twice" if key in objects else "is missing" if key is None else "is not a name"
                errors.append(f"{path}.{name}: {told}")
            twice.add((kind, key))
            continue
        raw[kind, key], paths[kind, key] = entry, path
        objects[key] = _canonical(kind, entry, path, errors)
    for kind, table in KINDS.items():
        # An empty list declares that there are none.
        federations = _part(representation, "components", errors).get(FEDERATION)
        if kind == "federation" and federations == []:
            tree.setdefault(kind, {})
        if representation.get(table.part) == [] or (kind == "role" and _roles_part(representation).get("realm") == []):
            tree.setdefault(kind, {})
    if declared and errors:
        raise _refusal(representation, errors)
    return Live(tree, raw, paths, twice=frozenset(twice))


def _roles_part(representation):
    return representation["roles"] if isinstance(representation.get("roles"), dict) else {}


def _canonical(kind, entry, path, errors):
    if kind == "flow":
        return _plain_flow(entry)
    table, fields = KINDS[kind], {}
    for field, value in entry.items():
        if field in NOISE or field in table.ignored or field == table.name:
            continue
        try:
            fields[field] = table.fields.get(field, _anything)(value)
        except _Refused as error:
            errors.append(f"{path}.{field}{error.path}: is not {error}".lstrip("."))
    for mark in (MARK, LEDGER, HASHES):
        if isinstance(fields.get("attributes"), dict):
            fields["attributes"].pop(mark, None)
    return fields


def _refusal(representation, errors):
    lines = [f"  - {error}" for error in errors[:50]] + ([f"  and {len(errors) - 50} more"] if errors[50:] else [])
    name = representation.get("realm") if isinstance(representation, dict) else representation
    return CommandExecutionError("\n".join([f"the realm {name} is not right, nothing was changed:", *lines]))


# -- checking --------------------------------------------------------------------------------------


class _Known:
    """The names there will be of each kind, live ones and declared ones, for the checks of references."""

    def __init__(self, live, wanted):
        self.live, self.wanted = live, wanted
        self.names = {kind: {*live.tree.get(kind, ()), *wanted.tree.get(kind, ())} for kind in KINDS}
        if not live.exists:
            for kind, names in BUILT_IN.items():
                self.names[kind] |= names
        self.names["role"].add(default_role({"realm": next(iter(wanted.tree.get("realm", {"": 0})))}))
        self.roles_of = defaultdict(set)
        for name in self.names["client_role"]:
            client, role = split(name, ":")
            self.roles_of[client].add(role)
        self.groups = Spellings("/", self.names["group"])

    def missing(self, field, names, kind, known=None):
        """Yield an error for each name that is not there; a name ``**`` stands for a value of a wrong type."""
        known = self.names[kind] if known is None else known
        for number, name in enumerate(names if isinstance(names, list) else []):
            if name not in known:
                yield f"{field}[{number}]: there is no {kind.replace('_', ' ')} {name}"

    def no_group(self, path):
        """Return the error of a path that does not name one group, with the paths that it may mean."""
        meant = ", ".join(f"/{key}" for key in sorted(self.groups.find(path.removeprefix("/"))))
        return f"there is no group {path}" + (f"; a slash in a name is written ~/, as in {meant}" if meant else "")

    def missing_groups(self, field, paths):
        for number, path in enumerate(paths if isinstance(paths, list) else []):
            if not str(path).startswith("/") or path[1:] not in self.groups.keys:
                yield f"{field}[{number}]: {self.no_group(str(path))}"

    def roles(self, raw, realm_field, client_field):
        realm_roles = [n for n in raw.get(realm_field.rpartition(".")[2]) or [] if not str(n).startswith(DEFAULT_ROLE)]
        yield from self.missing(realm_field, realm_roles, "role")
        for client, roles in (raw.get(client_field.rpartition(".")[2]) or {}).items():
            if client not in self.names["client"]:
                yield f"{client_field}.{client}: there is no client {client}"
            elif self.live.exists or client not in BUILT_IN["client"]:
                yield from self.missing(f"{client_field}.{client}", roles, "client_role", self.roles_of[client])


def _check_realm(key, raw, fields, old, known):
    for field in FLOWS:
        if fields.get(field) and fields[field] not in known.names["flow"]:
            yield f"{field}: there is no flow {fields[field]}"
    for field in SCOPES:
        yield from known.missing(field, raw.get(field), "client_scope")
    yield from known.missing_groups("defaultGroups", raw.get("defaultGroups"))
    profiles = set(fields.get("clientProfiles", {}).get("profiles") or ()) | known.live.known.get("profile", set())
    for number, policy in enumerate((raw.get("clientPolicies") or {}).get("policies") or []):
        yield from known.missing(
            f"clientPolicies.policies[{number}].profiles", policy.get("profiles"), "profile", profiles
        )


def _check_client(key, raw, fields, old, known):
    for field in ("defaultClientScopes", "optionalClientScopes"):
        yield from known.missing(field, raw.get(field), "client_scope")
    whole = {**(old or {}), **fields}
    browser = whole.get("standardFlowEnabled", True) and not whole.get("bearerOnly")
    oidc = whole.get("protocol", "openid-connect") == "openid-connect"
    said = old is None or {"redirectUris", "standardFlowEnabled"} & set(fields)
    if oidc and browser and said and not whole.get("redirectUris") and key not in BUILT_IN["client"]:
        yield "redirectUris: is missing, and without one nobody can log in (or standardFlowEnabled: false)"
    for name, flow in (fields.get("authenticationFlowBindingOverrides") or {}).items():
        if flow and flow not in known.names["flow"]:
            yield f"authenticationFlowBindingOverrides.{name}: there is no flow {flow}"


def _check_role(key, raw, fields, old, known):
    yield from known.roles(raw.get("composites") or {}, "composites.realm", "composites.client")


def _check_client_role(key, raw, fields, old, known):
    yield from _check_role(key, raw, fields, old, known)


def _check_scope_mapping(key, raw, fields, old, known):
    kind, _, name = key.partition("/")
    if name not in known.names[kind]:
        yield f"{'client' if kind == 'client' else 'clientScope'}: there is no {kind.replace('_', ' ')} {name}"
    yield from known.missing("roles", raw.get("roles"), "role")
    for client, roles in (raw.get("clientRoles") or {}).items():
        yield from known.missing("roles", roles, "client_role", known.roles_of[client])


def _check_group(key, raw, fields, old, known):
    yield from known.roles(raw, "realmRoles", "clientRoles")
    *above, name = split(key, "/")
    if above and joined(above, "/") not in known.names["group"]:
        yield f"path: {known.no_group('/' + joined(above, '/'))}"
    if raw.get("path") and raw["name"] != name:
        yield f"path: does not end with the group's name, {raw['name']}"


def _check_user(key, raw, fields, old, known):
    yield from known.roles(raw, "realmRoles", "clientRoles")
    yield from known.missing_groups("groups", raw.get("groups"))
    if "required_action" in known.live.known:
        actions = known.live.known["required_action"] | known.names["required_action"]
        yield from known.missing("requiredActions", raw.get("requiredActions"), "required_action", actions)
    for name in fields.get("attributes") or {} if known.live.known.get("attribute") else ():
        if name not in known.live.known["attribute"]:
            yield f"attributes.{name}: the user profile neither has it nor allows what it does not have"
    for name, limits in known.live.known.get("length", {}).items() if old is None else ():
        value = key if name == "username" else fields.get(name)
        if value and not int(limits.get("min", 0)) <= len(value) <= int(limits.get("max", 2048)):
            yield f"{name}: is shorter or longer than the user profile allows ({json.dumps(limits)})"
    if fields.get("email") and not re.fullmatch(r"[^@\s]+@[^@\s]+", fields["email"]):
        yield "email: is not an address"
    for number, credential in enumerate(raw.get("credentials") or []):
        if not isinstance(credential, dict) or not credential.get("type"):
            yield f"credentials[{number}]: is not a mapping with a type"


def _check_identity_provider(key, raw, fields, old, known):
    if old is None and not isinstance(raw.get("providerId"), str):
        yield "providerId: is missing"
    elif raw.get("providerId") and raw["providerId"] not in known.live.known.get("provider", {raw["providerId"]}):
        yield f"providerId: there is no provider {raw['providerId']}"
    for field in ("firstBrokerLoginFlowAlias", "postBrokerLoginFlowAlias"):
        if fields.get(field) and fields[field] not in known.names["flow"]:
            yield f"{field}: there is no flow {fields[field]}"


def _check_identity_provider_mapper(key, raw, fields, old, known):
    if raw.get("identityProviderAlias") not in known.names["identity_provider"]:
        yield f"identityProviderAlias: there is no identity provider {raw.get('identityProviderAlias')}"
    if old is None and not isinstance(raw.get("identityProviderMapper"), str):
        yield "identityProviderMapper: is missing"


def _check_component(key, raw, fields, old, known):
    if old is None and not fields.get("providerId"):
        yield "providerId: is missing"


def _check_required_action(key, raw, fields, old, known):
    actions = known.live.known.get("required_action")
    if actions and key not in actions and raw.get("providerId") not in actions:
        yield f"alias: there is no required action {key}; there are {', '.join(sorted(actions))}"


def _check_organization(key, raw, fields, old, known):
    yield from known.missing("identityProviders", fields.get("identityProviders"), "identity_provider")


def _check_flow(key, raw, fields, old, known):
    built_in = (known.live.raw.get(("flow", key)) or {}).get("builtIn")
    if old and built_in and "authenticationExecutions" in fields and _shape(fields) != _shape(old):
        yield "authenticationExecutions: a flow that is built in keeps its executions; declare a copy of it"
    providers = known.live.known.get("authenticator")
    for entry in _executions(raw.get("authenticationExecutions") or []) if providers else ():
        if entry.get("authenticator") and entry["authenticator"] not in providers:
            yield f"{entry['path'].removeprefix(known.wanted.paths['flow', key] + '.')}.authenticator: " + (
                f"there is no authenticator {entry['authenticator']}"
            )


def _executions(entries):
    for entry in entries:
        yield entry
        yield from _executions(entry.get("authenticationExecutions") or [])


def _shape(flow):
    """Return a flow without what can be changed in place: requirements, configurations, descriptions."""

    def shape(entries):
        return [(entry.get("authenticator"), entry.get("flow"), shape(entry.get("authenticationExecutions") or []))
                for entry in entries]  # fmt: skip

    return shape(flow["authenticationExecutions"])


CHECKS = {
    "realm": _check_realm, "role": _check_role, "client_role": _check_client_role, "client": _check_client,
    "scope_mapping": _check_scope_mapping, "group": _check_group, "user": _check_user,
    "identity_provider": _check_identity_provider, "identity_provider_mapper": _check_identity_provider_mapper,
    "federation": _check_component, "federation_mapper": _check_component, "component": _check_component,
    "required_action": _check_required_action, "organization": _check_organization, "flow": _check_flow,
}  # fmt: skip


def unique_mail(live, wanted):
    """Tell whether Keycloak refuses to give two users the same mail address; pure."""
    settings = {**dict(*live.tree.get("realm", {}).values()), **dict(*wanted.tree.get("realm", {}).values())}
    return not settings.get("duplicateEmailsAllowed")


def check(live, wanted):
    """Return what is wrong with what is wanted given what is live, as a list of messages; pure."""
    errors, known, emails = [], _Known(live, wanted), {}
    unique = unique_mail(live, wanted)
    for kind, objects in wanted.tree.items():
        for key, fields in objects.items():
            path, old = wanted.paths[kind, key], live.tree.get(kind, {}).get(key)
            found = list(CHECKS[kind](key, wanted.raw[kind, key], fields, old, known)) if kind in CHECKS else []
            if (kind, key) in live.twice:
                found.append(f"{KINDS[kind].name}: Keycloak has two of the name {key}")
            for field in KINDS[kind].fixed if old else ():
                if field in fields and old.get(field) and not same(fields[field], old[field]):
                    found.append(
                        f"{field}: is {old[field]} and cannot become {fields[field]} in place, and nothing is "
                        "removed to be made anew; remove it first if that is meant"
                    )
            for field, value in fields.items():
                if old and isinstance(old.get(field), bool) and not isinstance(value, bool | None):
                    found.append(f"{field}: is not true or false")
            if kind == "client_role" and (client := split(key, ":")[0]) not in known.names["client"]:
                errors.append(f"roles.client.{client}: there is no client {client}")
            if kind == "user" and unique and fields.get("email") and emails.setdefault(fields["email"], path) != path:
                found.append(f"email: {emails[fields['email']]} has the same")
            errors += [f"{path}.{error}".lstrip(".") for error in found]
    return list(dict.fromkeys(errors))


# -- the difference --------------------------------------------------------------------------------


class Change(NamedTuple):
    """One object to ``add``, ``modify`` or ``remove``, with the fields that change."""

    action: str
    kind: str
    key: str
    old: dict
    new: dict

    @property
    def label(self):
        return self.kind if self.kind in ("realm", "user_profile") else f"{self.kind}/{self.key}"


GIVEN = {"realm", "user_profile", "scope_mapping"}  # always there, if only empty


def _applied(declared, live, reference, hashes):
    """Return the live value with masked secrets replaced by the declared ones that were last applied; pure."""
    if isinstance(declared, dict):
        live = live if isinstance(live, dict) else {}
        told = {
            key: _applied(value, live.get(key), f"{reference}.{key}", hashes)
            for key, value in declared.items()
            if key in live or value in (MASK, [MASK])
        }
        return {**live, **told}
    if declared in (MASK, [MASK]):
        return declared  # "leave it as it is"
    if live in (MASK, [MASK]) and declared and reference in hashes and _matches(declared, hashes[reference]):
        return declared
    return live


def _hash(secret, salt=None):
    salt = salt or os.urandom(16)
    text = secret[0] if isinstance(secret, list) else secret
    digest = hashlib.scrypt(text.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
    return f"{base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _matches(secret, hashed):
    return hmac.compare_digest(_hash(secret, base64.b64decode(hashed.partition("$")[0])), hashed)


def _unmasked(value):
    """Return a declared value without masks, for what has no secret yet; pure."""
    if isinstance(value, Named):
        return Named(value.identity, {key: _unmasked(entry) for key, entry in value.items()})
    if isinstance(value, dict):
        return type(value)((k, _unmasked(entry)) for k, entry in value.items() if entry not in (MASK, [MASK]))
    return value


MASKED = ("realm", "client", "identity_provider", "federation", "federation_mapper", "component")


def reference(live, kind, key):
    """Return what the hashes of an object's secrets are kept under; pure."""
    raw = live.raw.get((kind, key)) or {}
    return "realm" if kind == "realm" else str(raw.get("internalId") or raw.get("id"))


def difference(live, wanted, purge="none", absent=None, gone=()):
    """
    Return the list of :class:`Change` that turns what is live into what is wanted; pure.

    Only declared fields are compared. ``purge`` (``none``, ``owned``, ``all``) decides what of the undeclared
    is removed, of the kinds that are declared at all; ``absent``, ``{kind: {key, ...}}``, is removed in any
    case.
    """
    changes = []
    for kind, objects in wanted.tree.items():
        there = live.tree.get(kind, {})
        for key, fields in objects.items():
            old = there.get(key)
            if old is None and (kind not in GIVEN or (not live.exists and kind != "scope_mapping")):
                new = {field: _unmasked(value) for field, value in fields.items() if value is not None}
                changes.append(Change("add", kind, key, {}, new))
                continue
            declared, there_now = _comparable(kind, wanted.raw[kind, key], fields, old or {})
            if kind in MASKED:
                there_now |= _applied(declared, there_now, reference(live, kind, key), live.hashes)
            new = {field: value for field, value in declared.items() if not same(value, there_now.get(field))}
            if new:
                changes.append(Change("modify", kind, key, {field: there_now.get(field) for field in new}, new))
    return changes + _removals(live, wanted, purge, absent or {})


def _comparable(kind, raw, fields, old):
    """Leave out of both sides what cannot be compared."""
    if kind == "client" and {**old, **fields}.get("publicClient"):  # has no secret
        fields = {field: value for field, value in fields.items() if field != "secret"}
    if "requiredActions" in fields and any(entry.get("temporary") for entry in raw.get("credentials") or []):
        # A temporary password brings this action, and it is gone when the user has followed it.
        fields, old = (
            {**side, "requiredActions": [a for a in side.get("requiredActions") or [] if a != "UPDATE_PASSWORD"]}
            for side in (fields, old)
        )
    return fields, dict(old)


# what is removed first
REMOVALS = (
    "organization", "user", "federation_mapper", "federation", "component", "identity_provider_mapper",
    "identity_provider", "group", "client_role", "client", "role", "client_scope", "flow",
)  # fmt: skip
# whose names begin with that of what they belong to
BELOW = {"client": "client_role", "identity_provider": "identity_provider_mapper", "federation": "federation_mapper"}
# what has no attributes for the mark
LISTED = {"flow", "identity_provider", "identity_provider_mapper", "federation", "federation_mapper", "component"}
ONLY_OWNED = {"federation_mapper", "component"}  # Keycloak makes some of these itself, and nothing tells which


def built_in(kind, key, raw):
    """Tell whether Keycloak itself made an object, or needs it, so that no purge removes it; pure."""
    if kind == "client_role":
        return split(key, ":")[0] in BUILT_IN["client"] or key.endswith(":uma_protection")
    if kind == "role" and key.startswith(DEFAULT_ROLE):
        return True
    if kind == "client" and (raw.get("attributes") or {}).get("realm_client") == "true":
        return True
    if kind == "user" and (raw.get("federationLink") or key.startswith("service-account-")):
        return True
    return bool(raw.get("builtIn")) or key in BUILT_IN.get(kind, ())


def _removals(live, wanted, purge, absent):
    gone = {}
    for kind in REMOVALS:
        there = live.tree.get(kind, {})
        gone[kind] = set(there) & set(absent.get(kind, ()))
        if purge != "none" and kind in wanted.tree:
            undeclared = set(there) - set(wanted.tree[kind])
            only_owned = purge == "owned" or kind in ONLY_OWNED
            gone[kind] |= {
                key
                for key in undeclared
                if (not only_owned or (kind, key) in live.owned) and not built_in(kind, key, live.raw[kind, key])
            }
    # A group stays for as long as one below it does; what is below what goes is not told apart.
    staying = (set(live.tree.get("group", ())) | set(wanted.tree.get("group", ()))) - gone["group"]
    above = {joined(names[:n], "/") for names in (split(key, "/") for key in staying) for n in range(1, len(names))}
    gone["group"] -= above - set(absent.get("group", ()))
    for owner, kind in BELOW.items():  # what something is declared of stays, and the rest goes with it
        gone[owner] -= {split(key, ":")[0] for key in wanted.tree.get(kind, ())} - set(absent.get(owner, ()))
        gone[kind] = {key for key in gone[kind] if split(key, ":")[0] not in gone[owner]}
    return [
        Change("remove", kind, key, {}, {})
        for kind in REMOVALS
        for key in sorted(gone[kind], key=lambda k: (-k.count("/"), k))
    ]


def guard(changes, live, wanted, purge_limit=None, absent=None):
    """Raise CommandExecutionError if more would be removed than ``purge_limit`` allows; pure."""
    limit = {**PURGE_LIMIT, **(purge_limit or {})}
    for kind in REMOVALS:
        count = sum(
            c.action == "remove" and c.kind == kind and c.key not in (absent or {}).get(kind, ()) for c in changes
        )
        total = sum(not built_in(kind, key, live.raw[kind, key]) for key in live.tree.get(kind, ()))
        if not count:
            continue
        if not wanted.tree[kind]:
            reason = f"nothing of this kind is declared any more, and {count} would be removed"
        elif count > limit["count"]:
            reason = f"{count} would be removed, more than purge_limit:count = {limit['count']}"
        elif count > max(SMALL, limit["share"] * total):
            reason = f"{count} of {total} would be removed, more than purge_limit:share = {limit['share']}"
        else:
            continue
        raise CommandExecutionError(f"Refusing to remove {KINDS[kind].part} ({kind}): {reason}. force overrides.")


def report(changes):
    """Return ``{object: {field: {old:, new:}}}`` with secrets as ``**``; pure."""
    told: dict[str, dict] = {}
    for change in changes:
        if change.action == "remove":
            told[change.label] = {"old": "present", "new": "absent"}
            continue
        entry = told[change.label] = {}
        if change.action == "add" and change.kind not in GIVEN:
            separator = SEPARATORS.get(change.kind)
            name = split(change.key, separator)[-1] if separator else change.key
            entry[KINDS[change.kind].name] = {"old": None, "new": name}
        for field, value in change.new.items():
            if change.kind == "flow" and field == "authenticationExecutions":
                old, new = change.old.get(field), value
            elif change.action == "add":
                old, new = None, render(value)
            else:
                old, new = parts(value, change.old.get(field))
            entry[field] = {"old": redacted(old, field), "new": redacted(new, field)}
    return told


def redacted(value, field=""):
    """Return a value with ``**`` for what is secret, by the names of its fields; pure."""
    if isinstance(value, dict):
        return {key: redacted(entry, key) for key, entry in value.items()}
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return [redacted(entry) for entry in value]
    secret = SECRET.fullmatch(str(field)) and not isinstance(value, bool) or value in (MASK, [MASK])
    return "**" if secret and value not in (None, "", []) else value


# -- talking to Keycloak ---------------------------------------------------------------------------


class _Silent(CommandExecutionError):
    """Keycloak did not answer in time."""


class Answer(CommandExecutionError):
    """Keycloak refused; ``status`` is that of HTTP."""

    def __init__(self, text, status):
        super().__init__(text)
        self.status = status


class Keycloak:
    """One session with the Admin REST API of one realm."""

    def __init__(self, realm, connection):
        self.settings = {**CONNECTION, **connection}
        missing = [key for key in ("url", "client_id", "client_secret") if not self.settings[key]]
        if missing or set(self.settings) != set(CONNECTION):
            raise CommandExecutionError(
                f"keycloak_realm's connection needs {', '.join(CONNECTION)}; missing: {', '.join(missing) or 'none'}, "
                f"unknown: {', '.join(sorted(set(self.settings) - set(CONNECTION))) or 'none'}"
            )
        self.realm, self.url = realm, self.settings["url"].rstrip("/")
        self.session = requests.Session()
        self.session.trust_env = False  # neither proxies nor another bundle from the environment
        self.session.verify = self.settings["ca"] or next((path for path in BUNDLES if Path(path).exists()), True)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
        self.expires = 0.0

    def log_in(self):
        """Get a token, waiting until Keycloak answers or the deadline has passed."""
        timeout, said = self.settings["timeout"], ""
        deadline = time.monotonic() + timeout
        path = f"{self.url}/realms/{quote(self.settings['realm'], safe='')}/protocol/openid-connect/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": self.settings["client_id"],
            "client_secret": self.settings["client_secret"],
        }
        while True:
            try:
                response = self.session.post(
                    path, data=form, timeout=max(1, deadline - time.monotonic()), auth=_NoAuth()
                )
                said = f"{response.status_code} {response.text[:200]}"
                if response.status_code < 500:
                    break
            except requests.exceptions.SSLError as error:
                raise CommandExecutionError(f"{self.url} cannot be trusted: {error}") from None
            except requests.exceptions.RequestException as error:
                said = str(error)
            if time.monotonic() > deadline:
                raise _Silent(f"Keycloak at {self.url} did not answer within {timeout} s: {said}")
            time.sleep(min(1, timeout / 10))
        if not response.ok:
            raise CommandExecutionError(
                f"Keycloak at {self.url} refuses Salt's client {self.settings['client_id']} of realm "
                f"{self.settings['realm']}: {_said(response)}. If it or its secret is lost, 'kc.sh bootstrap-admin "
                "service' makes a client that can restore it."
            )
        token = response.json()
        self.session.headers["Authorization"] = f"Bearer {token['access_token']}"
        self.expires = time.monotonic() + token["expires_in"] * 0.8 - 5

    def __call__(self, method, path, body=None, missing=False, **parameters):
        """
        Return the answer to one request below the realm, parsed; ``None`` for 404 where that may be.

        A created object's answer is its id.
        """
        url = f"{self.url}/admin/realms" + (f"/{quote(self.realm, safe='')}" if path is not None else "")
        url += f"/{path}" if path else ""
        for attempt in (1, 2):
            if time.monotonic() > self.expires:
                self.log_in()
            try:
                response = self.session.request(method, url, json=body, params=parameters or None, timeout=SLOW)
            except requests.exceptions.RequestException as error:
                raise _Silent(f"{method} {url}: {error}") from None
            if response.status_code != 401 or attempt == 2:
                break
            self.expires = 0.0
        if response.status_code == 404 and missing:
            return None
        if response.status_code == 403:
            raise Answer(
                f"403: Salt's client {self.settings['client_id']} may not manage this of the realm {self.realm} "
                f"({method} {path}); an administrator gives its service account the roles of the client "
                f"{self.realm}-realm in the realm master",
                403,
            )
        if not response.ok:
            raise Answer(f"{response.status_code}: {_said(response)}", response.status_code)
        if response.status_code == 201 and "Location" in response.headers:
            return response.headers["Location"].rpartition("/")[2]
        return response.json() if response.content else {}

    def pages(self, path, size, **parameters):
        """Return all of a collection, asked for in pages, several at once."""
        first = self("GET", path, first=0, max=size, **parameters)
        if len(first) < size:
            return first
        result, number = list(first), 1
        while True:
            batch = self.each(
                lambda n: self("GET", path, first=n * size, max=size, **parameters), range(number, number + THREADS)
            )
            for page in batch:
                result += page
            if len(batch[-1]) < size:
                return result
            number += THREADS

    @staticmethod
    def each(function, arguments):
        """Return the results of many small requests, some at a time."""
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(function, arguments))


class _NoAuth(requests.auth.AuthBase):
    def __call__(self, request):
        request.headers.pop("Authorization", None)
        return request


def _said(response):
    """Return Keycloak's own words."""
    try:
        answer = response.json()
    except ValueError:
        return response.text[:500] or response.reason
    if not isinstance(answer, dict):
        return str(answer)[:500]
    words = [answer.get(key) for key in ("errorMessage", "error_description", "error", "field")]
    words += [error.get("errorMessage") for error in answer.get("errors") or [] if isinstance(error, dict)]
    words += [error.get("field") for error in answer.get("errors") or [] if isinstance(error, dict)]
    words += [json.dumps(answer["params"])] if answer.get("params") else []
    return ", ".join(str(word) for word in words if word)[:500]


# -- reading ---------------------------------------------------------------------------------------

WITH_CLIENTS = {"client", "client_role", "role", "scope_mapping", "group", "user"}
WITH_GROUPS_AND_ROLES = {"role", "client_role", "scope_mapping", "group", "user", "realm"}
FEW = 20  # so many users are asked for by name
AUTHENTICATORS = (
    "authenticator-providers",
    "client-authenticator-providers",
    "form-action-providers",
    "form-providers",
)


def read(keycloak, wanted, purge="none", absent=None, everything=False):
    """
    Return the live realm as :class:`Live`, as far as ``wanted`` needs it; ``everything``: all there is.

    Raises CommandExecutionError when Keycloak does not answer in time or refuses.
    """
    settings = keycloak("GET", "", missing=True)
    if settings is None:
        return Live({}, exists=False, known=_known_of_profile(NEW_PROFILE, wanted))
    kinds = {*wanted.tree, *(absent or {}), *(KINDS if everything else ())}
    clients, groups = bool(kinds & WITH_CLIENTS), bool(kinds & WITH_GROUPS_AND_ROLES)
    secrets = {}
    if clients:
        secrets = {entry["clientId"]: entry.get("secret") for entry in keycloak.pages("clients", SMALL_PAGE)}
    told = keycloak("POST", "partial-export", exportClients=clients, exportGroupsAndRoles=groups)
    told["attributes"] = settings.get("attributes") or {}
    paths = {entry["id"]: entry["path"] for entry in _with_paths(told.get("groups") or [])}
    if groups and told.get("defaultGroups"):
        told["defaultGroups"] = [paths[entry["id"]] for entry in keycloak("GET", "default-groups")]
    flows = {entry["id"]: entry["alias"] for entry in told.get("authenticationFlows") or []}
    for entry in told.get("clients") or []:
        if entry.get("secret") == MASK:
            entry["secret"] = secrets.get(entry["clientId"])
        overrides = entry.get("authenticationFlowBindingOverrides") or {}
        entry["authenticationFlowBindingOverrides"] = {name: flows.get(flow, flow) for name, flow in overrides.items()}
    known = {}
    if "user_profile" in kinds or wanted.tree.get("user"):
        profile = keycloak("GET", "users/profile")
        told.setdefault("components", {})[PROFILE] = [{"config": {"kc.user.profile.config": [json.dumps(profile)]}}]
        known = _known_of_profile(profile, wanted)
    if "user" in kinds:
        names = {*wanted.tree.get("user", ()), *(absent or {}).get("user", ())}
        every = everything or (purge != "none" and "user" in wanted.tree)
        told["users"] = _read_users(keycloak, told, wanted, names, every)
    if "organization" in kinds and settings.get("organizationsEnabled"):
        told["organizations"] = _read_organizations(keycloak, wanted, everything)
    known |= _read_known(keycloak, told, wanted)
    live = flatten(told, declared=False)
    ledger = json.loads(told["attributes"].get(LEDGER) or "[]")
    owned = {ref for ref, raw in live.raw.items() if _is_marked(raw) or reference(live, *ref) in ledger}
    if purge == "owned" and "user" in kinds:
        marked = keycloak.pages("users", PAGE, q=f"{MARK}:{OWNER}", briefRepresentation=True)
        owned |= {("user", entry["username"]) for entry in marked}
    hashes = json.loads(told["attributes"].get(HASHES) or "{}")
    return live._replace(owned=frozenset(owned), hashes=hashes, ledger=tuple(ledger), known=known, told=told)


def _is_marked(raw):
    attributes = raw.get("attributes")
    return isinstance(attributes, dict) and attributes.get(MARK) in (OWNER, [OWNER])


# The user profile of a new realm, as far as it limits what a user may be declared with.
NEW_PROFILE = {
    "attributes": [
        {"name": "username", "validations": {"length": {"min": 3, "max": 255}}},
        *({"name": name, "validations": {"length": {"max": 255}}} for name in ("email", "firstName", "lastName")),
    ]
}


def _known_of_profile(profile, wanted):
    """Return what the user profile, with what is declared of it, allows; no attributes: any are allowed."""
    whole = {**profile, **wanted.tree.get("user_profile", {}).get("user_profile", {})}
    attributes = render(whole.get("attributes") or [])
    unmanaged = whole.get("unmanagedAttributePolicy") in ("ENABLED", "ADMIN_EDIT")
    lengths = {entry["name"]: (entry.get("validations") or {}).get("length") for entry in attributes}
    return {
        "attribute": set() if unmanaged else {entry["name"] for entry in attributes},
        "length": {name: limits for name, limits in lengths.items() if limits},
    }


def _read_known(keycloak, told, wanted):
    """Ask for names that declared objects of these kinds may refer to, and that are no objects of the realm."""
    known, tree = {}, wanted.tree
    if any("clientPolicies" in fields for fields in tree.get("realm", {}).values()):
        profiles = keycloak("GET", "client-policies/profiles", **{"include-global-profiles": True})
        found = [entry for part in ("profiles", "globalProfiles") for entry in profiles.get(part) or []]
        known["profile"] = {entry["name"] for entry in found}
    live = {entry["alias"] for entry in told.get("requiredActions") or []}
    actions = {name for fields in tree.get("user", {}).values() for name in fields.get("requiredActions") or []}
    if (actions | set(tree.get("required_action", ()))) - live:
        unregistered = keycloak("GET", "authentication/unregistered-required-actions")
        known["required_action"] = live | {entry["providerId"] for entry in unregistered}
    if "flow" in tree:
        found = [entry for part in AUTHENTICATORS for entry in keycloak("GET", f"authentication/{part}")]
        known["authenticator"] = {entry["id"] for entry in found}
    providers = {entry["providerId"] for entry in told.get("identityProviders") or []}
    new = {f["providerId"] for f in tree.get("identity_provider", {}).values() if f.get("providerId")} - providers
    for name in new:
        try:
            keycloak("GET", f"identity-provider/providers/{quote(str(name), safe='')}")
            providers.add(name)
        except Answer:
            continue
    return {**known, "provider": providers} if new else known


def _read_organizations(keycloak, wanted, everything):
    found = keycloak.pages("organizations", SMALL_PAGE, briefRepresentation=False)
    declared = wanted.tree.get("organization", {})
    for entry in found:
        fields = declared.get(entry["name"], {})
        path = f"organizations/{entry['id']}"
        if "members" in fields:
            entry["members"] = keycloak.pages(f"{path}/members", PAGE)
        if "identityProviders" in fields or everything:
            entry["identityProviders"] = keycloak("GET", f"{path}/identity-providers")
    return found


BRIEF = {"enabled", "email", "emailVerified", "firstName", "lastName", "groups", "realmRoles", "clientRoles"}


def _read_users(keycloak, told, wanted, names, every):
    """Return users, with the memberships and role mappings that any of them is declared with."""
    declared = wanted.tree.get("user", {})
    brief = bool(names) and all(field in BRIEF for entry in declared.values() for field in entry)
    accounts = {key: wanted.raw["user", key].get("serviceAccountClientId") for key in declared}
    accounts = {key: client for key, client in accounts.items() if client}
    if every or len(names) > FEW:
        users = keycloak.pages("users", PAGE if brief else SMALL_PAGE, briefRepresentation=brief)
    else:
        pages = keycloak.each(
            lambda name: keycloak("GET", "users", username=name, exact=True, briefRepresentation=brief),
            sorted(names - set(accounts)),
        )
        users = [entry for page in pages for entry in page]
    ids = {entry["clientId"]: entry["id"] for entry in told.get("clients") or []}
    for client in set(accounts.values()) & set(ids):
        if account := keycloak("GET", f"clients/{ids[client]}/service-account-user", missing=True):
            users.append({**account, "serviceAccountClientId": client})
    with_roles = {split(key, ":")[0] for key in wanted.tree.get("client_role", ())}
    _read_memberships(keycloak, told, declared, users, ids, with_roles)
    return users


def _read_memberships(keycloak, told, declared, users, ids, roles_of):  # noqa: PLR0917
    """
    Put groups, realmRoles and clientRoles into the users that are declared with them (nobody declared: into
    all), asking for each group or role, or for each user, whichever is fewer.
    """

    def concerned(*fields):
        return {u["id"]: u for u in users if not declared or any(f in declared.get(u["username"], ()) for f in fields)}

    members, holders = concerned("groups"), concerned("realmRoles", "clientRoles")
    in_play = {client for fields in declared.values() for client in fields.get("clientRoles") or ()}
    in_play |= roles_of if any("clientRoles" in fields for fields in declared.values()) else set()
    if members:
        _read_groups(keycloak, list(_with_paths(told.get("groups") or [])), members)
    if holders:
        _read_roles(keycloak, told["roles"], holders, {c: ids[c] for c in (in_play if declared else ids) if c in ids})


def _read_groups(keycloak, groups, members):
    known = {group["id"]: group["path"] for group in groups}
    for user in members.values():
        user["groups"] = []
    if len(groups) > len(members):
        paths = [f"users/{user}/groups" for user in members]
        for user, page in zip(members.values(), _each_page(keycloak, paths), strict=True):
            user["groups"] = [known.get(entry["id"], entry["path"]) for entry in page]
        return
    for group, page in zip(groups, _each_page(keycloak, [f"groups/{g['id']}/members" for g in groups]), strict=True):
        for entry in page:
            if entry["id"] in members:
                members[entry["id"]]["groups"].append(group["path"])


def _each_page(keycloak, paths):
    return keycloak.each(lambda path: keycloak.pages(path, MEMBERS, briefRepresentation=True), paths)


def _read_roles(keycloak, roles, holders, clients):
    """``clients``: ids of the clients whose roles are of interest."""
    for user in holders.values():
        user["realmRoles"], user["clientRoles"] = [], {}
    listed = [(None, entry["name"]) for entry in roles["realm"] if not entry["name"].startswith(DEFAULT_ROLE)]
    listed += [(client, entry["name"]) for client in clients for entry in roles.get("client", {}).get(client) or []]
    if len(listed) > len(holders):
        found = keycloak.each(lambda user: keycloak("GET", f"users/{user}/role-mappings"), holders)
        for user, mappings in zip(holders.values(), found, strict=True):
            user["realmRoles"] = [entry["name"] for entry in mappings.get("realmMappings") or []]
            for client, entry in (mappings.get("clientMappings") or {}).items():
                if client in clients:
                    user["clientRoles"][client] = [role["name"] for role in entry["mappings"]]
        return
    paths = [
        (f"clients/{clients[client]}/roles" if client else "roles") + f"/{quote(name, safe='')}/users"
        for client, name in listed
    ]
    for (client, name), page in zip(listed, _each_page(keycloak, paths), strict=True):
        for entry in page:
            if user := holders.get(entry["id"]):
                (user["clientRoles"].setdefault(client, []) if client else user["realmRoles"]).append(name)


def _with_paths(groups, above=()):
    """Yield all groups, each with its key as its path; ``above``: the names of the groups above."""
    for entry in groups:
        names = (*above, entry["name"])
        entry["path"] = f"/{joined(names, '/')}"
        yield entry
        yield from _with_paths(entry.get("subGroups") or [], names)


# -- writing ---------------------------------------------------------------------------------------


class _Writer:
    """Makes changes; what Keycloak refuses is noted, and the rest is done."""

    def __init__(self, keycloak, live, wanted, changes):
        self.keycloak, self.live, self.wanted, self.changes = keycloak, live, wanted, changes
        self.ids = {}
        self.errors = {}  # label -> what Keycloak said
        self.order = {kind: {} for kind in KINDS}
        self.leaving = {}
        for change in changes:
            if change.action == "remove":
                self.leaving[change.kind, change.key] = change
            else:
                self.order[change.kind][change.key] = change

    def run(self):
        for kind, write in PASSES:
            chosen = self.order[kind].values()
            if write is _Writer.put:
                chosen = self.batches(kind, list(chosen))
            for change in chosen:
                self.attempt(change, write)
        for change in list(self.leaving.values()):
            self.attempt(change, _Writer.remove)

    def attempt(self, change, write):
        if change.label in self.errors:
            return
        try:
            write(self, change)
        except _Silent:
            raise
        except CommandExecutionError as error:
            self.errors[change.label] = str(error)

    # -- what is where ---------------------------------------------------------------------------

    def id(self, kind, key):
        """Return an object's id, asking Keycloak for that of an object made meanwhile."""
        raw = self.live.raw.get((kind, key))
        if raw and raw.get("id"):
            return raw["id"]
        if (kind, key) not in self.ids:
            found = self.find(kind, key)
            if not found:
                raise CommandExecutionError(f"there is no {kind.replace('_', ' ')} {key}")
            self.ids[kind, key] = found["id"]
        return self.ids[kind, key]

    def find(self, kind, key):
        get = self.keycloak
        lookups = {
            "client": lambda: next(iter(get("GET", "clients", clientId=key)), None),
            "client_scope": lambda: next((x for x in get("GET", "client-scopes") if x["name"] == key), None),
            "role": lambda: get("GET", f"roles/{quote(key, safe='')}", missing=True),
            "client_role": lambda: get(
                "GET", f"{self.collection(kind, key)}/{quote(split(key, ':')[1], safe='')}", missing=True
            ),
            "group": lambda: self.beside(key).get(key),
            "user": lambda: next(iter(get("GET", "users", username=key, exact=True)), None),
        }
        return lookups[kind]() if kind in lookups else self.components().get((kind, key))

    def beside(self, key):
        """Return ``{key: group}`` of all groups that are below the same group as this one, or at the top with it."""
        *above, _ = split(key, "/")
        found = self.keycloak.pages(self.collection("group", key), PAGE, briefRepresentation=True)
        groups = {joined((*above, entry["name"]), "/"): entry for entry in found}
        self.ids |= {("group", other): entry["id"] for other, entry in groups.items()}
        return groups

    def components(self):
        found = self.keycloak("GET", "components")
        names = {entry["id"]: entry.get("name") for entry in found}
        result = {}
        for entry in found:
            if entry.get("providerType") == FEDERATION:
                result["federation", entry["name"]] = entry
            elif entry.get("parentId") in names:
                result["federation_mapper", _below(names[entry["parentId"]], entry)] = entry
        return result

    def role(self, client, name):
        """Return a role of a client, or of the realm, in the form in which Keycloak takes it for mappings."""
        kind, key = ("client_role", joined((client, name), ":")) if client else ("role", name)
        return {"id": self.id(kind, key), "name": name}

    # -- objects that have a collection --------------------------------------------------------------

    def collection(self, kind, key):
        if kind not in SEPARATORS:
            return KINDS[kind].path
        *above, _ = split(key, SEPARATORS[kind])
        if kind == "client_role":
            return f"clients/{self.id('client', *above)}/roles"
        if kind == "identity_provider_mapper":
            return f"identity-provider/instances/{quote(above[0], safe='')}/mappers"
        if kind == "group" and above:
            return f"groups/{self.id('group', joined(above, '/'))}/children"
        return KINDS[kind].path

    def item(self, kind, key):
        table = KINDS[kind]
        name = quote(key, safe="") if table.key != "id" else self.id(kind, key)
        if kind == "identity_provider_mapper":
            return f"{self.collection(kind, key)}/{self.live.raw[kind, key]['id']}"
        return table.at.format(id=name) if table.at else f"{table.path}/{name}"

    def body(self, change):
        """Return what Keycloak wants to hear for the fields that have no path of their own."""
        kind, table = change.kind, KINDS[change.kind]
        raw = self.live.raw.get((kind, change.key)) or {}
        aside = ASIDE.get(kind, ())
        body = {}
        if change.action == "modify":
            same_still = ("username", "email", "firstName", "lastName") if kind == "user" else (table.name, "protocol")
            body = {key: raw[key] for key in (same_still if table.partial else raw) if raw.get(key) is not None}
            body = {key: value for key, value in body.items() if key not in aside and value != MASK}
        elif kind == "group":
            body[table.name] = self.wanted.raw[kind, change.key]["name"]
        elif table.name:
            body[table.name] = self.wanted.raw[kind, change.key][table.name]
        for field, value in change.new.items():
            if field not in aside or (change.action == "add" and field in WITH_CREATION.get(kind, ())):
                body[field] = self.value(change, field, value, raw.get(field))
        if table.marked and change.action == "add":
            owner = OWNER if kind in ("client", "client_scope") else [OWNER]
            body["attributes"] = {**(body.get("attributes") or {}), MARK: owner}
        if kind == "client" and body.get("authenticationFlowBindingOverrides"):
            overrides = body["authenticationFlowBindingOverrides"]
            body["authenticationFlowBindingOverrides"] = {k: self.flow_id(v) if v else v for k, v in overrides.items()}
        if kind in ("federation", "federation_mapper", "component"):
            body["providerType"] = self.wanted.raw[kind, change.key]["providerType"]
            federation = split(change.key, ":")[0] if kind == "federation_mapper" else None
            body["parentId"] = self.id("federation", federation) if federation else self.realm_id()
            body.pop("subComponents", None)
        if kind == "client_scope":
            body.setdefault("protocol", "openid-connect")
        if kind == "identity_provider_mapper":
            body["identityProviderAlias"] = split(change.key, ":")[0]
        if kind == "organization":
            body["alias"] = body.get("alias") or body["name"]
        return body

    def value(self, change, field, value, raw):
        """Return a field's whole value as Keycloak is told it."""
        if change.action == "add":
            return render(value)
        if value is None or (not value and isinstance(raw, (dict, list, str))):
            # null would mean "leave it as it is"
            return type(raw)() if isinstance(raw, (dict, list, str)) else "" if KINDS[change.kind].partial else None
        if isinstance(value, dict) and not isinstance(value, Named):
            table = KINDS[change.kind]
            whole = render(merged(table.fields.get(field, _anything)(raw), value))
            if field == "attributes" and isinstance(raw, dict):
                whole = {**{mark: raw[mark] for mark in (MARK, LEDGER, HASHES) if mark in raw}, **whole}
            cleared = (
                {} if table.clears is None else {key: table.clears for key, v in value.items() if v in (None, "", [])}
            )
            return {**whole, **{key: list(v) if v == () else v for key, v in cleared.items()}}
        return render(value)

    def realm_id(self):
        if "realm" not in self.ids:
            self.ids["realm"] = self.keycloak("GET", "")["id"]
        return self.ids["realm"]

    def put(self, change):
        """Make or change one object."""
        kind, table = change.kind, KINDS[change.kind]
        new_mapper = kind == "federation_mapper" and change.action == "add"
        # A new federation has mappers of its own at once.
        if there := new_mapper and self.components().get((kind, change.key)):
            self.live.raw[kind, change.key] = there
            change = change._replace(action="modify")
        body = self.body(change)
        if change.action == "add":
            if kind == "user":
                body["credentials"] = self.wanted.raw[kind, change.key].get("credentials") or []
            if account := kind == "user" and self.wanted.raw[kind, change.key].get("serviceAccountClientId"):
                self.service_account(change, account)
                return
            made = self.keycloak("POST", self.collection(kind, change.key), body)
            if isinstance(made, str) and kind in (
                "client",
                "client_scope",
                "group",
                "user",
                "federation",
                "organization",
            ):
                self.ids[kind, change.key] = made
            if again := {field: body[field] for field in AGAIN.get(kind, ()) if body.get(field)}:
                self.keycloak("PUT", self.item(kind, change.key), {table.name: body[table.name], **again})
        elif any(field not in ASIDE.get(kind, ()) for field in change.new):
            self.keycloak("PUT", self.item(kind, change.key), body)
        for field in ASIDE.get(kind, ()):
            if field in change.new and kind not in LATER and not (
                change.action == "add" and field in WITH_CREATION.get(kind, ())
            ):  # fmt: skip
                ASIDE[kind][field](self, change, field)

    def service_account(self, change, client):
        """Give a service account, which Keycloak has made with its client, what is declared of it."""
        account = self.keycloak("GET", f"clients/{self.id('client', client)}/service-account-user")
        self.live.raw["user", change.key] = account
        self.put(change._replace(action="modify"))

    def free_mail(self, change):
        """Remove a user who leaves, or clear the address of one who gets another, before somebody else gets it."""
        if not hasattr(self, "holders"):
            users = self.live.tree.get("user", {}) if unique_mail(self.live, self.wanted) else {}
            self.holders = {fields["email"]: key for key, fields in users.items() if fields.get("email")}
        holder = self.holders.get(change.new.get("email"), "")
        if ("user", holder) in self.leaving:
            self.attempt(self.leaving["user", holder], _Writer.remove)
        elif holder in self.order["user"] and "email" in self.order["user"][holder].new:
            self.attempt(Change("modify", "user", holder, {}, {"email": None}), _Writer.put)

    def remove(self, change):
        kind, key = change.kind, change.key
        self.leaving.pop((kind, key), None)
        if kind == "flow":
            self.remove_flow(self.id(kind, key))
            return
        self.keycloak("DELETE", self.item(kind, key), missing=True)

    # -- many at once ------------------------------------------------------------------------------

    def batches(self, kind, changes):
        """Make many new objects in few requests; return the changes that are left to be made one by one."""
        bodies = {c.key: IMPORTS[kind](self, c) for c in changes if c.action == "add"} if kind in IMPORTS else {}
        bodies = {key: body for key, body in bodies.items() if body is not None}
        if len(bodies) < 3:
            return changes
        keys, done = list(bodies), set()

        def post(chunk):
            wrapped = IMPORTED[kind](chunk, bodies)
            try:
                self.keycloak("POST", "partialImport", {"ifResourceExists": "FAIL", **wrapped})
            except Answer:
                return ()  # one by one, to know which
            return chunk

        size = BATCH // 5 if any(body.get("credentials") for body in bodies.values()) else BATCH
        chunks = [keys[n : n + size] for n in range(0, len(keys), size)]
        for chunk in self.keycloak.each(post, chunks) if kind == "user" else map(post, chunks):
            done |= set(chunk)
        if kind == "group":
            done |= {key for key in self.order[kind] if joined(split(key, "/")[:1], "/") in done}
        return [change for change in changes if change.key not in done]

    def import_role(self, change):
        return self.body(change)

    def import_client(self, change):
        # A service account and authorization are made only by the single call.
        single = {"serviceAccountsEnabled", "authorizationServicesEnabled", "authorizationSettings"}
        key = any(SECRET.fullmatch(name) for name in change.new.get("attributes") or ())
        return None if key or any(change.new.get(field) for field in single) else self.body(change)

    def import_group(self, change):
        # Those at the top, with all below; the import finds them by path, and so fails where a name has a slash.
        return self.subtree(change.key) if split(change.key, "/") == [change.key] else None

    def subtree(self, key):
        if not hasattr(self, "children"):
            self.children = defaultdict(list)
            for below, change in self.order["group"].items():
                if change.action == "add":
                    self.children[joined(split(below, "/")[:-1], "/")].append(below)
        change = self.order["group"][key]
        roles = {field: render(change.new[field]) for field in ("realmRoles", "clientRoles") if field in change.new}
        below = [self.subtree(below) for below in self.children[key]]
        return {**self.body(change), **roles, "path": f"/{key}", "subGroups": below}

    def import_user(self, change):
        """An imported user has nothing of its own accord, so the default role, groups and actions are told."""
        # The import takes a slash in a group's name for one between names, and spaces around a role's name away.
        groups = (*(change.new.get("groups") or ()), *self.newcomers()["groups"])
        granted = [*(change.new.get("realmRoles") or ()), *sum((change.new.get("clientRoles") or {}).values(), [])]
        misread = any("/".join(split(path, "/")) != path for path in groups) or granted != [r.strip() for r in granted]
        if misread or self.wanted.raw["user", change.key].get("serviceAccountClientId"):
            return None
        roles = [*(change.new.get("realmRoles") or []), default_role({"realm": self.keycloak.realm})]
        return {
            **self.body(change), **self.newcomers(),
            **{field: change.new[field] for field in ("groups", "requiredActions") if field in change.new},
            "realmRoles": roles, "clientRoles": render(change.new.get("clientRoles") or {}),
            "credentials": self.wanted.raw["user", change.key].get("credentials") or [],
        }  # fmt: skip

    def newcomers(self):
        if not hasattr(self, "_newcomers"):
            actions = self.keycloak("GET", "authentication/required-actions")
            keys = {entry["id"]: key for (kind, key), entry in self.live.raw.items() if kind == "group"}
            keys |= {made: ref[1] for ref, made in self.ids.items() if ref[0] == "group"}
            self._newcomers = {
                "groups": [f"/{keys[entry['id']]}" for entry in self.keycloak("GET", "default-groups")],
                "requiredActions": [a["alias"] for a in actions if a.get("enabled") and a.get("defaultAction")],
            }
        return self._newcomers

    # -- fields that have a path of their own ---------------------------------------------------------

    def roles_at(self, path, old, new, client=""):
        """Add and remove roles below ``path``; of a client, or of the realm."""
        for method, names in (("POST", set(new) - set(old)), ("DELETE", set(old) - set(new))):
            if names:
                self.keycloak(method, path, [self.role(client, name) for name in sorted(names)])

    def role_mappings(self, change, field):
        base = f"{'groups' if change.kind == 'group' else 'users'}/{self.id(change.kind, change.key)}/role-mappings"
        old, new = change.old.get(field) or {}, change.new[field] or {}
        if field == "realmRoles":
            self.roles_at(f"{base}/realm", old or [], new or [])
            return
        for client in sorted({*old, *new}):
            path = f"{base}/clients/{self.id('client', client)}"
            self.roles_at(path, old.get(client) or [], new.get(client) or [], client)

    def composites(self, change):
        if "composites" not in change.new:
            return
        old, new = (self.composed(entry.get("composites")) for entry in (change.old, change.new))
        path = f"roles-by-id/{self.id(change.kind, change.key)}/composites"
        for method, roles in (("POST", new - old), ("DELETE", old - new)):
            if roles:
                self.keycloak(method, path, [self.role(*role) for role in sorted(roles)])

    @staticmethod
    def composed(composites):
        composites = composites or {}
        clients = {"": composites.get("realm") or (), **(composites.get("client") or {})}
        return {(client, name) for client, names in clients.items() for name in names}

    def memberships(self, change, field):
        user = self.id("user", change.key)
        old, new = (
            {self.id("group", path.removeprefix("/")) for path in side.get(field) or ()}
            for side in (change.old, change.new)
        )
        if change.action == "add":  # with the default groups
            old = {entry["id"] for entry in self.keycloak("GET", f"users/{user}/groups")}
        for method, groups in (("PUT", new - old), ("DELETE", old - new)):
            for group in sorted(groups):
                self.keycloak(method, f"users/{user}/groups/{group}")

    def client_scopes(self, change, field):
        """Assign client scopes; one that moves from default to optional, or back, leaves the other list first."""
        client = self.id("client", change.key)
        kind = "default" if field == "defaultClientScopes" else "optional"
        other = {"default": "optional", "optional": "default"}[kind]
        raw = self.live.raw.get(("client", change.key)) or {}
        for name in sorted(set(change.new[field] or ()) - set(change.old.get(field) or ())):
            scope = self.id("client_scope", name)
            if name in (raw.get(f"{other}ClientScopes") or ()):
                self.keycloak("DELETE", f"clients/{client}/{other}-client-scopes/{scope}", missing=True)
            self.keycloak("PUT", f"clients/{client}/{kind}-client-scopes/{scope}")
        for name in sorted(set(change.old.get(field) or ()) - set(change.new[field] or ())):
            if name not in (change.new.get(f"{other}ClientScopes") or ()):
                self.keycloak("DELETE", f"clients/{client}/{kind}-client-scopes/{self.id('client_scope', name)}")

    def authorization(self, change, field):
        """Resources, scopes, policies and permissions; Keycloak's import adds and changes, but not resources."""
        server = f"clients/{self.id('client', change.key)}/authz/resource-server"
        old, new = ((side.get(field) or {}).get("resources") or {} for side in (change.old, change.new))
        differing = {name: entry for name, entry in new.items() if name in old and not same(entry, old[name])}
        for resource in self.keycloak("GET", f"{server}/resource", max=10 * PAGE) if differing else ():
            if entry := differing.get(resource["name"]):
                self.keycloak("PUT", f"{server}/resource/{resource['_id']}", {**resource, **render(entry)})
        raw = (self.live.raw.get(("client", change.key)) or {}).get(field)
        self.keycloak("POST", f"{server}/import", render(merged(_anything(raw), change.new[field])))

    def scope_mappers(self, change, field):
        path = f"client-scopes/{self.id('client_scope', change.key)}/protocol-mappers/models"
        raw = {entry["name"]: entry for entry in self.live.raw["client_scope", change.key].get("protocolMappers") or []}
        old, new = change.old.get(field) or {}, change.new[field] or {}
        for name, entry in new.items():
            if not same(entry, old.get(name)):
                body = {**raw.get(name, {}), **render(merged(old.get(name), entry)), "name": name}
                body.setdefault("protocol", self.live.raw["client_scope", change.key].get("protocol"))
                if name in raw:
                    self.keycloak("PUT", f"{path}/{raw[name]['id']}", body)
                else:
                    self.keycloak("POST", path, body)
        for name in set(old) - set(new):
            self.keycloak("DELETE", f"{path}/{raw[name]['id']}")

    def scope_mapping(self, change):
        kind, _, name = change.key.partition("/")
        base = f"{'clients' if kind == 'client' else 'client-scopes'}/{self.id(kind, name)}/scope-mappings"
        if "roles" in change.new:
            self.roles_at(f"{base}/realm", change.old.get("roles") or [], change.new["roles"] or [])
        old = change.old.get("clientRoles") or {}
        for client, roles in (change.new.get("clientRoles") or {}).items():
            path = f"{base}/clients/{self.id('client', client)}"
            self.roles_at(path, old.get(client) or [], roles or [], client)

    def members(self, change, field):
        path = f"organizations/{self.id('organization', change.key)}/members"
        old, new = set(change.old.get(field) or ()), set(change.new[field] or ())
        for name in sorted(new - old):
            self.keycloak("POST", path, self.id("user", name.lower()))
        for name in sorted(old - new):
            self.keycloak("DELETE", f"{path}/{self.id('user', name)}")

    def organization_providers(self, change, field):
        path = f"organizations/{self.id('organization', change.key)}/identity-providers"
        old, new = set(change.old.get(field) or ()), set(change.new[field] or ())
        for alias in sorted(new - old):
            self.keycloak("POST", path, alias)
        for alias in sorted(old - new):
            self.keycloak("DELETE", f"{path}/{quote(alias, safe='')}")

    # -- the realm -----------------------------------------------------------------------------------

    def settings(self, change):
        early = {field for field in change.new if field not in ASIDE["realm"]}
        if early:
            # Keycloak takes a policy as a whole.
            whole = [prefix for prefix in POLICIES if any(field.startswith(prefix) for field in early)]
            raw = self.live.raw["realm", change.key]
            policies = {field: raw[field] for field in raw if field.startswith(tuple(whole))} if whole else {}
            self.keycloak("PUT", "", {**policies, **self.body(change)})

    def late_settings(self, change):
        for field, write in ASIDE["realm"].items():
            if field in change.new:
                write(self, change, field)

    def binding(self, change, field):
        self.keycloak("PUT", "", {"realm": self.keycloak.realm, field: change.new[field]})

    def texts(self, change, field):
        for locale, texts in (change.new[field] or {}).items():
            wanted = {key: text for key, text in (texts or {}).items() if text}
            if wanted:
                self.keycloak("POST", f"localization/{quote(locale, safe='')}", wanted)
            if texts is None:
                self.keycloak("DELETE", f"localization/{quote(locale, safe='')}", missing=True)
            for key in set(texts or ()) - set(wanted):
                path = f"localization/{quote(locale, safe='')}/{quote(key, safe='')}"
                self.keycloak("DELETE", path, missing=True)

    def default_groups(self, change, field):
        self.assign("default-groups", "group", change, field)

    def default_scopes(self, change, field):
        # A scope that changes sides leaves the other first.
        self.assign(f"default-{SCOPES[field]}-client-scopes", "client_scope", change, field)

    def assign(self, path, kind, change, field):
        old, new = set(change.old.get(field) or ()), set(change.new[field] or ())
        if kind == "client_scope":
            other = next(name for name in SCOPES if name != field)
            live = set((self.live.raw.get(("realm", self.keycloak.realm)) or {}).get(other) or ())
            for name in sorted((new - old) & live):
                self.keycloak("DELETE", f"default-{SCOPES[other]}-client-scopes/{self.id(kind, name)}", missing=True)
            old -= set(change.new.get(other) or ()) - new
        for method, names in (("PUT", new - old), ("DELETE", old - new)):
            for name in sorted(names):
                self.keycloak(method, f"{path}/{self.id(kind, name.removeprefix('/'))}", missing=method == "DELETE")

    def policies(self, change, field):
        part = {"clientProfiles": "profiles", "clientPolicies": "policies"}[field]
        self.keycloak("PUT", f"client-policies/{part}", render(change.new[field]))

    def profile(self, change):
        live = self.keycloak("GET", "users/profile")
        self.put_profile({**live, **render({field: merged(None, value) for field, value in change.new.items()})})

    def put_profile(self, document):
        listed = [entry for entry in document.get("attributes") or [] if entry["name"] != MARK]
        document["attributes"] = [*listed, MARK_ATTRIBUTE]
        self.keycloak("PUT", "users/profile", document)

    def mark_profile(self, change):
        """See to it that users can carry the mark."""
        if change.action == "add" and not hasattr(self, "marking"):
            self.marking = self.keycloak("GET", "users/profile")
            if MARK not in {entry["name"] for entry in self.marking.get("attributes") or []}:
                self.put_profile(self.marking)

    def required_action(self, change):
        raw = self.live.raw.get(("required_action", change.key))
        if change.action == "add":
            entry = self.wanted.raw["required_action", change.key]
            provider = {"providerId": entry.get("providerId", change.key), "name": entry.get("name", change.key)}
            self.keycloak("POST", "authentication/register-required-action", provider)
            raw = self.keycloak("GET", f"authentication/required-actions/{quote(change.key, safe='')}")
            change = change._replace(action="modify")
            self.live.raw["required_action", change.key] = raw
        self.put(change)

    # -- flows ---------------------------------------------------------------------------------------

    def flow_id(self, alias):
        if ("flow", alias) not in self.ids:
            for entry in self.keycloak("GET", "authentication/flows"):
                self.ids["flow", entry["alias"]] = entry["id"]
        return self.ids.get(("flow", alias), alias)

    def flow(self, change):
        """Build a flow; if there is one of this name, beside it, and then put it in its place."""
        raw = self.live.raw.get(("flow", change.key)) or {}
        wanted = {
            "providerId": "basic-flow",
            "authenticationExecutions": [],
            **raw,
            **self.wanted.raw["flow", change.key],
        }
        if raw.get("builtIn"):
            self.change_flow(change.key, wanted, raw)
            return
        self.clear_unfinished()
        suffix = UNFINISHED if change.action == "modify" else ""
        new = self.build_flow(change.key, wanted, suffix, top=True)
        if change.action == "modify":
            self.rebind(raw["id"], new, change.key)
            self.remove_flow(raw["id"])
            self.rename(change.key, wanted, new)
        self.ids["flow", change.key] = new

    def clear_unfinished(self):
        """Remove what an interrupted run left behind."""
        for entry in self.keycloak("GET", "authentication/flows"):
            if entry["alias"].endswith(UNFINISHED):
                self.remove_flow(entry["id"])

    def build_flow(self, alias, flow, suffix, top):
        made = self.keycloak("POST", "authentication/flows", {
            "alias": alias + suffix, "description": flow.get("description") or "", "providerId": flow["providerId"],
            "topLevel": top, "builtIn": False,
        })  # fmt: skip
        for priority, entry in enumerate(flow["authenticationExecutions"]):
            execution = {"parentFlow": made, "requirement": entry["requirement"], "priority": priority * 10 + 10,
                         "authenticatorFlow": "flow" in entry}  # fmt: skip
            if "authenticator" in entry:
                execution["authenticator"] = entry["authenticator"]
            if "flow" in entry:
                execution["flowId"] = self.build_flow(entry["flow"], entry, suffix, top=False)
            step = self.keycloak("POST", "authentication/executions", execution)
            if "config" in entry:
                config = {**entry["config"], "alias": entry["config"]["alias"] + suffix}
                self.keycloak("POST", f"authentication/executions/{step}/config", config)
        return made

    def rebind(self, old, new, alias):
        """Let everything that uses the flow ``old`` use ``new``."""
        realm = self.keycloak("GET", "")
        bound = {field: alias + UNFINISHED for field in FLOWS if realm.get(field) == alias}
        if bound:
            self.keycloak("PUT", "", {"realm": self.keycloak.realm, **bound})
        for client in self.keycloak.pages("clients", SMALL_PAGE):
            overrides = client.get("authenticationFlowBindingOverrides") or {}
            if old in overrides.values():
                overrides = {name: new if flow == old else flow for name, flow in overrides.items()}
                body = {"clientId": client["clientId"], "authenticationFlowBindingOverrides": overrides}
                self.keycloak("PUT", f"clients/{client['id']}", body)
        for provider in self.keycloak("GET", "identity-provider/instances"):
            uses = [f for f in ("firstBrokerLoginFlowAlias", "postBrokerLoginFlowAlias") if provider.get(f) == alias]
            if uses:
                path = f"identity-provider/instances/{quote(provider['alias'], safe='')}"
                self.keycloak("PUT", path, {**provider, **dict.fromkeys(uses, alias + UNFINISHED)})

    def remove_flow(self, flow):
        self.keycloak("DELETE", f"authentication/flows/{flow}", missing=True)

    def rename(self, alias, flow, made):
        """Take the suffix off a flow that was built beside another, and off all below it."""
        for entry in self.keycloak("GET", f"authentication/flows/{quote(alias + UNFINISHED, safe='')}/executions"):
            if entry.get("authenticationConfig"):
                path = f"authentication/config/{entry['authenticationConfig']}"
                config = self.keycloak("GET", path)
                self.keycloak("PUT", path, {**config, "alias": config["alias"].removesuffix(UNFINISHED)})
            if entry.get("flowId"):
                path = f"authentication/flows/{entry['flowId']}"
                below = self.keycloak("GET", path)
                self.keycloak("PUT", path, {**below, "alias": below["alias"].removesuffix(UNFINISHED)})
        whole = self.keycloak("GET", f"authentication/flows/{made}")
        self.keycloak("PUT", f"authentication/flows/{made}", {**whole, "alias": alias})

    def change_flow(self, alias, wanted, raw):
        """Change requirements and configurations of a built-in flow in place."""
        path = f"authentication/flows/{quote(alias, safe='')}/executions"
        live = self.keycloak("GET", path)
        for entry, step in zip(_executions(wanted["authenticationExecutions"]), live, strict=True):
            if entry["requirement"] != step["requirement"]:
                self.keycloak("PUT", path, {**step, "requirement": entry["requirement"]})
            if "config" in entry and not step.get("authenticationConfig"):
                self.keycloak("POST", f"authentication/executions/{step['id']}/config", entry["config"])
            elif "config" in entry:
                config = f"authentication/config/{step['authenticationConfig']}"
                self.keycloak("PUT", config, {"id": step["authenticationConfig"], **entry["config"]})


UNFINISHED = "-unfinished-by-salt"
MARK_ATTRIBUTE = {
    "name": MARK, "displayName": "Managed by", "multivalued": False, "validations": {}, "annotations": {},
    "permissions": {"view": ["admin"], "edit": ["admin"]},
}  # fmt: skip
POLICIES = ("otpPolicy", "webAuthnPolicy")
# Fields that the object's own path does not take, and how they are written.
ASIDE: dict[str, dict] = {
    "realm": {
        "defaultDefaultClientScopes": _Writer.default_scopes, "defaultOptionalClientScopes": _Writer.default_scopes,
        "defaultGroups": _Writer.default_groups, "localizationTexts": _Writer.texts,
        "clientProfiles": _Writer.policies, "clientPolicies": _Writer.policies,
        **dict.fromkeys(FLOWS, _Writer.binding),
    },
    "role": {"composites": _Writer.composites},
    "client_role": {"composites": _Writer.composites},
    "client": {
        "defaultClientScopes": _Writer.client_scopes, "optionalClientScopes": _Writer.client_scopes,
        "authorizationSettings": _Writer.authorization,
    },
    "client_scope": {"protocolMappers": _Writer.scope_mappers},
    "group": {"realmRoles": _Writer.role_mappings, "clientRoles": _Writer.role_mappings},
    "user": {
        "groups": _Writer.memberships, "realmRoles": _Writer.role_mappings, "clientRoles": _Writer.role_mappings,
    },
    "organization": {"members": _Writer.members, "identityProviders": _Writer.organization_providers},
}  # fmt: skip
WITH_CREATION = {  # those that a new object can bring along
    "client": {"defaultClientScopes", "optionalClientScopes"}, "client_scope": {"protocolMappers"},
}  # fmt: skip
# What Keycloak overrides when it makes an object: a SAML client's key, authorization, default actions.
AGAIN = {"client": ("attributes", "authorizationServicesEnabled"), "user": ("requiredActions",)}
LATER = {"role", "client_role"}  # whose fields aside have a pass of their own
IMPORTS = {
    "role": _Writer.import_role, "client_role": _Writer.import_role, "client": _Writer.import_client,
    "group": _Writer.import_group, "user": _Writer.import_user,
}  # fmt: skip


def _by_client(chunk, bodies):
    roles = defaultdict(list)
    for key in chunk:
        roles[split(key, ":")[0]].append(bodies[key])
    return {"roles": {"client": roles}}


IMPORTED = {
    "role": lambda chunk, bodies: {"roles": {"realm": [bodies[key] for key in chunk]}},
    "client_role": _by_client,
    "client": lambda chunk, bodies: {"clients": [bodies[key] for key in chunk]},
    "group": lambda chunk, bodies: {"groups": [bodies[key] for key in chunk]},
    "user": lambda chunk, bodies: {"users": [bodies[key] for key in chunk]},
}
# What others refer to comes first.
PASSES = (
    ("realm", _Writer.settings), ("user_profile", _Writer.profile), ("required_action", _Writer.required_action),
    ("role", _Writer.put), ("client_scope", _Writer.put), ("flow", _Writer.flow), ("client", _Writer.put),
    ("client_role", _Writer.put), ("role", _Writer.composites), ("client_role", _Writer.composites),
    ("scope_mapping", _Writer.scope_mapping), ("group", _Writer.put), ("realm", _Writer.late_settings),
    ("identity_provider", _Writer.put), ("identity_provider_mapper", _Writer.put), ("federation", _Writer.put),
    ("federation_mapper", _Writer.put), ("component", _Writer.put), ("user", _Writer.mark_profile),
    ("user", _Writer.free_mail), ("user", _Writer.put), ("organization", _Writer.put),
)  # fmt: skip


# -- the declared form of what is there ------------------------------------------------------------

UNTOLD = NOISE | {
    "keycloakVersion", "internalId", "createdTimestamp", "totp", "disableableCredentialTypes", "federationLink",
    "userProfileMetadata", "defaultRole", "autheticatorFlow", "subGroupCount", "parentId",
}  # fmt: skip


# Attributes of clients that Keycloak fills in, or not, depending on how the client was made.
DEFAULTS = {
    "backchannel.logout.session.required": "true",
    "backchannel.logout.revoke.offline.tokens": "false",
    "realm_client": "false",
}


def declare(live, realm):
    """Return the declared form of a live realm, so that declaring it changes nothing; pure."""

    def stripped(value, field=""):
        if isinstance(value, list):
            entries = [stripped(entry) for entry in value]
            return entries if "SignatureAlgorithms" in field else sorted(entries, key=named)
        if not isinstance(value, dict):
            return value
        left_out = UNTOLD | {MARK, LEDGER, HASHES}
        return {k: stripped(v, k) for k, v in value.items() if k not in left_out and v not in (None, {})}

    def named(entry):
        """What sorts a list of texts or of objects with names, and leaves others as they are."""
        if not isinstance(entry, dict):
            return str(entry)
        name = next((str(entry[name]) for name in ("clientId", "username", "alias", "name") if name in entry), "")
        return name and f"{name} {entry.get('subType', '')}"

    users = [entry for entry in live.told.get("users") or [] if not entry.get("federationLink")]
    told = stripped({**live.told, "users": users})
    told["attributes"] = {key: value for key, value in told.get("attributes", {}).items() if key not in told}
    for entry in told.get("clients") or []:
        for fields in (entry, entry.get("attributes") or {}):
            for key, value in list(fields.items()):
                if DEFAULTS.get(key) == value:
                    del fields[key]
                elif SECRET.fullmatch(key) and isinstance(value, str):
                    fields[key] = MASK
        if entry["clientId"] in BUILT_IN["client"]:  # these have the realm's name in them
            for field in ("baseUrl", "redirectUris"):
                if f"/{realm}/" in json.dumps(entry.get(field, "")):
                    del entry[field]
    for entry in told.get("components", {}).get(PROFILE, ()):
        document = json.loads(entry["config"]["kc.user.profile.config"][0])
        document["attributes"] = [entry for entry in document["attributes"] if entry["name"] != MARK]
        entry["config"]["kc.user.profile.config"] = [json.dumps(document, sort_keys=True)]
    return told


# -- what users call -------------------------------------------------------------------------------


class _Plan:
    """A declaration beside what is live, checked."""

    def __init__(self, realm, representation, purge, purge_limit, force, connection, absent):  # noqa: PLR0917
        if not isinstance(representation, dict) or purge not in ("none", "owned", "all"):
            what = "purge is none, owned or all" if isinstance(representation, dict) else "it is not a mapping"
            raise CommandExecutionError(f"the realm {realm} is not right, nothing was changed: {what}")
        limit = purge_limit or {}
        if set(limit) - set(PURGE_LIMIT) or not all(isinstance(x, (int, float)) and x >= 0 for x in limit.values()):
            raise CommandExecutionError("purge_limit is {count: number of objects, share: 0 to 1}")
        self.representation = {**copy.deepcopy(representation), "realm": realm}
        self.wanted = flatten(self.representation)
        self.purge = purge
        self.absent = {kind: set(map(str, keys)) for kind, keys in (absent or {}).items()}
        self.keycloak = Keycloak(realm, connection or __salt__["config.get"]("keycloak_realm") or {})
        self.notes = []
        self.live = self.read()
        if resolve_paths(self.representation, self.live, self.wanted):
            self.wanted = flatten(self.representation)
        errors = [*resolve_absent(self.absent, self.live), *check(self.live, self.wanted)]
        if errors:
            raise _refusal(self.representation, errors)
        self.changes = self.difference()
        if not force:
            guard(self.changes, self.live, self.wanted, purge_limit, self.absent)

    def read(self):
        return read(self.keycloak, self.wanted, self.purge, self.absent)

    def difference(self):
        return difference(self.live, self.wanted, self.purge, self.absent)

    def write(self):
        """Make the changes; return what Keycloak refused, ``{label: words}``."""
        changes = self.changes
        if not self.live.exists:
            if not self.wanted.tree and not self.representation:
                return {}
            self.create()
            changes = self.difference()
        writer = _Writer(self.keycloak, self.live, self.wanted, changes)
        try:
            writer.run()
        finally:
            self.remember(writer)
        return writer.errors

    def create(self):
        fields = self.wanted.tree.get("realm", {}).get(self.keycloak.realm, {})
        settings = {key: render(_unmasked(value)) for key, value in fields.items() if key not in ASIDE["realm"]}
        self.keycloak("POST", None, {"enabled": True, **settings, "realm": self.keycloak.realm})
        self.keycloak.expires = 0.0  # the rights in the new realm come with a new token
        self.live = self.read()

    def remember(self, writer):
        """Note, in the realm, what is ours and which secrets were applied."""
        secrets = {}
        live = self.read() if writer.changes else self.live
        for change in writer.changes:
            if change.kind in MASKED and change.action != "remove" and change.label not in writer.errors:
                masked = live.tree.get(change.kind, {}).get(change.key, {})
                secrets |= _masked_leaves(change.new, masked, reference(live, change.kind, change.key))
        hashes = {**live.hashes, **{ref: _hash(value) for ref, value in secrets.items()}}
        # A flow that was built anew has another id.
        refs = {
            (c.kind, c.key)
            for c in writer.changes
            if c.kind in LISTED and (c.action == "add" or (c.kind, c.key) in self.live.owned)
        } & set(live.raw)
        ledger = sorted({*live.ledger, *(reference(live, *ref) for ref in refs)})
        if (hashes, ledger) != (live.hashes, sorted(live.ledger)):
            raw = self.keycloak("GET", "")["attributes"]
            attributes = {**raw, LEDGER: json.dumps(ledger), HASHES: json.dumps(hashes)}
            self.keycloak("PUT", "", {"realm": self.keycloak.realm, "attributes": attributes})
        self.live = live._replace(hashes=hashes)


def _masked_leaves(declared, live, path):
    """Return ``{reference: secret}`` of the declared values that Keycloak does not tell; pure."""
    if isinstance(declared, dict):
        found = {}
        for key, value in declared.items():
            found |= _masked_leaves(value, (live or {}).get(key), f"{path}.{key}")
        return found
    return {path: declared} if live in (MASK, [MASK]) and declared and declared not in (MASK, [MASK]) else {}


def diff(realm, representation, purge="none", purge_limit=None, force=False, connection=None, absent=None):  # noqa: PLR0917
    """
    Return what :func:`apply` would change, without changing it.

    realm
        The realm's name. A realm that is not there is made.
    representation
        What is declared: any part of a RealmRepresentation. A part that is left out is not managed.
    purge
        What of the undeclared is removed, of the kinds that are declared at all: ``none`` (default), ``owned``
        (what this module made) or ``all``.
    purge_limit
        Refuse to remove more of one kind than ``count``, or than ``share`` (0 to 1) of it. Default
        ``{count: 50, share: 0.25}``; up to 5 are always within the share.
    force
        Remove in spite of ``purge_limit`` and of an empty list. Default ``False``.
    connection
        ``{url:, realm: master, client_id: salt, client_secret:, ca: file, timeout: seconds}``. Default: the
        pillar's or the minion's configuration's ``keycloak_realm``.
    absent
        What is removed whoever made it: ``{kind: [name, ...]}``, kind as in the keys of the changes.

    Returns ``{"changes": {object: {field: {"old":, "new":}}}, "notes": [text, ...], "error": ""}``; objects
    are ``realm``, ``client/grafana``, ``group/physics/lab``, ``client_role/grafana:editor`` and so on, one
    that is removed has ``{"old": "present", "new": "absent"}``.

    Raises CommandExecutionError if the declaration is refused, Keycloak does not answer or refuses Salt's
    client, or too much would be removed.

    CLI Example:

    .. code-block:: bash

        salt-call keycloak_realm.diff physics '{displayName: Physics, users: [{username: ada}]}'
    """
    plan = _Plan(realm, representation, purge, purge_limit, force, connection, absent)
    return {"changes": report(plan.changes), "notes": plan.notes, "error": ""}


def apply(realm, representation, purge="none", purge_limit=None, force=False, connection=None, absent=None):  # noqa: PLR0917
    """
    Make the realm what is declared and return what was changed; arguments, result and errors as :func:`diff`.
    ``error`` has what Keycloak refused, in its own words, by object; the rest has been done then.

    CLI Example:

    .. code-block:: bash

        salt-call keycloak_realm.apply physics '{passwordPolicy: length(12)}' purge=owned
    """
    plan = _Plan(realm, representation, purge, purge_limit, force, connection, absent)
    told, errors = report(plan.changes), {}
    if plan.changes or not plan.live.exists:
        errors = plan.write()
        left = report(plan.difference())
        for label in errors:
            if label in left:
                told.pop(label, None)
        for label in left:
            if label not in errors:
                fields = ", ".join(left[label]) if "old" not in left[label] else "still there"
                errors[label] = (
                    f"Keycloak took it, but still differs in {fields}: {json.dumps(left[label], default=str)[:500]}"
                )
    error = "\n".join(f"{label}: {words}" for label, words in errors.items())
    return {"changes": told, "notes": plan.notes, "error": error}


def export(realm, connection=None):
    """
    Return what is in a realm in the declared form: declared, it changes nothing.

    realm
        The realm's name.
    connection
        As of :func:`diff`.

    Returns a RealmRepresentation without ids, ownership marks and passwords of users; secrets are
    ``**********``, which declared means "leave it as it is".

    CLI Example:

    .. code-block:: bash

        salt-call --out=yaml keycloak_realm.export physics > realm.sls
    """
    keycloak = Keycloak(realm, connection or __salt__["config.get"]("keycloak_realm") or {})
    live = read(keycloak, Live({}), everything=True)
    if not live.exists:
        raise CommandExecutionError(f"there is no realm {realm}")
    return declare(live, realm)

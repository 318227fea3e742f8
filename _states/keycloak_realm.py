"""
Keep a Keycloak realm as declared.

:func:`managed` takes a whole realm, or any part of one. The others take one object. All go through the
difference engine of the execution module ``keycloak_realm``, which describes the declared form, ownership,
purging and secrets. Each takes ``connection`` as :func:`managed` does; ``fields`` are those of Keycloak's
representation of the object, but for a field ``name`` beside the one that names the object: that is given as
``display_name``. A field that is left out is left alone, ``null`` clears it.
"""

import copy
import re

import salt.utils.args
from salt.exceptions import CommandExecutionError

__opts__: dict
__salt__: dict


def __virtual__():
    return True


def managed(name, representation=None, purge="none", purge_limit=None, force=False, connection=None):  # noqa: PLR0917
    """
    Make a realm what is declared.

    name
        The realm's name. It is made if it is not there.
    representation
        What is declared: any part of Keycloak's RealmRepresentation. A part that is left out is not managed.
    purge
        What of the undeclared is removed, of the kinds that are declared at all: ``none`` (default), ``owned``
        (what this state made) or ``all``.
    purge_limit
        Refuse to remove more of one kind than ``count``, or than ``share`` (0 to 1) of it. Default
        ``{count: 50, share: 0.25}``; up to 5 are always within the share.
    force
        Remove in spite of ``purge_limit`` and of an empty list. Default ``False``.
    connection
        ``{url:, realm:, client_id:, client_secret:, ca:, timeout:}``. Default: the pillar's or the minion
        configuration's ``keycloak_realm``.

    .. code-block:: yaml

        The realm is as declared:
          keycloak_realm.managed:
            - name: physics
            - purge: owned
            - representation:
                passwordPolicy: length(12)
                groups: [{name: lab}]
                users: [{username: ada, groups: [/lab]}]
    """
    options = {"purge": purge, "purge_limit": purge_limit, "force": force}
    return _reconcile(name, name, representation or {}, connection, **options)


def client_present(name, realm, connection=None, **fields):
    """
    Ensure that a client has what is given; ``name`` is its clientId.

    .. code-block:: yaml

        grafana:
          keycloak_realm.client_present:
            - realm: physics
            - redirectUris: ["https://master/monitoring/login/generic_oauth"]
            - secret: {{ pillar.secrets.grafana_oidc_secret | json }}
    """
    return _present(name, realm, connection, "clients", {"clientId": name}, fields)


def client_absent(name, realm, connection=None):
    """
    Ensure that a client is not there.

    .. code-block:: yaml

        grafana:
          keycloak_realm.client_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "client")


def client_scope_present(name, realm, connection=None, **fields):
    """
    Ensure that a client scope has what is given.

    .. code-block:: yaml

        groups:
          keycloak_realm.client_scope_present:
            - realm: physics
            - protocol: openid-connect
    """
    return _present(name, realm, connection, "clientScopes", {"name": name}, fields)


def client_scope_absent(name, realm, connection=None):
    """
    Ensure that a client scope is not there.

    .. code-block:: yaml

        groups:
          keycloak_realm.client_scope_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "client_scope")


def role_present(name, realm, connection=None, **fields):
    """
    Ensure that a realm role has what is given.

    .. code-block:: yaml

        operator:
          keycloak_realm.role_present:
            - realm: physics
            - composites: {realm: [viewer]}
    """
    return _present(name, realm, connection, "roles.realm", {"name": name}, fields)


def role_absent(name, realm, connection=None):
    """
    Ensure that a realm role is not there.

    .. code-block:: yaml

        operator:
          keycloak_realm.role_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "role")


def client_role_present(name, realm, connection=None, **fields):
    """
    Ensure that a role of a client has what is given; ``name`` is ``client:role``, with ``~:`` for a colon in
    the role's own name.

    .. code-block:: yaml

        "grafana:editor":
          keycloak_realm.client_role_present:
            - realm: physics
            - description: May edit dashboards
    """
    *client, role = (word.replace("~:", ":") for word in re.split(r"(?<!~):", name))
    return _present(name, realm, connection, f"roles.client.{':'.join(client)}", {"name": role}, fields)


def client_role_absent(name, realm, connection=None):
    """
    Ensure that a role of a client, ``client:role``, is not there.

    .. code-block:: yaml

        "grafana:editor":
          keycloak_realm.client_role_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "client_role")


def group_present(name, realm, connection=None, **fields):
    """
    Ensure that a group has what is given; ``name`` is its path, with ``~/`` for a slash in a group's own name.
    The group above it must be there.

    .. code-block:: yaml

        /physics/lab:
          keycloak_realm.group_present:
            - realm: physics
            - attributes: {gid: [30001]}
    """
    return _present(name, realm, connection, "groups", {"path": f"/{name.removeprefix('/')}"}, fields)


def group_absent(name, realm, connection=None):
    """
    Ensure that a group is not there, nor any group below it.

    .. code-block:: yaml

        /physics/lab:
          keycloak_realm.group_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "group")


def user_present(name, realm, connection=None, **fields):
    """
    Ensure that a user has what is given. ``credentials`` are used only when the user is made.

    .. code-block:: yaml

        ada:
          keycloak_realm.user_present:
            - realm: physics
            - email: ada@example.org
            - groups: [/physics/lab]
    """
    return _present(name, realm, connection, "users", {"username": name}, fields)


def user_absent(name, realm, connection=None):
    """
    Ensure that a user is not there.

    .. code-block:: yaml

        ada:
          keycloak_realm.user_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "user")


def identity_provider_present(name, realm, connection=None, **fields):
    """
    Ensure that an identity provider has what is given; ``name`` is its alias.

    .. code-block:: yaml

        university:
          keycloak_realm.identity_provider_present:
            - realm: physics
            - providerId: oidc
            - config: {clientId: hpc, clientSecret: ..., authorizationUrl: ..., tokenUrl: ...}
    """
    return _present(name, realm, connection, "identityProviders", {"alias": name}, fields)


def identity_provider_absent(name, realm, connection=None):
    """
    Ensure that an identity provider is not there.

    .. code-block:: yaml

        university:
          keycloak_realm.identity_provider_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "identity_provider")


def federation_present(name, realm, connection=None, **fields):
    """
    Ensure that a user federation has what is given. It is changed in place, never made anew.

    .. code-block:: yaml

        directory:
          keycloak_realm.federation_present:
            - realm: physics
            - providerId: ldap
            - config: {connectionUrl: ["ldaps://ldap"], bindDn: [...], bindCredential: [...], ...}
    """
    storage = "components.org.keycloak.storage.UserStorageProvider"
    return _present(name, realm, connection, storage, {"name": name}, fields)


def federation_absent(name, realm, connection=None):
    """
    Ensure that a user federation is not there; the users that came from it go with it.

    .. code-block:: yaml

        directory:
          keycloak_realm.federation_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "federation")


def flow_present(name, realm, connection=None, **fields):
    """
    Ensure that an authentication flow is as given: its ``authenticationExecutions``, and for flows below it
    ``subFlows`` and for configurations ``authenticatorConfig``, lists as in a realm's representation.

    .. code-block:: yaml

        browser with otp:
          keycloak_realm.flow_present:
            - realm: physics
            - providerId: basic-flow
            - authenticationExecutions:
                - {authenticator: auth-cookie, requirement: ALTERNATIVE}
                - {authenticator: identity-provider-redirector, requirement: ALTERNATIVE}
    """
    fields = salt.utils.args.clean_kwargs(**fields)
    below, configurations = fields.pop("subFlows", []), fields.pop("authenticatorConfig", [])
    flows = [{"alias": name, "topLevel": True, **fields}, *({"topLevel": False, **flow} for flow in below)]
    representation = {"authenticationFlows": flows, "authenticatorConfig": configurations}
    return _reconcile(name, realm, representation, connection)


def flow_absent(name, realm, connection=None):
    """
    Ensure that an authentication flow is not there. One that is in use is an error.

    .. code-block:: yaml

        browser with otp:
          keycloak_realm.flow_absent:
            - realm: physics
    """
    return _absent(name, realm, connection, "flow")


def required_action_present(name, realm, connection=None, **fields):
    """
    Ensure that a required action is registered and has what is given; ``name`` is its alias.

    .. code-block:: yaml

        CONFIGURE_TOTP:
          keycloak_realm.required_action_present:
            - realm: physics
            - enabled: true
            - defaultAction: true
    """
    return _present(name, realm, connection, "requiredActions", {"alias": name}, fields)


def organization_present(name, realm, connection=None, **fields):
    """
    Ensure that an organization has what is given; its ``members`` are left alone unless given.

    .. code-block:: yaml

        physics:
          keycloak_realm.organization_present:
            - realm: science
            - domains: [{name: physics.example.org}]
    """
    return _present(name, realm, connection, "organizations", {"name": name}, fields)


def organization_absent(name, realm, connection=None):
    """
    Ensure that an organization is not there.

    .. code-block:: yaml

        physics:
          keycloak_realm.organization_absent:
            - realm: science
    """
    return _absent(name, realm, connection, "organization")


def _present(name, realm, connection, part, identity, fields):  # noqa: PLR0917
    """Declare a realm in which there is just this."""
    fields = copy.deepcopy(salt.utils.args.clean_kwargs(**fields))
    if "display_name" in fields:
        fields["name"] = fields.pop("display_name")
    declared: list | dict = [{**identity, **fields}]
    words = part.split(".", 2) if part.startswith("roles") else part.split(".", 1)
    for word in reversed(words):
        declared = {word: declared}
    return _reconcile(name, realm, declared, connection)


def _absent(name, realm, connection, kind):
    return _reconcile(name, realm, {}, connection, absent={kind: [name]})


def _reconcile(name, realm, representation, connection, **options):
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    call = __salt__["keycloak_realm.diff" if __opts__["test"] else "keycloak_realm.apply"]
    try:
        outcome = call(realm, representation, connection=connection, **options)
    except CommandExecutionError as error:
        # In test mode a Keycloak that an earlier state will start is pending, not red.
        pending = __opts__["test"] and "did not answer" in str(error)
        return {**ret, "result": None if pending else False, "comment": str(error)}
    ret["changes"] = outcome["changes"]
    count = len(outcome["changes"])
    if not count:
        comment = f"The realm {realm} is as declared."
    elif __opts__["test"]:
        ret["result"] = None
        comment = f"{count} object(s) of the realm {realm} would change."
    else:
        comment = f"{count} object(s) of the realm {realm} changed."
    if outcome["error"]:
        ret["result"] = False
        comment = f"{comment} Not everything is as declared:"
    ret["comment"] = "\n".join(filter(None, [comment, *outcome["notes"], outcome["error"]]))
    return ret

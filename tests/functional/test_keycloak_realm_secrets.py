"""keycloak_realm and secrets: applied, compared, and nowhere to be read."""

import json
import logging

import pytest

from tests.functional.keycloak import SALT_SECRET
from tests.functional.realm_objects import (
    APP,
    DIRECT,
    OIDC,
    client,
    directory,
    login,
    oidc,
    password,
    person,
    user,
)

# -- secrets ----------------------------------------------------------------------------------------

OWN = "the-real-one"
SECRETS = {  # where a secret may stand: (its object in changes, secret -> declaration)
    "client": ("client/app", lambda secret: {"clients": [{**APP, "serviceAccountsEnabled": True, "secret": secret}]}),
    "mail": (
        "realm",
        lambda secret: {
            "smtpServer": {"host": "m", "from": "a@b.org", "auth": "true", "user": "u", "password": secret}
        },
    ),
    "identity provider": (
        "identity_provider/partner",
        lambda secret: {"identityProviders": [{**OIDC, "config": oidc(clientSecret=secret)}]},
    ),
    "federation": ("federation/directory", directory),
    "SAML key": (
        "client/app",
        lambda secret: {
            "clients": [{**APP, "protocol": "saml", "attributes": {"saml.signing.private.key": secret}}],
        },
    ),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_masked_applied_when_changed_and_nowhere_to_be_read(realm, kind, caplog):
    key, declare = SECRETS[kind]
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    for secret in ("first-s3cret", "second-s3cret"):
        changes = realm.managed(declare(secret))
        assert set(changes) == {key}
        text = json.dumps([changes, realm.modules.export(realm.name)])
        assert "s3cret" not in text and '"**"' in text
    realm.hand("DELETE", "users/not-there", check=False)
    assert "s3cret" not in caplog.text and SALT_SECRET not in caplog.text
    attributes = json.dumps(realm.hand("GET")["attributes"])
    assert "s3cret" not in attributes


def test_the_masked_secret_of_an_export_leaves_the_secret_alone(realm):
    declared = SECRETS["client"][1](OWN)
    realm.apply(declared)
    realm.apply(SECRETS["client"][1]("**********"))
    token = realm.keycloak.grant(realm.name, "client_credentials", client_id="app", client_secret=OWN)
    assert token["access_token"]


def test_a_client_secret_changed_by_hand_is_repaired(realm):
    declared = SECRETS["client"][1](OWN)
    realm.apply(declared)
    realm.hand("POST", f"clients/{client(realm)['id']}/client-secret")
    assert realm.managed(declared) == {"client/app": {"secret": {"old": "**", "new": "**"}}}
    realm.keycloak.grant(realm.name, "client_credentials", client_id="app", client_secret=OWN)


def test_secrets_do_not_show_in_errors(realm):
    broken = {"clients": [{**APP, "secret": "the-s3cret", "redirectUris": ["https://x/#fragment"]}]}
    ended = realm.modules.state("managed", realm.name, representation=broken)
    assert ended["result"] is False and "s3cret" not in json.dumps(ended)


def test_an_initial_password_is_set_once_and_then_belongs_to_the_user(realm, caplog):
    caplog.set_level(logging.DEBUG)
    declared = {"clients": [DIRECT], "users": [person("ada", **password("Initial-1"))]}
    changes = realm.managed(declared)
    assert "Initial-1" not in json.dumps(changes) and "Initial-1" not in caplog.text
    login(realm, "ada", "Initial-1")
    own = {"type": "password", "value": "Her-own-2", "temporary": False}
    realm.hand("PUT", f"users/{user(realm)['id']}/reset-password", own)
    assert realm.managed(declared) == {}
    login(realm, "ada", "Her-own-2")


def test_a_temporary_password_must_be_changed_at_first_login(realm):
    realm.managed({"clients": [DIRECT], "users": [person("ada", **password("Initial-1", temporary=True))]})
    assert user(realm)["requiredActions"] == ["UPDATE_PASSWORD"]
    answer = login(realm, "ada", "Initial-1", check=False)
    assert answer["error_description"] == "Account is not fully set up"

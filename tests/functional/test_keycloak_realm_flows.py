"""keycloak_realm and authentication flows: edited while people sign in by them."""

import threading

from tests.functional.realm_objects import (
    APP,
    DIRECT,
    OIDC,
    client,
    execution,
    login,
    merged,
    one,
    ours,
    password,
    person,
    theirs,
)

# -- authentication flows ---------------------------------------------------------------------------

USERNAME, PASSWORD = (
    execution("direct-grant-validate-username"),
    execution("direct-grant-validate-password", priority=20),
)


def bound(*executions, **more):
    """Return a realm whose direct grant is a flow of its own, with somebody to sign in."""
    return merged(
        {"authenticationFlows": [ours(USERNAME, PASSWORD, *executions)], "directGrantFlow": "ours"},
        {"clients": [DIRECT], "users": [person("ada", **password("Initial-1"))]},
        more,
    )


OTP = {
    "authenticationFlows": [
        theirs(execution("conditional-user-configured"), execution("direct-grant-validate-otp", priority=20))
    ]
}


def test_a_flow_is_edited_while_it_is_bound_and_logins_keep_working(realm):
    realm.managed(bound())
    failed, stop = [], threading.Event()

    def keep_signing_in():
        while not stop.is_set():
            answer = login(realm, "ada", "Initial-1", check=False)
            if "access_token" not in answer:
                failed.append(answer)

    with_otp = bound(execution("form", "CONDITIONAL", 30, authenticatorFlow=True), **OTP)
    thread = threading.Thread(target=keep_signing_in)
    thread.start()
    try:
        for declared in (with_otp, bound(), with_otp):
            assert "flow/ours" in realm.managed(declared)
    finally:
        stop.set()
        thread.join()
    assert not failed
    assert realm.hand("GET")["directGrantFlow"] == "ours"
    aliases = [entry["alias"] for entry in realm.hand("GET", "authentication/flows")]
    assert len(aliases) == len(set(aliases)) and "ours" in aliases, "nothing is left of the edit"
    assert "access_token" in login(realm, "ada", "Initial-1")


def test_a_flow_keeps_what_else_is_bound_to_it_when_it_is_edited(realm):
    """A client's own flow and an identity provider's name it too."""
    first = ours(execution("auth-cookie", "ALTERNATIVE"))
    declared = {
        "authenticationFlows": [first],
        "browserFlow": "ours",
        "clients": [{**APP, "authenticationFlowBindingOverrides": {"browser": "ours"}}],
        "identityProviders": [{**OIDC, "firstBrokerLoginFlowAlias": "ours"}],
    }
    realm.managed(declared)
    declared["authenticationFlows"] = [ours(execution("auth-username-password-form"), description="Edited")]
    assert set(realm.managed(declared)) == {"flow/ours"}
    flow = one(realm.hand("GET", "authentication/flows"), "alias", "ours")
    assert client(realm)["authenticationFlowBindingOverrides"] == {"browser": flow["id"]}
    assert realm.hand("GET", "identity-provider/instances/partner")["firstBrokerLoginFlowAlias"] == "ours"
    page = realm.keycloak.session.get(
        f"{realm.keycloak.connection['url']}/realms/{realm.name}/protocol/openid-connect/auth",
        params={
            "client_id": "app",
            "response_type": "code",
            "scope": "openid",
            "redirect_uri": "https://app.example.org/x",
        },
        timeout=30,
    )
    assert page.ok and 'name="password"' in page.text


def test_configurations_of_executions(realm):
    def declared(seconds):
        return {
            "authenticationFlows": [
                ours(
                    execution("auth-cookie", "ALTERNATIVE"),
                    execution("identity-provider-redirector", "ALTERNATIVE", 20, authenticatorConfig="to partner"),
                )
            ],
            "authenticatorConfig": [{"alias": "to partner", "config": {"defaultProvider": seconds}}],
        }

    def live():
        row = realm.hand("GET", "authentication/flows/ours/executions")[1]
        return realm.hand("GET", f"authentication/config/{row['authenticationConfig']}")

    for provider in ("partner", "colleague"):
        realm.managed(declared(provider))
        assert live()["config"] == {"defaultProvider": provider}
    realm.hand("PUT", f"authentication/config/{live()['id']}", {**live(), "config": {"defaultProvider": "evil"}})
    assert realm.managed(declared("colleague"))
    assert live()["config"] == {"defaultProvider": "colleague"}


def test_sub_flows_below_sub_flows(realm):
    def sub(alias, *executions):
        return {**ours(*executions), "alias": alias, "topLevel": False}

    def declared(last):
        return {
            "authenticationFlows": [
                ours(
                    execution("auth-cookie", "ALTERNATIVE"),
                    execution("outer", "ALTERNATIVE", 20, authenticatorFlow=True),
                ),
                sub(
                    "outer",
                    execution("auth-username-password-form"),
                    execution("inner", "CONDITIONAL", 20, authenticatorFlow=True),
                ),
                sub("inner", execution("conditional-user-configured"), execution(last, priority=20)),
            ]
        }

    def rows():
        return [
            (row["level"], row.get("providerId") or row["displayName"])
            for row in realm.hand("GET", "authentication/flows/ours/executions")
        ]

    for last in ("auth-otp-form", "webauthn-authenticator"):
        realm.managed(declared(last))
        assert rows() == [
            (0, "auth-cookie"),
            (0, "outer"),
            (1, "auth-username-password-form"),
            (1, "inner"),
            (2, "conditional-user-configured"),
            (2, last),
        ]


def test_a_built_in_flow_is_changed_in_place(realm):
    """Keycloak's own flows cannot be replaced; what they require can be changed."""
    realm.apply({"enabled": True})
    exported = realm.modules.export(realm.name)
    second_factor = one(exported["authenticationFlows"], "alias", "Browser - Conditional 2FA")
    one(second_factor["authenticationExecutions"], "authenticator", "auth-otp-form")["requirement"] = "REQUIRED"
    declared = {part: exported[part] for part in ("authenticationFlows", "authenticatorConfig")}
    assert set(realm.managed(declared)) == {"flow/browser"}
    assert realm.managed(declared, purge="all") == {}

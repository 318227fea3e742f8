"""formulas/postgresql and formulas/keycloak, applied to a machine: what they promise of the service.

The tests follow one another on that machine, as its life would: installed in an older version, killed, its secrets
lost, upgraded.
"""

import json

import pytest

from tests.functional.keycloak_service import ARTIFACTS, OLDER, PUBLIC, SERVER, changed, failed
from tests.lab.harness.shell import step, wait_for

NEWER = ARTIFACTS["keycloak"]["version"]
ENTRY_POINTS = {"22", "80", "443", "8022", "8786"}  # of sshd and of the front door


@pytest.fixture(scope="module")
def machine(keycloak_service):
    """A machine to which both formulas were applied, with the older Keycloak."""
    return keycloak_service


def test_a_second_run_changes_nothing(machine):
    for test in (False, True):
        states = machine.apply("keycloak", "peer", test=test)
        assert (failed(states), changed(states)) == ({}, {})


def test_nobody_but_this_machine_gets_an_answer(machine):
    listening = [line.split()[3].rsplit(":", 1) for line in machine.shell("ss -Hltn").splitlines()]
    elsewhere = {port for address, port in listening if not address.startswith("127.0.0.1")}
    assert elsewhere == ENTRY_POINTS
    assert {"5432", "8080", "9000"} <= {port for _, port in listening}


def test_the_unit_is_shut_in(machine):
    machine.node.run(["systemd-analyze", "security", "--threshold=20", "keycloak"])
    owners = machine.shell("find /opt/qhub/keycloak/ ! -user root")
    assert owners == "", "Keycloak cannot change its own program"


def test_the_front_door_has_the_realms_and_nothing_else(machine):
    def public(path):
        return machine.ask(PUBLIC + path)

    status, _, text = public("/realms/qhub/.well-known/openid-configuration")
    assert (status, json.loads(text)["issuer"]) == (200, f"{PUBLIC}/realms/qhub")
    assert public("/")[1]["Location"] == f"{PUBLIC}/realms/qhub/account/"
    assert public("/admin/")[1]["Location"] == f"{PUBLIC}/admin/qhub/console/"
    assert public("/admin/master/console/")[1]["Location"] == f"{PUBLIC}/admin/qhub/console/"
    assert public("/admin/qhub/console/")[0] == 200
    hidden = ("/health", "/health/ready", "/metrics", "/realms/master", "/admin/realms/master")
    for path in (*hidden, "/realms/%6daster/account", "/x/../realms/master", "//realms/master"):
        assert public(path)[0] == 404, path
    for path in ("/realms;x=1/master", "/realms/master;x=1"):
        assert public(path)[0] == 400, path
    assert "jvm_memory_used_bytes" in machine.ask("http://127.0.0.1:9000/auth/metrics")[2]


def test_salt_may_do_all_in_its_realms_and_nothing_in_master(machine):
    token, realm = machine.token(), f"{SERVER}/admin/realms/qhub"
    for kind, thing in {
        "users": {"username": "bob"},
        "groups": {"name": "physics"},
        "roles": {"name": "admin"},
        "clients": {"clientId": "grafana"},
        "client-scopes": {"name": "groups", "protocol": "openid-connect"},
        "organizations": {"name": "institute", "domains": [{"name": "example.org"}]},
        "authentication/flows": {"alias": "own", "providerId": "basic-flow", "topLevel": True, "builtIn": False},
        "identity-provider/instances": {"alias": "upstream", "providerId": "oidc", "config": {"clientId": "x"}},
    }.items():
        status, _, text = machine.ask(f"{realm}/{kind}", token, thing)
        assert status == 201, (kind, text)
    for path in ("events/config", "components", "users/profile", "keys"):
        assert machine.ask(f"{realm}/{path}", token)[0] == 200, path
    assert machine.ask(f"{realm}/events/config", token, {"eventsEnabled": True}, "PUT")[0] == 204
    for path in ("users", "clients", "events/config", "components"):
        assert machine.ask(f"{SERVER}/admin/realms/master/{path}", token)[0] == 403, path


def test_keycloak_trusts_whom_the_machine_trusts(machine):
    source = {"providerId": "oidc", "fromUrl": f"{PUBLIC}/realms/qhub/.well-known/openid-configuration"}
    status, _, text = machine.ask(
        f"{SERVER}/admin/realms/qhub/identity-provider/import-config", machine.token(), source
    )
    assert (status, json.loads(text).get("issuer")) == (200, f"{PUBLIC}/realms/qhub")


def test_a_database_is_its_owner_s_alone(machine):
    def whoami(user, database):
        command = ["psql", "-XAtc", "select current_user", database]
        return machine.node.run(command, user=user, check=False).stdout.strip()

    assert whoami("games", "games") == "games"
    assert whoami("games", "keycloak") == ""
    assert whoami("www-data", "games") == ""
    wrong = machine.shell("PGPASSWORD=wrong psql -XAtc 'select 1' -h 127.0.0.1 -U keycloak keycloak 2>&1 || true")
    assert "password authentication failed" in wrong


@pytest.mark.parametrize("program", ["keycloak", "postgresql"])
def test_it_comes_back_when_killed(machine, program):
    other = {"keycloak": "postgresql", "postgresql": "keycloak"}[program]
    before = machine.pid(program), machine.pid(other)
    machine.node.run(["kill", "-9", before[0]])
    with step(f"Waiting for {program}"):
        wait_for(f"{program} is back", lambda: "ada" in (machine.people() or []), timeout=90)
        # PostgreSQL answers some seconds before its starter says so, and systemd believes the latter.
        wait_for("systemd says so", lambda: machine.active(program), timeout=30)
    assert machine.pid(program) != before[0]
    assert machine.pid(other) == before[1], "the other one has borne it"


def test_lost_secrets_are_set_right(machine):
    """All of Salt's secrets are new, and it has no right in the realm, as if somebody else had made that."""
    lost = machine.secret["keycloak_salt_secret"]
    machine.sql(
        "delete from user_role_mapping using keycloak_role r, client c"
        " where r.id = role_id and c.id = r.client and c.client_id = 'qhub-realm'"
    )
    machine.new_secrets()
    states = machine.apply("keycloak")
    assert failed(states) == {}
    assert set(changed(states)) == {
        "Keycloak's database password is in place",
        "Salt's secret in Keycloak is in place",
        "Database keycloak exists",
        "Keycloak is running",
        "Keycloak is ready",
        "Salt may administer Keycloak",
    }
    assert "ada" in machine.people()
    assert machine.token(lost) is None


def test_no_administrator_is_left(machine):
    assert machine.sql("select client_id from client where client_id like 'qhub-temporary%'") == []
    users = "select username from user_entity u join realm r on r.id = u.realm_id where r.name = 'master'"
    assert machine.sql(users) == ["service-account-salt"]
    assert machine.shell("ls /etc/keycloak").split() == ["database.password", "salt.secret"]


def test_an_upgrade_without_a_saved_database_does_not_happen(machine):
    machine.set_version(None)
    machine.shell("mkdir -p /var/backups/qhub && mount -t tmpfs -o size=64k none /var/backups/qhub")
    before = machine.pid("keycloak")
    states = machine.apply("keycloak", test=True)
    assert states["Keycloak is of the listed version"]["result"] is None
    states = machine.apply("keycloak")
    assert "Keycloak is of the listed version" in failed(states)
    assert "nothing was changed" in states["Keycloak is of the listed version"]["changes"]["stderr"]
    assert machine.shell("find /var/backups/qhub -type f") == ""
    assert machine.pid("keycloak") == before
    assert machine.shell("readlink /opt/qhub/keycloak").strip().endswith(OLDER["version"])
    assert "ada" in machine.people()
    machine.shell("umount /var/backups/qhub")


def test_an_upgrade_saves_the_database_first(machine):
    for day in (1, 2):
        machine.shell(f"touch -d 2026-01-0{day} /var/backups/qhub/keycloak-26.0.{day}-2026010{day}T000000Z.dump")
    states = machine.apply("keycloak")
    assert failed(states) == {}
    first, saved = sorted(machine.shell("ls /var/backups/qhub").split())
    assert first.startswith("keycloak-26.0.2-"), "only so many are kept"
    assert saved.startswith(f"keycloak-{OLDER['version']}-")
    assert machine.shell(f"stat -c '%a %U' /var/backups/qhub/{saved}") == "600 root\n"
    assert "TABLE DATA public user_entity" in machine.shell(f"pg_restore --list /var/backups/qhub/{saved}")
    assert machine.shell("readlink /opt/qhub/keycloak").strip().endswith(NEWER)
    assert machine.shell("ls -d /opt/qhub/keycloak-*").split() == [f"/opt/qhub/keycloak-{NEWER}"], (
        "the old one is removed"
    )
    assert machine.sql("select version from migration_model order by update_time desc limit 1") == [NEWER]
    assert "ada" in machine.people()
    states = machine.apply("keycloak")
    assert (failed(states), changed(states)) == ({}, {})


def test_there_is_no_way_back_by_chance(machine):
    before = machine.shell("readlink /opt/qhub/keycloak; ls /var/backups/qhub")
    upgrade = ["qhub-keycloak-upgrade", f"/opt/qhub/keycloak-{OLDER['version']}", "/var/backups/qhub", "2"]
    done = machine.node.run(upgrade, check=False)
    assert (done.returncode, "does not go back" in done.stderr) == (1, True)
    assert machine.shell("readlink /opt/qhub/keycloak; ls /var/backups/qhub") == before


def test_no_secret_was_seen(machine):
    seen = {
        "a command line": machine.node.read("/run/command-lines"),
        "the journal": machine.shell("journalctl --quiet --no-pager --output=cat"),
        "a log": machine.shell("cat /var/log/salt-solo /var/log/postgresql/*"),
        "a state's return": "".join(machine.returns),
    }
    assert "bootstrap-admin" in seen["a command line"], "the watch saw what is over in seconds"
    assert [where for where, text in seen.items() if any(secret in text for secret in machine.secrets)] == []
    places = ["/etc", "/opt/qhub/keycloak/", "/run", "/tmp", "/var"]

    def readable(user):
        found = machine.node.run(
            ["grep", "-rslFf", "-", *places], user=user, input="\n".join(machine.secrets), check=False
        )
        return set(found.stdout.split())

    assert {"/etc/keycloak/database.password", "/etc/keycloak/salt.secret"} <= readable("root")
    assert readable("www-data") == set()
    assert readable("keycloak") == {"/run/credentials/keycloak.service/database"}

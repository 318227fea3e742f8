"""formulas/postgresql and formulas/keycloak, applied to a machine: what they promise of the service.

The tests follow one another on that machine, as its life would: installed in an older version, killed, its secrets
lost, upgraded.
"""

import json
import sys

import pytest

from tests.lab.harness import image, settings
from tests.lab.harness.node import Node
from tests.lab.harness.shell import run, step, wait_for

OLDER = {"version": "26.7.2", "sha256": "4f3ce3b797a9d98998b7f1a6bd5d2b9832100faea66c48988713a9b23eda5c44"}
ARTIFACTS = json.loads((settings.REPOSITORY / "salt/artifacts.json").read_text())
NEWER = ARTIFACTS["keycloak"]["version"]
SERVER, PUBLIC = "http://127.0.0.1:8080/auth", "https://master.cluster.internal/auth"
ENTRY_POINTS = {"22", "80", "443", "8022", "8786"}  # of sshd and of the front door
REALM = {
    "realm": "qhub",
    "enabled": True,
    "organizationsEnabled": True,
    "users": [{"username": "ada", "enabled": True}],
}

PILLAR = {
    "cluster": {
        "name": "qhub",
        "domain": "cluster.internal",
        "master": {"id": "master", "address": "10.0.0.10"},
        "network": "10.0.0.0/24",
    },
    "artifacts": {"mirror": "/srv/site-mirror"},
    "base": {"time_sync": False},
    "keycloak": {"backups": {"directory": "/var/backups/qhub", "keep": 2}},
}
MINION = {
    "file_client": "local",
    "id": "master",
    "root_dir": "/",
    "cachedir": "/var/cache/salt/solo",
    "pki_dir": "/etc/qhub/solo/pki",
    "log_file": "/var/log/salt-solo",
    "file_roots": {
        "base": ["/srv/first", *(f"{settings.CHECKOUT}/{each}" for each in ("salt", "formulas")), "/var/lib/qhub/files"]
    },
    "pillar_roots": {"base": ["/etc/qhub/pillar", f"{settings.CHECKOUT}/pillar", "/var/lib/qhub/pillar"]},
    "module_dirs": [f"{settings.CHECKOUT}/salt"],
    "ext_pillar": [{"qhub": {}}],
    "lazy_loader_strict_matching": True,
    "grains": {"roles": ["master"]},
}
PEER = """\
{% from "postgresql/macros.jinja" import database %}
include: [postgresql]
{{ database("games") }}
"""
# In the machine: one request, described as JSON on standard input; verified with what the machine itself trusts.
ASK = """
import json, sys, urllib.error, urllib.request
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
asked = json.load(sys.stdin)
body = asked.pop("body")
request = urllib.request.Request(**asked, data=body.encode() if body is not None else None)
try:
    answer = urllib.request.build_opener(Stay).open(request, timeout=20)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    print(json.dumps([0, {}, repr(error)]))
    sys.exit()
print(json.dumps([answer.status, dict(answer.headers), answer.read().decode()]))
"""
# In the machine: every command line that ever was, as far as 50 looks a second see.
WATCH = """
import glob, time
seen = set()
with open("/run/command-lines", "wb", buffering=0) as file:
    while True:
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                words = open(path, "rb").read()
            except OSError:
                continue
            if words not in seen:
                seen.add(words)
                file.write(words + b"\\n")
        time.sleep(0.02)
"""


class Machine:
    """The machine with both services, and what was seen of them."""

    def __init__(self, older):
        binds = {settings.MIRROR: image.mirror(), settings.CHECKOUT: settings.REPOSITORY, "/srv/older": older}
        self.node = Node("keycloak-service", binds={inside: f"{outside}:ro" for inside, outside in binds.items()})
        self.returns = []
        self.secrets = set()

    def start(self):
        """Boot, and prepare for Salt without a master."""
        self.node.destroy()
        self.node.boot()
        run = self.node.run
        run(["systemctl", "mask", "--now", "systemd-networkd-wait-online"])  # there is only loopback
        run(["sh", "-c", "echo 127.0.0.1 master.cluster.internal >> /etc/hosts"])
        bootstrap = f"{settings.CHECKOUT}/salt/bootstrap"
        run([f"{bootstrap}/install.sh", f"{bootstrap}/requirements.lock", settings.MIRROR], timeout=300)
        run(["systemd-run", "--quiet", "--unit=watch", "python3", "-c", WATCH])
        # A mirror that has the older Keycloak too.
        self.shell(
            f"mkdir -p /srv/site-mirror/artifacts && ln -s {settings.MIRROR}/debs /srv/site-mirror "
            f"&& ln -s {settings.MIRROR}/artifacts/* /srv/older/keycloak-* /srv/site-mirror/artifacts"
        )
        self.node.write("/etc/qhub/solo/minion", json.dumps(MINION))
        self.set_pillar(PILLAR)
        self.new_secrets()
        self.node.write("/srv/first/peer.sls", PEER)

    def shell(self, script, **options):
        return self.node.run(["sh", "-c", script], **options).stdout

    def set_pillar(self, pillar):
        self.node.write("/etc/qhub/pillar/cluster.sls", json.dumps(pillar))

    def new_secrets(self):
        """Let bootstrap generate secrets, others than there were."""
        self.shell(
            f"rm -rf /var/lib/qhub/pillar && python3 {settings.CHECKOUT}/salt/bootstrap/secrets.py /var/lib/qhub/pillar"
        )
        self.secret = json.loads(self.node.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
        self.secrets |= {self.secret[f"keycloak_{each}"] for each in ("database_password", "salt_secret")}

    def set_version(self, entry):
        """Say which Keycloak the list of programs has; ``None``: what this repository says."""
        if entry:
            listed = {**ARTIFACTS, "keycloak": {**ARTIFACTS["keycloak"], "version": entry["version"]}}
            listed["keycloak"]["sha256"] = {"any": entry["sha256"]}
            self.node.write("/srv/first/artifacts.json", json.dumps(listed))
        else:
            self.shell("rm /srv/first/artifacts.json")

    def apply(self, *names, test=False):
        """Apply SLS and return ``{state: return}``."""
        command = ["salt-call", "--config-dir=/etc/qhub/solo", "--out=json", "--log-level=quiet", "state.apply"]
        with step(f"Applying {', '.join(names)}"):
            done = self.node.run([*command, ",".join(names), f"test={test}"], check=False, timeout=400)
        self.returns.append(done.stdout + done.stderr)
        states = json.loads(done.stdout)["local"]
        assert isinstance(states, dict), states
        for each in sorted(states.values(), key=lambda each: -each["duration"])[:4]:
            print(f"    {each['duration'] / 1000:6.2f} s  {each['__id__']}", file=sys.stderr)
        return {each["__id__"]: each for each in states.values()}

    def ask(self, url, token=None, body=None, method=None, form=None):
        """Ask something over HTTP from inside; return ``(status, headers, text)``, status 0 if nobody answers."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"], form = "application/json", json.dumps(body)
        asked = {"url": url, "headers": headers, "body": form, "method": method or ("GET" if form is None else "POST")}
        return json.loads(self.node.run(["python3", "-c", ASK], input=json.dumps(asked)).stdout)

    def token(self, secret=None):
        """Return a token of Salt's client; ``None`` if there is none to be had."""
        secret = secret or self.secret["keycloak_salt_secret"]
        form = f"grant_type=client_credentials&client_id=salt&client_secret={secret}"
        status, _, text = self.ask(f"{SERVER}/realms/master/protocol/openid-connect/token", form=form)
        return json.loads(text)["access_token"] if status == 200 else None

    def people(self):
        """Return the names of who is in the realm; ``None`` if Keycloak does not say."""
        token = self.token()
        status, _, text = self.ask(f"{SERVER}/admin/realms/qhub/users", token) if token else (0, {}, "")
        return [each["username"] for each in json.loads(text)] if status == 200 else None

    def sql(self, statement):
        return self.node.run(["psql", "-XAtc", statement, "keycloak"], user="postgres").stdout.split()

    def active(self, program):
        unit = {"postgresql": "postgresql@17-main"}.get(program, program)
        return not self.node.run(["systemctl", "--quiet", "is-active", unit], check=False).returncode

    def pid(self, program):
        find = {
            "keycloak": "pgrep -u keycloak java",
            "postgresql": "head -1 /var/lib/postgresql/17/main/postmaster.pid",
        }
        return self.shell(find[program]).strip()


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine to which both formulas were applied, with the older Keycloak."""
    older = settings.CACHE / "older"
    older.mkdir(parents=True, exist_ok=True)
    listed = tmp_path_factory.mktemp("older") / "artifacts.json"
    listed.write_text(json.dumps({"keycloak": {**ARTIFACTS["keycloak"], **OLDER, "sha256": {"any": OLDER["sha256"]}}}))
    fetch = settings.REPOSITORY / "salt/bootstrap/fetch.py"
    run([sys.executable, fetch, "--map", listed, "download", older], timeout=300)
    machine = Machine(older)
    try:
        with step("Booting a machine for Keycloak"):
            machine.start()
        machine.set_version(OLDER)
        states = machine.apply("keycloak", "peer")
        assert failed(states) == {}
        token = machine.token()
        assert machine.ask(f"{SERVER}/admin/realms", token, REALM)[0] == 201, "Salt may make a realm"
        yield machine
    finally:
        machine.node.destroy()


def failed(states):
    return {name: state["comment"] for name, state in states.items() if state["result"] is False}


def changed(states):
    return {name: state["changes"] for name, state in states.items() if state["changes"] or state["result"] is None}


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

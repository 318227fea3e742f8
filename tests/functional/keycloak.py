"""One machine with Keycloak on PostgreSQL, and an OpenLDAP server for it to federate; reached from here over HTTP.

Salt's own client has no other rights than to create realms; what tests do by hand, an administrator does.
"""

import contextlib
import ipaddress
import json
import zlib
from unittest import mock

import requests

from tests.lab.harness import image, settings
from tests.lab.harness.node import LoneNode
from tests.lab.harness.shell import run, step, wait_for

ARTIFACT = json.loads((settings.REPOSITORY / "salt/artifacts.json").read_text())["keycloak"]
ARCHIVE = ARTIFACT["file"].format(**ARTIFACT)
PACKAGES = ("postgresql-17", "openjdk-21-jre-headless", "slapd", "ldap-utils")
INSTALL = ("apt-get", "-qq", "-y", "--no-install-recommends", "install")
HOME = "/opt/keycloak"

# A link of its own for each set of machines on this one; private, so that Keycloak lets it do without TLS.
_NUMBER = zlib.crc32(settings.STATE.name.encode())
_LINK = ipaddress.ip_address("172.31.0.0") + _NUMBER % (1 << 14) * 4
HERE, THERE = str(_LINK + 1), str(_LINK + 2)
INTERFACE = f"kc{_NUMBER:08x}"
URL = f"http://{THERE}:8080/auth"
MANAGEMENT = f"http://{THERE}:9000/auth"

ADMIN, ADMIN_PASSWORD = "admin", "change-me-by-hand"
SALT, SALT_SECRET = "salt", "s3cret-of-the-client-salt"
LDAP_URL, LDAP_ADMIN, LDAP_PASSWORD = "ldap://127.0.0.1:389", "cn=admin,dc=example,dc=org", "s3cret-of-the-directory"

KEYCLOAK_CONF = f"""\
db=postgres
db-url=jdbc:postgresql://127.0.0.1/keycloak
db-username=keycloak
db-password=keycloak
http-enabled=true
http-host={THERE}
http-relative-path=/auth
http-management-host={THERE}
hostname={URL}
health-enabled=true
metrics-enabled=true
cache=local
vault=file
vault-dir=/opt/vault
"""
UNIT = f"""\
[Service]
Type=exec
User=keycloak
Environment=JAVA_OPTS_KC_HEAP='-Xms256m -Xmx768m' KC_BOOTSTRAP_ADMIN_USERNAME={ADMIN}
Environment=KC_BOOTSTRAP_ADMIN_PASSWORD={ADMIN_PASSWORD}
ExecStart={HOME}/bin/kc.sh start --optimized
SuccessExitStatus=143
"""
SLAPD_CONF = f"""\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
directory /var/lib/slapd
suffix dc=example,dc=org
rootdn {LDAP_ADMIN}
rootpw {LDAP_PASSWORD}
index objectClass,uid,cn,member eq
"""
PEOPLE = {"grace": ("Grace", "Hopper"), "linus": ("Linus", "Pauling"), "marie": ("Marie", "Curie")}
GROUPS = {"physics": ("marie",), "chemistry": ("linus", "marie")}


def directory():
    """Return the LDAP directory as LDIF."""
    base = "dc=example,dc=org"
    entries = [f"dn: {base}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example"]
    entries += [f"dn: ou={ou},{base}\nobjectClass: organizationalUnit\nou: {ou}" for ou in ("people", "groups")]
    entries += [
        f"dn: uid={uid},ou=people,{base}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {first}\nsn: {last}\n"
        f"mail: {uid}@example.org\nuserPassword: {uid}-s3cret"
        for uid, (first, last) in PEOPLE.items()
    ]
    entries += [
        f"dn: cn={name},ou=groups,{base}\nobjectClass: groupOfNames\ncn: {name}\n"
        + "\n".join(f"member: uid={uid},ou=people,{base}" for uid in members)
        for name, members in GROUPS.items()
    ]
    return "\n\n".join([*entries, ""])


class Keycloak:
    """The machine: ``start`` it once, ``destroy`` it; ``kill`` and ``serve`` Keycloak in it."""

    def __init__(self):
        self.node = LoneNode("keycloak", binds={settings.MIRROR: f"{settings.CACHE / 'mirror'}:ro"})
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy in between

    def start(self):
        image.mirror()
        self.node.destroy()
        with step("Booting a machine with Keycloak"):
            self.node.boot()
            self._connect()
            write, run_ = self.node.write, self.node.run
            write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "0755")
            write("/etc/apt/sources.list.d/mirror.list", f"deb [trusted=yes] file:{settings.MIRROR}/debs ./\n")
            run_(["apt-get", "-qq", "update"])
            run_(["env", "DEBIAN_FRONTEND=noninteractive", *INSTALL, *PACKAGES], timeout=300)
            self._directory()
            self._database()
            run_(["useradd", "--system", "--home-dir", HOME, "keycloak"])
            run_(["install", "-d", "-o", "keycloak", HOME])
            archive = f"{settings.MIRROR}/artifacts/{ARCHIVE}"
            run_(["tar", "-xzf", archive, "--strip-components=1", "--no-same-owner", "-C", HOME])
            write(f"{HOME}/conf/keycloak.conf", KEYCLOAK_CONF)
            run_(["chown", "-R", "keycloak:", HOME])
            run_(["install", "-d", "/opt/vault"])
            run_(
                ["env", "JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1", f"{HOME}/bin/kc.sh", "build"],
                user="keycloak",
                timeout=300,
            )
            write("/etc/systemd/system/keycloak.service", UNIT)
            self.serve()
        self._salt()

    def _connect(self):
        """Lay a cable from here to the machine; it goes with the machine."""
        run(["ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", "kc0", "netns", self.node.leader])
        run(["ip", "address", "add", f"{HERE}/30", "dev", INTERFACE])
        run(["ip", "link", "set", INTERFACE, "up"])
        self.node.run(["ip", "address", "add", f"{THERE}/30", "dev", "kc0"])
        self.node.run(["ip", "link", "set", "kc0", "up"])

    def _directory(self):
        self.node.write("/etc/ldap/slapd.conf", SLAPD_CONF)
        self.node.run(["install", "-d", "/var/lib/slapd"])
        self.node.run(["slapadd", "-q", "-f", "/etc/ldap/slapd.conf"], input=directory())
        self.node.run(
            ["systemd-run", "--unit=directory", "--property=Type=forking", "slapd", "-f", "/etc/ldap/slapd.conf",
             "-h", "ldap://127.0.0.1"]
        )  # fmt: skip

    def _database(self):
        self.node.run(["systemctl", "start", "postgresql"])
        statements = "create user keycloak password 'keycloak'", "create database keycloak owner keycloak"
        for statement in statements:
            self.node.run(["psql", "-qc", statement], user="postgres", cwd="/")

    def destroy(self):
        self.session.close()
        self.node.destroy()

    # -- daemons --------------------------------------------------------------------------------

    def serve(self):
        """Start Keycloak and wait until it is ready."""
        self.node.run(["systemctl", "start", "keycloak"])
        wait_for("Keycloak is ready", self._ready, timeout=300)

    def _ready(self):
        if self.node.run(["systemctl", "is-active", "keycloak"], check=False).returncode:
            raise RuntimeError(self.node.journal("keycloak"))
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return self.session.get(f"{MANAGEMENT}/health/ready", timeout=5).ok
        return False

    def kill(self):
        """Kill Keycloak as the kernel does when memory is short."""
        self.node.run(["systemctl", "kill", "--signal=KILL", "keycloak"])
        self.node.run(["systemctl", "reset-failed", "keycloak"], check=False)

    # -- an administrator -----------------------------------------------------------------------

    def admin(self, method, path, body=None, *, check=True, **parameters):
        """Call Keycloak's admin API by hand: ``path`` below ``/admin/realms/``. Returns what it answers."""
        for attempt in (1, 2):
            response = self.session.request(
                method, f"{URL}/admin/realms/{path}", json=body, params=parameters, timeout=60
            )
            if response.status_code != 401 or attempt == 2:
                break
            self.session.headers["Authorization"] = f"Bearer {self._token()}"
        if not check:
            return response
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text}")
        if "application/json" in response.headers.get("Content-Type", ""):
            return response.json()
        return response.headers.get("Location", "").rpartition("/")[2]  # the id of what was made

    def _token(self):
        return self.grant("master", client_id="admin-cli", username=ADMIN, password=ADMIN_PASSWORD)["access_token"]

    def grant(self, realm, grant_type="password", check=True, **parameters):
        """Ask for a token; ``check`` false: return the error that Keycloak answers with instead."""
        response = self.session.post(
            f"{URL}/realms/{realm}/protocol/openid-connect/token",
            data={"grant_type": grant_type, **parameters},
            headers={"Authorization": None},
            timeout=60,
        )
        if check and not response.ok:
            raise RuntimeError(f"token of realm {realm}: {response.status_code} {response.text}")
        return response.json()

    # -- Salt -----------------------------------------------------------------------------------

    @property
    def connection(self):
        return {"url": URL, "realm": "master", "client_id": SALT, "client_secret": SALT_SECRET}

    def _salt(self):
        """Make Salt's client, which may create realms and is made an administrator of those it creates."""
        self.session.headers["Authorization"] = f"Bearer {self._token()}"
        self.salt_client()

    def salt_client(self):
        client = self.admin(
            "POST",
            "master/clients",
            {
                "clientId": SALT,
                "secret": SALT_SECRET,
                "publicClient": False,
                "serviceAccountsEnabled": True,
                "standardFlowEnabled": False,
                "directAccessGrantsEnabled": False,
            },
        )
        account = self.admin("GET", f"master/clients/{client}/service-account-user")["id"]
        role = self.admin("GET", "master/roles/create-realm")
        self.admin("POST", f"master/users/{account}/role-mappings/realm", [role])


@contextlib.contextmanager
def calls():
    """Yield a list that fills with ``(method, path)`` of each request that Keycloak gets meanwhile, but for tokens."""
    sent, original = [], requests.adapters.HTTPAdapter.send

    def send(self, request, *arguments, **options):
        path = request.path_url.removeprefix("/auth")
        if request.url.startswith(URL) and not path.endswith("/protocol/openid-connect/token"):
            sent.append((request.method, path))
        return original(self, request, *arguments, **options)

    with mock.patch.object(requests.adapters.HTTPAdapter, "send", send):
        yield sent


def writes(sent):
    """Return those calls that could change something; partial-export, a POST, only reads."""
    return [(method, path) for method, path in sent if method != "GET" and "/partial-export" not in path]


class Realm:
    """One realm: what Salt makes of it, and what an administrator does in it by hand."""

    def __init__(self, keycloak, modules, name):
        self.keycloak = keycloak
        self.modules = modules
        self.name = name

    def hand(self, method, path="", body=None, **options):
        """Call the admin API by hand: ``path`` within the realm."""
        return self.keycloak.admin(method, f"{self.name}/{path}".rstrip("/"), body, **options)

    def edit(self, path, **fields):
        """Change fields of the object at ``path`` by hand."""
        self.hand("PUT", path, {**self.hand("GET", path), **fields})

    def delete(self):
        self.keycloak.admin("DELETE", self.name, check=False)

    def apply(self, representation, **options):
        """Apply without a look at the result's form; raises if it failed."""
        outcome = self.modules.apply(self.name, representation, **options)
        if outcome["error"]:
            raise RuntimeError(outcome["error"])
        return outcome["changes"]

    def diff(self, representation, **options):
        return self.modules.diff(self.name, representation, **options)["changes"]

    def state(self, function, *arguments, **declared):
        """Run a state in test mode, for real, and again if that changed something; return what it changed.

        Test mode writes nothing and tells the same changes; where nothing is to change, nothing is written.
        """
        with calls() as sent:
            foretold = self.modules.state(function, *arguments, test=True, **declared)
        assert not writes(sent), foretold
        with calls() as sent:
            done = self.modules.state(function, *arguments, **declared)
        assert done["result"] is True, done["comment"]
        assert foretold["changes"] == done["changes"]
        assert foretold["result"] is (None if done["changes"] else True), foretold["comment"]
        if done["changes"]:
            with calls() as sent:
                again = self.modules.state(function, *arguments, **declared)
            assert (again["result"], again["changes"]) == (True, {}), again
        assert not writes(sent)
        return done["changes"]

    def managed(self, representation, **options):
        """Let the state ``managed`` make the realm so, as :meth:`state` does."""
        return self.state("managed", self.name, representation=representation, **options)

    def refused(self, representation, **options):
        """Return the comment of the state that refuses this, in both modes, having written nothing."""
        comments = []
        for test in (True, False):
            with calls() as sent:
                ended = self.modules.state("managed", self.name, representation=representation, test=test, **options)
            assert (ended["result"], ended["changes"]) == (False, {}), ended
            assert not writes(sent)
            comments.append(ended["comment"])
        assert comments[0] == comments[1]
        return comments[0]

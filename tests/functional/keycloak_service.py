"""One machine with PostgreSQL and Keycloak: the formulas applied to it, without a master, in an older version first."""

import json
import sys

from tests.lab.harness import image, older, settings
from tests.lab.harness.node import LoneNode
from tests.lab.harness.shell import step

OLDER = older.PROGRAMS["keycloak"]
ARTIFACTS = json.loads((settings.REPOSITORY / "salt/artifacts.json").read_text())
SERVER, PUBLIC = "http://127.0.0.1:8080/auth", "https://master.cluster.internal/auth"
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


class KeycloakService:
    """The machine with both services, and what was seen of them."""

    def __init__(self):
        binds = {settings.MIRROR: image.mirror(), settings.CHECKOUT: settings.REPOSITORY, older.OLDER: older.CACHE}
        self.node = LoneNode("keycloak-service", binds={inside: f"{outside}:ro" for inside, outside in binds.items()})
        self.returns = []
        self.secrets = set()

    def start(self):
        """Boot, and apply both formulas with the older Keycloak."""
        older.programs()
        with step("Booting a machine for Keycloak"):
            self._boot()
        self.set_version(OLDER)
        states = self.apply("keycloak", "peer")
        assert failed(states) == {}
        assert self.ask(f"{SERVER}/admin/realms", self.token(), REALM)[0] == 201, "Salt may make a realm"

    def _boot(self):
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
            f"&& ln -s {settings.MIRROR}/artifacts/* {older.OLDER}/keycloak-* /srv/site-mirror/artifacts"
        )
        self.node.write("/etc/qhub/solo/minion", json.dumps(MINION))
        self.set_pillar(PILLAR)
        self.new_secrets()
        self.node.write("/srv/first/peer.sls", PEER)

    def destroy(self):
        self.node.destroy()

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
            listed = {**ARTIFACTS, "keycloak": {**ARTIFACTS["keycloak"], **entry}}
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


def failed(states):
    return {name: state["comment"] for name, state in states.items() if state["result"] is False}


def changed(states):
    return {name: state["changes"] for name, state in states.items() if state["changes"] or state["result"] is None}

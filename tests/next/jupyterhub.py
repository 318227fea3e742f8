"""One machine that is a whole cluster: formulas/slurm, keycloak and jupyterhub applied to it, without a master.

Reached from here through its front door, with its own certificate authority.
"""

import ipaddress
import json
import zlib

import requests

from tests.lab.harness import image, settings
from tests.lab.harness.node import Node
from tests.lab.harness.shell import run, step, wait_for

_NUMBER = zlib.crc32(settings.STATE.name.encode())
# A network of its own for each set of machines on this one: the machine, and here.
NETWORK = ipaddress.ip_network((int(ipaddress.ip_address("172.30.0.0")) + _NUMBER % 256 * 256, 24))
THERE, HERE = str(NETWORK[10]), str(NETWORK[9])
INTERFACE = f"jh{_NUMBER:08x}"
NAME = "master.cluster.internal"
PASSWORD = "a Password of 3 words"  # noqa: S105
PEOPLE = ("ada", "marie", "guest", "vic")

PILLAR = {
    "cluster": {
        "cluster": {
            "name": "qhub",
            "domain": "cluster.internal",
            "master": {"id": "master", "address": THERE},
            "network": str(NETWORK),
        },
        "artifacts": {"mirror": settings.MIRROR},
        "base": {"time_sync": False},
        "slurm": {  # no cgroup controllers
            "config": {"ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/affinity"},
            "cgroup": {"CgroupPlugin": "disabled"},
        },
        "jupyterhub": {
            "poll_interval": 4,
            "profiles": {
                "default": {"memory": 500},
                "physics": {"title": "Physics", "accounts": ["physics"], "choose": False, "time": 1, "memory": 400},
            },
            "announcement": "Maintenance on <b>Friday</b>",
        },
    },
    "nodes": {"nodes": {"master": {"address": THERE, "roles": ["master", "worker"]}}},
    "partitions": {"partitions": {"main": {"default": True, "max_time": "1-00:00:00"}, "long": {"max_time": "7-0"}}},
    "users": {
        "groups": {"physics": {"gid": 30000}},
        "accounts": {
            "science": {},
            "physics": {"parent": "science"},
            "chemistry": {"parent": "science", "max_wall": "04:00:00"},
        },
        "users": {
            "ada": {"uid": 20001, "full_name": "Ada Lovelace", "accounts": ["physics"], "role": "admin"},
            "marie": {"uid": 20002, "full_name": "Marie Curie", "accounts": ["chemistry", "physics"]},
            "guest": {"uid": 20003, "full_name": "A guest"},
            "vic": {"uid": 20004, "full_name": "Victor Viewer", "accounts": ["physics"], "role": "viewer"},
        },
    },
}
MINION = {
    "file_client": "local",
    "id": "master",
    "root_dir": "/",
    "cachedir": "/var/cache/salt/solo",
    "pki_dir": "/etc/qhub/solo/pki",
    "log_file": "/var/log/salt-solo",
    "file_roots": {"base": [*(f"{settings.CHECKOUT}/{each}" for each in ("salt", "formulas")), "/var/lib/qhub/files"]},
    "pillar_roots": {"base": ["/etc/qhub/pillar", f"{settings.CHECKOUT}/pillar", "/var/lib/qhub/pillar"]},
    "module_dirs": [f"{settings.CHECKOUT}/salt"],
    "ext_pillar": [{"qhub": {}}],
    "lazy_loader_strict_matching": True,
    "grains": {"roles": ["master", "worker"]},
}
# A service of the site's own, by which tests ask the Hub for tokens.
DRIVER_TOKEN = "token-of-the-driver-of-tests"  # noqa: S105
DRIVER = f"""
c.JupyterHub.services.append({{"name": "driver", "api_token": "{DRIVER_TOKEN}"}})
scopes = ["admin:users", "admin:servers", "tokens", "list:users", "access:servers"]
c.JupyterHub.load_roles.append({{"name": "driver", "scopes": scopes, "services": ["driver"]}})
"""
# In the machine: give people passwords, as an administrator would.
PASSWORDS = """
import json, sys, urllib.parse, urllib.request
server, secret = "http://127.0.0.1:8080/auth", open("/etc/keycloak/salt.secret").read().strip()
def ask(method, path, body, kind, token=None):
    headers = {"Content-Type": kind, **({"Authorization": "Bearer " + token} if token else {})}
    with urllib.request.urlopen(urllib.request.Request(server + path, body, headers, method=method)) as answer:
        text = answer.read()
    return json.loads(text) if text else None
form = urllib.parse.urlencode({"grant_type": "client_credentials", "client_id": "salt", "client_secret": secret})
token = ask("POST", "/realms/master/protocol/openid-connect/token", form.encode(),
            "application/x-www-form-urlencoded")["access_token"]
for name in sys.argv[2:]:
    path = "/admin/realms/qhub/users"
    found = ask("GET", path + "?exact=true&username=" + name, None, "application/json", token)[0]
    body = json.dumps({"type": "password", "value": sys.argv[1], "temporary": False}).encode()
    ask("PUT", path + "/" + found["id"] + "/reset-password", body, "application/json", token)
"""
# In the machine: run code in a kernel of a notebook server, and print what it prints.
KERNEL = """
import json, ssl, sys, urllib.request, uuid
import websocket
base, token, kernel, code = sys.argv[1:]
headers = {"Authorization": "token " + token}
if not kernel:
    with urllib.request.urlopen(urllib.request.Request(base + "api/kernels", b"{}", headers, method="POST")) as answer:
        kernel = json.load(answer)["id"]
socket = websocket.create_connection(
    base.replace("https", "wss") + "api/kernels/" + kernel + "/channels", timeout=60,
    header=["Authorization: token " + token], sslopt={"ca_certs": "/etc/ssl/certs/ca-certificates.crt"})
own = uuid.uuid4().hex
socket.send(json.dumps({"channel": "shell", "parent_header": {}, "metadata": {}, "header": {
    "msg_id": own, "msg_type": "execute_request", "session": own, "username": "", "version": "5.3"},
    "content": {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}}))
printed = ""
while True:
    message = json.loads(socket.recv())
    if message["parent_header"].get("msg_id") != own:
        continue
    if message["msg_type"] == "stream":
        printed += message["content"]["text"]
    if message["msg_type"] == "error":
        printed += message["content"]["evalue"]
    if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
        break
print(json.dumps([kernel, printed]))
"""


class Hub:
    """The machine: ``start`` it once, ``destroy`` it; the rest is what people and administrators do."""

    def __init__(self, directory):
        binds = {settings.MIRROR: image.mirror(), settings.CHECKOUT: settings.REPOSITORY}
        self.node = Node("jupyterhub", binds={inside: f"{outside}:ro" for inside, outside in binds.items()})
        self.ca = directory / "ca.crt"
        self.session = requests.Session()
        self.session.trust_env = False

    def start(self):
        """Boot, install everything, give people passwords."""
        self.node.destroy()
        with step("Booting a machine for JupyterHub"):
            self.node.boot()
            self._connect()
            bootstrap = f"{settings.CHECKOUT}/salt/bootstrap"
            install = [f"{bootstrap}/install.sh", f"{bootstrap}/requirements.lock", settings.MIRROR]
            self.node.run(install, timeout=300)
            self.node.write("/etc/qhub/solo/minion", json.dumps(MINION))
            self.set_pillar(PILLAR)
            self.node.run(["python3", f"{bootstrap}/secrets.py", "/var/lib/qhub/pillar"])
            self.node.write("/etc/jupyterhub/conf.d/driver.py", DRIVER)
        self.good("base", "people.source", "people", "people.homes", "slurm.controller", "slurm.worker")
        self.good("slurm.accounting", "keycloak.realm")
        self.good("jupyterhub", "jupyterhub.worker")
        self.ca.write_text(self.node.read("/var/lib/qhub/ca/ca.crt"))
        self.session.verify = str(self.ca)
        self.node.run(["python3", "-c", PASSWORDS, PASSWORD, *PEOPLE])
        self.wait()

    def destroy(self):
        self.session.close()
        self.node.destroy()

    def _connect(self):
        """Give the machine a network of its own, with this one in it."""
        run(["ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", "jh0", "netns", self.node.leader])
        run(["ip", "address", "add", f"{HERE}/24", "dev", INTERFACE])
        run(["ip", "link", "set", INTERFACE, "up"])
        self.shell(f"ip address add {THERE}/24 dev jh0 && ip link set jh0 up")
        self.shell("hostname master && sed -i /127.0.1.1/d /etc/hosts")
        self.shell(f"echo {THERE} {NAME} master >> /etc/hosts")

    # -- an administrator -----------------------------------------------------------------------

    def shell(self, script, **options):
        return self.node.run(["sh", "-c", script], **options).stdout

    def set_pillar(self, pillar):
        for name, content in pillar.items():
            self.node.write(f"/etc/qhub/pillar/{name}.sls", json.dumps(content))

    def apply(self, *names, test=False):
        """Apply SLS and return ``{state: return}``."""
        command = ["salt-call", "--config-dir=/etc/qhub/solo", "--out=json", "--log-level=quiet", "state.apply"]
        with step(f"Applying {', '.join(names)}"):
            done = self.node.run([*command, ",".join(names), f"test={test}"], check=False, timeout=500)
        states = json.loads(done.stdout)["local"]
        assert isinstance(states, dict), states
        return {each["__id__"]: each for each in states.values()}

    def good(self, *names):
        """Apply SLS of which none may fail; return what changed."""
        states = self.apply(*names)
        bad = {name: state["comment"] for name, state in states.items() if state["result"] is False}
        assert bad == {}, bad
        return {name: state["changes"] for name, state in states.items() if state["changes"]}

    def wait(self):
        """Wait until the Hub answers at the front door."""
        wait_for("the Hub answers", lambda: self.ask("GET", "", token=None, check=False).ok, timeout=90)

    # -- people ---------------------------------------------------------------------------------

    def ask(self, method, path, body=None, *, token=DRIVER_TOKEN, check=True, base="/hub/api/"):
        """Ask the Hub's API; ``path`` is below ``base``."""
        headers = {"Authorization": f"token {token}"} if token else {}
        answer = self.session.request(method, f"https://{THERE}{base}{path}", json=body, headers=headers, timeout=60)
        assert answer.ok or not check, f"{answer.status_code}: {answer.text[:500]}"
        return answer

    def token(self, name, **body):
        """Return a new token of somebody's."""
        self.ask("POST", f"users/{name}", check=False)
        return self.ask("POST", f"users/{name}/tokens", {"note": "test", **body}).json()["token"]

    def server(self, name, server=""):
        """Return what the Hub knows of a server; ``None`` if it does not run."""
        answer = self.ask("GET", f"users/{name}?include_stopped_servers=false", check=False)
        return answer.json().get("servers", {}).get(server) if answer.ok else None

    def start_server(self, name, server="", **options):
        """Start a server and wait until it is ready; return the number of its job."""
        self.ask("POST", f"users/{name}", check=False)
        self.ask("POST", f"users/{name}/servers/{server}" if server else f"users/{name}/server", options)

        def ready():
            found = self.server(name, server)
            assert found, self.node.journal("jupyterhub", 60)
            return found["ready"]

        wait_for(f"the server of {name} is ready", ready, timeout=120)
        return self.jobs()[name if not server else f"{name}-{server}"]["id"]

    def stop_server(self, name):
        """Stop a server and wait until it and its job are gone."""
        self.ask("DELETE", f"users/{name}/server")
        wait_for(f"the server of {name} is gone", lambda: not self.server(name) and name not in self.jobs())

    def jobs(self):
        """Return the notebooks in the queue, ``{user or user-server: {...}}``."""
        out = self.shell("squeue --noheader --name=jupyterhub --format='%A|%u|%T|%a|%P|%l|%m|%C|%k'")
        keys = ("id", "user", "state", "account", "partition", "time", "memory", "cpus", "comment")
        lines = [dict(zip(keys, line.split("|"), strict=True)) for line in out.splitlines()]
        return {line["user"] + line["comment"].removeprefix("JupyterHub"): line for line in lines}

    def run_code(self, name, code, kernel=""):
        """Run code in somebody's notebook server; return ``(kernel, what it printed)``."""
        token = self.token(name)
        words = [f"https://{NAME}/user/{name}/", token, kernel, code]
        out = self.node.run(["/opt/qhub/shared/jupyterlab/bin/python", "-c", KERNEL, *words], timeout=120).stdout
        return json.loads(out)

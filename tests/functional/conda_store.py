"""One machine with conda-store: formulas/conda_store applied to it, without a master, and its own channel of packages.

It has no network but a cable to this machine: what it builds, it builds from the mirror's channel. ::

    machine = CondaStore()
    machine.start()
    machine.ask("GET", "namespace/").json()      # with the token that Salt has; or use machine.url and machine.token
    machine.destroy()
"""

import ipaddress
import json
import zlib

import requests

from tests.lab.harness import image, settings
from tests.lab.harness.node import LoneNode
from tests.lab.harness.shell import run, step, wait_for

_NUMBER = zlib.crc32(settings.STATE.name.encode())
# A link of its own for each set of machines on this one.
_LINK = ipaddress.ip_address("172.29.0.0") + _NUMBER % (1 << 14) * 4
HERE, THERE = str(_LINK + 1), str(_LINK + 2)
NETWORK = f"{_LINK}/30"
INTERFACE = f"cs{_NUMBER:08x}"
NAME = "master.cluster.internal"
SHARED = "/opt/qhub/shared/conda"
UNITS = ("conda-store-server", "conda-store-worker", "conda-store-channels", "redis-server")

PILLAR: dict = {
    "cluster": {
        "cluster": {
            "name": "qhub",
            "domain": "cluster.internal",
            "master": {"id": "master", "address": THERE},
            "network": NETWORK,
        },
        "artifacts": {"mirror": settings.MIRROR},
        "base": {"time_sync": False},
        "conda_store": {"storage_threshold": 100},
    },
    "users": {
        "accounts": {"physics": {}, "chemistry": {}},
        "users": {
            "ada": {"uid": 20001, "full_name": "Ada Lovelace", "accounts": ["physics"], "role": "admin"},
            "marie": {"uid": 20002, "full_name": "Marie Curie", "accounts": ["chemistry"]},
            "vic": {"uid": 20003, "full_name": "Victor Viewer", "accounts": ["physics"], "role": "viewer"},
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
    "grains": {"roles": ["master"]},
}
FINISHED = ("COMPLETED", "FAILED", "CANCELED")


class CondaStore:
    """The machine: ``start`` it once, ``destroy`` it; the rest is what people and administrators do."""

    def __init__(self):
        binds = {settings.MIRROR: image.mirror(), settings.CHECKOUT: settings.REPOSITORY}
        self.node = LoneNode("conda-store", binds={inside: f"{outside}:ro" for inside, outside in binds.items()})
        self.session = requests.Session()
        self.session.trust_env = False
        self.returns = []

    #: Where conda-store answers, seen from here, and by which token Salt comes in.
    url = f"https://{THERE}/conda-store"

    @property
    def token(self):
        return self.secrets["conda_store_salt_token"]

    @property
    def ca(self):
        """The file, on this machine, with the certificate of the authority that the front door's is from."""
        return self.node.root / "var/lib/qhub/files/ca/ca.crt"

    def start(self):
        """Boot, install everything, and wait until builds are taken."""
        self.node.destroy()
        with step("Booting a machine for conda-store"):
            self.node.boot()
            self._connect()
            # The cable is nothing that systemd-networkd waits for in vain.
            self.node.run(["systemctl", "mask", "--now", "systemd-networkd-wait-online"])
            bootstrap = f"{settings.CHECKOUT}/salt/bootstrap"
            install = [f"{bootstrap}/install.sh", f"{bootstrap}/requirements.lock", settings.MIRROR]
            self.node.run(install, timeout=300)
            self.node.write("/etc/qhub/solo/minion", json.dumps(MINION))
            self.set_pillar(PILLAR)
            self.node.run(["python3", f"{bootstrap}/secrets.py", "/var/lib/qhub/pillar"])
        self.secrets = json.loads(self.node.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
        self.good("conda_store")
        self.session.verify = str(self.ca)
        self.wait()

    def destroy(self):
        self.session.close()
        self.node.destroy()

    def _connect(self):
        """Lay a cable from here to the machine; it goes with the machine."""
        run(["ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", "cs0", "netns", self.node.leader])
        run(["ip", "address", "add", f"{HERE}/30", "dev", INTERFACE])
        run(["ip", "link", "set", INTERFACE, "up"])
        self.shell(f"ip address add {THERE}/30 dev cs0 && ip link set cs0 up")
        self.shell(f"hostname master && sed -i /127.0.1.1/d /etc/hosts && echo {THERE} {NAME} master >> /etc/hosts")

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
        self.returns.append(done.stdout + done.stderr)
        states = json.loads(done.stdout)["local"]
        assert isinstance(states, dict), states
        return {each["__id__"]: each for each in states.values()}

    def good(self, *names, test=False):
        """Apply SLS of which none may fail; return what changed."""
        states = self.apply(*names, test=test)
        bad = {name: state["comment"] for name, state in states.items() if state["result"] is False}
        assert bad == {}, bad
        return {name: state["changes"] for name, state in states.items() if state["changes"] or state["result"] is None}

    def wait(self):
        """Wait until the server answers and takes builds, which it does when the worker has looked at the disk."""
        ready = "select 1 from conda_store_configuration where free_storage > 0 and exists (select from worker)"
        psql = ["psql", "-XAtc", ready, "conda-store"]

        def answers():
            return self.ask("GET", "", check=False).ok and self.node.run(psql, user="postgres", check=False).stdout

        try:
            wait_for("conda-store takes builds", answers, timeout=120)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n" + "\n".join(self.node.journal(unit, 60) for unit in UNITS)) from None

    # -- people ---------------------------------------------------------------------------------

    def ask(self, method, path, body=None, *, token=None, check=True, base="/api/v1/", headers=None, **options):
        """Ask the API through the front door; ``path`` is below ``base``. The token is Salt's unless said; "": none."""
        if token != "":
            headers = {"Authorization": f"Bearer {self.token if token is None else token}", **(headers or {})}
        try:
            answer = self.session.request(
                method, f"{self.url}{base}{path}", json=body, headers=headers, timeout=60, **options
            )
        except requests.ConnectionError:
            if check:
                raise
            answer = requests.Response()
            answer.status_code = 503
        assert answer.ok or not check, f"{answer.status_code}: {answer.text[:500]}"
        return answer

    def get(self, path, **options):
        """Return the ``data`` of what the API has at ``path``."""
        return self.ask("GET", path, **options).json()["data"]

    def scoped(self, **bindings):
        """Return a token with just these roles: ``scoped(physics="developer")``."""
        wanted = {f"{namespace}/*": [role] for namespace, role in bindings.items()}
        body = {"primary_namespace": next(iter(bindings), "global"), "role_bindings": wanted or {"none/*": ["viewer"]}}
        return self.ask("POST", "token/", body).json()["data"]["token"]

    def submit(self, namespace, name, *packages, token=None, check=True, **more):
        """Ask for an environment of these packages; return the build's number, or the answer if ``check`` is false."""
        specification = json.dumps({"name": name, "dependencies": list(packages), **more})
        body = {"namespace": namespace, "specification": specification}
        answer = self.ask("POST", "specification/", body, token=token, check=check)
        return answer.json()["data"]["build_id"] if check else answer

    def finished(self, build, timeout=300):
        """Wait for the end of a build; return its ``data``."""

        def ended():
            found = self.get(f"build/{build}/")
            return found if found["status"] in FINISHED else None

        with step(f"Waiting for build {build}"):
            return wait_for(f"build {build} ends", ended, timeout=timeout, interval=0.5)

    def log(self, build):
        return self.ask("GET", f"build/{build}/logs/").text

    def build(self, namespace, name, *packages, **more):
        """Build an environment; return the number of its build."""
        number = self.submit(namespace, name, *packages, **more)
        found = self.finished(number)
        assert found["status"] == "COMPLETED", self.log(number)[-3000:]
        return number

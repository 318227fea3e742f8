"""One machine with Slurm, JupyterHub that spawns through it, Traefik and the SSH gateway; OpenSSH's client in it.

What a notebook job starts is a stand-in that answers the Hub: the gateway needs the job, not JupyterLab.
"""

import contextlib
import hashlib
import json
import subprocess
import types

import yaml

from tests.lab.harness import image, settings
from tests.lab.harness.node import Node
from tests.lab.harness.shell import step, wait_for

FORMULA = settings.REPOSITORY / "formulas/sshgate"
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "socat", "rsync", "python3-venv")
INSTALL = ("apt-get", "-qq", "-y", "--no-install-recommends", "install")
USERS = ("ada", "bob", "cat", "dan", "eve")
JOB_NAME = "jupyterhub"
HUB = "http://127.0.0.1:8081/hub/api"
ADMIN_TOKEN, SERVICE_TOKEN = "0123456789abcdef-of-the-administrator", "0123456789abcdef-of-a-service"
# A gateway whose patience tests have, too.
SETTINGS = {
    "recheck": 3,
    "hub_patience": 7,
    "limits": {
        "sessions": 200,
        "sessions_per_user": 60,
        "unauthenticated": 80,
        "unauthenticated_per_address": 60,
        "login_seconds": 30,
        "first_delay": 0.4,
        "longest_delay": 1.6,
        "most_failures": 6,
        "forget_failures": 900,
    },
}

SLURM_CONF = """\
ClusterName=lab
SlurmctldHost=sshgate
SlurmUser=slurm
AuthType=auth/slurm
CredType=cred/slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
EnforcePartLimits=ALL
SrunPortRange=60001-63000
NodeName=sshgate CPUs=64
SlurmdParameters=config_overrides
PartitionName=debug Nodes=sshgate Default=YES MaxTime=INFINITE State=UP
"""
HUB_CONFIG = f"""\
import batchspawner  # its handlers
from jupyterhub.proxy import Proxy

class Routes(Proxy):
    "Nobody browses here."
    async def add_route(self, routespec, target, data):
        self.known[routespec] = {{"routespec": routespec, "target": target, "data": data}}
    async def delete_route(self, routespec):
        self.known.pop(routespec, None)
    async def get_all_routes(self):
        return self.known
    known, should_start = {{}}, False

c = get_config()
c.JupyterHub.proxy_class = Routes
c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:8081"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.allowed_users = {set(USERS)}
c.JupyterHub.spawner_class = "batchspawner.SlurmSpawner"
c.JupyterHub.db_url = "sqlite:////var/lib/hub/hub.sqlite"
c.JupyterHub.cookie_secret_file = "/var/lib/hub/cookie_secret"
c.JupyterHub.services = [
    {{"name": "administrator", "api_token": "{ADMIN_TOKEN}"}}, {{"name": "service", "api_token": "{SERVICE_TOKEN}"}}]
c.JupyterHub.load_roles = [
    {{"name": "administrator", "services": ["administrator"], "scopes": ["admin:users", "admin:servers", "tokens"]}},
    {{"name": "service", "services": ["service"], "scopes": ["access:servers", "servers", "read:users"]}}]
c.BatchSpawnerBase.batchspawner_singleuser_cmd = ""
c.Spawner.cmd = ["python3", "/usr/local/lib/notebook"]
c.Spawner.start_timeout = 60
c.JupyterHub.cleanup_servers = False
c.SlurmSpawner.batch_script = '''#!/bin/bash
#SBATCH --job-name={JOB_NAME}
#SBATCH --output=/dev/null
#SBATCH --chdir=/
#SBATCH --export={{{{keepvars}}}}
/usr/local/libexec/qhub-sshgate-step --hold &
exec {{{{cmd}}}}
'''
"""
HUB_UNIT = """\
[Service]
WorkingDirectory=/var/lib/hub
Environment=PATH=/opt/qhub/jupyterhub/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/opt/qhub/jupyterhub/bin/jupyterhub --config=/etc/hub.py
KillMode=process
"""
NOTEBOOK = """\
import http.server, json, os, pathlib, urllib.request

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a notebook")
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("", 0), Page)
token = os.environ["JUPYTERHUB_API_TOKEN"]
path = pathlib.Path.home() / "server.token"
path.write_text(token)
path.chmod(0o600)
urllib.request.urlopen(urllib.request.Request(
    os.environ["JUPYTERHUB_API_URL"] + "/batchspawner", json.dumps({"port": server.server_port}).encode(),
    {"Authorization": "token " + token, "Content-Type": "application/json"}))
server.serve_forever()
"""
TRAEFIK = """\
entryPoints: {ssh: {address: ":8022"}}
providers: {file: {directory: /etc/traefik/dynamic}}
"""
ROUTES = """\
tcp:
  routers: {sshgate: {rule: "HostSNI(`*`)", entryPoints: [ssh], service: sshgate}}
  services: {sshgate: {loadBalancer: {servers: [{address: "127.0.0.1:8222"}], serversTransport: sshgate}}}
  serversTransports: {sshgate: {dialTimeout: 5s, proxyProtocol: {version: 2}}}
"""
# Slurm resolves names only where there is an address beside loopback's.
NETWORK = (
    "ip link add slurm0 type veth peer name slurm1 && ip address add 192.0.2.1/24 dev slurm0 "
    "&& ip link set slurm0 up && ip link set slurm1 up && echo 192.0.2.1 sshgate >> /etc/hosts"
)
ASKPASS = '#!/bin/sh\nprintf "%s\\n" "$TOKEN"\n'
OPTIONS = (
    *("-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=/etc/sshgate/known_hosts"),
    *("-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=20", "-o", "PreferredAuthentications=password"),
)


class Gateway:
    """The machine: ``start`` it once, ``destroy`` it."""

    def __init__(self):
        self.node = Node("sshgate", binds={settings.MIRROR: f"{settings.CACHE / 'mirror'}:ro"})
        self.tokens = {}

    def start(self):
        image.mirror()
        self.node.destroy()
        with step("Booting a machine with the SSH gateway"):
            self.node.boot()
            run, write = self.node.run, self.node.write
            run(["sh", "-c", NETWORK])
            run(["systemctl", "mask", "--now", "systemd-networkd-wait-online"])  # that network is all there will be
            write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "0755")
            write("/etc/apt/sources.list.d/mirror.list", f"deb [trusted=yes] file:{settings.MIRROR}/debs ./\n")
            run(["apt-get", "-qq", "update"])
            run(["env", "DEBIAN_FRONTEND=noninteractive", *INSTALL, *PACKAGES], timeout=300)
            for uid, user in enumerate(USERS, 20001):
                run(["useradd", "--create-home", "--shell", "/bin/bash", "--uid", uid, user])
            self._slurm()
            self._hub()
            self._gateway()
            self._front_door()
        return self

    def _environment(self, name):
        with (settings.REPOSITORY / "salt/bootstrap/environment.sh").open() as script:
            self.node.write("/usr/local/sbin/qhub-environment", script.read(), "0755")
        lock = (settings.REPOSITORY / f"formulas/{name}/requirements.lock").read_text()
        self.node.write(f"/etc/{name}.lock", lock)
        wheels = f"{settings.MIRROR}/wheels/{name}"
        self.node.run(["qhub-environment", "--lazy", name, f"/etc/{name}.lock", wheels], timeout=300)

    def _slurm(self):
        write, run = self.node.write, self.node.run
        write("/etc/slurm/slurm.conf", SLURM_CONF)
        write("/etc/slurm/cgroup.conf", "CgroupPlugin=disabled\n")
        write("/etc/slurm/plugstack.conf", "")
        run(["sh", "-c", "umask 077; head -c 1024 /dev/urandom > /etc/slurm/slurm.key"])
        run(["chown", "slurm:slurm", "/etc/slurm/slurm.key"])
        run(["install", "-d", "-o", "slurm", "-g", "slurm", "/var/lib/slurm/slurmctld"])
        run(["systemctl", "start", "slurmctld", "slurmd"])
        wait_for(
            "the node is in service",
            lambda: run(["sinfo", "-h", "-o", "%T"], check=False).stdout.strip() == "idle",
            timeout=60,
        )

    def _hub(self):
        self._environment("jupyterhub")
        self.node.write("/etc/hub.py", HUB_CONFIG)
        self.node.write("/usr/local/lib/notebook", NOTEBOOK)
        self.node.write("/etc/systemd/system/hub.service", HUB_UNIT)
        self.node.run(["install", "-d", "/var/lib/hub"])
        self.start_hub()

    def start_hub(self):
        self.node.run(["systemctl", "start", "hub"])
        wait_for("the Hub answers", lambda: self.hub("GET", "/", check=False), timeout=60)

    def _gateway(self):
        """Put in place what the formula's states do."""
        run, write = self.node.run, self.node.write
        self._environment("sshgate")
        run(["useradd", "--system", "--home-dir", "/var/lib/sshgate", "--shell", "/usr/sbin/nologin", "sshgate"])
        run(["useradd", "--system", "--shell", "/usr/sbin/nologin", "traefik"])
        run(["install", "-d", "-o", "sshgate", "-g", "sshgate", "-m", "0700", "/var/lib/sshgate"])
        key = "/var/lib/sshgate/ssh_host_ed25519_key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], user="sshgate")
        for name, path, mode in (
            ("gateway.py", "/usr/local/lib/qhub/sshgate/gateway.py", "0644"),
            ("door.py", "/usr/local/lib/qhub/sshgate/door.py", "0644"),
            ("qhub-sshgate-run", "/usr/local/libexec/qhub-sshgate-run", "0755"),
            ("qhub-sshgate-step", "/usr/local/libexec/qhub-sshgate-step", "0755"),
            ("sudoers", "/etc/sudoers.d/sshgate", "0440"),
            ("sshgate.service", "/etc/systemd/system/sshgate.service", "0644"),
        ):
            write(path, (FORMULA / "files" / name).read_text(), mode)
        run(["visudo", "--check", "--file", "/etc/sudoers.d/sshgate"])
        names = ", ".join(f"[{name}]:8022" for name in ("192.0.2.1", "127.0.0.1")).replace(" ", "")
        write("/etc/sshgate/known_hosts", f"{names} {self.node.read(f'{key}.pub')}")
        write("/usr/local/bin/askpass", ASKPASS, "0755")
        self.configure()

    def configure(self, **changed):
        """Write the gateway's settings, with others than the tests' own, and start it anew."""
        defaults = yaml.safe_load((FORMULA / "defaults.yaml").read_text())["default"]
        gateway = {
            **{key: value for key, value in defaults.items() if key not in ("packages", "worker", "job_name")},
            "address": "127.0.0.1",
            "host_key": "/var/lib/sshgate/ssh_host_ed25519_key",
            "hub_api": HUB,
            "uids": [10000, 60000],
            "proxy_users": ["traefik"],
            "command": ["/usr/bin/sudo", "-n", "-u"],
            "wrapper": "/usr/local/libexec/qhub-sshgate-run",
            **SETTINGS,
            **changed,
        }
        job = {"job_name": JOB_NAME, "uids": [10000, 60000], "step": "/usr/local/libexec/qhub-sshgate-step"}
        self.node.write("/etc/sshgate/sshgate.json", json.dumps(gateway))
        self.node.write("/etc/sshgate/job.json", json.dumps(job))
        self.restart()

    def restart(self):
        self.node.run(["systemctl", "restart", "sshgate"])
        wait_for("the gateway answers", lambda: self.metrics(check=False), timeout=30)

    def _front_door(self):
        self.node.write("/etc/traefik/traefik.yml", TRAEFIK)
        self.node.write("/etc/traefik/dynamic/sshgate.yml", ROUTES)
        program = "/usr/local/bin/traefik"
        self.node.run(["install", "-m", "0755", f"{settings.MIRROR}/artifacts/traefik", program])
        self.node.run(
            ["systemd-run", "--unit=traefik", "--uid=traefik", program, "--configFile=/etc/traefik/traefik.yml"]
        )
        wait_for(
            "Traefik listens",
            lambda: not self.node.run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8022"], check=False).returncode,
            timeout=30,
        )

    def destroy(self):
        self.node.destroy()

    # -- the Hub --------------------------------------------------------------------------------

    def hub(self, method, path, body=None, *, token=ADMIN_TOKEN, check=True):
        """Call the Hub's API, by default as an administrator; return the decoded answer."""
        call = ["python3", "-c", CALL, method, HUB + path, token, json.dumps(body)]
        result = self.node.run(call, check=check, timeout=90)
        return json.loads(result.stdout.strip() or "null") if not result.returncode else None

    def token(self, user, **wanted):
        """Return a new token of ``user``: its id and itself."""
        made = self.hub("POST", f"/users/{user}/tokens", wanted)
        return types.SimpleNamespace(id=made["id"], value=made["token"])

    def standing(self, user):
        """Return a token of ``user`` that lasts as long as the machine."""
        if user not in self.tokens:
            self.tokens[user] = self.token(user).value
        return self.tokens[user]

    def server(self, user):
        """Return when ``user`` has a notebook that is ready."""
        if not (self.hub("GET", f"/users/{user}")["servers"] or {}).get(""):
            self.hub("POST", f"/users/{user}/server")
        wait_for(f"{user}'s notebook", lambda: self.ready(user), timeout=60)
        return self.job(user)

    def ready(self, user):
        return (self.hub("GET", f"/users/{user}")["servers"] or {}).get("", {}).get("ready")

    def stop_server(self, user):
        self.hub("DELETE", f"/users/{user}/server")
        wait_for("it is gone", lambda: not self.hub("GET", f"/users/{user}")["servers"], timeout=60)

    def job(self, user):
        """Return the id of the notebook job of ``user``."""
        return self.node.run(["squeue", "-h", "-o", "%A", "-u", user, "-n", JOB_NAME]).stdout.strip()

    # -- a client -------------------------------------------------------------------------------

    def command(self, *words, token, program="ssh", options=()):
        """Return the command, for this machine, of an OpenSSH client that gives ``token`` as password."""
        port = ["-p", "8022"] if program == "ssh" else ["-P", "8022"]
        environment = [f"TOKEN={token}", "SSH_ASKPASS=/usr/local/bin/askpass", "SSH_ASKPASS_REQUIRE=force"]
        # Who kills what enters the machine kills the client.
        die = ["setpriv", "--pdeathsig=KILL"]
        return self.node.command([*die, "env", *environment, program, *port, *OPTIONS, *options, *words])

    def ssh(self, user, *words, token=None, options=(), host="192.0.2.1", **more):
        """Run ssh to its end; return what came of it, in bytes, with the seconds it took."""
        command = self.command(f"{user}@{host}", *words, token=token or self.standing(user), options=options)
        return finished(command, **more)

    def popen(self, user, *words, token=None, options=(), host="192.0.2.1", **more):
        """Start ssh and return the process."""
        command = self.command(f"{user}@{host}", *words, token=token or self.standing(user), options=options)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, **{**pipes, **more})

    @contextlib.contextmanager
    def running(self, *words, **options):
        """As ``popen``, and killed at the end."""
        process = self.popen(*words, **options)
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)

    def rsync(self, user, *words):
        """Run rsync through ssh."""
        remote = " ".join(["ssh", "-p", "8022", *OPTIONS])
        environment = [f"TOKEN={self.standing(user)}", "SSH_ASKPASS=/usr/local/bin/askpass"]
        environment += ["SSH_ASKPASS_REQUIRE=force", f"RSYNC_RSH={remote}"]
        return finished(self.node.command(["env", *environment, "rsync", *words]))

    # -- the gateway ----------------------------------------------------------------------------

    def metrics(self, check=True):
        """Return the gateway's metrics: name with labels -> value."""
        call = ["python3", "-c", CALL, "GET", "http://127.0.0.1:8223/metrics", "", "null"]
        result = self.node.run(call, check=check)
        lines = (line.rpartition(" ") for line in result.stdout.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    def log(self):
        """Return what the gateway has logged: a list of dictionaries."""
        found = []
        text = self.node.run(["journalctl", "-q", "-o", "cat", "-u", "sshgate"]).stdout
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found


CALL = """\
import sys, urllib.error, urllib.request
method, url, token, body = sys.argv[1:]
content = None if body == "null" else body.encode()
request = urllib.request.Request(url, content, {"Authorization": "token " + token}, method=method)
try:
    print(urllib.request.urlopen(request, timeout=60).read().decode())
except urllib.error.HTTPError as error:
    sys.exit(f"{error}: {error.read().decode()}")
"""


def finished(command, *, timeout=60, **options):
    """Run a command; return the completed process with its output as bytes."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(command, capture_output=True, timeout=timeout, check=False, **options)


def digest(content):
    return hashlib.sha256(content).hexdigest()

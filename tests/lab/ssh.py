"""OpenSSH as a person has it, outside the cluster; and the Hub's API as a service of the site's own uses it."""

import contextlib
import json
import os
import secrets
import subprocess
import types

import requests

from tests.lab.harness import settings
from tests.lab.harness.shell import run, wait_for

NAME, PORT = "master.cluster.internal", 8022
ADDRESS = settings.ADDRESSES["master"]
DROP_IN = "/etc/jupyterhub/conf.d/driver.py"
# What a site may add to its Hub: an administrator's service, and another that may do less.
DRIVER = """\
c.JupyterHub.services += [
    {{"name": "driver", "api_token": "{driver}"}}, {{"name": "other", "api_token": "{other}"}}]
c.JupyterHub.load_roles += [
    {{"name": "driver", "services": ["driver"], "scopes": ["admin:users", "admin:servers", "tokens"]}},
    {{"name": "other", "services": ["other"], "scopes": ["access:servers", "servers", "read:users"]}}]
"""
CONFIG = """\
Host {name}
    # What a name server outside would say.
    HostName {address}
    HostKeyAlias [{name}]:{port}
    Port {port}
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    PreferredAuthentications password
    NumberOfPasswordPrompts 1
    ConnectTimeout 30
"""
ASKPASS = '#!/bin/sh\nprintf "%s\\n" "$TOKEN"\n'


class Hub:
    """JupyterHub's API at the front door, with the token of a service of the site's own."""

    def __init__(self, master, ca):
        self.master = master
        self.driver, self.other = secrets.token_hex(16), secrets.token_hex(16)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(ca)
        self.tokens = {}

    def open(self):
        """Let the driver in, once the Hub answers again."""
        self.master.write(DROP_IN, DRIVER.format(driver=self.driver, other=self.other), "0600")
        self.master.run(["chown", "jupyterhub:", DROP_IN])
        self.master.run(["systemctl", "restart", "jupyterhub"])

    def close(self):
        """Put the Hub back to what it was, without its people's tokens."""
        for user, token in self.tokens.items():
            self.ask("DELETE", f"users/{user}/tokens/{token.id}", check=False)
        self.master.run(["rm", "-f", DROP_IN])
        self.restart()
        self.session.close()

    def restart(self):
        self.master.run(["systemctl", "restart", "jupyterhub"])
        self.wait()

    def wait(self):
        wait_for("the Hub answers", lambda: self.ask("GET", "", token=None, check=False).ok, timeout=120)

    def ask(self, method, path, body=None, *, token=True, check=True):
        """Return the Hub's answer. ``token``: the driver's, unless it is another or ``None``."""
        headers = {"Authorization": f"token {self.driver if token is True else token}"} if token else {}
        url = f"https://{ADDRESS}/hub/api/{path}"
        answer = self.session.request(method, url, json=body, headers=headers, timeout=60)
        assert answer.ok or not check, f"{answer.status_code}: {answer.text[:500]}"
        return answer

    def token(self, user, **wanted):
        """Return a new token of ``user``: its ``id`` and its ``value``."""
        made = self.ask("POST", f"users/{user}/tokens", {"note": "ssh", **wanted}).json()
        return types.SimpleNamespace(id=made["id"], value=made["token"])

    def standing(self, user):
        """Return the token that ``user`` has all the time."""
        if user not in self.tokens:
            self.ask("POST", f"users/{user}", check=False)  # as signing in for the first time does
            self.tokens[user] = self.token(user)
        return self.tokens[user].value

    def servers(self, user):
        """Return the servers of ``user`` that there are."""
        return self.ask("GET", f"users/{user}?include_stopped_servers=false").json().get("servers") or {}

    def start(self, user):
        """Start somebody's server if it does not run; return when it is ready."""
        self.standing(user)
        if not self.servers(user):
            self.ask("POST", f"users/{user}/server", {})

        def ready():
            found = self.servers(user)
            assert found, self.master.journal("jupyterhub")
            return found[""]["ready"]

        wait_for(f"the server of {user} is ready", ready, timeout=120)

    def stop(self, user):
        """Stop somebody's server; return when it and its job are gone."""
        self.standing(user)
        self.ask("DELETE", f"users/{user}/server", check=False)
        wait_for("it is gone", lambda: not self.servers(user) and not self.job(user), timeout=60)

    def job(self, user):
        """Return number and node of somebody's notebook job; ``[]`` if there is none."""
        words = ["squeue", "--noheader", f"--user={user}", "--name=jupyterhub", "--format=%A %N"]
        return self.master.run(words).stdout.split()


class Client:
    """OpenSSH on this machine, with files of its own in ``directory``."""

    def __init__(self, directory, master, hub):
        self.hub = hub
        self.directory = directory
        self.config = directory / "config"
        self.config.write_text(CONFIG.format(name=NAME, address=ADDRESS, port=PORT, directory=directory))
        (directory / "known_hosts").write_text(master.read("/etc/sshgate/known_hosts"))
        self.askpass = directory / "askpass"
        self.askpass.write_text(ASKPASS)
        self.askpass.chmod(0o755)
        self.addresses = []

    def close(self):
        for address in self.addresses:
            run(["ip", "address", "delete", f"{address}/32", "dev", settings.BRIDGE])

    def another_address(self):
        """Return options to come from an address of this machine's from which nobody has come."""
        self.addresses.append(str(settings.NETWORK[100 + len(self.addresses)]))
        run(["ip", "address", "add", f"{self.addresses[-1]}/32", "dev", settings.BRIDGE])
        return ("-b", self.addresses[-1])

    def words(self, user, *words, options=()):
        """Return ssh's command line."""
        return ["ssh", "-F", str(self.config), *options, f"{user}@{NAME}", *words]

    def environment(self, user, token=None):
        """Return the environment in which OpenSSH's programs find the token to give as password."""
        return {
            **os.environ,
            "TOKEN": self.hub.standing(user) if token is None else token,
            "SSH_ASKPASS": str(self.askpass),
            "SSH_ASKPASS_REQUIRE": "force",
        }

    def run(self, user, words, *, token=None, timeout=90, **options):
        """Run a program to its end; return what came of it, in bytes."""
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        environment = self.environment(user, token)
        return subprocess.run(words, capture_output=True, timeout=timeout, env=environment, **options)

    def ssh(self, user, *words, options=(), **more):
        """Run ssh to its end."""
        return self.run(user, self.words(user, *words, options=options), **more)

    def popen(self, user, *words, token=None, options=()):
        """Start ssh and return the process."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = self.environment(user, token)
        return subprocess.Popen(self.words(user, *words, options=options), env=environment, **pipes)

    @contextlib.contextmanager
    def running(self, *words, **options):
        """As ``popen``; killed at the end if it still runs."""
        process = self.popen(*words, **options)
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=20)


class Gateway:
    """What the master knows of the gateway."""

    def __init__(self, master):
        self.master = master
        self.begun = master.run(["journalctl", "-q", "-n0", "--show-cursor"]).stdout.removeprefix("-- cursor: ").strip()

    def metrics(self):
        """Return name with labels -> value."""
        text = self.master.run(["python3", "-c", READ, "http://127.0.0.1:8223/metrics"]).stdout
        lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    def log(self):
        """Return what it has logged since: a list of dictionaries."""
        found = []
        words = ["journalctl", "-q", "-o", "cat", "-u", "sshgate", f"--after-cursor={self.begun}"]
        for line in self.master.run(words).stdout.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found


READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"

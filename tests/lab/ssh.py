"""OpenSSH as a person has it, outside the cluster, and what the master knows of the gateway."""

import contextlib
import json
import os
import subprocess

from tests.lab.harness import settings
from tests.lab.harness.shell import run

NAME, PORT = "master.cluster.internal", 8022
ADDRESS = settings.ADDRESSES["master"]
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
            "TOKEN": self.hub.standing_token(user) if token is None else token,
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
        command, pipe = self.words(user, *words, options=options), subprocess.PIPE
        return subprocess.Popen(command, env=self.environment(user, token), stdin=pipe, stdout=pipe, stderr=pipe)

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

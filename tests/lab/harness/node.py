"""One machine of the lab: a systemd container with its own network namespace."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from . import image, settings
from .shell import run, wait_for


class Node:
    """A Debian machine named ``name``, one of the lab's.

    ``address`` is its address on the lab's bridge; without one the machine has only loopback.
    ``binds`` maps paths inside to directories of this machine; a value ending in ``:ro`` is read-only.
    """

    state = settings.STATE

    def __init__(self, name, address=None, binds=None, options=()):
        self.name = name
        self.address = address
        self.binds = binds or {}
        self.options = tuple(options)
        self.directory = self.state / "nodes" / name
        self.root = self.directory / "root"
        self.machine = f"{self.state.name}-{name}"  # what systemd-nspawn calls it

    # -- life -----------------------------------------------------------------------------------

    def boot(self):
        """Lay the machine's disk over the image if it has none, start it and wait for systemd."""
        if not self.supervisor:
            self._kill_all()
        lower = image.base()
        for part in ("upper", "work", "root"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(self.root):
            layers = f"lowerdir={lower},upperdir={self.directory}/upper,workdir={self.directory}/work"
            run(["mount", "-t", "overlay", "-o", layers, "overlay", self.root])
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        # As Debian's installer leaves them on a machine without a name server.
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {self.name}\n")
        if not (self.root / "etc/ssh/ssh_host_ed25519_key").exists():
            run(
                [
                    "ssh-keygen",
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-C",
                    "",
                    "-f",
                    self.root / "etc/ssh/ssh_host_ed25519_key",
                ]
            )
        network = ["--private-network"]
        if self.address:
            network = [f"--network-bridge={settings.BRIDGE}"]
            (self.root / "etc/systemd/network").mkdir(exist_ok=True)
            (self.root / "etc/systemd/network/10-host0.network").write_text(
                "[Match]\nName=host0\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
                f"Address={self.address}/{settings.NETWORK.prefixlen}\nGateway={settings.GATEWAY}\n"
            )
        binds = []
        for inside, outside in self.binds.items():
            source, _, mode = str(outside).partition(":")
            binds.append(f"--bind{'-ro' if mode == 'ro' else ''}={source}:{inside}")
        groups = list(self.control_groups())
        for group in groups:
            group.mkdir(exist_ok=True)
        join = 'for group; do test "$group" = -- && break; echo $$ > $group/cgroup.procs; shift; done; shift'
        container = [
            "systemd-nspawn",
            *("--quiet", "--register=no", "--keep-unit", "--resolv-conf=off", "--boot"),
            *(f"--directory={self.root}", f"--machine={self.machine}"),
            *(*network, *binds, *self.options),
        ]
        with (self.directory / "console.log").open("ab") as console:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", f'{join}; exec "$@"', "sh", *groups, "--", *container],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                check=True,
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        try:
            wait_for(f"{self.name} boots", self._is_up, timeout=90)
        except (RuntimeError, TimeoutError) as error:
            lines = (self.directory / "console.log").read_text(errors="replace").splitlines()[-10:]
            raise RuntimeError("\n".join([f"{error}; its console:", *lines])) from error
        return self

    def control_groups(self):
        """Yield this machine's own control groups: in a shared one its systemd would meet the others' units."""
        for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
            if Path(mount, "cgroup.procs").exists():
                yield Path(mount, self.machine)

    def _kill_all(self):
        """Kill whatever runs in the machine, also if only its supervisor was killed before."""
        for group in self.control_groups():
            with contextlib.suppress(OSError):
                (group / "cgroup.kill").write_text("1")
        wait_for(f"{self.name} stops", lambda: not self.supervisor, timeout=20)
        wait_for(f"{self.name}'s control groups are empty", self._remove_control_groups, timeout=20)
        # Connections that the kernel is still closing, such as those to a file server, keep the machine's network for
        # minutes: the address would be there twice once it boots again.
        run(["ip", "link", "delete", f"vb-{self.machine}"], check=False)

    def _remove_control_groups(self):
        with contextlib.suppress(OSError):
            for group in self.control_groups():
                for directory, _, _ in os.walk(group, topdown=False):
                    Path(directory).rmdir()
            return True
        return False

    def _is_up(self):
        if not self.leader:
            return False
        state = self.run(["systemctl", "is-system-running"], check=False).stdout.strip()
        return state in ("running", "degraded")

    @property
    def supervisor(self):
        """Process id of the machine's systemd-nspawn, or ``None``."""
        return next((pid for pid, name in machines(self.state) if name == self.name), None)

    @property
    def leader(self):
        """Process id, seen from outside, of the machine's process 1, or ``None``."""
        if not (pid := self.supervisor):
            return None
        with contextlib.suppress(OSError, IndexError):
            return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return None

    def stop(self, *, hard=False):
        """Power the machine off (``hard``: pull the plug) and unmount its disk, which stays."""
        if not hard and (pid := self.supervisor):
            # SIGTERM makes systemd-nspawn ask for a clean power-off.
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                os.kill(pid, signal.SIGTERM)
                wait_for("", lambda: not self.supervisor, timeout=30)
        self._kill_all()
        if os.path.ismount(self.root):
            run(["umount", "--recursive", "--lazy", self.root])

    def destroy(self):
        """Stop the machine and delete its disk."""
        self.stop(hard=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- use ------------------------------------------------------------------------------------

    def command(self, words, user="root"):
        """Return the command, for this machine, that runs ``words`` inside as ``user``."""
        if not (leader := self.leader):
            raise RuntimeError(f"{self.name} is not running")
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        enter = ["nsenter", "-t", leader, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        clean = ["env", "-i", f"PATH={path}", "HOME=/root", "LANG=C.UTF-8", f"TERM={os.environ.get('TERM', 'dumb')}"]
        switch = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [str(word) for word in (*enter, *clean, *switch, *words)]

    def run(self, words, *, user="root", **options):
        """Run a command inside; see :func:`tests.lab.harness.shell.run` for the options."""
        return run(self.command(words, user), **options)

    def read(self, path):
        """Return the text of a file inside."""
        return self.run(["cat", path]).stdout

    def write(self, path, text, mode="0644"):
        """Write a file inside, with the directories above it."""
        self.run(["install", "-D", "-m", mode, "/dev/stdin", path], input=text)

    def journal(self, unit, lines=40):
        """Return the last lines of a unit's journal."""
        return self.run(["journalctl", "-q", "--no-pager", "-n", lines, "-u", unit], check=False).stdout


class LoneNode(Node):
    """A machine of a test's own, which has only loopback and stays when a lab is brought up or taken down."""

    state = settings.LONE


def clear(kind):
    """Destroy every machine of a kind, those that an ended process left too, and remove all that it kept on disk."""
    for name in sorted({path.name for path in (kind.state / "nodes").glob("*")} | {n for _, n in machines(kind.state)}):
        kind(name).destroy()
    shutil.rmtree(kind.state, ignore_errors=True)


def machines(state=settings.STATE):
    """Yield ``(process id, name)`` of each of the lab's running machines."""
    marker = f"--machine={state.name}-"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if words[0].endswith("systemd-nspawn"):
                    yield from ((int(entry.name), w.removeprefix(marker)) for w in words if w.startswith(marker))

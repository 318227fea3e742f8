"""An emulated machine with a kernel of its own, for what containers on a machine like this cannot do.

It is Debian as the lab's machines are, with Debian's cloud kernel and Salt installed by the bootstrap's
``install.sh``, and the packages of a formula, which take too long to install in here. No network, no
hardware virtualisation, nothing kept: every boot starts from the image. Commands go in and answers come
back over a serial line, as JSON.
"""

import hashlib
import json
import shutil
import socket
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path

from .harness import image, settings
from .harness.shell import CommandFailed, run, step

LOCK = settings.REPOSITORY / "salt/bootstrap/requirements.lock"
KERNEL_PACKAGES = ("linux-image-cloud-amd64", "initramfs-tools", "zstd")
MEMORY = 768  # MiB
DISK = 1400  # MiB, sparse
# Services that only cost time here.
MASKED = (
    "ssh.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
)

AGENT = """\
#!/usr/bin/python3
import json, subprocess, sys, tty
tty.setraw(0)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    call = json.loads(line)
    try:
        done = subprocess.run(**call, text=True, capture_output=True)
        answer = [done.returncode, done.stdout, done.stderr]
    except (OSError, subprocess.TimeoutExpired) as error:
        answer = [None, "", str(error)]
    print(json.dumps(answer), flush=True)
"""
AGENT_UNIT = """\
[Unit]
Description=Run what comes over the second serial line
[Service]
ExecStart=/usr/local/sbin/agent
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS1
[Install]
WantedBy=multi-user.target
"""


def built(packages):
    """Return the directory of the image (``disk``, ``vmlinuz``, ``initrd``), building it first if it is new.

    ``packages`` are the Debian packages to install on it.
    """
    base, mirror = image.base(), image.mirror()
    recipe = repr((base.name, sorted(packages), Path(__file__).read_text(), LOCK.read_text()))
    directory = settings.CACHE / f"vm-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not directory.exists():
        for old in settings.CACHE.glob("vm-*"):
            shutil.rmtree(old)
        with (
            step("Building the emulated machine"),
            tempfile.TemporaryDirectory(dir=settings.CACHE) as scratch,
            image.overlay(base, Path(scratch)) as root,
        ):
            _furnish(root, mirror, packages)
            target = Path(scratch) / "vm"
            target.mkdir()
            for kind in ("vmlinuz", "initrd"):
                shutil.copy(next((root / "boot").glob(f"{kind}*")), target / kind)
            ext4 = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
            run(["mke2fs", *ext4, "-d", root, target / "disk", f"{DISK}M"])
            target.rename(directory)
    return directory


def _furnish(root, mirror, packages):
    """Install the packages, the kernel, Salt and the agent."""
    (root / "etc/initramfs-tools/conf.d").mkdir(parents=True)
    (root / "etc/initramfs-tools/conf.d/vm").write_text("MODULES=list\n")
    (root / "etc/initramfs-tools/modules").write_text("virtio_pci\nvirtio_blk\next4\n")
    with (
        image.mounted("--bind", mirror, root / "mnt/mirror"),
        image.mounted("--bind", LOCK.parent, root / "mnt/bootstrap"),
        image.mounted("-t", "proc", "proc", root / "proc"),
    ):

        def inside(*words):
            run(["chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", *words], timeout=600)

        # Where Salt comes from, the packages come from; only the kernel, which no node needs, is not there.
        inside("/mnt/bootstrap/install.sh", "/mnt/bootstrap/requirements.lock", "/mnt/mirror")
        inside("sh", "-c", "python3 -m compileall -q /opt/qhub/salt/lib /usr/lib/python3*")
        image.connect(root)
        inside("apt-get", "update")
        keep = "Dpkg::Options::=--force-confold"  # the list of modules above
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "-o", keep]
        inside(*install, *KERNEL_PACKAGES, *packages)
        inside("apt-get", "clean")
    agent = root / "usr/local/sbin/agent"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    (root / "etc/systemd/system/agent.service").write_text(AGENT_UNIT)
    run(["systemctl", f"--root={root}", "enable", "agent.service"])


class Done(subprocess.CompletedProcess):
    """A command that has ended, and after how many seconds."""

    def __init__(self, words, status, output, errors, seconds):
        super().__init__(words, status, output, errors)
        self.seconds = seconds


class Machine:
    """The emulated machine; a context manager: it is on inside, and gone without a trace after."""

    def __init__(self, packages):
        self.image = built(packages)
        self.scratch = Path(tempfile.mkdtemp(prefix="qhub-vm-"))
        self.console = self.scratch / "console.log"

    def __enter__(self):
        self.line = socket.socket(socket.AF_UNIX)
        self.line.bind(str(self.scratch / "agent"))
        self.line.listen(1)
        masks = " ".join(f"systemd.mask={unit}" for unit in MASKED)
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", str(MEMORY),
             "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
             "-kernel", self.image / "vmlinuz", "-initrd", self.image / "initrd",
             "-append", f"root=/dev/vda rw console=ttyS0 mitigations=off nokaslr {masks}",
             "-drive", f"file={self.image}/disk,format=raw,if=virtio,snapshot=on",
             "-serial", f"file:{self.console}", "-serial", f"unix:{self.scratch}/agent"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self.line.settimeout(30)
            connection, _ = self.line.accept()
            connection.settimeout(180)
            self.stream = connection.makefile("rw")
            with step("Booting the emulated machine"):
                self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.line.close()
        shutil.rmtree(self.scratch)

    def _answer(self):
        try:
            return json.loads(self.stream.readline())
        except (OSError, ValueError) as error:
            tail = self.console.read_text(errors="replace")[-3000:]
            raise CommandFailed(f"the emulated machine does not answer: {error}\n{tail}") from error

    def run(self, words, *, check=True, timeout=60, input=None):
        """Run a command inside (a list) and return :class:`Done`; as the lab's machines do.

        Raises :class:`CommandFailed` unless ``check`` is false, and in any case when it runs longer than ``timeout``
        seconds.
        """
        words = [str(word) for word in words]
        start = time.monotonic()
        self.stream.write(json.dumps({"args": words, "input": input or "", "timeout": timeout}) + "\n")
        self.stream.flush()
        status, output, errors = self._answer()
        if status is None or (check and status):
            raise CommandFailed(f"{' '.join(words)}: status {status}\n{output}{errors}")
        return Done(words, status, output, errors, time.monotonic() - start)

    def write(self, path, text, mode="0644"):
        """Write a file inside, with the directories above it."""
        self.run(["install", "-D", "-m", mode, "/dev/stdin", path], input=text)

    def shell(self, script, **options):
        """Run a shell script inside; see :meth:`run`."""
        return self.run(["bash", "-euc", textwrap.dedent(script)], **options)

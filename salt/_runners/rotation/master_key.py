"""
The Salt master's key, which minions know it by: they are told of the next one before the master has it.
"""

import json
import shutil
import time
from pathlib import Path

from salt.crypt import write_keys
from salt.exceptions import CommandExecutionError

from .command import run

NEXT, KNOWN = Path("/etc/salt/pki/master/next"), Path("/etc/salt/pki/minion/minion_master.pub")
#: Where minions fetch it: ``salt://salt/next_master.pub``.
SERVED = Path("/var/lib/qhub/files/salt/next_master.pub")
#: What to do about a minion that knows the key of before.
ANEW = "Bootstrap it again: salt-ssh {} state.apply bootstrap.minion"
#: Seconds that minions get.
PATIENCE = 120


def begin(bits):
    """Generate the next key, and serve its public half."""
    if not (NEXT / "master.pub").exists():
        NEXT.mkdir(mode=0o700, exist_ok=True)
        write_keys(str(NEXT), "master", bits)
    SERVED.parent.mkdir(exist_ok=True)
    shutil.copyfile(NEXT / "master.pub", SERVED)


def change(pki):
    """Let the master have its next key, its own minion know it, and both start anew."""
    if NEXT.exists():
        for half in ("pem", "pub"):
            if (NEXT / f"master.{half}").exists():
                (NEXT / f"master.{half}").replace((pki / f"master.{half}").resolve())
        NEXT.rmdir()
    SERVED.unlink(missing_ok=True)
    shutil.copyfile(pki / "master.pub", KNOWN)
    run("systemctl", "restart", "salt-master", "salt-minion")


def wait(minions):
    """Wait until these minions answer."""
    deadline = time.monotonic() + PATIENCE
    while silent := minions - answering(minions):
        if time.monotonic() > deadline:
            told = "; ".join(f"{name} does not answer. {ANEW.format(name)}" for name in sorted(silent))
            raise CommandExecutionError(told)


def answering(minions):
    """Return those of these minions that answer."""
    words = ["salt", "--out=json", "--static", "--timeout=5", "--list", ",".join(sorted(minions)), "test.ping"]
    said = run(*words, check=False).stdout
    try:
        answers = json.loads(said[said.index("{") :])
    except ValueError:  # the master does not answer yet
        return set()
    return {name for name, answer in answers.items() if answer is True}

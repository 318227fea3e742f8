"""
The Salt master's key, which minions know it by: they are told of the next one before the master has it. For the
orchestration ``orch.rotate.salt``.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path

from salt.crypt import write_keys
from salt.exceptions import CommandExecutionError

__opts__: dict
__salt__: dict

NEXT, KNOWN = Path("/etc/salt/pki/master/next"), Path("/etc/salt/pki/minion/minion_master.pub")
#: Where minions fetch it: ``salt://salt/next_master.pub``.
SERVED = Path("/var/lib/qhub/files/salt/next_master.pub")
#: What to do about a minion that knows the key of before.
ANEW = "Bootstrap it again: salt-ssh {} state.apply bootstrap.minion"
#: Seconds that minions get.
PATIENCE = 120


def begin():
    """
    Generate the Salt master's next key, and let minions fetch its public half as ``salt://salt/next_master.pub``.

    One that an interrupted rotation generated stays. Returns ``True``.

    CLI Example:

    .. code-block:: bash

        salt-run master_key.begin
    """
    if not (NEXT / "master.pub").exists():
        NEXT.mkdir(mode=0o700, exist_ok=True)
        write_keys(str(NEXT), "master", __opts__["keysize"])
    SERVED.parent.mkdir(exist_ok=True)
    shutil.copyfile(NEXT / "master.pub", SERVED)
    return True


def change(workers):
    """
    Let the Salt master have its next key, and wait until the minions that know it answer.

    workers
        Ids of the workers that were told to go over to it.

    Returns what was seen, a list of lines, with the workers that were away. Raises
    :class:`~salt.exceptions.CommandExecutionError` naming those that do not answer.

    CLI Example:

    .. code-block:: bash

        salt-run master_key.change '[w1, w2]'
    """
    members = __salt__["membership.members"]()
    expected = {__opts__["id"], *workers}
    pki = Path(__opts__["pki_dir"])
    if NEXT.exists():
        for half in ("pem", "pub"):
            if (NEXT / f"master.{half}").exists():
                (NEXT / f"master.{half}").replace((pki / f"master.{half}").resolve())
        NEXT.rmdir()
    SERVED.unlink(missing_ok=True)
    shutil.copyfile(pki / "master.pub", KNOWN)
    subprocess.run(["systemctl", "restart", "salt-master", "salt-minion"], check=True, timeout=180)
    deadline = time.monotonic() + PATIENCE
    while silent := expected - _answering(expected):
        if time.monotonic() > deadline:
            told = "; ".join(f"{name} does not answer. {ANEW.format(name)}" for name in sorted(silent))
            raise CommandExecutionError(told)
    away = sorted(set(members) - expected)
    return ["minions answer to the new key", *(f"{name} was away. {ANEW.format(name)}" for name in away)]


def _answering(minions):
    """Return those of these minions that answer."""
    words = ["salt", "--out=json", "--static", "--timeout=5", "--list", ",".join(sorted(minions)), "test.ping"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout
    try:
        answers = json.loads(said[said.index("{") :])
    except ValueError:  # the master does not answer yet
        return set()
    return {name for name, answer in answers.items() if answer is True}

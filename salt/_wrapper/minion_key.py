"""
Keys for machines that become minions over SSH.

A salt-ssh wrapper: it runs on the master, for an administrator who is root there, while the states of the new machine
are rendered.
"""

from pathlib import Path

from salt.crypt import write_keys

__opts__: dict


def preseed(minion_id):
    """
    Accept the key of ``minion_id`` on the master before the machine has it.

    The key pair is made on the first call and kept (readable by root alone), so that a re-imaged machine gets the same
    one by the same command, and marked as joining until a job has run there. Removing the node deletes it
    (``orch.remove``).

    minion_id
        The minion's id: a key of the pillar's ``nodes``; the caller has compiled the pillar, which checks it.

    Returns ``{"minion.pem": text, "minion.pub": text, "minion_master.pub": text}``.
    """
    master = __opts__["__master_opts__"]
    pki = Path(master["pki_dir"])
    private, public = (pki / "preseeded" / f"{minion_id}.{suffix}" for suffix in ("pem", "pub"))
    if not private.exists():
        private.parent.mkdir(mode=0o700, exist_ok=True)
        write_keys(str(private.parent), minion_id, master["keysize"])
    accepted = pki / "minions" / minion_id
    if not accepted.exists() or accepted.read_text() != public.read_text():
        part = accepted.parent / f".{minion_id}"
        part.write_text(public.read_text())
        part.replace(accepted)
    # Slurm may still believe in the machine that this one replaces.
    mark = Path(master["cachedir"], "joining", minion_id)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return {
        "minion.pem": private.read_text(),
        "minion.pub": public.read_text(),
        "minion_master.pub": (pki / "master.pub").read_text(),
    }

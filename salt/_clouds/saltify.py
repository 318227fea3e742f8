"""
The cloud of machines that are there already: the pillar's ``nodes``, over SSH. ``salt-cloud -p worker w3``

Salt's own driver of this name checks a machine's host key at the first of some twenty logins alone, sends the minion's
key by the others, shows it on the event bus, and puts a new one in place of an accepted one before it has reached the
machine. This one takes its place: one node that the pillar names, one transfer, to a host whose key is known; the
minion's key pair is that of ``bootstrap.minion``, the other way to join.
"""

import io
import shlex
import subprocess
import tarfile
from pathlib import Path

import salt.config
import salt.loader
import salt.roster
import salt.utils.cloud
from salt.exceptions import SaltCloudSystemExit, SaltException

__opts__: dict

#: Beside the deploy script: what it needs.
BROUGHT = ("install.sh", "apt_get.py", "environment.sh", "root_only.sh", "requirements.lock")
#: Seconds to reach the machine, and for its deployment: Salt may be built from source there.
CONNECT_TIMEOUT, DEPLOY_TIMEOUT = 15, 1800
#: On the machine: unpack what comes in and run the script, all of it root's alone and gone at the end.
RECEIVE = 'umask 077 && dir=$(mktemp -d) && trap "rm -rf $dir" EXIT && tar -x -C $dir && bash $dir/deploy.sh'


def get_configured_provider():
    """Return the provider's settings: Salt asks each driver whether it has any."""
    return salt.config.is_provider_configured(__opts__, "saltify", ("ssh_keyfile", "known_hosts_file", "script"))


def list_nodes(call=None):
    """Return ``{}``: whether a machine is as its node should be is not known, so each can be brought in again."""
    return {}


def list_nodes_full(call=None):
    """Return ``{}``, as :func:`list_nodes`."""
    return {}


def list_nodes_select(call=None):
    """Return ``{}``, as :func:`list_nodes`."""
    return {}


def create(vm_):
    """
    Turn a machine that runs SSH into a minion that the master already trusts.

    vm_
        The profile's and provider's settings, and the node's id as ``name``. Used are ``ssh_keyfile`` and
        ``known_hosts_file`` (paths on the master), ``script`` (the deploy script), ``script_args`` and ``minion`` (the
        configuration that the minion first starts with).

    Returns ``{"address", "deployed": True}``. Raises :class:`~salt.exceptions.SaltCloudSystemExit` for a node that the
    pillar does not name, a host key that is not known, and a deployment that failed.

    CLI Example:

    .. code-block:: bash

        salt-cloud -p worker w3
    """
    name = vm_["name"]
    master = salt.config.master_config(str(Path(__opts__["conf_file"]).parent / "master"))
    address = _address(name, master)
    # Before its key is accepted: a machine that cannot be reached changes nothing.
    _ssh(vm_, address, "true", CONNECT_TIMEOUT * 2)
    keys = salt.loader.ssh_wrapper({**__opts__, "__master_opts__": master})["minion_key.preseed"](name)
    files = {key: text.encode() for key, text in keys.items()}
    minion = salt.utils.cloud.minion_config(__opts__, vm_)
    files["minion"] = salt.utils.cloud.salt_config_to_yaml(minion).encode()
    files["deploy.sh"] = Path(vm_["script"]).read_bytes()
    files |= {each: Path(vm_["script"]).with_name(each).read_bytes() for each in BROUGHT}
    command = f"{RECEIVE} {shlex.join(vm_.get('script_args') or [])}"
    _ssh(vm_, address, command, DEPLOY_TIMEOUT, packed(files))
    return {"address": address, "deployed": True}


def packed(files):
    """Return a tar archive (bytes) of ``{name: content}``, each for its owner alone."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o700
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def failure(name, address, known_hosts, status, said):
    """
    Return in words why a command over SSH failed.

    status
        Its exit status: 255 is SSH's own.
    said
        What it printed.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if status == 255 and any("host key verification failed" in line.lower() for line in lines):
        return (
            f"{name}: refused: the host key of {address} is not the one in {known_hosts}, or there is none. Compare "
            f"what `ssh-keyscan -t ed25519 {address} | ssh-keygen -lf -` shows with the machine's own (on its console: "
            f"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); if they are the same, ssh-keygen -R {address}; "
            f"ssh-keyscan -t ed25519 {address} >>{known_hosts}"
        )
    if status == 255:
        return f"{name}: no SSH to {address}: {lines[-1] if lines else 'no answer'}"
    return f"{name}: the deploy script failed on {address}:\n" + "\n".join(lines[-20:])


def _address(name, master):
    """Return the address of a node, from the same table as ``salt-ssh`` takes it."""
    try:
        nodes = salt.roster.Roster(master, "nodes").targets("*", "glob")
    except SaltException as error:
        raise SaltCloudSystemExit(str(error)) from error
    if name not in nodes or name == master["id"]:
        there = ", ".join(sorted(set(nodes) - {master["id"]})) or "none"
        raise SaltCloudSystemExit(f"{name} is no worker that the pillar names (nodes.sls); there are: {there}")
    return nodes[name]["host"]


def _ssh(vm_, address, command, timeout, content=b""):
    """Run a command (for the shell) as root at ``address``, whose host key is known; ``content`` is its input."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": vm_["known_hosts_file"],
        "IdentitiesOnly": "yes",
        "IdentityFile": vm_["ssh_keyfile"],
        "ConnectTimeout": CONNECT_TIMEOUT,
        "ServerAliveInterval": 15,
    }
    words = ["ssh", *(f"-o{key}={value}" for key, value in options.items()), f"root@{address}", command]
    try:
        done = subprocess.run(
            words, input=content, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise SaltCloudSystemExit(f"{vm_['name']}: no answer from {address} within {timeout} s") from None
    if done.returncode:
        said = done.stdout.decode(errors="replace")
        raise SaltCloudSystemExit(failure(vm_["name"], address, vm_["known_hosts_file"], done.returncode, said))

"""An NFS client of this machine in a node's network, as any program on that node could be: libnfs, without a mount."""

from .harness import settings
from .harness.shell import run

ADA = "uid=20001&gid=20001"
ROOT = "uid=0&gid=0"


def network(lab, node):
    """Return the start of a command that runs in the network of a node, or of this machine (``None``)."""
    return ["nsenter", "--net", "--target", lab.node(node).leader] if node else []


def url(path, who):
    """Return libnfs's name of a path on the master; ``who`` is the claimed identity, such as ``uid=0&gid=0``."""
    return f"nfs://{settings.ADDRESSES['master']}{path}?version=4&{who}"


def nfs(lab, node, program, path, *before, who=ROOT, uid=0, **options):
    """Run one of libnfs's programs on an exported path, from a node's network.

    ``who`` is the identity that the request claims, ``uid`` the user of this machine who runs the program: only root
    sends from a port below 1024.
    """
    switch = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    return run([*network(lab, node), *switch, program, *before, url(path, who)], timeout=30, **options)

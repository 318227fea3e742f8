"""An NFS client of this machine in a node's network, as any program on that node could be: libnfs, without a mount."""

import sys

from .harness import settings
from .harness.shell import run

ADA = "uid=20001&gid=20001"
ROOT = "uid=0&gid=0"
# Sets the mode of a file: CHMOD URL MODE (octal digits). libnfs has no program for that. Source: nfsc/libnfs.h.
CHMOD = """
import ctypes, ctypes.util, sys
class Url(ctypes.Structure):
    _fields_ = [("server", ctypes.c_char_p), ("path", ctypes.c_char_p), ("file", ctypes.c_char_p)]
lib = ctypes.CDLL(ctypes.util.find_library("nfs"))
lib.nfs_init_context.restype = ctypes.c_void_p
lib.nfs_parse_url_full.restype = ctypes.POINTER(Url)
lib.nfs_get_error.restype = ctypes.c_char_p
nfs = ctypes.c_void_p(lib.nfs_init_context())
url = lib.nfs_parse_url_full(nfs, sys.argv[1].encode())
if not url or lib.nfs_mount(nfs, url[0].server, url[0].path) or lib.nfs_chmod(nfs, url[0].file, int(sys.argv[2], 8)):
    sys.exit(lib.nfs_get_error(nfs).decode())
"""


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


def copy(lab, node, source, path, *, mode, who):
    """Copy a local file as root on a node can: with a mode (octal digits), as the owner that ``who`` claims."""
    nfs(lab, node, "nfs-cp", path, source, who=who)
    run([*network(lab, node), sys.executable, "-c", CHMOD, url(path, who), mode], timeout=30)

"""The lab's switch: a bridge that only this machine and the nodes are on."""

from pathlib import Path

from . import settings
from .shell import run

TABLE = f"qhub_lab{settings.NUMBER or ''}"
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
#: The ports that :func:`publish` opens. Port 22 stays this machine's own.
PUBLISHED = tuple(port for port in settings.FRONT_DOOR if port != 22)


def up():
    """Make the bridge; with ``QHUB_LAB_PUBLISH=1`` also pass the front door's ports on from outside."""
    if not Path(f"/sys/class/net/{settings.BRIDGE}").exists():
        run(["ip", "link", "add", settings.BRIDGE, "type", "bridge"])
        run(["ip", "address", "add", f"{settings.GATEWAY}/{settings.NETWORK.prefixlen}", "dev", settings.BRIDGE])
    run(["ip", "link", "set", settings.BRIDGE, "up"])
    if settings.PUBLISH:
        publish()


def publish():
    """Pass the front door's ports, as they are asked of this machine from outside, on to the master."""
    ports = ", ".join(map(str, PUBLISHED))
    master = settings.ADDRESSES["master"]
    saved = settings.STATE / "ip_forward"
    if not saved.exists():
        saved.write_text(FORWARD.read_text())
    FORWARD.write_text("1")
    rules = f"""
        table ip {TABLE}
        delete table ip {TABLE}
        table ip {TABLE} {{
            chain prerouting {{
                type nat hook prerouting priority dstnat
                iifname != "{settings.BRIDGE}" fib daddr type local tcp dport {{ {ports} }} dnat to {master}
            }}
        }}"""
    run(["nft", "-f", "-"], input=rules)


def unpublish():
    """Undo :func:`publish`."""
    run(["nft", "delete", "table", "ip", TABLE], check=False)
    saved = settings.STATE / "ip_forward"
    if saved.exists():
        FORWARD.write_text(saved.read_text())
        saved.unlink()


def down():
    """Remove everything that :func:`up` made."""
    unpublish()
    run(["ip", "link", "delete", settings.BRIDGE], check=False)

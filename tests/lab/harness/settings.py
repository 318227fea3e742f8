"""Where the lab lives and what it is made of."""

import ipaddress
import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("QHUB_LAB_CACHE", Path.home() / ".cache/qhub-lab"))
# A second lab beside the first has a number of its own (2 to 250), and with it a directory and a network. The second
# process of pytest-xdist's has one too.
NUMBER = int(os.environ.get("QHUB_LAB_NUMBER", "0")) + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
STATE = Path(f"/var/lib/qhub-lab{NUMBER or ''}")
# Where tests have machines that belong to no lab.
LONE = Path(f"/var/lib/qhub-machines{NUMBER or ''}")

BRIDGE = f"br-qhub{NUMBER or ''}"
NETWORK = ipaddress.ip_network(f"10.98.{NUMBER}.0/24")
GATEWAY = NETWORK[1]
ADDRESSES = {"master": str(NETWORK[10]), **{f"w{n}": str(NETWORK[10 + n]) for n in range(1, 21)}}
NODES = ("master", "w1", "w2")

FRONT_DOOR = (22, 80, 443, 8022, 8786)
PUBLISH = os.environ.get("QHUB_LAB_PUBLISH", "") not in ("", "0")

RELEASE = "trixie"
# What Debian's installer gives with "SSH server" ticked, as far as a node cares.
IMAGE_PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-client",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
HOST_PACKAGES = (
    "mmdebstrap", "systemd-container", "iproute2", "nftables", "util-linux", "openssh-client",
    "maven",  # carries Keycloak where its maker's site cannot be reached
)  # fmt: skip
TEST_PACKAGES = (
    *HOST_PACKAGES,
    "gcc", "python3-dev", "python3-venv", "shellcheck",
    "libnfs-utils", "qemu-system-x86", "e2fsprogs",  # the tests of NFS
    "chromium", "libnss3-tools",  # a browser, and what makes it trust a CA
    "rsync",  # which goes through ssh
)  # fmt: skip
# What tests need in a machine of theirs beside what the formulas install.
TEST_NODE_PACKAGES = ("slapd", "ldap-utils", "at", "cron", "libpam-systemd")
# What the lab does without, as no registry carries it: its page for monitoring is Prometheus's own.
ABSENT_PROGRAMS = ("grafana",)

CHECKOUT = "/srv/qhub"  # where the repository is on the master
MIRROR = "/srv/mirror"  # where every node finds the packages; there is no other source

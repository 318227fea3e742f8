"""Who may come in through the SSH gateway, and what is counted; nothing here does more than compute and read files."""

import collections
import contextlib
import ipaddress
import os
import re
import socket
import struct
import time
from pathlib import Path

# A person's name (unix_name in salt/schema/pillar.yaml): never an option, nor what sudo reads as a number.
USER = re.compile(r"(?=.{1,31}\Z)[a-z_][a-z0-9_-]*(\.[a-z0-9_-]+)*")
TOKEN = re.compile(r"[A-Za-z0-9_.-]{6,256}")  # nothing that would end a header of HTTP
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MOST_REMEMBERED = 20000  # pairs of address and name whose failed logins are counted


def plain(text):
    """Return ``text`` without what would steer a terminal."""
    return CONTROL.sub("", text)


def entitled(user, model):
    """
    Tell whether a token is one with which ``user`` may use their servers.

    model
        What the Hub says of the token's owner. It says it for any token: that of a notebook server is its owner's too,
        but may not use all of the owner's servers, and a service is no user.
    """
    scopes = model.get("scopes") or ()
    return (
        model.get("kind") == "user"
        and model.get("name") == user
        and ("access:servers" in scopes or f"access:servers!user={user}" in scopes)
    )


# What is counted


class Metrics:
    """Counters and gauges, in the text form that Prometheus reads."""

    def __init__(self):
        self.counters = collections.Counter()
        self.gauges = {}

    def count(self, name, amount=1, **labels):
        self.counters[name, tuple(sorted(labels.items()))] += amount

    def gauge(self, name, read):
        """``read`` is called for the value."""
        self.gauges[name] = read

    def text(self):
        rows = [(name, "gauge", (), read()) for name, read in self.gauges.items()]
        rows += [(name, "counter", labels, value) for (name, labels), value in self.counters.items()]
        lines, last = [], None
        for name, kind, labels, value in sorted(rows):
            if name != last:
                lines.append(f"# TYPE {name} {kind}")
                last = name
            inner = ",".join(f'{key}="{each}"' for key, each in labels)
            lines.append(f"{name}{{{inner}}} {value}" if inner else f"{name} {value}")
        return "\n".join(lines) + "\n"


def resident_bytes():
    """Return how much memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Who may try


class Failures:
    """Failed logins, by address and name: each one more doubles the wait, and time without one forgets them."""

    def __init__(self, first, most, forget, clock=time.monotonic):
        self.first, self.most, self.forget, self.clock = first, most, forget, clock
        self.seen = collections.OrderedDict()  # key -> (how often, when last)

    def count(self, key):
        times, last = self.seen.get(key, (0, 0))
        return times if self.clock() - last < self.forget else 0

    def add(self, key):
        times = self.count(key) + 1
        self.seen[key] = (times, self.clock())
        self.seen.move_to_end(key)
        while len(self.seen) > MOST_REMEMBERED:
            self.seen.popitem(last=False)

    def delay(self, key):
        """Return the seconds that ``key`` has to wait now."""
        times = self.count(key)
        return min(self.most, self.first * 2 ** min(times - 1, 30)) if times else 0


def network(address):
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 one."""
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class Door:
    """Limits on connections that have not signed in yet."""

    def __init__(self, limits, clock=time.monotonic):
        self.limits = limits
        # By address and name together: an address may be shared by a whole campus, and anybody can type any name.
        self.failures = Failures(limits.first_delay, limits.longest_delay, limits.forget_failures, clock)
        self.waiting = {}  # address -> functions that close its connections, the oldest first

    def is_shut(self, source, name):
        """Tell whether ``name`` may no longer sign in from the address ``source``."""
        return self.failures.count((source, name)) >= self.limits.most_failures

    def is_crowded(self, source):
        """Tell whether the address ``source`` has as many connections as one may have."""
        return len(self.waiting.get(source, ())) >= self.limits.unauthenticated_per_address

    def unauthenticated(self):
        """Return how many connections there are."""
        return sum(map(len, self.waiting.values()))

    @contextlib.contextmanager
    def entered(self, source, close):
        """
        Count a connection of the address ``source`` while in here.

        If there are too many in all, the address that has most loses its oldest one: whoever signs in takes a moment,
        and does not have to wait for those who never do.

        close
            Called to close this connection.
        """
        if self.unauthenticated() >= self.limits.unauthenticated:
            max(self.waiting.values(), key=len).pop(0)()
        self.waiting.setdefault(source, []).append(close)
        try:
            yield
        finally:
            if close in self.waiting.get(source, ()):
                self.waiting[source].remove(close)
            self.waiting = {address: each for address, each in self.waiting.items() if each}


# Where a client comes from


def proxied_address(head, body):
    """
    Return the client's address from a header of the PROXY protocol, version 2; ``None`` if the sender speaks for
    itself (a check of its own).

    head
        The first 16 bytes.
    body
        What follows, as long as the head says.

    Raises ``ValueError`` for anything else.
    """
    signature, command, family, _ = struct.unpack("!12sBBH", head)
    if signature != PROXY_SIGNATURE or command >> 4 != 2:
        raise ValueError("no header of the PROXY protocol, version 2")
    if command & 15 == 0:
        return None
    size = {0x11: 4, 0x21: 16}.get(family)
    if command & 15 != 1 or not size or len(body) < 2 * size + 4:
        raise ValueError("a header of the PROXY protocol that names no TCP client")
    return str(ipaddress.ip_address(body[:size]))


def owner(table, local, remote):
    """
    Return the uid that has the connection from ``local`` to ``remote`` (addresses and ports, IPv4), or ``None``.

    table
        The content of /proc/net/tcp.
    """

    def name(address, port):
        return f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}:{port:04X}"

    wanted = (name(*local), name(*remote))
    for line in table.splitlines()[1:]:
        fields = line.split()
        if (fields[1], fields[2]) == wanted and fields[3] == "01":
            return int(fields[7])
    return None

"""Addresses that a cluster's scheduler reports: the gateway and its proxy connect there, so they are checked first."""

import re

#: What a scheduler reports, and the scheme of each address.
SCHEMES = {"api_address": "http", "scheduler_address": "tls", "dashboard_address": "http"}
ADDRESS = re.compile(r"([a-z]+)://([0-9.]+):([0-9]{1,5})/?")


def refused(reported, node, ports):
    """Return a line for each address that is not one of the scheduler's job.

    reported
        The scheduler's message, with the keys of ``SCHEMES``; the dashboard's address may be empty.
    node
        IPv4 address of the node on which Slurm runs the job.
    ports
        Ports (a range) on which jobs listen.
    """
    lines = []
    for key, scheme in SCHEMES.items():
        address = str(reported.get(key, ""))
        if key == "dashboard_address" and not address:
            continue
        match = ADDRESS.fullmatch(address)
        if not match or match[1] != scheme or match[2] != node or int(match[3]) not in ports:
            lines.append(f"{key}: {address[:100]!r} is not {scheme}://{node} with a port of {ports[0]}-{ports[-1]}")
    return lines

"""The host names of people's servers: a host name other than the one at which people sign in is another origin."""

import hashlib
import re

#: A user name that is a DNS label as it is. Labels with ``--`` are those that :func:`host_of` makes of other names.
LABEL = re.compile(r"(?!.*--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
STEM, DIGEST = 40, 8  # characters of the two parts of a label that is made of another name


def host_of(name, people_name):
    """Return the host name of a person's servers.

    name
        The person's user name.
    people_name
        ``cluster.people_name``: a host name for all people, or ``*.DOMAIN`` for a host name each.
    """
    if not people_name.startswith("*."):
        return people_name
    label = name
    if not LABEL.fullmatch(name):
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower())[:STEM].strip("-")
        label = f"{stem or 'user'}--{hashlib.sha256(name.encode()).hexdigest()[:DIGEST]}"
    return label + people_name.removeprefix("*")

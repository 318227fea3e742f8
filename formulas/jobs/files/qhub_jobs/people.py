"""What this machine knows of people."""

import grp
import os
import pwd


def unix_groups(name):
    """Return the names of somebody's Unix groups."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return []
    found = []
    for gid in os.getgrouplist(name, entry.pw_gid):
        try:
            found.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return found

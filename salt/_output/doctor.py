"""
The page of ``salt-run cluster.doctor``: a line for each check that is in order, and of the others what is wrong and
what to do.
"""

import salt.utils.color

__opts__: dict

MARKS = {
    "ok": ("ok", "GREEN"),
    "warning": ("warning", "YELLOW"),
    "failed": ("FAILED", "RED"),
    "not checked": ("-", "YELLOW"),
}


def output(data, **kwargs):
    """Return the page of what ``doctor.examine`` returned."""
    return page(data, salt.utils.color.get_colors(__opts__.get("color")))


def page(data, colors):
    """Return the page; ``colors`` has what switches each colour on, and ``ENDC``."""
    checks = [check for check in data["checks"] if check["state"] in MARKS]
    failed = [check["name"] for check in checks if check["state"] == "failed"]
    warnings = sum(check["state"] == "warning" for check in checks)
    sums = f"{len(failed)} of {len(checks)} checks failed" if failed else f"{len(checks)} checks"
    if warnings:
        sums += f", {warnings} with a warning"
    elif not failed:
        sums += ", all in order"
    lines = [f"Cluster {data['cluster']}: {sums} ({data['seconds']} s)".replace(" :", ":")]
    groups = list(dict.fromkeys(check["group"] for check in checks))
    for group in groups:
        title = group
        for check in (each for each in checks if each["group"] == group):
            lines += entry(title, check, colors)
            title = ""
    return "\n".join(lines)


def entry(title, check, colors):
    """Return the lines of one check."""
    mark, color = MARKS[check["state"]]
    says = [f"not checked, as {check['because']} failed"] if check["because"] else check["says"]
    start = f"{title:13}{check['name']:15}{colors[color]}{mark:8}{colors['ENDC']}"
    lines = [f"{start}{says[0]}", *(" " * 36 + line for line in says[1:])]
    if check["state"] in ("failed", "warning"):
        lines.append(" " * 36 + f"-> {check['advice']}")
    return lines

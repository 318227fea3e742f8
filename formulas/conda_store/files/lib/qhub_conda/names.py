"""Whom a role binding, NAMESPACE/NAME with * for any text, is about.

conda-store takes a binding for a regular expression and for a pattern of SQL's LIKE, in which the other characters of a
name are not themselves: phys.lab/* would be about physxlab too, and phys_lab/* show the environments of phys-lab.
"""

import re

#: What conda-store allows in names, as in a set of a regular expression.
ALLOWED = "A-Za-z0-9+_@$&?^~.=-"
BINDING = re.compile(rf"([*{ALLOWED}]+)/([*{ALLOWED}]+)")
#: Names of namespaces are parts of paths, too.
NAMESPACE = re.compile(rf"(?![.-])[{ALLOWED}]+")


def expression(binding):
    """Return the regular expression of the ``NAMESPACE`` and ``NAMESPACE/NAME`` that a binding is about."""
    namespace, name = (literal(part, f"[{ALLOWED}]*") for part in parts(binding))
    return re.compile(rf"{namespace}(?:/{name})?\Z")


def within(narrow, wide):
    """Whether all that the binding ``narrow`` is about is what ``wide`` is about."""
    return all(
        re.fullmatch(literal(theirs, f"[*{ALLOWED}]*"), own)
        for own, theirs in zip(parts(narrow), parts(wide), strict=True)
    )


def like(binding, _allowed=None):
    """Return the two patterns, of namespaces and names, that SQL's LIKE takes for a binding."""
    return tuple(part.replace("_", r"\_").replace("*", "%") for part in parts(binding))


def parts(binding):
    """Return a binding's namespace and name."""
    match = BINDING.fullmatch(binding)
    if match is None:
        raise ValueError(f"{binding!r} is not NAMESPACE/NAME")
    return match.groups()


def literal(text, anything):
    """Return a regular expression of ``text`` in which only * is a pattern, ``anything``."""
    return anything.join(map(re.escape, text.split("*")))

"""
Where the pillar's secrets are, and where those of before until the new ones are proved.
"""

import importlib.util
import json
from pathlib import Path

PILLAR = Path("/var/lib/qhub/pillar")
#: The secrets of before, ``{name: value}``.
REPLACED = PILLAR / "replaced.json"


def bootstrap():
    """Return salt/bootstrap/secrets.py, which says how secrets are made, as a module."""
    path = Path(__file__).parents[2] / "bootstrap/secrets.py"
    spec = importlib.util.spec_from_file_location("qhub_bootstrap_secrets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def file(audience):
    """Return the pillar file with the secrets of ``master`` or of ``nodes``."""
    return PILLAR / "secrets" / f"{audience}.sls"


def current():
    """Return all of the pillar's secrets, ``{name: value}``."""
    made = bootstrap()
    return {name: value for audience in made.GENERATE for name, value in made.read(file(audience)).items()}


def renew(names):
    """Generate these secrets anew, but for those that an earlier run has replaced; return all of before."""
    made, before = bootstrap(), replaced()
    for audience, generators in made.GENERATE.items():
        kept = made.read(file(audience))
        new = renewed({name: generators[name] for name in names if name in generators}, kept, before)
        if new:
            before |= {name: kept[name] for name in new}
            keep(before)
            made.write(file(audience), kept | new)
    return before


def renewed(generators, kept, replaced):
    """
    Return ``{name: new value}`` for those secrets that no earlier run has replaced; pure but for the dice.

    generators
        ``{name: function}`` of the secrets asked for.
    kept, replaced
        The values that are in the pillar, and those of before.
    """
    return {
        name: generate()
        for name, generate in generators.items()
        if name not in replaced or replaced[name] == kept[name]  # or an earlier run did not come to write it
    }


def replaced():
    """Return the secrets of before, ``{name: value}``."""
    return json.loads(REPLACED.read_text()) if REPLACED.exists() else {}


def keep(before):
    """Keep these secrets of before, or none."""
    if not before:
        REPLACED.unlink(missing_ok=True)
        return
    part = REPLACED.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_text(json.dumps(before))
    part.replace(REPLACED)

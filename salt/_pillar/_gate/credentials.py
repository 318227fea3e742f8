"""
Users, passwords and tokens in addresses, as in ``https://user:password@host`` and ``https://host/t/TOKEN/channel``.
"""

import re

#: Settings of formulas/conda_store that are channels. What they are is shown to everybody who uses conda-store.
CHANNELS = ("channels", "allowed_channels", "channel_alias")


def masked(text):
    """Return a text with ``**`` for each user, password and token in an address."""
    if "://" not in text:
        return text
    return re.sub(r"(://\S*?/t/)[^/\s]+", r"\1**", re.sub(r"://[^/\s]*@", "://**@", text))


def problems(pillar, schema):
    """Yield ``(path, value, allowed)`` for each channel of the settings ``conda_store`` that has a credential."""
    settings = pillar.get("conda_store")
    for key in CHANNELS if isinstance(settings, dict) else ():
        rule, value = schema["$defs"]["conda_channels"]["items"], settings.get(key)
        listed = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, text in listed:
            if isinstance(text, str) and re.search(rule["not"]["pattern"], text):
                yield ("conda_store", key, *(() if index is None else (index,))), text, rule["description"]

"""
Slurm's configuration as a pillar has it, read by Slurm's own programs.
"""

import subprocess
import tempfile
from pathlib import Path

import salt.fileclient
import salt.loader
import salt.template

#: The formula's program that checks a file (formulas/slurm).
CHECK = "/usr/local/sbin/qhub-slurm-config"
#: The SLS that has a file, by the file's name.
SOURCES = {
    "slurm.conf": "slurm/config.sls",
    "cgroup.conf": "slurm/config.sls",
    "gres.conf": "slurm/config.sls",
    "slurmdbd.conf": "slurm/database.sls",
}
#: Seconds for one check.
PATIENCE = 120


def refusals(pillar, opts):
    """
    Return Slurm's reasons (a list) to refuse the configuration that a pillar would give it. Empty as well where Slurm
    is not installed yet.

    pillar
        The master's pillar, without errors.
    opts
        The Salt master's configuration.
    """
    if not Path(CHECK).exists():
        return []
    with tempfile.TemporaryDirectory(prefix="qhub-slurm-") as scratch:
        for name in SOURCES:
            Path(scratch, name).write_text(rendered(name, pillar, opts))
        argv = [CHECK, "check", *(word for name in SOURCES for word in (name, str(Path(scratch, name))))]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    return [done.stderr.strip()] if done.returncode else []


def rendered(name, pillar, opts):
    """Return the text of the file ``name`` as the formula's SLS makes it."""
    minion = {**opts, "file_client": "local", "pillar": pillar, "grains": {"id": pillar["cluster"]["master"]["id"]}}
    with salt.fileclient.get_file_client(minion) as client:
        functions = salt.loader.minion_mods(minion, utils=salt.loader.utils(minion), file_client=client)
        renderers = salt.loader.render(minion, functions, file_client=client)
        path = client.cache_file(f"salt://{SOURCES[name]}")
        states = salt.template.compile_template(path, renderers, "jinja|yaml", [], [], sls=Path(path).stem)
        for state in (state for state in states.values() if isinstance(state, dict)):
            file = {key: value for each in state.get("file.managed", []) for key, value in each.items()}
            if Path(file.get("name", "")).name == name:
                return text_of(client.cache_file(file["source"]), file["context"], renderers)
    raise LookupError(f"{SOURCES[name]} has no {name}")


def text_of(path, context, renderers):
    """Return the text that a template gives in a context."""
    return salt.template.compile_template(path, renderers, "jinja", [], [], context=context).read()

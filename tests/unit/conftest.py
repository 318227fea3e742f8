"""What the checks without a cluster share: the repository as a master sees it, in process."""

import copy
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import salt._logging
import salt.config
import salt.pillar
import yaml

ROOT = Path(__file__).parents[2]
salt._logging.shutdown_temp_handler()  # else all that Salt logs comes at the end, into closed streams


@pytest.fixture(scope="session", autouse=True)
def _a_template_is_compiled_once():
    """Keep compiled Jinja templates: Salt renders each file in a new environment, whose own cache is empty."""
    compile_template, kept = jinja2.Environment.compile, {}

    def compile_once(environment, source, name=None, filename=None):
        # Environments of the same syntax have the same lexer.
        key = (environment.lexer, *environment.extensions, source, name, filename)
        if key not in kept:
            kept[key] = compile_template(environment, source, name, filename)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", compile_once)
        yield


@pytest.fixture(scope="session")
def secrets(tmp_path_factory):
    """Return a pillar root with secrets as bootstrap makes them."""
    directory = tmp_path_factory.mktemp("secrets")
    subprocess.run([sys.executable, ROOT / "salt/bootstrap/secrets.py", directory], check=True, timeout=60)
    return directory


@pytest.fixture(scope="session")
def options(secrets):
    """Return a function ``(role, directory, *pillar_roots)`` -> Salt's options over this repository."""

    def read(role, directory, *pillar_roots):
        directory.mkdir(parents=True, exist_ok=True)
        settings = {
            "id": "master",
            "root_dir": str(directory),
            "user": "root",
            "lazy_loader_strict_matching": True,
            "file_client": "local",
            "file_roots": {"base": [str(ROOT / "salt"), str(ROOT / "formulas")]},
            "pillar_roots": {"base": [str(root) for root in (*pillar_roots, ROOT / "pillar", secrets)]},
            "module_dirs": [str(ROOT / "salt")],
            "ext_pillar": [{"qhub": {}}],
        }
        config = directory / role
        config.write_text(yaml.safe_dump(settings))
        return getattr(salt.config, f"{role}_config")(str(config))

    return read


class Site:
    """A site's own pillar directory in front of the repository's defaults, compiled as its master would."""

    def __init__(self, opts, directory):
        self.opts, self.directory = opts, directory

    def write(self, **files):
        """Write pillar files, ``users={...}`` to ``users.sls`` and so on; text is written as it is."""
        for name, content in files.items():
            text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
            (self.directory / f"{name}.sls").write_text(text)

    def accept(self, *ids):
        """Accept the minion keys of ``ids``."""
        keys = Path(self.opts["pki_dir"], "minions")
        keys.mkdir(parents=True, exist_ok=True)
        for name in ids:
            (keys / name).write_text("a public key")

    def pillar(self, minion_id="master", grains=None, override=None):
        """Return the pillar that ``minion_id`` gets."""
        grains = {**(grains or {}), "id": minion_id}
        opts = copy.deepcopy(self.opts)
        return salt.pillar.Pillar(opts, grains, minion_id, "base", pillar_override=override).compile_pillar()

    def refusal(self, minion_id="master"):
        """Return what Salt says when it refuses the pillar of ``minion_id``; ``""`` if it does not."""
        return "\n".join(self.pillar(minion_id).get("_errors", []))


@pytest.fixture
def site(options, tmp_path):
    """Return an empty :class:`Site`."""
    (tmp_path / "pillar").mkdir()
    return Site(options("master", tmp_path / "salt", tmp_path / "pillar"), tmp_path / "pillar")

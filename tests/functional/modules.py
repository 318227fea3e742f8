"""This repository's execution and state modules, loaded by Salt as on a master."""

from pathlib import Path

import salt._logging
import salt.config
import salt.loader

ROOT = Path(__file__).parents[2]


class Modules:
    """Execution and state functions of one module: ``modules.apply(...)``, ``modules.state("managed", ...)``.

    ``name``
        The module, such as ``slurm_account``.
    ``directory``
        Where Salt keeps its files.
    ``pillar``, ``options``
        The minion's pillar and what else its configuration says.
    """

    def __init__(self, name, directory, pillar=None, **options):
        salt._logging.shutdown_temp_handler()
        self.name = name
        config = directory / "minion"
        config.write_text(
            f"id: master\nroot_dir: {directory}\nfile_client: local\nlazy_loader_strict_matching: true\n"
            f"module_dirs: [{ROOT}/_modules]\nstates_dirs: [{ROOT}/_states]\nlog_level: quiet\n"
        )
        self.opts = {**salt.config.minion_config(str(config)), "grains": {}, "pillar": pillar or {}, **options}
        self.functions = self._functions(self.opts)
        self.states = {}
        for test in (False, True):
            opts = {**self.opts, "test": test}
            self.states[test] = salt.loader.states(
                opts, self._functions(opts), salt.loader.utils(opts), salt.loader.serializers(opts)
            )

    def _functions(self, opts):
        return salt.loader.minion_mods(opts, utils=salt.loader.utils(opts))

    def __getattr__(self, function):
        """Return an execution function of the module."""
        return self.functions[f"{self.name}.{function}"]

    def state(self, function, *arguments, test=False, **declared):
        """Run a state function of the module and return what it returns."""
        return self.states[test][f"{self.name}.{function}"](*arguments, **declared)

"""Sphinx: the documentation in docs/. `make docs` builds it; a warning is an error."""

import importlib.util
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

project = "QHub HPC on Salt"
author = "the authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "pillar_reference"]
exclude_patterns = ["_build"]
smartquotes = False  # options begin with two hyphens

myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = html_copy_source = False

add_module_names = False
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100


def salt_modules():
    """Import what Salt's loader would, as ``modules.slurm_account`` and so on: some names are there in two kinds."""
    for kind, directory in (("modules", "_modules"), ("states", "_states"), ("runners", "salt/_runners")):
        sys.modules[kind] = types.ModuleType(kind)
        sys.path.append(str(ROOT / directory))  # while Salt loads a file, what lies beside it is found
        for path in (ROOT / directory).glob("*.py"):
            spec = importlib.util.spec_from_file_location(f"{kind}.{path.stem}", path)
            assert spec and spec.loader
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            if "__load__" in vars(module):  # what the loader offers
                vars(module)["__all__"] = vars(module)["__load__"]


salt_modules()

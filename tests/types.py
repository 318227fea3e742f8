"""mypy over all of the repository's Python, program by program: what lies beside a file is what the file imports.

python -m tests.types
"""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Where programs of other folders find what formulas install for all of them.
SHARED = ("formulas/jobs/files", "formulas/conda_store/files/lib")


def sources():
    """Yield the path of every file of Python, also of those without a suffix."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in map(Path, files.splitlines()):
        if path.suffix == ".py" or (not path.suffix and (ROOT / path).is_file() and is_program(ROOT / path)):
            yield path


def is_program(path):
    with path.open("rb") as file:
        first = file.readline()
    return first.startswith(b"#!") and b"python" in first


def folder(path):
    """Return the folder from which a file is imported: the one above its packages."""
    while (ROOT / path.parent / "__init__.py").exists():
        path = path.parent
    return path.parent


def check(place, paths):
    """Run mypy over the files of one folder; return its status."""
    environment = os.environ | {"MYPYPATH": os.pathsep.join(dict.fromkeys((str(place), *SHARED)))}
    words = [sys.executable, "-m", "mypy", "--no-error-summary", "--scripts-are-modules", *paths]
    return subprocess.run(words, cwd=ROOT, env=environment, timeout=600).returncode


def main():
    places = defaultdict(list)
    for path in sources():
        places[folder(path)].append(path)
    return max(check(place, paths) for place, paths in places.items())


if __name__ == "__main__":
    sys.exit(main())

"""Packages are installed by the programs that wait for other programs which install packages."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAIT = {"salt/bootstrap/apt_get.py", "formulas/slurm/files/qhub-slurm-upgrade"}  # tests/functional/test_apt.py
# In a shell or as a list in Python, at the start of a command or after one of sh's words.
CALL = re.compile(r"^[^#]*(?:^|[\s@\"';&|(])apt-get[\"']?,?\s+(?!download)[\"'\-$a-z]")


def test_nothing_else_runs_apt_get():
    listed = ["git", "ls-files", "Makefile", "salt", "formulas", "_modules", "_states"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert set(files) >= WAIT
    calls = [
        f"{name}: {line.strip()}"
        for name in sorted(set(files) - WAIT)
        if (ROOT / name).is_file()  # not a link to a folder
        for line in (ROOT / name).read_text(errors="replace").splitlines()
        if CALL.search(line)
    ]
    assert calls == []

"""What ``make static`` says; what ``make lint`` says beside that are tests of this directory."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_lint_is_clean():
    result = subprocess.run(["make", "--silent", "static"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr

"""What ``make lint`` says."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_lint_is_clean():
    result = subprocess.run(["make", "--silent", "lint"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr

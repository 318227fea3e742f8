"""
Commands, whose arguments nobody has to keep from anybody.
"""

import subprocess

from salt.exceptions import CommandExecutionError


def run(*words, check=True, **options):
    """Run a command and return the finished process with its output as text; raise if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=180, check=False, **options)
    if check and done.returncode:
        raise CommandExecutionError(f"{' '.join(words[:3])}: {done.stderr.strip()}")
    return done

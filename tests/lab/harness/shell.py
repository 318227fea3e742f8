"""Running commands and telling what is going on."""

import contextlib
import subprocess
import sys
import time


class CommandFailed(Exception):
    """A command ended with another status than 0; the message holds what it printed."""


def run(command, *, check=True, timeout=120, **options):
    """Run a command (a list) and return the ``CompletedProcess`` with text output.

    ``timeout`` is in seconds. Raises :class:`CommandFailed` unless ``check`` is false.
    """
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    words = [str(word) for word in command]
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=timeout, **options)
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(words)}: still running after {timeout} s\n{error.stdout or ''!s}") from error
    if check and result.returncode:
        raise CommandFailed(f"{' '.join(words)}: status {result.returncode}\n{result.stdout}{result.stderr}")
    return result


def wait_for(what, condition, *, timeout=60, interval=0.2):
    """Poll ``condition`` until it returns something true, and return that.

    Raises ``TimeoutError`` naming ``what`` after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(interval)
    return value


@contextlib.contextmanager
def step(title):
    """Print what is being done, and how long it took."""
    print(f"  {title} ... ", end="", flush=True, file=sys.stderr)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", file=sys.stderr)
        raise
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)

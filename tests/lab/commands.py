"""Running programs of the machine, and saying what goes on.

Not here: long-running ones (daemons.py).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.errors import LabError

_STARTED = time.monotonic()


def say(text: str) -> None:
    """One line of progress, with the seconds since the start."""
    print(f"[{time.monotonic() - _STARTED:6.1f}s] {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, given: str = "") -> str:
    """Run a program to its end; what it printed.

    Raises:
        LabError: it is not there, or it failed; says what it wrote.
    """
    words = [str(word) for word in command]
    try:
        result = subprocess.run(words, cwd=cwd, env=env, input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed; run: python -m tests.lab packages") from error
    if result.returncode:
        raise LabError(
            f"{' '.join(words)[:300]}: exit {result.returncode}: {(result.stderr or result.stdout).strip()[-1500:]}"
        )
    return result.stdout


def attempt(*command: str | Path) -> bool:
    """Run a program whose failure does not matter; whether it went well."""
    words: Sequence[str] = [str(word) for word in command]
    try:
        return subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False

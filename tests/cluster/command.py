"""A `ktctl` that runs beside others until it is told to end; what it writes is read as it comes.

Not here: connections (ktctl.py).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests.cluster.backend import Backend

PROGRAM = str(Path(sys.executable).with_name("ktctl"))
#: For what is to come soon, on a busy machine.
SECONDS = 30.0


def _as_from_a_terminal() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Command:
    """Text lines. A context manager: nothing of it is left, however a test ends."""

    def __init__(self, backend: Backend, *arguments: str) -> None:
        self.process = subprocess.Popen(
            backend.laptop_argv([PROGRAM, *arguments]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            preexec_fn=_as_from_a_terminal,
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._threads = [
            threading.Thread(target=_read, args=(self.process.stdout, self.lines)),
            threading.Thread(target=_read, args=(self.process.stderr, self.errors)),
        ]
        for thread in self._threads:
            thread.start()

    def wait_until(self, said: Callable[[], bool]) -> None:
        """Until something is there."""
        limit = time.monotonic() + SECONDS
        while not said():
            assert time.monotonic() < limit, (self.lines, self.errors)
            time.sleep(0.05)

    def wait_ended(self) -> int:
        """Its exit code, once everything that it said is there."""
        code = self.process.wait(SECONDS)
        for thread in self._threads:
            thread.join(SECONDS)
        return code

    def interrupt(self) -> int:
        """As Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait_ended()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait_ended()


def _read(stream: IO[str], lines: list[str]) -> None:
    with stream:
        for line in stream:
            lines.append(line)

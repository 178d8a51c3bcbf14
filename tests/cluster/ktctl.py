"""`ktctl` as a process on the machine under test.

Not here: what it should do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.backend import Backend

#: From command to "connected", on a slow machine.
READY_SECONDS = 60.0


def _as_from_a_terminal() -> None:
    """A shell starts background jobs with SIGINT ignored, tests among them, and that passes on to every child."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


class Ktctl:
    """A running `ktctl connect` or `forward`, with JSON output. A context manager: ends it with SIGTERM."""

    def __init__(self, backend: Backend, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.backend = backend
        self.started = time.monotonic()
        program = [str(Path(sys.executable).with_name("ktctl")), *arguments, "--output", "json"]
        words = ["env", *(f"{name}={value}" for name, value in (env or {}).items()), *program] if env else program
        self.process = subprocess.Popen(
            backend.laptop_argv(words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},  # what it does when it does not end
            preexec_fn=_as_from_a_terminal,
        )
        self.ready: dict[str, Any] = {}
        #: Standard error, once it was ended by leaving its context.
        self.said = ""

    def wait_ready(self) -> dict[str, Any]:
        """The object that says it is up.

        Raises:
            AssertionError: it ended, or said something else.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"ktctl ended with {self.process.wait()}: {self.errors()}"
        self.ready = json.loads(line)
        assert self.ready["ok"], self.ready
        return self.ready

    def errors(self) -> str:
        """What it wrote to standard error, once it has ended."""
        return self.process.stderr.read() if self.process.stderr is not None else ""

    def signal(self, number: signal.Signals) -> None:
        """To ktctl itself: the laptop's wrapper has become it."""
        self.process.send_signal(number)

    def wait_ended(self, seconds: float = 20.0) -> int:
        """Its exit code."""
        try:
            self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            self.process.send_signal(signal.SIGABRT)
            raise AssertionError(f"it has not ended: {self.process.communicate()[1][-9000:]}") from error
        return self.process.returncode

    def helper_pid(self) -> int:
        """Of the host helper: a child of ktctl."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            if b"helper.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise AssertionError("no helper")

    def guard_pid(self) -> int:
        """Of the helper's guard."""
        helper = self.helper_pid()
        children = map(int, Path(f"/proc/{helper}/task/{helper}/children").read_text().split())
        # Programs that the helper runs for a moment are in its session; the guard has one of its own.
        (guard,) = (child for child in children if _session(child) == child)
        return guard

    def __enter__(self) -> Ktctl:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.said = self.process.communicate(timeout=60)[1]
            except subprocess.TimeoutExpired:
                self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def ktctl(backend: Backend, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Run `ktctl` to its end; exit code and its last object."""
    program = [str(Path(sys.executable).with_name("ktctl")), *arguments, "--output", "json"]
    words = ["env", *(f"{name}={value}" for name, value in (env or {}).items()), *program]
    result = subprocess.run(
        backend.laptop_argv(words), capture_output=True, text=True, check=False, timeout=90, cwd="/", env=os.environ
    )
    lines = result.stdout.splitlines()
    assert lines, f"ktctl said nothing: {result.returncode} {result.stderr}"
    return result.returncode, json.loads(lines[-1])

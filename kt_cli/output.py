"""What is printed: steps as they finish, results, errors; as text, or as JSON objects of one schema (`output.schema.json`).

With `--output json` standard output carries exactly one object at the end; `connect`, `forward` and `preview` have another one when ready,
`capture` one for each packet before it, and `status --watch` one a second. Steps go to standard error.

Not here: what happened.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from kt_cli.exits import exit_code
from kt_net.errors import KtError

SCHEMA_VERSION = 1
#: Steps that are kept for a log that begins later.
MOST_SAID = 100


def forget_reader() -> None:
    """Whoever read it has gone: what is still in the buffers must not be tried again, now or when Python ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(null, stream.fileno())
    os.close(null)


class Format(StrEnum):
    """`--output`."""

    text = "text"
    json = "json"


class Printer:
    """One command's output."""

    def __init__(self, command: str, form: Format) -> None:
        self._command = command
        self._form = form
        self._started = time.monotonic()
        self._stamped = False
        self._ending = False
        #: Told, on whichever thread, that nobody reads any more what other threads than the main one say.
        self.unread: Callable[[], None] = lambda: None
        #: Steps so far, and when they were said.
        self._said: deque[tuple[float, str]] = deque(maxlen=MOST_SAID)

    def stamp(self) -> None:
        """It goes to a log from now on: lines of text say when, and what was said so far stands there first."""
        self._stamped = True
        for when, text in self._said:
            if self.is_json:
                self._line({"event": "step", "text": text, "seconds": round(when - self._started, 3)}, sys.stderr)
            else:
                print(f"{self._when(time.monotonic() - when)}{text}", flush=True)

    @property
    def is_json(self) -> bool:
        """Whether objects are wanted."""
        return self._form is Format.json

    def ending(self) -> None:
        """From now on things are undone: that whoever reads has gone must not keep the rest from being undone."""
        self._ending = True

    def step(self, text: str) -> None:
        """One thing that is done, with the data it found.

        Raises:
            BrokenPipeError: nobody reads it; on the main thread only, and not while things are undone.
        """
        try:
            self._step(text)
        except BrokenPipeError:
            main = threading.current_thread() is threading.main_thread()
            if main and not self._ending:
                raise
            forget_reader()
            if not self._ending:
                self.unread()
        except OSError:
            pass  # a log's disk is full: no reason to end what is told of

    def _step(self, text: str) -> None:
        if not self._stamped:
            self._said.append((time.monotonic(), text))
        if self.is_json:
            self._line({"event": "step", "text": text, "seconds": self._seconds()}, sys.stderr)
        else:
            mark = "✓ " if sys.stdout.isatty() else self._when()
            print(f"{mark}{text}", flush=True)

    def result(self, text: str, **data: Any) -> None:
        """What came of the command."""
        if self.is_json:
            self._line({"event": "result", "ok": True, **data, "seconds": self._seconds()}, sys.stdout)
        elif text:
            print(f"{self._when()}{text}", flush=True)

    def packet(self, **data: Any) -> None:
        """A packet of `capture`, as JSON has it; not flushed: many come at once."""
        line = {"schema": SCHEMA_VERSION, "command": self._command, "event": "packet", **data}
        print(json.dumps({**line, "seconds": self._seconds()}))

    def error(self, error: KtError, **data: Any) -> int:
        """What went wrong; the exit code. `data`: what else the object carries."""
        code = exit_code(error)
        if self.is_json:
            fault = {"class": type(error).__name__, "what": error.what, "why": error.why, "next": error.next_step}
            result = {"event": "result", "ok": False, "error": fault, "exit": code, **data}
            self._line({**result, "seconds": self._seconds()}, sys.stdout)
            return code
        print(f"error: {error.what}", file=sys.stderr)
        if error.why:
            print(f"  why: {error.why}", file=sys.stderr)
        if error.next_step:
            print(f"  next: {error.next_step}", file=sys.stderr)
        return code

    def _when(self, ago: float = 0.0) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S%z ", time.localtime(time.time() - ago)) if self._stamped else ""

    def _line(self, data: dict[str, Any], file: Any) -> None:
        print(json.dumps({"schema": SCHEMA_VERSION, "command": self._command, **data}), file=file, flush=True)

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

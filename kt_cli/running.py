"""Runs a session in the foreground: signals end it cleanly at any moment, errors become words and exit codes.

Not here: what a session does.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from kt_cli.exits import INTERNAL, OK
from kt_cli.output import Printer, forget_reader
from kt_net.errors import KtError

#: Every one of them means: undo and go.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Long enough to be out of the callback that swallowed the interruption.
_AGAIN_SECONDS = 0.01
_PIECE_SECONDS = 0.5


class Stopped(BaseException):
    """A signal came while something was being brought up."""


class _Stop(threading.Event):
    """Set by a signal's handler, on the thread that may just be waiting for it: a plain Event's lock would be waited for for ever."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition(threading.RLock())
        self._is_set = False

    def is_set(self) -> bool:
        """See `Event`."""
        return self._is_set

    def set(self) -> None:
        """See `Event`."""
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def clear(self) -> None:
        """See `Event`."""
        with self._changed:
            self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """See `Event`. In pieces: a handler that ran before the waiting began has told nobody."""
        limit = None if timeout is None else monotonic() + timeout
        with self._changed:
            while not self._is_set:
                left = _PIECE_SECONDS if limit is None else min(_PIECE_SECONDS, limit - monotonic())
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._is_set


class StopSwitch:
    """What signals do: while starting they interrupt, then they set `stop`: the session is to end, and while it does, not to wait."""

    def __init__(self) -> None:
        self.stop: threading.Event = _Stop()
        self._interrupt = True

    @contextmanager
    def installed(self) -> Iterator[StopSwitch]:
        """With the handlers in place."""
        before = {number: signal.signal(number, self._handle) for number in (*STOPPING, signal.SIGALRM)}
        hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        try:
            yield self
        finally:
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler)

    def started(self) -> None:
        """From now on a signal is a wish, not an interruption."""
        self._interrupt = False

    def _handle(self, number: int, frame: object) -> None:
        self.stop.set()
        if self._interrupt:
            self._interrupt = False
            raise Stopped

    def _unraisable(self, lost: Any) -> None:
        """What fell into a destructor or a callback of the import system; `Stopped` must not be lost there, so it comes again."""
        if isinstance(lost.exc_value, Stopped):
            self._interrupt = True
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            sys.__unraisablehook__(lost)


def guarded(printer: Printer, debug: bool, run: Callable[[], int]) -> int:
    """`run`'s exit code; errors said in words. With `debug`, tracebacks too."""
    try:
        return run()
    except KtError as error:
        if debug:
            import traceback

            traceback.print_exc()
        return printer.error(error)
    except Stopped:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        forget_reader()
        return OK
    except Exception as error:
        if debug:
            raise
        print(f"error: a bug in ktctl: {type(error).__name__}: {error}", file=sys.stderr)
        print("  next: run it again with --debug, and report what it prints", file=sys.stderr)
        return INTERNAL


def hold(switch: StopSwitch, session: Any, printer: Printer, ready: Callable[[], None]) -> int:
    """Start a session, say it is ready, wait for its end, undo."""
    printer.unread = switch.stop.set
    try:
        session.start()
        switch.started()
        ready()
        session.wait(switch.stop)
    finally:
        switch.started()  # a second Ctrl-C must not break the undo, and ends what is waited for in it
        switch.stop.clear()
        printer.ending()
        for line in session.close():
            printer.step(line)
    return OK

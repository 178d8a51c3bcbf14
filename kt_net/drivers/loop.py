"""One thread that waits for descriptors and timers.

Everything that belongs to one session happens on it: the TUN device, the carrier's websocket, local sockets. Other threads reach it
by `call_soon` only. Parts say what they want by two calls: `pump` after anything happened, `next_timer` before the next wait.

Not here: protocols. No part may block.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from kt_net.drivers.clock import Clock, monotonic

logger = logging.getLogger(__name__)

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Part(Protocol):
    """Something that lives on the loop."""

    def pump(self, *, now: float) -> None:
        """Move what can be moved. Called after every batch of events; must not block."""

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called, or None."""

    def handle_timer(self, *, now: float) -> None:
        """The time has come."""


class Loop:
    """Waits; calls back; stops when told or when a part fails.

    A failure of any callback stops the loop and is kept in `failure`: a session whose packets are no longer moved must not look alive.
    """

    def __init__(self, *, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._parts: list[Part] = []
        self._movers: list[Callable[[float], None]] = []
        self._soon: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, READ, self._woken)
        #: Held while the pipe is written or closed: its number may be another thread's socket a moment after.
        self._waking = threading.Lock()
        self._ended = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        #: What ended the loop, when it was an error.
        self.failure: BaseException | None = None

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    # -- for other threads

    def start(self, name: str) -> None:
        """Run on a thread of its own."""
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)
        self._thread.start()

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have `call` run on the loop's thread."""
        self._soon.append(call)
        with self._waking:
            if self._ended:
                return  # there is nobody to wake
            try:
                os.write(self._wake_write, b"\0")
            except BlockingIOError:
                pass  # a full pipe wakes as well as a fuller one

    def stop(self) -> None:
        """End the loop and wait for its thread."""
        self._stopping = True
        self.call_soon(lambda: None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether the loop's thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    # -- for parts

    def add(self, part: Part) -> None:
        """Let `part` live on the loop."""
        self._parts.append(part)

    def add_mover(self, move: Callable[[float], None]) -> None:
        """Have `move(now)` called after every batch of events and before parts are pumped: it carries what happened from one to another."""
        self._movers.append(move)

    def remove(self, part: Part) -> None:
        """`part` has ended."""
        self._parts.remove(part)

    def watch(self, descriptor: int, interest: int, callback: Callable[[int], None]) -> None:
        """Call `callback(mask)` when `descriptor` is ready; interest 0 stops watching."""
        known = self._selector.get_map().get(descriptor)
        if interest == 0:
            if known is not None:
                self._selector.unregister(descriptor)
        elif known is None:
            self._selector.register(descriptor, interest, callback)
        elif known.events != interest or known.data is not callback:
            self._selector.modify(descriptor, interest, callback)

    # -- the loop

    def run(self) -> None:
        """Run on this thread until stopped."""
        try:
            while not self._stopping:
                self._turn()
        except BaseException as failure:
            self.failure = failure
            logger.debug("loop ended", exc_info=True)
        finally:
            self._selector.close()
            with self._waking:
                self._ended = True
                os.close(self._wake_read)
                os.close(self._wake_write)

    def _turn(self) -> None:
        due = min((timer for part in self._parts if (timer := part.next_timer()) is not None), default=None)
        ready = self._selector.select(None if due is None else max(0.0, due - self._clock()))
        now = self._clock()
        for key, mask in ready:
            key.data(mask)
        while self._soon:
            self._soon.popleft()()
        if due is not None and due <= now:
            for part in list(self._parts):
                timer = part.next_timer()
                if timer is not None and timer <= now:
                    part.handle_timer(now=now)
        for move in self._movers:
            move(now)
        for part in list(self._parts):
            part.pump(now=now)

    def _woken(self, mask: int) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass

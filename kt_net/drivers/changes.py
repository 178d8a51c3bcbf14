"""Notices that this machine's way to the cluster may be another one: links and routes that changed, a machine that slept, a process
that was stopped. What it means is for others to ask: the answer of the far end is the only proof.

Linux tells of links and routes by netlink (rtnetlink(7)). The time that a machine slept is what CLOCK_BOOTTIME has more than
CLOCK_MONOTONIC (clock_gettime(2)); a process that was stopped finds that its timer is late.

Not here: what is done about it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from kt_net.drivers.loop import READ, Loop

#: Seconds between two looks at the clocks; so much late, or asleep, counts.
LOOK_SECONDS: Final = 2.0
LATE_SECONDS: Final = 3.0
#: Of one change several messages come: they are one, and are told when they have been quiet for so long.
SETTLE_SECONDS: Final = 0.2

#: linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE.
_GROUPS: Final = 0x1 | 0x40 | 0x400
_ROUTE: Final = 0  # NETLINK_ROUTE


def _asleep() -> float:
    """Seconds that this machine has slept since it was started; 0 where the kernel does not say."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if boottime is None else time.clock_gettime(boottime) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Changes:
    """A part of the loop.

    Args:
        changed: told that something has, in words.
        asleep: seconds slept since the machine was started.
    """

    def __init__(self, loop: Loop, changed: Callable[[str], None], *, asleep: Callable[[], float] = _asleep) -> None:
        self._loop = loop
        self._changed = changed
        self._asleep = asleep
        self._slept = asleep()
        self._look_at = loop.now() + LOOK_SECONDS
        self._settled_at: float | None = None
        self._socket = _netlink()
        if self._socket is not None:
            loop.watch(self._socket.fileno(), READ, self._readable)
        loop.add(self)

    def _readable(self, mask: int) -> None:
        if self._socket is None:
            return
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            pass
        except OSError:
            pass  # ENOBUFS: more changed than the kernel kept for us
        self._settled_at = self._loop.now() + SETTLE_SECONDS

    def pump(self, *, now: float) -> None:
        """Nothing to move."""

    def next_timer(self) -> float | None:
        """See `Part`."""
        return self._look_at if self._settled_at is None else min(self._look_at, self._settled_at)

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        if self._settled_at is not None and now >= self._settled_at:
            self._settled_at = None
            self._changed("links or routes of this machine have changed")
        if now < self._look_at:
            return
        late, slept = now - self._look_at, self._asleep()
        if slept - self._slept > LATE_SECONDS:
            self._changed("this machine has slept")
        elif late > LATE_SECONDS:
            self._changed("this process was stopped")
        self._slept, self._look_at = slept, now + LOOK_SECONDS

    def close(self) -> None:
        """Once the loop has ended."""
        if self._socket is not None:
            self._socket.close()


def _netlink() -> socket.socket | None:
    """Tells of links and routes; None on systems without."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        return None
    try:
        found = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _ROUTE)
        found.bind((0, _GROUPS))
    except OSError:
        return None  # a container may forbid it: then only the clocks tell
    return found

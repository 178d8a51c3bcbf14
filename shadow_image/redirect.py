"""Ports of the pod's own program whose callers come to us, for as long as the client is there.

Two things end a redirection that nobody ends: its client is away for some seconds, and the kernel, when this process does not set it
again in time; besides, the table goes with this process. Connections that are there already stay where they are, either way.

Not here: the kernel's side (nft.py), listening (listening.py).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from shadow_image.nft import Protocol as Transport

logger = logging.getLogger("agent")

TABLE: Final = "ktnet"
#: An entry stays so long in the kernel when it is not set again, and is set again so often.
EXPIRE_SECONDS: Final = 30.0
REFRESH_SECONDS: Final = 10.0
#: Between two looks at whether clients are there.
LOOK_SECONDS: Final = 0.25

Port: TypeAlias = tuple[Transport, int]


class Kernel(Protocol):
    """See `shadow_image.nft.Table`."""

    def set(self, ports: Mapping[Port, int]) -> None:
        """These, and no others, for `EXPIRE_SECONDS`. OSError: the kernel refuses it."""

    def close(self) -> None:
        """None any more."""


@dataclass(frozen=True, slots=True)
class _Redirection:
    ours: int
    wanted: Callable[[], bool]
    given_back: Callable[[], None]


class Redirections:
    """All of this agent's.

    Args:
        kernel: a table of our own.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._loop = asyncio.get_running_loop()
        self._all: dict[Port, _Redirection] = {}
        self._told: dict[Port, int] = {}
        self._told_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self,
        transport: Transport,
        port: int,
        ours: int,
        *,
        wanted: Callable[[], bool],
        given_back: Callable[[], None],
    ) -> None:
        """From now on.

        Args:
            wanted: asked four times a second whether it is still to be.
            given_back: told when it is not, and whoever comes next reaches the program.

        Raises:
            OSError: EADDRINUSE when there is one for that port, and the kernel's.
        """
        if (transport, port) in self._all:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._all[transport, port] = _Redirection(ours, wanted, given_back)
        try:
            self._tell()
        except OSError:
            del self._all[transport, port]
            raise
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def remove(self, transport: Transport, port: int) -> None:
        """No more."""
        if self._all.pop((transport, port), None) is not None:
            self._try_to_tell()

    def close(self) -> None:
        """None any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._all.clear()
        self._kernel.close()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look) if self._all else None
        wanted = self._wanted()
        late = bool(wanted) and self._loop.time() - self._told_at >= REFRESH_SECONDS
        if late or wanted != self._told:
            left = self._told.keys() - wanted.keys()
            if left:
                logger.info("the client is away: callers reach the pod's own program")
            self._try_to_tell()
            for port in left & self._all.keys():
                self._all[port].given_back()

    def _wanted(self) -> dict[Port, int]:
        return {port: one.ours for port, one in self._all.items() if one.wanted()}

    def _try_to_tell(self) -> None:
        try:
            self._tell()
        except OSError as error:
            logger.warning("redirecting: %s", error)  # what stands in the kernel expires

    def _tell(self) -> None:
        wanted = self._wanted()
        self._kernel.set(wanted)
        self._told, self._told_at = wanted, self._loop.time()

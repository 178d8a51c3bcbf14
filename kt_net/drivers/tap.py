"""Gives the packets that pass the TUN device to other processes, over a socket for each, without ever waiting for one of them.

While nobody looks on, the device is as if this were not there: it is put around the device with the first one and taken off with the last.
Who reads too slowly loses packets, and is told how many.

Not here: what is asked for, and how a process comes to its socket (kt_net.session.capture).
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from kt_net.drivers.device import DeviceDriver
from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.tun.captured import Captured, CaptureEnd
from kt_net.tun.device import Device
from kt_net.tun.filter import PacketFilter
from kt_net.tun.tap import Direction, TapDevice
from kt_net.wire.vnet import HEADER_OCTETS

#: What may wait for one reader; more is dropped and counted. 64 super-packets; libpcap's own buffer has 2 MiB.
QUEUE_OCTETS: Final = 4 * 1024 * 1024
#: Records in one write (POSIX promises 16, Linux takes 1024).
RECORDS_A_WRITE: Final = 64
#: Readers at once.
MAX_TAPS: Final = 8


class Taps:
    """All that look on. Everything on the loop's thread.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, loop: Loop, driver: DeviceDriver, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._driver = driver
        self._clock = clock
        self._taps: list[Tap] = []
        self._passing: _PassedOn | None = None

    def __len__(self) -> int:
        return len(self._taps)

    def add(self, connected: socket.socket, wanted: PacketFilter) -> None:
        """Packets that are `wanted` go to `connected`, which is taken over, until its other end has gone or says that it is enough."""
        if len(self._taps) >= MAX_TAPS:
            connected.close()
            return
        self._taps.append(Tap(self._loop, connected, wanted, self._ended))
        if self._passing is None:
            self._passing = _PassedOn(self._driver.device, self._see)
            self._driver.exchange(self._passing)

    def close(self) -> None:
        """Nobody looks on any more."""
        for tap in list(self._taps):
            tap.close()

    def _see(self, packet: bytes, direction: Direction, lost: bool, offload: bool) -> None:
        at = self._clock()
        for tap in self._taps:
            tap.see(packet, at, direction, lost=lost, offload=offload)

    def _ended(self, tap: Tap) -> None:
        self._taps.remove(tap)
        if not self._taps and self._passing is not None:
            self._driver.exchange(self._passing.inside)
            self._passing = None


class _PassedOn(TapDevice):
    def __init__(self, device: Device, see: Callable[[bytes, Direction, bool, bool], None]) -> None:
        super().__init__(device)
        self._see = see

    def see(self, packet: bytes, direction: Direction, *, lost: bool) -> None:
        self._see(packet, direction, lost, self.offload)


class Tap:
    """One that looks on. A part of the loop.

    Args:
        ended: told once, when the other end is gone.
    """

    def __init__(
        self, loop: Loop, connected: socket.socket, wanted: PacketFilter, ended: Callable[[Tap], None]
    ) -> None:
        self._loop = loop
        self._socket = connected
        self._wanted = wanted
        self._ended = ended
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._clogged = False  # the socket takes nothing now
        self._enough = False  # the other end wants no more packets
        self._closed = False
        #: Packets for which there was no room.
        self.dropped = 0
        self._on_ready = self._ready
        connected.setblocking(False)
        loop.watch(connected.fileno(), READ, self._on_ready)
        loop.add(self)

    def see(self, packet: bytes, at: float, direction: Direction, *, lost: bool, offload: bool) -> None:
        """A packet that passes."""
        if self._enough or not self._wanted.matches(memoryview(packet)[HEADER_OCTETS:] if offload else packet):
            return
        if self._queued + len(packet) > QUEUE_OCTETS:
            self.dropped += 1
            return
        self._put(Captured(packet, at, direction, lost, offload, self.dropped).emit())

    def close(self) -> None:
        """Give it up now."""
        if self._closed:
            return
        self._closed = True
        self._loop.watch(self._socket.fileno(), 0, self._on_ready)
        self._loop.remove(self)
        self._socket.close()
        self._queue.clear()
        self._ended(self)

    def _put(self, record: bytes) -> None:
        self._queue.append(record)
        self._queued += len(record)

    # -- a part of the loop

    def pump(self, *, now: float) -> None:
        """See `Part`."""
        if not self._closed and not self._clogged:
            self._flush()

    def next_timer(self) -> float | None:
        """See `Part`."""
        return None

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""

    # -- the socket

    def _ready(self, mask: int) -> None:
        self._clogged = False
        if mask & READ and not self._enough:
            self._read()
        # What waits is written by the next pump, in this turn.

    def _read(self) -> None:
        try:
            said = self._socket.recv(1)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if said:
            self.close()  # there is nothing to be said
            return
        self._enough = True
        self._put(CaptureEnd(self.dropped).emit())

    def _flush(self) -> None:
        try:
            while self._queue:
                batch = [self._queue[at] for at in range(min(len(self._queue), RECORDS_A_WRITE))]
                self._sent(self._socket.sendmsg(batch))
        except BlockingIOError:
            self._clogged = True
        except OSError:
            self.close()
            return
        if self._enough and not self._queue:
            self.close()
            return
        # The end of what the other end says would be seen again and again.
        interest = (0 if self._enough else READ) | (WRITE if self._clogged else 0)
        self._loop.watch(self._socket.fileno(), interest, self._on_ready)

    def _sent(self, octets: int) -> None:
        self._queued -= octets
        while octets:
            first = self._queue[0]
            if octets < len(first):
                self._queue[0] = memoryview(first)[octets:]
                return
            octets -= len(first)
            self._queue.popleft()

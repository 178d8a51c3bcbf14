"""The in-memory twin of a device: what a test puts in is read, what is written can be taken.

Not here: a kernel.
"""

from __future__ import annotations

from collections import deque

from kt_net.errors import TunUnavailable
from kt_net.tun.device import Buffers


class MemoryDevice:
    """See `Device`. `queue` bounds what waits in each direction, as a real device's queue does."""

    def __init__(self, *, name: str = "memory0", mtu: int = 1500, offload: bool = False, queue: int = 500) -> None:
        self.name = name
        self.mtu = mtu
        self.offload = offload
        self._queue = queue
        self._inbound: deque[bytes] = deque()
        self._outbound: deque[bytes] = deque()
        self._closed = False

    def fileno(self) -> int:
        """There is none."""
        return -1

    def inject(self, packet: bytes) -> bool:
        """The kernel's side: a packet to be read; False when the queue is full."""
        if len(self._inbound) >= self._queue:
            return False
        self._inbound.append(packet)
        return True

    def taken(self) -> list[bytes]:
        """The kernel's side: what was written since the last call."""
        packets = list(self._outbound)
        self._outbound.clear()
        return packets

    def read_packets(self, limit: int) -> list[bytes]:
        """See `Device`."""
        self._check()
        return [self._inbound.popleft() for _ in range(min(limit, len(self._inbound)))]

    def write_packet(self, buffers: Buffers) -> bool:
        """See `Device`."""
        self._check()
        if len(self._outbound) >= self._queue:
            return False
        self._outbound.append(b"".join(buffers))
        return True

    def close(self) -> None:
        """See `Device`."""
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise TunUnavailable(f"the device {self.name} is gone")

"""What a device is to the rest: packets out of it, packets into it, never waiting.

Not here: any implementation.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

Buffers: TypeAlias = list[bytes | memoryview]


class Device(Protocol):
    """A layer 3 device. With `offload` each packet has a virtio-net header (kt_net.wire.vnet) before it, both ways."""

    @property
    def name(self) -> str:
        """Of the interface."""

    @property
    def mtu(self) -> int:
        """Octets of a packet on the wire; super-packets are longer."""

    @property
    def offload(self) -> bool:
        """Whether packets have virtio-net headers."""

    def fileno(self) -> int:
        """Readable when there are packets."""

    def read_packets(self, limit: int) -> list[bytes]:
        """At most `limit` packets that are there now; perhaps not all of them, but none only when there is none.

        Raises:
            TunUnavailable: the device is gone.
        """

    def write_packet(self, buffers: Buffers) -> bool:
        """Give one packet to the kernel; False when it had no room, and the packet is lost.

        Raises:
            TunUnavailable: the device is gone.
        """

    def close(self) -> None:
        """Give the device up; a second time is no error."""

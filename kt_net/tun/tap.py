"""A device middleware that shows every packet to somebody, as it passes.

Directions are those that tcpdump has on the interface: what this machine's programs send goes out, to the cluster.

Not here: what is done with a packet (pcap.py, tracer.py; kt_net.drivers.tap for other processes).
"""

from __future__ import annotations

from enum import Enum

from kt_net.tun.device import Buffers, Device
from kt_net.tun.middleware import Middleware


class Direction(Enum):
    """Of a packet, seen from this machine."""

    OUT = "out"
    IN = "in"


class TapDevice(Middleware):
    """Wraps a device; a subclass says in `see` what becomes of a packet."""

    def read_packets(self, limit: int) -> list[bytes]:
        """See `Device`."""
        packets = self._device.read_packets(limit)
        for packet in packets:
            self.see(packet, Direction.OUT, lost=False)
        return packets

    def write_packet(self, buffers: Buffers) -> bool:
        """See `Device`."""
        taken = self._device.write_packet(buffers)
        self.see(b"".join(buffers), Direction.IN, lost=not taken)
        return taken

    def see(self, packet: bytes, direction: Direction, *, lost: bool) -> None:
        """A packet, with its virtio-net header where the device has them; `lost` when the kernel had no room for it.

        Must not block, and must not raise: it is called between the device and the stack.
        """
        raise NotImplementedError

    @property
    def inside(self) -> Device:
        """The device that is wrapped."""
        return self._device

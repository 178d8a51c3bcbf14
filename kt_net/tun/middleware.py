"""A device around a device: what every middleware passes on.

Not here: what one of them does (pcap.py, tracer.py, faults.py).
"""

from __future__ import annotations

from kt_net.tun.device import Buffers, Device


class Middleware:
    """See `Device`; everything goes to the device inside."""

    def __init__(self, device: Device) -> None:
        self._device = device

    @property
    def name(self) -> str:
        """See `Device`."""
        return self._device.name

    @property
    def mtu(self) -> int:
        """See `Device`."""
        return self._device.mtu

    @property
    def offload(self) -> bool:
        """See `Device`."""
        return self._device.offload

    def fileno(self) -> int:
        """See `Device`."""
        return self._device.fileno()

    def read_packets(self, limit: int) -> list[bytes]:
        """See `Device`."""
        return self._device.read_packets(limit)

    def write_packet(self, buffers: Buffers) -> bool:
        """See `Device`."""
        return self._device.write_packet(buffers)

    def close(self) -> None:
        """See `Device`."""
        self._device.close()

"""A device middleware that writes every packet to a pcap file (the libpcap format, LINKTYPE_RAW).

Not here: filters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO

from kt_net.tun.device import Buffers, Device
from kt_net.tun.middleware import Middleware
from kt_net.wire.vnet import HEADER_OCTETS

_FILE = struct.Struct("<IHHiIII")
_PACKET = struct.Struct("<IIII")
_MAGIC = 0xA1B2C3D4
LINKTYPE_RAW = 101
SNAPLEN = 262144


class PcapDevice(Middleware):
    """Wraps a device; packets of both directions go to `file`, without virtio-net headers.

    Args:
        clock: seconds since the epoch, for the file's time stamps.
    """

    def __init__(self, device: Device, file: BinaryIO, clock: Callable[[], float]) -> None:
        super().__init__(device)
        self._file = file
        self._clock = clock
        file.write(_FILE.pack(_MAGIC, 2, 4, 0, 0, SNAPLEN, LINKTYPE_RAW))

    def read_packets(self, limit: int) -> list[bytes]:
        """See `Device`."""
        packets = self._device.read_packets(limit)
        for packet in packets:
            self._record(packet)
        return packets

    def write_packet(self, buffers: Buffers) -> bool:
        """See `Device`."""
        self._record(b"".join(buffers))
        return self._device.write_packet(buffers)

    def close(self) -> None:
        """See `Device`."""
        self._device.close()
        self._file.flush()

    def _record(self, packet: bytes) -> None:
        data = packet[HEADER_OCTETS:] if self.offload else packet
        now = self._clock()
        seconds = int(now)
        self._file.write(_PACKET.pack(seconds, int((now - seconds) * 1e6), min(len(data), SNAPLEN), len(data)))
        self._file.write(data[:SNAPLEN])

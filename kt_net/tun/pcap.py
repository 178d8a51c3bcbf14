"""The libpcap file format (pcap-savefile(5)), LINKTYPE_RAW: a file begins with an IP header's first octet in each record.

Without virtio-net headers; a checksum that the header leaves to the device is filled in, so that readers find no fault with it.
Super-packets of up to 64 KiB stay what they are.

Not here: which packets are wanted (filter.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO, Final

from kt_net.tun.device import Device
from kt_net.tun.tap import Direction, TapDevice
from kt_net.wire.vnet import completed

_FILE: Final = struct.Struct("<IHHiIII")
_PACKET: Final = struct.Struct("<IIII")
#: Time stamps count microseconds.
_MAGIC: Final = 0xA1B2C3D4
LINKTYPE_RAW: Final = 101
SNAPLEN: Final = 262144


def file_header() -> bytes:
    """What a file begins with."""
    return _FILE.pack(_MAGIC, 2, 4, 0, 0, SNAPLEN, LINKTYPE_RAW)


def packet_record(packet: bytes, at: float, *, offload: bool) -> bytes:
    """One packet as it stands in a file.

    Args:
        at: seconds since the epoch.
        offload: a virtio-net header is before it.
    """
    data = completed(packet) if offload else packet
    microseconds = round(at * 1e6)
    kept = data[:SNAPLEN]
    return _PACKET.pack(microseconds // 1_000_000, microseconds % 1_000_000, len(kept), len(data)) + kept


class PcapDevice(TapDevice):
    """Wraps a device; packets of both directions go to `file`.

    Args:
        clock: seconds since the epoch, for the file's time stamps.
    """

    def __init__(self, device: Device, file: BinaryIO, clock: Callable[[], float]) -> None:
        super().__init__(device)
        self._file = file
        self._clock = clock
        file.write(file_header())

    def see(self, packet: bytes, direction: Direction, *, lost: bool) -> None:
        """See `TapDevice`."""
        self._file.write(packet_record(packet, self._clock(), offload=self.offload))

    def close(self) -> None:
        """See `Device`."""
        self._device.close()
        self._file.flush()

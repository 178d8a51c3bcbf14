"""UDP (RFC 768).

Not here: flows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kt_net.errors import MalformedPacket

#: ports, length, checksum.
HEADER: Final = struct.Struct("!HHHH")
HEADER_OCTETS: Final = HEADER.size
CHECKSUM_OFFSET: Final = 6


@dataclass(slots=True)
class UdpHeader:
    """One header; `length` counts header and payload. A checksum of 0 means none (IPv4 only)."""

    source_port: int
    destination_port: int
    length: int
    checksum: int = 0

    def emit(self) -> bytes:
        """Eight octets."""
        return HEADER.pack(self.source_port, self.destination_port, self.length, self.checksum)


def parse_udp(data: bytes | memoryview) -> UdpHeader:
    """The header at the start of `data`.

    Raises:
        MalformedPacket: this is no whole UDP datagram.
    """
    if len(data) < HEADER_OCTETS:
        raise MalformedPacket("shorter than a UDP header")
    header = UdpHeader(*HEADER.unpack_from(data))
    if not HEADER_OCTETS <= header.length <= len(data):
        raise MalformedPacket("a UDP header whose length does not fit")
    return header

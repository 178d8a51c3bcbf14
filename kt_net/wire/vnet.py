"""The virtio-net header before each packet of a TUN device with IFF_VNET_HDR (virtio 1.2 section 5.1.6, linux/virtio_net.h).

Ten octets in the machine's own order, which is little endian on every machine that Linux TUN matters on.

Not here: splitting or joining segments; the kernel does that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kt_net.errors import MalformedPacket
from kt_net.wire.checksum import internet_checksum

#: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
HEADER: Final = struct.Struct("<BBHHHH")
HEADER_OCTETS: Final = HEADER.size

F_NEEDS_CSUM: Final = 1
F_DATA_VALID: Final = 2
GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_ECN: Final = 0x80

#: A whole packet whose checksums are complete.
PLAIN: Final = bytes(HEADER_OCTETS)


@dataclass(slots=True)
class VnetHeader:
    """One header. `csum_start` counts from the start of the packet, `csum_offset` from there."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def emit(self) -> bytes:
        """Ten octets."""
        return HEADER.pack(self.flags, self.gso_type, self.hdr_len, self.gso_size, self.csum_start, self.csum_offset)


def parse_vnet(data: bytes | memoryview) -> VnetHeader:
    """The header at the start of `data`.

    Raises:
        MalformedPacket: too short.
    """
    if len(data) < HEADER_OCTETS:
        raise MalformedPacket("shorter than a virtio-net header")
    return VnetHeader(*HEADER.unpack_from(data))


def completed(packet: bytes) -> bytes:
    """The IP packet behind the header, with the checksum filled in that the header leaves to the device.

    The field holds the sum over the pseudo header, so that the sum from `csum_start` on is the whole one (virtio 1.2 section 5.1.6.2).
    What has no room for it is given back as it is: this is for those who look on, and they are to see what there is.
    """
    flags, *_, start, offset = HEADER.unpack_from(packet) if len(packet) >= HEADER_OCTETS else (0, 0, 0)
    data = packet[HEADER_OCTETS:]
    at = start + offset
    if not flags & F_NEEDS_CSUM or at + 2 > len(data):
        return data
    # A computed zero goes out as all ones: "no checksum" for UDP (RFC 768), and the same number for TCP.
    checksum = internet_checksum(data[start:]) or 0xFFFF
    return data[:at] + checksum.to_bytes(2, "big") + data[at + 2 :]

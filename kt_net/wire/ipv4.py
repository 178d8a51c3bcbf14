"""IPv4 (RFC 791).

Not here: reassembly, routing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kt_net.errors import MalformedPacket
from kt_net.wire.checksum import internet_checksum

#: version and header length, type of service, total length, identification, flags and offset, TTL, protocol, checksum, addresses.
HEADER: Final = struct.Struct("!BBHHHBBH4s4s")
HEADER_OCTETS: Final = HEADER.size
DONT_FRAGMENT: Final = 0x4000
MORE_FRAGMENTS: Final = 0x2000
_OFFSET: Final = 0x1FFF
DEFAULT_TTL: Final = 64


@dataclass(slots=True)
class IPv4Header:
    """One header; options are passed over.

    Attributes:
        source, destination: packed, 4 octets.
        header_octets, total_octets: of this packet.
        fragment_offset: in octets.
    """

    source: bytes
    destination: bytes
    protocol: int
    header_octets: int
    total_octets: int
    ttl: int = DEFAULT_TTL
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0

    def emit(self) -> bytes:
        """A header of 20 octets, checksum included; `header_octets` is taken as 20."""
        flags = (DONT_FRAGMENT if self.dont_fragment else 0) | (MORE_FRAGMENTS if self.more_fragments else 0)
        head = HEADER.pack(
            0x45,
            0,
            self.total_octets,
            self.identification,
            flags | self.fragment_offset >> 3,
            self.ttl,
            self.protocol,
            0,
            self.source,
            self.destination,
        )
        return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:]


def parse_ipv4(data: bytes | memoryview) -> IPv4Header:
    """The header at the start of `data`; its checksum is verified.

    Raises:
        MalformedPacket: this is no IPv4 packet, or not a whole one.
    """
    if len(data) < HEADER_OCTETS:
        raise MalformedPacket("shorter than an IPv4 header")
    first, _, total, identification, fragment, ttl, protocol, _, source, destination = HEADER.unpack_from(data)
    octets = (first & 0xF) * 4
    if first >> 4 != 4 or octets < HEADER_OCTETS or total < octets or len(data) < total:
        raise MalformedPacket("an IPv4 header whose lengths do not fit")
    if internet_checksum(data[:octets]):
        raise MalformedPacket("an IPv4 header with a wrong checksum")
    return IPv4Header(
        source,
        destination,
        protocol,
        octets,
        total,
        ttl,
        identification,
        bool(fragment & DONT_FRAGMENT),
        bool(fragment & MORE_FRAGMENTS),
        (fragment & _OFFSET) << 3,
    )

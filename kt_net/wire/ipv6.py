"""IPv6 (RFC 8200) and those of its extension headers that a packet from this machine can have.

Not here: reassembly, neighbour discovery (a TUN has no neighbours).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kt_net.errors import MalformedPacket

#: version, class and label; payload length; next header; hop limit; addresses.
HEADER: Final = struct.Struct("!IHBB16s16s")
HEADER_OCTETS: Final = HEADER.size
FRAGMENT: Final = struct.Struct("!BBHI")
FRAGMENT_OCTETS: Final = FRAGMENT.size
DEFAULT_HOP_LIMIT: Final = 64

HOP_BY_HOP: Final = 0
ROUTING: Final = 43
FRAGMENT_HEADER: Final = 44
DESTINATION_OPTIONS: Final = 60

#: Extension headers in one packet; RFC 8504 section 5.3 lets a host limit them.
MAX_EXTENSIONS: Final = 8


@dataclass(slots=True)
class IPv6Header:
    """One header with its extension headers passed over.

    Attributes:
        source, destination: packed, 16 octets.
        protocol: of the upper layer.
        header_octets: up to the upper layer's header (or the fragment's data), extension headers included.
        total_octets: of this packet.
        fragmented: a fragment header is there (it may be an "atomic" one: offset 0 and nothing more, RFC 6946).
        fragment_offset: in octets.
    """

    source: bytes
    destination: bytes
    protocol: int
    header_octets: int
    total_octets: int
    hop_limit: int = DEFAULT_HOP_LIMIT
    fragmented: bool = False
    identification: int = 0
    more_fragments: bool = False
    fragment_offset: int = 0

    def emit(self) -> bytes:
        """The fixed header, and a fragment header when `fragmented`; `header_octets` is taken as that."""
        following = FRAGMENT_HEADER if self.fragmented else self.protocol
        payload = self.total_octets - HEADER_OCTETS
        head = HEADER.pack(6 << 28, payload, following, self.hop_limit, self.source, self.destination)
        if not self.fragmented:
            return head
        offset = self.fragment_offset | (1 if self.more_fragments else 0)
        return head + FRAGMENT.pack(self.protocol, 0, offset, self.identification)


def parse_ipv6(data: bytes | memoryview) -> IPv6Header:
    """The headers at the start of `data`.

    Raises:
        MalformedPacket: this is no IPv6 packet, not a whole one, or its extension headers do not end.
    """
    if len(data) < HEADER_OCTETS:
        raise MalformedPacket("shorter than an IPv6 header")
    first, payload, following, hop_limit, source, destination = HEADER.unpack_from(data)
    total = HEADER_OCTETS + payload
    if first >> 28 != 6 or len(data) < total:
        raise MalformedPacket("an IPv6 header whose lengths do not fit")
    header = IPv6Header(source, destination, following, HEADER_OCTETS, total, hop_limit)
    for _ in range(MAX_EXTENSIONS):
        if header.protocol not in (HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT_HEADER):
            return header
        at = header.header_octets
        if at + 8 > total:
            raise MalformedPacket("an IPv6 extension header that is cut off")
        if header.protocol == FRAGMENT_HEADER:
            header.protocol, _, offset, header.identification = FRAGMENT.unpack_from(data, at)
            header.fragmented = True
            header.more_fragments = bool(offset & 1)
            header.fragment_offset = offset & 0xFFF8
            header.header_octets = at + FRAGMENT_OCTETS
            if header.fragment_offset:
                return header  # what follows is the middle of something
        else:
            header.protocol = data[at]
            header.header_octets = at + 8 + data[at + 1] * 8
            if header.header_octets > total:
                raise MalformedPacket("an IPv6 extension header that is cut off")
    raise MalformedPacket("IPv6 extension headers without end")

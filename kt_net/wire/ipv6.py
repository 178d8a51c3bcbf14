"""IPv6 (RFC 8200) and those of its extension headers that a packet from this machine can have.

Not here: reassembly, neighbour discovery (a TUN has no neighbours).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kt_net.errors import MalformedPacket, ParameterProblem

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

#: RFC 4443 section 3.4: what a parameter problem is about.
WRONG_VALUE: Final = 0
UNKNOWN_NEXT_HEADER: Final = 1
UNKNOWN_OPTION: Final = 2

_PAD1: Final = 0
#: Where the fixed header names the next one, and where routing headers count the segments that are left.
_NEXT_HEADER_AT: Final = 6
_SEGMENTS_LEFT: Final = 3

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
        protocol_at: where `protocol` stands in the packet.
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
    protocol_at: int = _NEXT_HEADER_AT

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
        ParameterProblem: its sender is to be told what is wrong (RFC 8200 sections 4.1, 4.2, 4.4).
    """
    if len(data) < HEADER_OCTETS:
        raise MalformedPacket("shorter than an IPv6 header")
    first, payload, following, hop_limit, source, destination = HEADER.unpack_from(data)
    total = HEADER_OCTETS + payload
    if first >> 28 != 6 or len(data) < total:
        raise MalformedPacket("an IPv6 header whose lengths do not fit")
    header = IPv6Header(source, destination, following, HEADER_OCTETS, total, hop_limit)
    for _ in range(MAX_EXTENSIONS + 1):
        if header.protocol not in (HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT_HEADER):
            return header
        if header.header_octets + 8 > total:
            raise MalformedPacket("an IPv6 extension header that is cut off")
        if header.protocol == FRAGMENT_HEADER:
            _pass_fragment_header(data, header)
            if header.more_fragments or header.fragment_offset:
                return header  # what follows is a part of something: its headers come when it is whole
        else:
            _pass_extension(data, header, total)
    raise MalformedPacket("IPv6 extension headers without end")


def _pass_fragment_header(data: bytes | memoryview, header: IPv6Header) -> None:
    at = header.header_octets
    header.protocol, _, offset, header.identification = FRAGMENT.unpack_from(data, at)
    header.fragmented = True
    header.more_fragments = bool(offset & 1)
    header.fragment_offset = offset & 0xFFF8
    header.header_octets = at + FRAGMENT_OCTETS
    header.protocol_at = at


def _pass_extension(data: bytes | memoryview, header: IPv6Header, total: int) -> None:
    at, kind = header.header_octets, header.protocol
    end = at + 8 + data[at + 1] * 8
    if end > total:
        raise MalformedPacket("an IPv6 extension header that is cut off")
    if kind == HOP_BY_HOP and at != HEADER_OCTETS:
        raise ParameterProblem(
            "a hop-by-hop header that is not the first", code=UNKNOWN_NEXT_HEADER, pointer=header.protocol_at
        )
    if kind == ROUTING:
        if data[at + _SEGMENTS_LEFT]:
            raise ParameterProblem("a routing header of a type that nobody routes by", code=WRONG_VALUE, pointer=at + 2)
    else:
        _check_options(data, at + 2, end)
    header.protocol, header.protocol_at, header.header_octets = data[at], at, end


def _check_options(data: bytes | memoryview, at: int, end: int) -> None:
    """RFC 8200 section 4.2: the two highest bits of an unknown option say what becomes of the packet."""
    while at < end:
        kind = data[at]
        if kind == _PAD1:
            at += 1
            continue
        if at + 2 > end or at + 2 + data[at + 1] > end:
            raise MalformedPacket("an IPv6 option that is cut off")
        if kind >> 6 == 1:
            raise MalformedPacket("an IPv6 option that wants the packet dropped")
        if kind >> 6:
            raise ParameterProblem("an unknown IPv6 option", code=UNKNOWN_OPTION, pointer=at)
        at += 2 + data[at + 1]

"""ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and the errors that we send.

The two share their form; types and codes differ.

Not here: when an error is due.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kt_net.errors import MalformedPacket

#: type, code, checksum, identifier, sequence (or four octets unused in errors).
HEADER: Final = struct.Struct("!BBHHH")
HEADER_OCTETS: Final = HEADER.size

ECHO_REPLY: Final = 0
UNREACHABLE: Final = 3
ECHO_REQUEST: Final = 8
TIME_EXCEEDED: Final = 11
V6_UNREACHABLE: Final = 1
V6_TIME_EXCEEDED: Final = 3
V6_PARAMETER_PROBLEM: Final = 4
V6_ECHO_REQUEST: Final = 128
V6_ECHO_REPLY: Final = 129

#: Codes: of "unreachable" in IPv4, and of "time exceeded" in both families.
PORT_UNREACHABLE: Final = 3
V6_PORT_UNREACHABLE: Final = 4
PROTOCOL_UNREACHABLE: Final = 2
HOPS_EXCEEDED: Final = 0
REASSEMBLY_EXCEEDED: Final = 1

#: What an error quotes of the packet that caused it: RFC 1812 section 4.3.2.3 and RFC 4443 section 2.4 (c).
V4_MAX_ERROR: Final = 576
V6_MAX_ERROR: Final = 1280


@dataclass(slots=True)
class IcmpMessage:
    """One message; for errors `identifier` and `sequence` are unused and zero. The checksum is the caller's business."""

    type: int
    code: int
    identifier: int
    sequence: int
    data: bytes | memoryview

    def emit(self, checksum: int = 0) -> bytes:
        """The message."""
        return HEADER.pack(self.type, self.code, checksum, self.identifier, self.sequence) + bytes(self.data)


def parse_icmp(data: bytes | memoryview) -> IcmpMessage:
    """The message in `data`.

    Raises:
        MalformedPacket: too short.
    """
    if len(data) < HEADER_OCTETS:
        raise MalformedPacket("shorter than an ICMP header")
    kind, code, _, identifier, sequence = HEADER.unpack_from(data)
    return IcmpMessage(kind, code, identifier, sequence, data[HEADER_OCTETS:])

"""TCP segments (RFC 9293 section 3.1) and the options of RFC 7323 and RFC 2018 that are negotiated in a SYN.

Not here: what a segment does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kt_net.errors import MalformedPacket

#: ports, sequence, acknowledgement, data offset, flags, window, checksum, urgent pointer.
HEADER: Final = struct.Struct("!HHIIBBHHH")
HEADER_OCTETS: Final = HEADER.size
#: Where the checksum field is.
CHECKSUM_OFFSET: Final = 16

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20

_END: Final = 0
_NOP: Final = 1
_MSS: Final = 2
_WINDOW_SCALE: Final = 3
#: RFC 7323 section 2.3: larger shift counts are taken as 14.
MAX_WINDOW_SCALE: Final = 14


@dataclass(slots=True)
class TcpHeader:
    """One header. `window` is the field as it stands, not scaled; `mss` and `window_scale` are None when the option is absent."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    header_octets: int = HEADER_OCTETS
    mss: int | None = None
    window_scale: int | None = None

    def emit(self, checksum: int = 0) -> bytes:
        """The header with its options; `header_octets` is computed."""
        options = b""
        if self.mss is not None:
            options += struct.pack("!BBH", _MSS, 4, self.mss)
        if self.window_scale is not None:
            options += struct.pack("!BBBB", _NOP, _WINDOW_SCALE, 3, self.window_scale)
        offset = (HEADER_OCTETS + len(options)) // 4
        return (
            HEADER.pack(
                self.source_port,
                self.destination_port,
                self.sequence,
                self.acknowledgement,
                offset << 4,
                self.flags,
                self.window,
                checksum,
                0,
            )
            + options
        )


def parse_tcp(data: bytes | memoryview) -> TcpHeader:
    """The header at the start of `data`. Options that we do not use are passed over; broken ones end the list.

    Raises:
        MalformedPacket: this is no TCP header.
    """
    if len(data) < HEADER_OCTETS:
        raise MalformedPacket("shorter than a TCP header")
    source, destination, sequence, acknowledgement, offset, flags, window, _, _ = HEADER.unpack_from(data)
    octets = (offset >> 4) * 4
    if octets < HEADER_OCTETS or octets > len(data):
        raise MalformedPacket("a TCP header whose length does not fit")
    header = TcpHeader(source, destination, sequence, acknowledgement, flags, window, octets)
    if octets > HEADER_OCTETS and flags & SYN:
        _parse_options(data[HEADER_OCTETS:octets], header)
    return header


def _parse_options(options: bytes | memoryview, header: TcpHeader) -> None:
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == _END:
            return
        if kind == _NOP:
            at += 1
            continue
        if at + 1 >= len(options):
            return
        length = options[at + 1]
        if length < 2 or at + length > len(options):
            return
        if kind == _MSS and length == 4:
            header.mss = int.from_bytes(options[at + 2 : at + 4], "big")
        elif kind == _WINDOW_SCALE and length == 3:
            header.window_scale = min(options[at + 2], MAX_WINDOW_SCALE)
        at += length

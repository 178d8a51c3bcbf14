"""TCP segments (RFC 9293 section 3.1) and the options of RFC 7323 (window scale, timestamps) and RFC 2018 (selective acknowledgements).

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
_SACK_PERMITTED: Final = 4
_SACK: Final = 5
_TIMESTAMPS: Final = 8
#: RFC 7323 section 2.3: larger shift counts are taken as 14.
MAX_WINDOW_SCALE: Final = 14

#: The timestamps option as everybody aligns it (RFC 7323 appendix A): two no-operations, kind, length, and both values.
TIMESTAMPS: Final = struct.Struct("!III")
TIMESTAMPS_WORD: Final = 0x0101080A
TIMESTAMPS_OCTETS: Final = TIMESTAMPS.size
_ALIGNED: Final = HEADER_OCTETS + TIMESTAMPS_OCTETS
#: Blocks that fit: 40 octets of options, less the timestamps (RFC 2018 section 3).
MAX_SACK_BLOCKS: Final = 4
MAX_SACK_BLOCKS_BESIDE_TIMESTAMPS: Final = 3


@dataclass(slots=True)
class TcpHeader:
    """One header.

    Attributes:
        window: the field as it stands, not scaled.
        urgent: the urgent pointer; octets that it marks are ordinary payload (RFC 6093).
        mss, window_scale: None when the option is absent; looked for in SYNs only (RFC 9293 section 3.2).
        sack_permitted: in SYNs only.
        timestamp, timestamp_echo: TSval and TSecr; `timestamp` is None when the option is absent.
        sacks: (left edge, right edge) of each block, in their order.
    """

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    header_octets: int = HEADER_OCTETS
    urgent: int = 0
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamp: int | None = None
    timestamp_echo: int = 0
    sacks: tuple[tuple[int, int], ...] = ()

    def emit(self, checksum: int = 0) -> bytes:
        """The header with its options; `header_octets` is computed."""
        options = self.emit_options()
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
                self.urgent,
            )
            + options
        )

    def emit_options(self) -> bytes:
        """The options alone, whole words."""
        options = b""
        if self.mss is not None:
            options += struct.pack("!BBH", _MSS, 4, self.mss)
        if self.sack_permitted:
            options += bytes((_NOP, _NOP, _SACK_PERMITTED, 2))
        if self.timestamp is not None:
            options += TIMESTAMPS.pack(TIMESTAMPS_WORD, self.timestamp, self.timestamp_echo)
        if self.window_scale is not None:
            options += bytes((_NOP, _WINDOW_SCALE, 3, self.window_scale))
        return options + sack_option(self.sacks)


def sack_option(blocks: tuple[tuple[int, int], ...]) -> bytes:
    """The option for `blocks` (left and right edges), aligned; nothing for none."""
    if not blocks:
        return b""
    head = bytes((_NOP, _NOP, _SACK, 2 + 8 * len(blocks)))
    return head + b"".join(struct.pack("!II", left, right) for left, right in blocks)


def parse_tcp(data: bytes | memoryview) -> TcpHeader:
    """The header at the start of `data`. Options that we do not use are passed over; broken ones end the list.

    Raises:
        MalformedPacket: this is no TCP header.
    """
    if len(data) < HEADER_OCTETS:
        raise MalformedPacket("shorter than a TCP header")
    source, destination, sequence, acknowledgement, offset, flags, window, _, urgent = HEADER.unpack_from(data)
    octets = (offset >> 4) * 4
    if octets < HEADER_OCTETS or octets > len(data):
        raise MalformedPacket("a TCP header whose length does not fit")
    header = TcpHeader(source, destination, sequence, acknowledgement, flags, window, octets, urgent)
    if octets == _ALIGNED and not flags & SYN:
        word, value, echo = TIMESTAMPS.unpack_from(data, HEADER_OCTETS)
        if word == TIMESTAMPS_WORD:
            header.timestamp, header.timestamp_echo = value, echo
            return header
    if octets > HEADER_OCTETS:
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
        _parse_option(kind, options[at + 2 : at + length], header)
        at += length


def _parse_option(kind: int, value: bytes | memoryview, header: TcpHeader) -> None:
    if kind == _TIMESTAMPS and len(value) == 8:
        header.timestamp, header.timestamp_echo = struct.unpack("!II", value)
    elif kind == _SACK and len(value) % 8 == 0:
        header.sacks = tuple(struct.iter_unpack("!II", value))
    elif header.flags & SYN:
        if kind == _MSS and len(value) == 2:
            header.mss = int.from_bytes(value, "big")
        elif kind == _WINDOW_SCALE and len(value) == 1:
            header.window_scale = min(value[0], MAX_WINDOW_SCALE)
        elif kind == _SACK_PERMITTED and not len(value):
            header.sack_permitted = True

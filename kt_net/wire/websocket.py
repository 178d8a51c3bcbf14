"""Binary messages of a websocket's client side (RFC 6455 section 5), for carriers that move megabytes.

Not here: the handshake (websocket-client), what the messages mean (portforward.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kt_net.errors import CarrierProtocolError

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

KEY_OCTETS: Final = 4
#: A control frame's payload (RFC 6455 section 5.5).
MAX_CONTROL: Final = 125
#: One frame of a server; the API server's have 32 KiB.
MAX_FRAME: Final = 16 * 1024 * 1024

#: Of an unmasked header.
MAX_HEADER: Final = 10

_SHORT = struct.Struct("!BB")
_MEDIUM = struct.Struct("!BBH")
_LONG = struct.Struct("!BBQ")


def frame_header(length: int, key: bytes, opcode: int = BINARY) -> bytes:
    """The header of one whole masked message of `length` octets."""
    first = 0x80 | opcode
    if length < 126:
        return _SHORT.pack(first, 0x80 | length) + key
    if length < 65536:
        return _MEDIUM.pack(first, 0x80 | 126, length) + key
    return _LONG.pack(first, 0x80 | 127, length) + key


def masked_in_python(data: bytes | memoryview, key: bytes) -> bytes:
    """`data` under `key` (RFC 6455 section 5.3): one exclusive-or of two big integers, not a loop over octets. 0.2 GB/s."""
    length = len(data)
    pad = (key * (length // KEY_OCTETS + 1))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(length, "little")


masked: Callable[[bytes, bytes], bytes]
try:
    # The C routine of another websocket library, 25 GB/s; its wheel for any machine lacks it.
    from websockets.speedups import apply_mask as masked
except ImportError:  # pragma: no cover
    masked = masked_in_python


@dataclass(slots=True)
class Piece:
    """Octets of a message; `start` says whether it begins one. Control frames come whole."""

    opcode: int
    data: memoryview
    start: bool


class FrameParser:
    """Takes frames apart as they come; pieces of data messages are given out before the frame is whole, empty ones not at all."""

    def __init__(self) -> None:
        self._head = b""  # a header that is not whole
        self._left = 0
        self._opcode = 0  # of the frame at hand
        self._message = 0  # of the message at hand, 0 between messages
        self._fin = False
        self._start = False
        self._control = bytearray()

    def receive(self, data: bytes | memoryview) -> list[Piece]:
        """The pieces in `data`.

        Raises:
            CarrierProtocolError: these are no frames of a server.
        """
        pieces: list[Piece] = []
        if self._head:
            data, self._head = self._head + bytes(data), b""
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if not self._left:
                start = self._header(view[at : at + MAX_HEADER])
                if not start:
                    self._head = bytes(view[at:])
                    break
                at += start
            piece = view[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._opcode >= CLOSE:
                self._control += piece
                if not self._left:
                    pieces.append(Piece(self._opcode, memoryview(bytes(self._control)), True))
                    self._control.clear()
                continue
            if len(piece):
                pieces.append(Piece(self._message, piece, self._start))
                self._start = False
            if self._fin and not self._left:
                self._message = 0
        return pieces

    def _header(self, view: memoryview) -> int:
        """How many octets the header at the start of `view` has; 0 when it is not whole."""
        if len(view) < 2:
            return 0
        first, length, used = view[0], view[1], 2
        if length & 0x80:
            raise CarrierProtocolError("the server masks its frames")  # RFC 6455 section 5.1
        if length >= 126:
            used = 4 if length == 126 else MAX_HEADER
            if len(view) < used:
                return 0
            length = int.from_bytes(view[2:used], "big")
        if first & 0x70:
            raise CarrierProtocolError("a websocket frame with reserved bits")
        opcode, fin = first & 0x0F, first >= 0x80
        self._opcode, self._fin, self._left = opcode, fin, length
        if opcode >= CLOSE:
            if opcode > PONG or length > MAX_CONTROL or not fin:
                raise CarrierProtocolError("a websocket control frame that is none")
        elif length > MAX_FRAME:
            raise CarrierProtocolError(f"a websocket frame of {length} octets")
        elif opcode > BINARY or (opcode == CONTINUATION) != bool(self._message):
            raise CarrierProtocolError(f"a websocket frame of type {opcode} in the wrong place")
        elif opcode:
            self._message, self._start = opcode, True
        return used

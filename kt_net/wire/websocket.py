"""Binary messages of a websocket's client side (RFC 6455 section 5), for carriers that move megabytes.

Not here: the handshake (websocket-client), what the messages mean (portforward.py).
"""

from __future__ import annotations

import struct
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


def masked(data: bytes, key: bytes) -> bytes:
    """`data` under `key` (RFC 6455 section 5.3): one exclusive-or of two big integers, not a loop over octets."""
    length = len(data)
    pad = (key * (length // KEY_OCTETS + 1))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(length, "little")


@dataclass(slots=True)
class Piece:
    """A piece of a message: `start` and `end` say whether it begins or ends one (control frames are always both)."""

    opcode: int
    data: memoryview
    start: bool
    end: bool


class FrameParser:
    """Takes frames apart as they come; pieces of data messages are given out before the frame is whole."""

    def __init__(self) -> None:
        self._head = bytearray()
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
        view = memoryview(data)
        while len(view):
            if self._left:
                piece = view[: self._left]
                self._left -= len(piece)
                view = view[len(piece) :]
                self._payload(piece, pieces)
                continue
            view = self._header(view, pieces)
        return pieces

    def _header(self, view: memoryview, pieces: list[Piece]) -> memoryview:
        head = self._head
        while True:
            wanted = self._header_octets()
            missing = wanted - len(head)
            if missing <= 0:
                break
            head += view[:missing]
            view = view[missing:]
            if len(head) < wanted:
                return view
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(head[2:4], "big")
        elif length == 127:
            length = int.from_bytes(head[2:10], "big")
        self._begin(head[0], length)
        head.clear()
        self._left = length
        if not length:
            self._payload(memoryview(b""), pieces)
        return view

    def _header_octets(self) -> int:
        if len(self._head) < 2:
            return 2
        return {126: 4, 127: 10}.get(self._head[1] & 0x7F, 2)

    def _begin(self, first: int, length: int) -> None:
        if self._head[1] & 0x80:
            raise CarrierProtocolError("the server masks its frames")  # RFC 6455 section 5.1
        if first & 0x70:
            raise CarrierProtocolError("a websocket frame with reserved bits")
        opcode = first & 0x0F
        self._opcode, self._fin = opcode, bool(first & 0x80)
        if opcode >= CLOSE:
            if opcode not in (CLOSE, PING, PONG) or length > MAX_CONTROL or not self._fin:
                raise CarrierProtocolError("a websocket control frame that is none")
            return
        if length > MAX_FRAME:
            raise CarrierProtocolError(f"a websocket frame of {length} octets")
        if (opcode == CONTINUATION) != bool(self._message) or opcode > BINARY:
            raise CarrierProtocolError(f"a websocket frame of type {opcode} in the wrong place")
        self._start = opcode != CONTINUATION
        if opcode != CONTINUATION:
            self._message = opcode

    def _payload(self, piece: memoryview, pieces: list[Piece]) -> None:
        if self._opcode >= CLOSE:
            self._control += piece
            if not self._left:
                pieces.append(Piece(self._opcode, memoryview(bytes(self._control)), True, True))
                self._control.clear()
            return
        end = self._fin and not self._left
        pieces.append(Piece(self._message, piece, self._start, end))
        self._start = False
        if end:
            self._message = 0

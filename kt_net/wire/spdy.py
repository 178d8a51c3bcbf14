"""SPDY/3.1 as a port-forward uses it (draft-mbelshe-httpbis-spdy-00): a stream for errors, a stream for data, no flow control.

This is what kubectl speaks inside its websocket (subprotocol SPDY/3.1+portforward.k8s.io, Kubernetes 1.31 and newer): the API server
takes the websocket off, and the node gets plain SPDY.

Not here: websocket frames (websocket.py), flow control and priorities, which Kubernetes' side has not, either.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from kt_net.errors import CarrierProtocolError
from kt_net.wire.portforward import MAX_ERROR
from kt_net.wire.websocket import BINARY, Piece

SUBPROTOCOL: Final = "SPDY/3.1+portforward.k8s.io"
#: Payload of one data frame that we send: 16 KiB ones cost a third of the speed.
FRAME_OCTETS: Final = 64 * 1024

#: The client's streams have odd numbers (section 2.3.2).
ERRORS: Final = 1
DATA: Final = 3

_CONTROL: Final = 0x8003
_HEADER: Final = struct.Struct("!HHI")  # control bit and version, type, flags and length
_DATA_HEADER: Final = struct.Struct("!II")  # stream, flags and length
_PAIR: Final = struct.Struct("!II")
_NUMBER: Final = struct.Struct("!I")
_SYN_STREAM: Final = 1
_SYN_REPLY: Final = 2
_RST_STREAM: Final = 3
_PING: Final = 6
_GOAWAY: Final = 7
_FIN: Final = 1
#: Of a control frame; Kubernetes' are below 100 octets.
_MAX_CONTROL: Final = 16 * 1024

#: Section 2.6.10.1: words with their lengths before them, then text.
_WORDS: Final = (
    "options, head, post, put, delete, trace, accept, accept-charset, accept-encoding, accept-language, accept-ranges, age, "
    "allow, authorization, cache-control, connection, content-base, content-encoding, content-language, content-length, "
    "content-location, content-md5, content-range, content-type, date, etag, expect, expires, from, host, if-match, "
    "if-modified-since, if-none-match, if-range, if-unmodified-since, last-modified, location, max-forwards, pragma, "
    "proxy-authenticate, proxy-authorization, range, referer, retry-after, server, te, trailer, transfer-encoding, upgrade, "
    "user-agent, vary, via, warning, www-authenticate, method, get, status, 200 OK, version, HTTP/1.1, url, public, "
    "set-cookie, keep-alive, origin"
)
_TEXT: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information"
    "204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error"
    "501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, "
    "Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public"
    "privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = b"".join(_NUMBER.pack(len(word)) + word.encode() for word in _WORDS.split(", ")) + _TEXT.encode()


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_CONTROL, kind, flags << 24 | len(body)) + body


class SpdyForward:
    """The octets of one port-forward in SPDY.

    Args:
        port: of the pod.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._head = bytearray()
        self._body = bytearray()  # of a control frame
        self._left = 0
        self._stream = 0  # of the data frame at hand; 0 in a control frame
        self._kind = 0
        self._flags = 0
        self._answers: list[bytes] = []
        self.error = ""
        #: Why the data stream has ended, when it has.
        self.ended = ""

    # -- out

    def opening(self) -> list[bytes]:
        """What goes first: both streams, the one for errors with nothing from us (section 2.6.1; the headers are Kubernetes')."""
        deflate = zlib.compressobj(zdict=DICTIONARY)
        return [
            self._syn_stream(ERRORS, "error", _FIN, deflate) + self._syn_stream(DATA, "data", 0, deflate),
        ]

    def _syn_stream(self, number: int, kind: str, flags: int, deflate: zlib._Compress) -> bytes:
        headers = {"streamtype": kind, "port": str(self._port), "requestid": "0"}
        block = _NUMBER.pack(len(headers))
        for text in (part for pair in headers.items() for part in pair):
            block += _NUMBER.pack(len(text)) + text.encode()
        packed = deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(_SYN_STREAM, flags, _NUMBER.pack(number) + bytes(6) + packed)

    def message(self, buffers: list[bytes | memoryview], octets: int) -> bytes:
        """`octets` of the stream, as one message."""
        if octets <= FRAME_OCTETS:
            return b"".join((_DATA_HEADER.pack(DATA, octets), *buffers))
        whole = memoryview(b"".join(buffers))
        parts: list[bytes | memoryview] = []
        for start in range(0, octets, FRAME_OCTETS):
            piece = whole[start : start + FRAME_OCTETS]
            parts += (_DATA_HEADER.pack(DATA, len(piece)), piece)
        return b"".join(parts)

    def answers(self) -> list[bytes]:
        """Messages that what was received asks for."""
        answers, self._answers = self._answers, []
        return answers

    # -- in

    def receive(self, piece: Piece, out: list[memoryview]) -> None:
        """Appends the data in a piece of a message to `out`.

        Raises:
            CarrierProtocolError: this is no port-forward.
        """
        if piece.opcode != BINARY:
            raise CarrierProtocolError("the API server sent text on a port-forward")
        view = piece.data
        at, end = 0, len(view)
        while at < end:
            if self._left:
                taken = view[at : at + self._left]
                at += len(taken)
                self._left -= len(taken)
                if self._stream == DATA:
                    out.append(taken)
                elif self._stream == ERRORS:
                    self.error = (self.error + bytes(taken).decode("utf-8", "replace"))[:MAX_ERROR]
                else:
                    self._body += taken
                if not self._left:
                    self._end_of_frame()
                continue
            missing = _HEADER.size - len(self._head)
            self._head += view[at : at + missing]
            at += missing
            if len(self._head) == _HEADER.size:
                self._frame()

    def _frame(self) -> None:
        stream, length = _DATA_HEADER.unpack(self._head)
        self._head.clear()
        self._flags, self._left = length >> 24, length & 0xFFFFFF
        if stream >> 31:
            if stream >> 16 != _CONTROL:
                raise CarrierProtocolError(f"SPDY of version {stream >> 16 & 0x7FFF}")
            if self._left > _MAX_CONTROL:
                raise CarrierProtocolError(f"a SPDY control frame of {self._left} octets")
            self._stream, self._kind = 0, stream & 0xFFFF
        elif stream in (ERRORS, DATA):
            self._stream = stream
        else:
            raise CarrierProtocolError(f"SPDY data on stream {stream}")
        if not self._left:
            self._end_of_frame()

    def _end_of_frame(self) -> None:
        if not self._stream:
            body = bytes(self._body)
            self._body.clear()
            self._controlled(body)
        elif self._flags & _FIN and self._stream == DATA:
            self.ended = "the far end closed it"

    def _controlled(self, body: bytes) -> None:
        kind = self._kind
        if kind == _PING:
            if len(body) != _NUMBER.size:
                raise CarrierProtocolError(f"a SPDY ping of {len(body)} octets")
            if not body[-1] & 1:  # the server's are even (section 2.6.5); odd ones would be answers to ours
                self._answers.append(_control(_PING, 0, body))
        elif kind == _RST_STREAM:
            if len(body) != _PAIR.size:
                raise CarrierProtocolError(f"a SPDY reset of {len(body)} octets")
            stream, code = _PAIR.unpack(body)
            if stream == DATA:
                self.ended = f"the stream was reset, code {code}"
        elif kind == _GOAWAY:
            self.ended = "the node ends its connections"
        elif kind == _SYN_REPLY and self._flags & _FIN and body[:4] == _NUMBER.pack(DATA):
            self.ended = "the far end closed it"
        elif kind == _SYN_STREAM:
            raise CarrierProtocolError("the node opened a SPDY stream")
        # Everything else (settings, headers, window updates) says nothing that a port-forward needs; unknown types are to be ignored.

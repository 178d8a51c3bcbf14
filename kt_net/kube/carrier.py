"""A carrier: one byte stream to the agent over one websocket, non-blocking, read and written by one thread only: OpenSSL does not
allow two on one connection.

Not here: dialling (dial.py), what the bytes mean (kt_net.tunnel), waiting (kt_net.drivers).
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from kt_net.errors import TunnelLost
from kt_net.kube.tls import RECORD_OCTETS, TlsConnection
from kt_net.wire.websocket import BINARY, CLOSE, KEY_OCTETS, PING, PONG, FrameParser, Piece, frame_header, masked

#: Octets of one read, and of all reads of one `receive`: others get their turn.
READ_OCTETS = 256 * 1024
TURN_OCTETS = 256 * 1024
#: One message; small ones are slow on the way through the API server, large ones keep others waiting.
MESSAGE_OCTETS = 128 * 1024


class Form(Protocol):
    """What the messages of a carrier's websocket mean; quiet (kt_net.wire.portforward, kt_net.wire.spdy)."""

    @property
    def error(self) -> str:
        """What the far end said went wrong."""

    @property
    def ended(self) -> str:
        """Why nothing more comes, when it is so."""

    def opening(self) -> list[bytes]:
        """Messages that go first."""

    def message(self, buffers: list[bytes | memoryview], octets: int) -> bytes:
        """`octets` of the stream, as one message."""

    def receive(self, piece: Piece, out: list[memoryview]) -> None:
        """Appends the octets of the stream in a piece of a message to `out`.

        Raises:
            CarrierProtocolError: the far end speaks nonsense.
        """

    def answers(self) -> list[bytes]:
        """Messages that what was received asks for."""


class Carrier(Protocol):
    """A byte stream that never waits."""

    def fileno(self) -> int:
        """For the selector."""

    @property
    def pending(self) -> bool:
        """Whether octets wait that the selector does not see (they are here already)."""

    @property
    def wants_write(self) -> bool:
        """Whether something waits for the socket."""

    @property
    def queued(self) -> int:
        """Octets that the kernel has not taken."""

    def receive(self) -> list[memoryview]:
        """What is there now.

        Raises:
            TunnelLost: it has ended.
            CarrierProtocolError: it speaks nonsense.
        """

    def send(self, buffers: list[bytes | memoryview]) -> None:
        """Queue octets."""

    def flush(self) -> bool:
        """Write what the kernel takes; True when nothing is left.

        Raises:
            TunnelLost: it has ended.
        """

    def close(self) -> None:
        """End it."""


class WebsocketCarrier:
    """See `Carrier`.

    Args:
        connected: after the websocket's handshake.
        form: what the websocket's messages mean.
    """

    def __init__(
        self, connected: socket.socket | TlsConnection, form: Form, *, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._socket = connected
        self._form = form
        self._entropy = entropy
        self._frames = FrameParser()
        self._room = memoryview(bytearray(READ_OCTETS))
        self._out: deque[memoryview] = deque()
        self._out_octets = 0
        self._more = False  # reading has stopped before there was nothing left
        self._closed = False
        connected.setblocking(False)
        for message in form.opening():
            self._message(message, BINARY)
        self.flush()

    def fileno(self) -> int:
        """See `Carrier`."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """See `Carrier`."""
        return self._more

    @property
    def wants_write(self) -> bool:
        """See `Carrier`."""
        return bool(self._out) or (isinstance(self._socket, TlsConnection) and self._socket.unsent)

    @property
    def queued(self) -> int:
        """See `Carrier`."""
        return self._out_octets

    def receive(self) -> list[memoryview]:
        """See `Carrier`."""
        received: list[memoryview] = []
        octets = 0
        self._more = True
        while self._more and octets < TURN_OCTETS:
            data = self._read()
            octets += len(data)
            pieces: list[memoryview] = []
            self._take(data, pieces)
            if pieces:
                # One copy: everything above is done once a piece, and the room is to be used again.
                received.append(memoryview(b"".join(pieces)))
        return received

    def _read(self) -> memoryview:
        """What the socket gives, until the next call. TLS gives a record a call; they are put side by side."""
        filled = 0
        try:
            while READ_OCTETS - filled >= RECORD_OCTETS:
                taken = self._socket.recv_into(self._room[filled:])
                if not taken:
                    if filled:
                        break  # and said once more at the next read
                    raise TunnelLost("the API server ended the port-forward", why=self._form.error)
                filled += taken
        except BlockingIOError:
            self._more = False
        except OSError as error:
            if not filled:
                raise TunnelLost("the connection to the API server broke", why=str(error)) from error
        return self._room[:filled]

    def _take(self, data: memoryview, received: list[memoryview]) -> None:
        """The stream's octets in what the socket gave."""
        form = self._form
        for piece in self._frames.receive(data):
            if piece.opcode == PING:
                self._message(bytes(piece.data), PONG)
                self.flush()
            elif piece.opcode == CLOSE:
                raise TunnelLost("the API server closed the port-forward", why=_close_reason(bytes(piece.data)))
            elif piece.opcode < CLOSE:
                form.receive(piece, received)
                if form.error or form.ended:
                    raise TunnelLost("the port-forward failed", why=form.error or form.ended)
        for answer in form.answers():
            self._message(answer, BINARY)
            self.flush()

    def send(self, buffers: list[bytes | memoryview]) -> None:
        """See `Carrier`."""
        batch: list[bytes | memoryview] = []
        octets = 0
        for buffer in buffers:
            batch.append(buffer)
            octets += len(buffer)
            if octets >= MESSAGE_OCTETS:
                self._message(self._form.message(batch, octets), BINARY)
                batch, octets = [], 0
        if octets:
            self._message(self._form.message(batch, octets), BINARY)

    def flush(self) -> bool:
        """See `Carrier`."""
        try:
            while self._out:
                sent = self._socket.send(self._out[0])
                self._out_octets -= sent
                if sent == len(self._out[0]):
                    self._out.popleft()
                else:
                    self._out[0] = self._out[0][sent:]
            return not isinstance(self._socket, TlsConnection) or self._socket.flush()
        except BlockingIOError:
            return False
        except OSError as error:
            raise TunnelLost("the connection to the API server broke", why=str(error)) from error

    def close(self) -> None:
        """See `Carrier`."""
        if self._closed:
            return
        self._closed = True
        try:
            self._message(b"\x03\xe8", CLOSE)  # 1000: normal (RFC 6455 section 7.4.1)
            self.flush()
        except TunnelLost:
            pass
        self._socket.close()

    def _message(self, payload: bytes, opcode: int) -> None:
        key = self._entropy(KEY_OCTETS)
        frame = b"".join((frame_header(len(payload), key, opcode), masked(payload, key)))
        self._out.append(memoryview(frame))
        self._out_octets += len(frame)


def _close_reason(data: bytes) -> str:
    return f"{int.from_bytes(data[:2], 'big')} {data[2:].decode('utf-8', 'replace')}".strip() if data else ""

"""A local port whose connections go to one place in the cluster; each is one stream.

Not here: where that place is (kt_net.session.forward).
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable

from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.errors import AddressInUse, LimitExceeded, StreamClosed
from kt_net.relay.streams import Stream, Switchboard
from kt_net.tunnel.requests import Reply, ReplyCode, Request

#: SO_LINGER on, 0 seconds: close sends RST.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
READ_OCTETS = 256 * 1024
BACKLOG = 512


class ForwardListener:
    """Listens on loopback.

    Args:
        refused: told when the far side did not take a connection.
    """

    def __init__(
        self,
        loop: Loop,
        switchboard: Switchboard,
        request: Request,
        *,
        host: str,
        port: int,
        refused: Callable[[ReplyCode], None],
    ) -> None:
        self._loop = loop
        self._switchboard = switchboard
        self._request = request
        self._refused = refused
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise AddressInUse(f"cannot listen on {host} port {port}", why=error.strerror or str(error)) from error
        self._socket.setblocking(False)
        #: The port that was taken.
        self.port: int = self._socket.getsockname()[1]

    def start(self) -> None:
        """Accept; on the loop's thread."""
        self._loop.watch(self._socket.fileno(), READ, self._accept)

    def close(self) -> None:
        """Listen no more, once the loop has ended."""
        self._socket.close()

    def _accept(self, mask: int) -> None:
        while True:
            try:
                connected, _ = self._socket.accept()
            except OSError:
                return
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self._loop, connected, self._refused)
            try:
                connection.stream = self._switchboard.open(self._request, connection, now=self._loop.now())
            except (LimitExceeded, StreamClosed):
                connection.abort()


class _Connection:
    """One local connection and its stream."""

    def __init__(self, loop: Loop, connected: socket.socket, refused: Callable[[ReplyCode], None]) -> None:
        self.stream: Stream | None = None
        self._loop = loop
        self._socket = connected
        self._refused = refused
        self._unsent: deque[memoryview] = deque()
        self._open = False
        self._user_finished = False
        self._far_finished = False
        self._watching = 0

    # -- from the switchboard

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        self._open = True
        self._regulate()

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        self._refused(code)
        self.abort()

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        self._unsent.append(memoryview(data))
        self._write()

    def stream_room(self, *, now: float) -> None:
        self._regulate()

    def stream_finished(self, *, now: float) -> None:
        self._far_finished = True
        self._write()

    def stream_reset(self, *, now: float) -> None:
        self.abort()

    # -- the socket

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._write()
        if mask & READ and self._socket.fileno() >= 0:
            self._read()

    def _read(self) -> None:
        stream = self.stream
        if stream is None:
            return
        try:
            data = self._socket.recv(min(READ_OCTETS, max(1, stream.room)))
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        if data:
            stream.send(data, now=self._loop.now())
        else:
            self._user_finished = True
            stream.finish(now=self._loop.now())
        self._regulate()

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent[0])
                if self.stream is not None:
                    self.stream.consume(sent, now=self._loop.now())
                if sent == len(self._unsent[0]):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = self._unsent[0][sent:]
            if self._far_finished:
                self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._lost()
            return
        self._regulate()

    def _regulate(self) -> None:
        if self._socket.fileno() < 0:
            return
        if self._user_finished and self._far_finished and not self._unsent:
            self._close()
            return
        reading = self._open and not self._user_finished and self.stream is not None and self.stream.room > 0
        interest = (READ if reading else 0) | (WRITE if self._unsent else 0)
        if interest != self._watching:
            self._watching = interest
            self._loop.watch(self._socket.fileno(), interest, self._ready)

    def _lost(self) -> None:
        if self.stream is not None:
            self.stream.reset(now=self._loop.now())
        self._close()

    def abort(self) -> None:
        """RST to the local program."""
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.watch(self._socket.fileno(), 0, self._ready)
            self._socket.close()

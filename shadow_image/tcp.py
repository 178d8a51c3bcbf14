"""One TCP connection of the pod, joined to one stream.

The socket is read only while the stream has room; what the client sent is given back as credit when the socket has taken it.
Half-close and reset pass both ways.

Not here: requests and replies (session.py).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

from shadow_image.streams import Streams

#: SO_LINGER on, 0 seconds: close sends RST (POSIX setsockopt).
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class TcpConnection(asyncio.Protocol):
    """The pod's end of a TCP stream."""

    def __init__(self, session: Streams, stream: int) -> None:
        self._session = session
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        #: Octets of the client that the socket has not taken.
        self.unwritten = 0
        self._reading = True
        self._pod_finished = False
        self._client_finished = False
        self._gone = False

    # -- from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)
        # Every octet that the kernel has not taken counts as unwritten.
        self._transport.set_write_buffer_limits(high=0)
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Payload from the pod's side."""
        self._session.send(self._stream, data)
        self.regulate()

    def eof_received(self) -> bool:
        """The pod's side will send nothing more; ours may."""
        self._pod_finished = True
        self._session.finish(self._stream)
        self._close_when_done()
        return True

    def resume_writing(self) -> None:
        """The kernel has taken everything."""
        self._taken(self.unwritten)

    def pause_writing(self) -> None:
        """Counted by `data`."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: by our close, or by a reset."""
        if self._gone:
            return
        self._gone = True
        if exc is not None or not (self._pod_finished and self._client_finished):
            self._session.reset(self._stream)
        self._session.forget(self._stream, self.unwritten)

    # -- from the session

    def data(self, data: bytes | memoryview) -> None:
        """Payload from the client."""
        if self._transport is None or self._gone or self._transport.is_closing():
            return
        self.unwritten += len(data)
        self._session.unwritten += len(data)
        self._transport.write(data)
        self._taken(self.unwritten - self._transport.get_write_buffer_size())

    def room(self) -> None:
        """The stream has room again."""
        self.regulate()

    def finished(self) -> None:
        """The client will send nothing more."""
        self._client_finished = True
        if self._transport is not None and not self._gone and not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except OSError:
                self.abort()
                return
            self._close_when_done()

    def abort(self) -> None:
        """The client reset the stream, or is gone: so is the connection, with an RST."""
        if self._gone:
            return
        self._gone = True
        self._session.forget(self._stream, self.unwritten)
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def regulate(self) -> None:
        """Read the socket only while stream and carrier can take it."""
        if self._transport is None or self._pod_finished or self._gone or self._transport.is_closing():
            return
        wanted = self._session.may_read(self._stream)
        if wanted and not self._reading:
            self._reading = True
            self._transport.resume_reading()
        elif not wanted and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _taken(self, octets: int) -> None:
        if octets > 0:
            self.unwritten -= octets
            self._session.unwritten -= octets
            self._session.consume(self._stream, octets)
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._pod_finished and self._client_finished and not self.unwritten and self._transport is not None:
            self._transport.close()

"""TCP connections of the pod: dialled, and joined to one stream each.

A socket is read only while its stream has room; what the client sent is given back as credit when the socket has taken it.
Half-close and reset pass both ways.

asyncio's transports are not used here: a connection of theirs costs twice the processor time of these few calls.

Not here: requests and replies (session.py).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from kt_net.addr import IPAddress
from shadow_image.streams import Streams

#: SO_LINGER on, 0 seconds: close sends RST (POSIX setsockopt).
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
READ_OCTETS: Final = 256 * 1024


class Connecting:
    """A connect in progress: one address after the other, until one answers or the time is over.

    Args:
        seconds: for all addresses together.
        connected: given the socket, non-blocking; called once, if `failed` is not, and perhaps before `start` returns.
        failed: why none answered.
    """

    def __init__(
        self,
        addresses: Iterable[IPAddress],
        port: int,
        *,
        seconds: float,
        connected: Callable[[socket.socket], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self._left = deque(addresses)
        self._port = port
        self._seconds = seconds
        self._connected = connected
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None  # watched
        self._timer: asyncio.TimerHandle | None = None
        self._error: OSError = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    def start(self) -> None:
        """Begin."""
        while self._left:
            address = self._left.popleft()
            sock: socket.socket | None = None
            try:
                family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                where = (str(address), self._port)
                code = sock.connect_ex(where)
                if code == errno.EINPROGRESS:
                    code = sock.connect_ex(where)  # asks only: a neighbour has answered already
            except OSError as error:  # no descriptor, no such family
                code, self._error = error.errno or errno.EIO, error
            if sock is not None and code in (0, errno.EISCONN):
                self._done(sock)
                return
            if sock is not None and code in (errno.EALREADY, errno.EINPROGRESS):
                self._socket = sock
                self._loop.add_writer(sock.fileno(), self._answered)
                if self._timer is None:
                    self._timer = self._loop.call_later(self._seconds, self._late)
                return
            if sock is not None:
                self._error = OSError(code, os.strerror(code))
                sock.close()
        self.cancel()
        self._failed(self._error)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (sock := self._unwatched()) is not None:
            sock.close()

    def _unwatched(self) -> socket.socket | None:
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_writer(sock.fileno())
        return sock

    def _answered(self) -> None:
        sock = self._unwatched()
        if sock is None:
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            sock.close()
            self._error = OSError(code, os.strerror(code))
            self.start()
        else:
            self._done(sock)

    def _late(self) -> None:
        self.cancel()
        self._failed(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def _done(self, sock: socket.socket) -> None:
        self.cancel()
        self._connected(sock)


class TcpConnection:
    """The pod's end of a TCP stream.

    Args:
        sock: connected, non-blocking.
        ended: told once when it is over.
    """

    def __init__(
        self, session: Streams, stream: int, sock: socket.socket, *, ended: Callable[[], object] = lambda: None
    ) -> None:
        self._session = session
        self._stream = stream
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[memoryview] = deque()
        #: Octets of the client that the socket has not taken.
        self.unwritten = 0
        self._pod_finished = False
        self._client_finished = False
        self._gone = False
        self._ended = ended
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writing = False
        self._reading = True
        self._loop.add_reader(sock.fileno(), self._readable)

    # -- from the socket

    def _readable(self) -> None:
        try:
            # Never more than the stream has room for: what waits without credit would hold back every other socket of the lane.
            data = self._socket.recv(min(READ_OCTETS, max(1, self._session.room(self._stream))))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost()
            return
        if data:
            self._session.send(self._stream, data)
            self.regulate()
        else:
            # The pod's side will send nothing more; ours may.
            self._pod_finished = True
            self._read(False)
            self._session.finish(self._stream)
            self._close_when_done()

    def _write(self) -> None:
        """What the kernel takes of what waits; the rest when it says that it has room."""
        taken = 0
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent[0])
                taken += sent
                if sent == len(self._unsent[0]):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = self._unsent[0][sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._lost()
            return
        if self._writing != bool(self._unsent):
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._socket.fileno(), self._write)
            else:
                self._loop.remove_writer(self._socket.fileno())
        if taken:
            self.unwritten -= taken
            self._session.unwritten -= taken
            self._session.consume(self._stream, taken)
        if self._client_finished and not self._unsent:
            self._shut()

    # -- from the session

    def data(self, data: bytes | memoryview) -> None:
        """Payload from the client."""
        if self._gone:
            return
        self._unsent.append(memoryview(data))
        self.unwritten += len(data)
        self._session.unwritten += len(data)
        if not self._writing:
            self._write()

    def room(self) -> None:
        """The stream has room again."""
        self.regulate()

    def finished(self) -> None:
        """The client will send nothing more."""
        self._client_finished = True
        if not self._gone and not self._unsent:
            self._shut()

    def abort(self) -> None:
        """The client reset the stream, or is gone: so is the connection, with an RST."""
        if not self._gone:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._close()

    def regulate(self) -> None:
        """Read the socket only while stream and carrier can take it."""
        if not self._pod_finished and not self._gone:
            self._read(self._session.may_read(self._stream))

    # -- the end

    def _read(self, wanted: bool) -> None:
        if wanted and not self._reading:
            self._loop.add_reader(self._socket.fileno(), self._readable)
        elif not wanted and self._reading:
            self._loop.remove_reader(self._socket.fileno())
        self._reading = wanted

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._lost()
            return
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._pod_finished and self._client_finished and not self._unsent:
            self._close()

    def _lost(self) -> None:
        """The socket broke: so does the stream."""
        self._session.reset(self._stream)
        self._close()

    def _close(self) -> None:
        if self._gone:
            return
        self._gone = True
        self._read(False)
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
        self._unsent.clear()
        self._socket.close()
        self._ended()
        self._session.forget(self._stream, self.unwritten)

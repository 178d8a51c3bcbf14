"""A local TCP port whose connections go to a place in the cluster each; each is one stream.

A place that does not take a connection is not the last word: another one is tried before the local program sees anything.

Not here: which places there are (kt_net.session), which one is next (kt_net.forward.choice), UDP (forward_datagrams.py).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.forward.choice import Choice
from kt_net.forward.places import Place, Places
from kt_net.relay.streams import Stream, Switchboard
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request

#: SO_LINGER on, 0 seconds: close sends RST.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
READ_OCTETS = 256 * 1024


#: Descriptors that this process may not have more of: what waits to be accepted waits so long.
FULL = frozenset({errno.EMFILE, errno.ENFILE})
FULL_SECONDS = 0.25


class ForwardListener:
    """One local TCP port; a part of the loop from `start` on.

    Args:
        taken: listening sockets, all on one port.
        refused: told when the far side did not take a connection, anywhere it was tried.
    """

    def __init__(
        self,
        loop: Loop,
        switchboard: Switchboard,
        taken: Sequence[socket.socket],
        choice: Choice,
        refused: Callable[[ReplyCode], None],
    ) -> None:
        self.loop = loop
        self.switchboard = switchboard
        self.choice = choice
        self.refused = refused
        self._sockets = taken
        self._connections: set[_Connection] = set()
        #: When to accept again; None while it does.
        self._again: float | None = None

    def start(self) -> None:
        """Accept; on the loop's thread."""
        self.loop.add(self)
        self._watch()

    def _watch(self) -> None:
        for one in self._sockets:
            self.loop.watch(one.fileno(), READ, lambda mask, one=one: self._accept(one))  # type: ignore[misc]

    def close(self) -> None:
        """Listen no more and reset what is open, once the loop has ended."""
        for one in self._sockets:
            one.close()
        for connection in self._connections:
            connection.drop()

    def replace(self, known: Places) -> None:
        """Connections to places that are not there any more are reset, or tried elsewhere; on the loop's thread."""
        self.choice.replace(known)
        for connection in list(self._connections):
            connection.places_changed()

    def forget(self, connection: _Connection) -> None:
        """It is closed."""
        self._connections.discard(connection)

    def _accept(self, taken: socket.socket) -> None:
        while True:
            try:
                connected, _ = taken.accept()
            except OSError as error:
                if error.errno in FULL:
                    self._pause()
                return
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, connected)
            self._connections.add(connection)
            connection.connect()

    def _pause(self) -> None:
        """A socket that stays ready would keep the loop busy."""
        for one in self._sockets:
            self.loop.watch(one.fileno(), 0, lambda mask: None)
        self._again = self.loop.now() + FULL_SECONDS

    # -- a part of the loop

    def pump(self, *, now: float) -> None:
        """See `Part`."""

    def next_timer(self) -> float | None:
        """See `Part`."""
        return self._again

    def handle_timer(self, *, now: float) -> None:
        """Accept again."""
        self._again = None
        self._watch()


class _Connection:
    """One local connection and its stream. Nothing is read from it before the far side has taken it, so that it can be tried at several."""

    def __init__(self, listener: ForwardListener, connected: socket.socket) -> None:
        self._listener = listener
        self._loop = listener.loop
        self._socket = connected
        self._stream: Stream | None = None
        self._place: Place | None = None
        self._tried: set[Place] = set()
        self._unsent: deque[memoryview] = deque()
        self._open = False
        self._user_finished = False
        self._far_finished = False
        self._watching = 0

    def connect(self) -> bool:
        """Try a place that was not tried yet; False when there is none, and the local program has been told."""
        self._leave()
        place = self._listener.choice.choose(self._tried)
        if place is None:
            self.abort()
            return False
        self._place = place
        self._tried.add(place)
        request = Request(Network.TCP, place.address, place.port)
        try:
            self._stream = self._listener.switchboard.open(request, self, now=self._loop.now())
        except (LimitExceeded, StreamClosed):
            self.abort()
        return True

    def places_changed(self) -> None:
        """Its place may be gone."""
        if self._place is None or not self._listener.choice.lost(self._place):
            return
        if self._stream is not None:
            self._stream.reset(now=self._loop.now())
        if self._open:
            self.abort()
        else:
            self.connect()

    def _leave(self) -> None:
        if self._place is not None:
            self._listener.choice.closed(self._place)
        self._place = None

    # -- from the switchboard

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        self._open = True
        self._regulate()

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        if not self.connect():
            self._listener.refused(code)

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
        stream = self._stream
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
                if self._stream is not None:
                    self._stream.consume(sent, now=self._loop.now())
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
        reading = self._open and not self._user_finished and self._stream is not None and self._stream.room > 0
        interest = (READ if reading else 0) | (WRITE if self._unsent else 0)
        if interest != self._watching:
            self._watching = interest
            self._loop.watch(self._socket.fileno(), interest, self._ready)

    def _lost(self) -> None:
        if self._stream is not None:
            self._stream.reset(now=self._loop.now())
        self._close()

    def abort(self) -> None:
        """RST to the local program."""
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    def drop(self) -> None:
        """The same, without a loop."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.watch(self._socket.fileno(), 0, self._ready)
            self._socket.close()
        self._leave()
        self._listener.forget(self)

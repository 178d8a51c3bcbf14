"""A local TCP port whose connections go to a place in the cluster each; each is one stream.

A place that does not take a connection is not the last word: another one is tried before the local program sees anything.

Not here: which places there are (kt_net.session), which one is next (kt_net.forward.choice), UDP (forward_datagrams.py).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence

from kt_net.drivers.joined import JoinedSocket
from kt_net.drivers.loop import READ, Loop
from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.forward.choice import Choice
from kt_net.forward.places import Place, Places
from kt_net.relay.streams import Switchboard
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request

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
        for connection in list(self._connections):
            connection.abort()

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


class _Connection(JoinedSocket):
    """One local connection and its stream. Nothing is read from it before the far side has taken it, so that it can be tried at several."""

    def __init__(self, listener: ForwardListener, connected: socket.socket) -> None:
        super().__init__(listener.loop)
        self.socket = connected
        self._listener = listener
        self._place: Place | None = None
        self._tried: set[Place] = set()

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
            self.stream = self._listener.switchboard.open(request, self, now=self._loop.now())
        except (LimitExceeded, StreamClosed):
            self.abort()
        return True

    def places_changed(self) -> None:
        """Its place may be gone."""
        if self._place is None or not self._listener.choice.lost(self._place):
            return
        if self.stream is not None:
            self.stream.reset(now=self._loop.now())
        if self._open:
            self.abort()
        else:
            self.connect()

    def _leave(self) -> None:
        if self._place is not None:
            self._listener.choice.closed(self._place)
        self._place = None

    def left(self) -> None:
        """See `JoinedSocket`."""
        self._leave()
        self._listener.forget(self)

    # -- from the switchboard

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        """The far side has taken it."""
        self.opened()

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        """Not there; perhaps elsewhere."""
        if not self.connect():
            self._listener.refused(code)

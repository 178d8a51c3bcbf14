"""Ports of the pod on which the client lets us listen: whoever comes becomes a stream to the client.

A listener lives as long as the client's stream that asked for it. When that ends, nobody comes any more; those who are there stay.
TCP cannot ask before it answers: the kernel has accepted a caller before the client knows of it, so a caller whom the client does not
take is reset.

Not here: which lane a caller goes by (session.py).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from kt_net.addr import IPAddress
from kt_net.errors import TunnelProtocolError
from kt_net.tunnel.datagrams import MAX_DATAGRAM, DatagramParser, frame_datagram
from kt_net.tunnel.requests import MAX_REPLY_OCTETS, Arrival, Network, ReplyCode, parse_reply
from shadow_image.caps import Caps
from shadow_image.streams import Streams
from shadow_image.tcp import TcpConnection

logger = logging.getLogger("agent")

#: Connections that the kernel keeps for us until we accept them.
BACKLOG: Final = 512
#: Connections or datagrams taken from one socket before others get their turn.
BURST: Final = 32
#: Seconds without accepting when the process has no descriptors left.
BREATH: Final = 0.2
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
#: A family that the pod's kernel does not have.
_NO_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
_CODES: Final = {
    errno.EADDRINUSE: ReplyCode.CONNECTION_REFUSED,
    errno.EACCES: ReplyCode.NOT_ALLOWED,
    errno.EPERM: ReplyCode.NOT_ALLOWED,
}


def listen_code(error: OSError) -> ReplyCode:
    """Why a port cannot be listened on: 5 it is taken, 2 the pod may not (below 1024), 8 no family at all, 1 everything else."""
    if error.errno in _NO_FAMILY:
        return ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED
    return _CODES.get(error.errno or 0, ReplyCode.GENERAL_FAILURE)


def open_listeners(kind: socket.SocketKind, port: int) -> list[socket.socket]:
    """Sockets on `port` of every address, one for each family that the pod has; for 0 the kernel chooses one port for all.

    Raises:
        OSError: not even one, or the port is taken in one of them.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family in (socket.AF_INET, socket.AF_INET6):
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                # The last listener's connections may still be there.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", port))
            if kind == socket.SOCK_STREAM:
                sock.listen(BACKLOG)
            port = sock.getsockname()[1]
        except OSError as error:
            if sock is not None:
                sock.close()
            if error.errno not in _NO_FAMILY:
                for other in sockets:
                    other.close()
                raise
            missing = error
        else:
            sockets.append(sock)
    if not sockets and missing is not None:
        raise missing
    return sockets


class Lane(Streams, Protocol):
    """What a listener asks of the lane that a caller goes by."""

    def begin(self, arrival: Arrival, make: Callable[[int], Arrived]) -> Arrived | None:
        """A stream to the client, and what `make` makes of its number; None when there can be none."""


class Arrived(Protocol):
    """The pod's end of a stream that we have opened."""

    @property
    def unwritten(self) -> int: ...
    def data(self, data: bytes | memoryview) -> None: ...
    def room(self) -> None: ...
    def finished(self) -> None: ...
    def abort(self) -> None: ...
    def regulate(self) -> None: ...


class Callers:
    """Who has come by the listeners of one session, counted.

    Attributes:
        here: TCP connections that are there.
        unanswered: those of them that the client has not answered.
        listeners: how many there are.
    """

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self.here = 0
        self.unanswered: set[ArrivedTcp] = set()
        self.listeners = 0

    @property
    def full(self) -> bool:
        """Whether whoever comes now is turned away."""
        return self.here >= self.caps.arrived or len(self.unanswered) >= self.caps.arriving

    def turn_away(self) -> None:
        """Reset whoever the client has not answered: a caller that comes again is served, one that waits is not."""
        for caller in tuple(self.unanswered):
            caller.turn_away()


class Answer:
    """The client's reply, as the first octets of a stream."""

    def __init__(self) -> None:
        self._start = b""
        self.taken = False

    def take(self, data: bytes | memoryview) -> tuple[ReplyCode, int, memoryview] | None:
        """The code, how many octets the reply had, and what is behind it; None while it is not whole.

        Raises:
            TunnelProtocolError: this is no reply.
        """
        self._start += bytes(data)
        parsed = parse_reply(self._start)
        if parsed is None:
            if len(self._start) > MAX_REPLY_OCTETS:
                raise TunnelProtocolError("the client's reply does not end")
            return None
        reply, used = parsed
        self.taken = True
        rest, self._start = memoryview(self._start)[used:], b""
        return reply.code, used, rest


class ArrivedTcp(TcpConnection):
    """A caller's connection. What the caller sends goes to the client at once, as far as the stream's first credit reaches."""

    def __init__(self, session: Streams, stream: int, sock: socket.socket, callers: Callers) -> None:
        super().__init__(session, stream, sock, ended=self._left)
        self._answer = Answer()
        self._callers = callers
        callers.here += 1
        callers.unanswered.add(self)

    def data(self, data: bytes | memoryview) -> None:
        """The reply, then payload."""
        if self._answer.taken:
            super().data(data)
            return
        taken = self._answer.take(data)
        if taken is None:
            return
        code, used, rest = taken
        self._callers.unanswered.discard(self)
        self._session.consume(self._stream, used)
        if code is not ReplyCode.SUCCEEDED:
            self.turn_away()
        elif len(rest):
            super().data(rest)

    def finished(self) -> None:
        """The client will send nothing more: before it has answered, that is a refusal."""
        if self._answer.taken:
            super().finished()
        else:
            self.turn_away()

    def turn_away(self) -> None:
        """Reset the caller, and the stream."""
        self._session.reset(self._stream)
        self.abort()

    def _left(self) -> None:
        self._callers.here -= 1
        self._callers.unanswered.discard(self)


class _Listener:
    """The stream that asked for a port, a `Connection` that says nothing, and the port's sockets.

    Args:
        port: that the callers have come to, as the client knows it.
        lane: the lane for the next caller; None while the client is away.
        closed: told when nobody listens any more.
    """

    #: Nothing is ever written to it.
    unwritten = 0

    def __init__(
        self,
        session: Streams,
        stream: int,
        sockets: list[socket.socket],
        callers: Callers,
        lane: Callable[[], Lane | None],
        *,
        port: int,
        closed: Callable[[], None],
    ) -> None:
        self._session = session
        self._stream = stream
        self._sockets = sockets
        self._callers = callers
        self._lane = lane
        self._port = port
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        callers.listeners += 1
        for sock in sockets:
            self._loop.add_reader(sock.fileno(), self._ready, sock)

    def _ready(self, sock: socket.socket) -> None:
        """Somebody has come."""
        raise NotImplementedError

    def _close(self) -> None:
        """What is to end with the sockets."""

    def data(self, data: bytes | memoryview) -> None:
        """Nothing is said on this stream."""
        self._session.consume(self._stream, len(data))

    def room(self) -> None:
        """Nothing waits here."""

    def regulate(self) -> None:
        """Nothing is read for this stream."""

    def finished(self) -> None:
        """The client wants no more callers."""
        self._session.finish(self._stream)
        self.abort()

    def abort(self) -> None:
        """Listen no more."""
        if self._sockets:
            self._close()
            for sock in self._sockets:
                self._loop.remove_reader(sock.fileno())
                sock.close()
            self._sockets = []
            self._closed()
            self._callers.listeners -= 1
            self._session.forget(self._stream, 0)


class TcpListener(_Listener):
    """Accepts."""

    def _ready(self, listening: socket.socket) -> None:
        for _ in range(BURST):
            try:
                connected, caller = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("accepting: %s", error)
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(BREATH, self._go_on, listening)
                return
            connected.setblocking(False)
            if not self._take(connected, caller):
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                connected.close()

    def _take(self, connected: socket.socket, caller: Any) -> bool:
        lane = None if self._callers.full else self._lane()
        if lane is None:
            return False
        try:
            host = connected.getsockname()[0]
        except OSError:
            return False  # the caller has gone already
        arrival = Arrival(Network.TCP, _address(host), self._port, _address(caller[0]), caller[1])
        return lane.begin(arrival, lambda stream: ArrivedTcp(lane, stream, connected, self._callers)) is not None

    def _go_on(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._ready, listening)


class UdpListener(_Listener):
    """Receives datagrams; those of one caller are a flow, which is a stream."""

    def __init__(
        self,
        session: Streams,
        stream: int,
        sockets: list[socket.socket],
        callers: Callers,
        lane: Callable[[], Lane | None],
        *,
        port: int,
        closed: Callable[[], None],
    ) -> None:
        super().__init__(session, stream, sockets, callers, lane, port=port, closed=closed)
        self._flows: dict[tuple[Any, ...], _UdpFlow] = {}  # by caller, the one that was used last at the end
        self._timer: asyncio.TimerHandle | None = None
        #: Datagrams that no flow could take.
        self.dropped = 0

    def _ready(self, sock: socket.socket) -> None:
        for _ in range(BURST):
            try:
                data, caller = sock.recvfrom(MAX_DATAGRAM)
            except OSError:
                return  # nothing there, or an ICMP error about what we have sent
            flow = self._flows.get(caller) or self._begin(sock, caller)
            if flow is None:
                self.dropped += 1
            else:
                flow.incoming(data)

    def _begin(self, sock: socket.socket, caller: tuple[Any, ...]) -> _UdpFlow | None:
        if len(self._flows) >= self._callers.caps.flows:
            next(iter(self._flows.values())).end()
        lane = self._lane()
        if lane is None:
            return None
        host = sock.getsockname()[0]
        arrival = Arrival(Network.UDP, _address(host), self._port, _address(caller[0]), caller[1])
        flow = lane.begin(arrival, lambda stream: _UdpFlow(self, lane, stream, sock, caller))
        if not isinstance(flow, _UdpFlow):
            return None
        self._flows[caller] = flow
        if self._timer is None:
            self._timer = self._loop.call_later(self._callers.caps.flow_idle, self._sweep)
        return flow

    def used(self, caller: tuple[Any, ...]) -> None:
        """A datagram of the flow has passed."""
        flow = self._flows.pop(caller, None)
        if flow is not None:
            flow.used_at = self._loop.time()
            self._flows[caller] = flow

    def gone(self, caller: tuple[Any, ...]) -> None:
        """The flow has ended."""
        self._flows.pop(caller, None)

    def _sweep(self) -> None:
        self._timer = None
        idle = self._callers.caps.flow_idle
        long_ago = self._loop.time() - idle
        for flow in list(self._flows.values()):
            if flow.used_at > long_ago:
                self._timer = self._loop.call_at(flow.used_at + idle, self._sweep)
                return
            flow.end()

    def _close(self) -> None:
        """The flows end, too: their answers leave by these sockets."""
        for flow in list(self._flows.values()):
            flow.end()
        if self._timer is not None:
            self._timer.cancel()


class _UdpFlow:
    """Datagrams from and to one caller."""

    #: Datagrams are sent or dropped: nothing waits.
    unwritten = 0

    def __init__(
        self, listener: UdpListener, session: Streams, stream: int, sock: socket.socket, caller: tuple[Any, ...]
    ) -> None:
        self._listener = listener
        self._session = session
        self._stream = stream
        self._socket = sock
        self._caller = caller
        self._answer = Answer()
        self._parser = DatagramParser()
        self.used_at = asyncio.get_running_loop().time()
        self._gone = False
        #: Datagrams dropped because the stream had no room or the kernel none.
        self.dropped = 0

    def incoming(self, data: bytes) -> None:
        """A datagram of the caller's."""
        self._listener.used(self._caller)
        framed = frame_datagram(data)
        if self._session.room(self._stream) >= len(framed):
            self._session.send(self._stream, framed)
        else:
            self.dropped += 1

    def data(self, data: bytes | memoryview) -> None:
        """The reply, then datagrams for the caller, in whatever pieces."""
        if not self._answer.taken:
            taken = self._answer.take(data)
            if taken is None:
                return
            code, used, data = taken
            self._session.consume(self._stream, used)
            if code is not ReplyCode.SUCCEEDED:
                self.end()
                return
        for datagram in self._parser.receive(data):
            self._listener.used(self._caller)
            try:
                self._socket.sendto(datagram, self._caller)
            except OSError:
                self.dropped += 1  # no buffer, no route, too long: datagrams get lost
        self._session.consume(self._stream, len(data))

    def room(self) -> None:
        """A datagram without room was dropped."""

    def regulate(self) -> None:
        """Datagrams are dropped, not held back."""

    def finished(self) -> None:
        """The client is done with the flow."""
        self.end()

    def end(self) -> None:
        """No more of this caller; the next datagram begins another flow."""
        self._session.reset(self._stream)
        self.abort()

    def abort(self) -> None:
        """The stream is gone."""
        if not self._gone:
            self._gone = True
            self._listener.gone(self._caller)
            self._session.forget(self._stream, 0)


def least_loaded(lanes: Iterable[tuple[int, int, Lane]]) -> Lane | None:
    """Of (octets in front, streams, lane) the lane that has least to carry."""
    return min(lanes, key=lambda one: one[:2], default=(0, 0, None))[2]


def _address(host: str) -> IPAddress:
    return ipaddress.ip_address(host.partition("%")[0])

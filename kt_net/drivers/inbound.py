"""Callers from the cluster, each joined to a connection of its own with a program here.

A caller is answered when the program has been reached; while that lasts, what the caller sends waits as far as the stream's credit
reaches. Half-close and reset pass both ways.

Not here: having the agent listen (kt_net.session.inbound).
"""

from __future__ import annotations

import errno
import resource
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kt_net.addr import IPAddress
from kt_net.drivers.joined import JoinedSocket
from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.relay.streams import Stream, StreamOwner
from kt_net.tunnel.datagrams import MAX_DATAGRAM, DatagramParser, frame_datagram
from kt_net.tunnel.requests import Arrival, Network, Reply, ReplyCode
from kt_net.wire.proxy_protocol import emit_header

#: Callers joined at once, TCP and UDP together; more are turned away.
MAX_CALLERS: Final = 4096
#: Carriers, requests to the API server, files.
OTHER_DESCRIPTORS: Final = 256
#: For a program to take a connection. All addresses of a name together.
CONNECT_SECONDS: Final = 10.0
#: Datagrams taken from one socket before others get their turn.
BURST: Final = 32
_CODES: Final = {
    errno.ECONNREFUSED: ReplyCode.CONNECTION_REFUSED,
    errno.ECONNRESET: ReplyCode.CONNECTION_REFUSED,
    errno.EHOSTUNREACH: ReplyCode.HOST_UNREACHABLE,
    errno.ETIMEDOUT: ReplyCode.HOST_UNREACHABLE,
    errno.ENETUNREACH: ReplyCode.NETWORK_UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A program here.

    Attributes:
        name: host and port as the user has them.
        addresses: of the host, tried in this order.
    """

    name: str
    addresses: tuple[IPAddress, ...]
    port: int


class Programs:
    """Takes callers (an `Acceptor`), and is a part of the loop.

    Args:
        targets: by network and port on which the agent listens.
        proxy_protocol: TCP begins with a header that says who the caller is.
        outcome: told of every attempt to reach a program what came of it.
    """

    def __init__(
        self,
        loop: Loop,
        targets: Mapping[tuple[Network, int], Target],
        *,
        proxy_protocol: bool,
        outcome: Callable[[Target, ReplyCode], None],
    ) -> None:
        self.loop = loop
        self.outcome = outcome
        self._targets = targets
        self._proxy_protocol = proxy_protocol
        self._joined: set[_Tcp | _Udp] = set()
        self._connecting: dict[_Tcp, float] = {}  # until when; the first is due first
        #: Callers since the start, and those turned away because there were too many.
        self.callers_total = 0
        self.turned_away = 0

    @property
    def callers(self) -> int:
        """How many are here."""
        return len(self._joined)

    def stream_arrived(self, arrival: Arrival, stream: Stream, *, now: float) -> StreamOwner:
        """See `Acceptor`."""
        self.callers_total += 1
        target = self._targets.get((arrival.network, arrival.port))
        if target is None or len(self._joined) >= MAX_CALLERS:
            self.turned_away += 1
            refuse(stream, ReplyCode.NOT_ALLOWED, now=now)
            return _Nobody()
        if arrival.network is Network.UDP:
            flow = _Udp(self, stream, target)
            self._joined.add(flow)
            flow.start(now=now)
            return flow
        header = b""
        if self._proxy_protocol:
            header = emit_header(arrival.caller, arrival.caller_port, arrival.address, arrival.port)
        connection = _Tcp(self, stream, target, header)
        self._joined.add(connection)
        self._connecting[connection] = now + CONNECT_SECONDS
        connection.start(now=now)
        return connection

    def connected(self, connection: _Tcp) -> None:
        """It does not wait any more, whatever came of it."""
        self._connecting.pop(connection, None)

    def left(self, connection: _Tcp | _Udp) -> None:
        """It is over."""
        if isinstance(connection, _Tcp):
            self.connected(connection)
        self._joined.discard(connection)

    # -- a part of the loop

    def pump(self, *, now: float) -> None:
        """See `Part`: sockets and streams call by themselves."""

    def next_timer(self) -> float | None:
        """See `Part`."""
        return next(iter(self._connecting.values()), None)

    def handle_timer(self, *, now: float) -> None:
        """Give up on programs that do not answer."""
        for connection, due in list(self._connecting.items()):
            if due > now:
                return
            connection.late(now=now)

    def close(self) -> None:
        """Once the loop has ended: no program waits for somebody who has gone."""
        for connection in list(self._joined):
            connection.abort()


def allow_sockets() -> None:
    """Raise this process's limit of descriptors (getrlimit(2)), as far as it may, so that `MAX_CALLERS` have one each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CALLERS + OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def refuse(stream: Stream, code: ReplyCode, *, now: float) -> None:
    """Say why not; then the stream is nobody's."""
    stream.send(Reply(code).emit(), now=now)
    stream.finish(now=now)
    stream.forget()


class _Nobody:
    """The owner of a stream that was refused."""

    def stream_opened(self, reply: Reply, *, now: float) -> None: ...
    def stream_refused(self, code: ReplyCode, *, now: float) -> None: ...
    def stream_data(self, data: bytes | memoryview, *, now: float) -> None: ...
    def stream_room(self, *, now: float) -> None: ...
    def stream_finished(self, *, now: float) -> None: ...
    def stream_reset(self, *, now: float) -> None: ...


class _Tcp(JoinedSocket):
    """A caller's stream and a connection here."""

    def __init__(self, programs: Programs, stream: Stream, target: Target, header: bytes) -> None:
        super().__init__(programs.loop)
        self.stream = self._caller = stream
        self.put_first(header)
        self._programs = programs
        self._target = target
        self._left = deque(target.addresses)
        self._error = errno.ECONNREFUSED

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        """Not for a stream that the far side has opened."""

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        """Likewise."""

    def left(self) -> None:
        """See `JoinedSocket`."""
        self._programs.left(self)

    # -- reaching the program

    def start(self, *, now: float) -> None:
        """Try the next address."""
        while self._left:
            address = self._left.popleft()
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                self._error = error.errno or errno.EIO
                continue
            sock.setblocking(False)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                code = sock.connect_ex((str(address), self._target.port))
            except OSError as error:
                code = error.errno or errno.EIO
            if code in (0, errno.EINPROGRESS):
                self.socket = sock
                self.watch(WRITE)
                return
            sock.close()
            self._error = code
        self._fail(_CODES.get(self._error, ReplyCode.GENERAL_FAILURE), now=now)

    def late(self, *, now: float) -> None:
        """No answer in time."""
        self._fail(ReplyCode.HOST_UNREACHABLE, now=now)

    def ready(self, mask: int) -> None:
        """See `JoinedSocket`; the first word says whether the program has taken the connection."""
        if self._open:
            super().ready(mask)
        elif self.socket is not None:
            self._tried(self.socket)

    def _fail(self, code: ReplyCode, *, now: float) -> None:
        refuse(self._caller, code, now=now)
        self.close()
        self._programs.outcome(self._target, code)

    def _tried(self, sock: socket.socket) -> None:
        now = self._loop.now()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._error = code
            self.watch(0)
            self.socket = None
            sock.close()
            self.start(now=now)
            return
        self._programs.connected(self)
        host, port = sock.getsockname()[:2]
        self._caller.send(Reply(ReplyCode.SUCCEEDED, host.partition("%")[0], port).emit(), now=now)
        self._programs.outcome(self._target, ReplyCode.SUCCEEDED)
        self.opened()


class _Udp(_Nobody):
    """Datagrams of one caller, and a socket here that is its alone: the program tells callers apart by it."""

    def __init__(self, programs: Programs, stream: Stream, target: Target) -> None:
        self._programs = programs
        self._loop = programs.loop
        self._stream = stream
        self._target = target
        self._parser = DatagramParser()
        self._socket: socket.socket | None = None
        #: Datagrams dropped because the stream had no room or the kernel none.
        self.dropped = 0

    def start(self, *, now: float) -> None:
        """Open the socket; nobody is asked."""
        address = self._target.addresses[0]
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
        except OSError:
            refuse(self._stream, ReplyCode.GENERAL_FAILURE, now=now)
            self.abort()
            return
        self._socket = sock
        sock.setblocking(False)
        try:
            sock.connect((str(address), self._target.port))
        except OSError as error:
            code = _CODES.get(error.errno or 0, ReplyCode.GENERAL_FAILURE)
            refuse(self._stream, code, now=now)
            self.abort()
            self._programs.outcome(self._target, code)
            return
        host, port = sock.getsockname()[:2]
        self._stream.send(Reply(ReplyCode.SUCCEEDED, host.partition("%")[0], port).emit(), now=now)
        self._loop.watch(sock.fileno(), READ, self._ready)

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        """Datagrams of the caller's, in whatever pieces."""
        for datagram in self._parser.receive(data):
            if self._socket is None:
                return
            try:
                self._socket.send(datagram)
            except ConnectionRefusedError:
                self._unreachable()
                return
            except OSError:
                self.dropped += 1  # no buffer, no route, too long: datagrams get lost
        self._stream.consume(len(data), now=now)

    def stream_finished(self, *, now: float) -> None:
        """The flow is over."""
        self._stream.reset(now=now)
        self.abort()

    def stream_reset(self, *, now: float) -> None:
        """The flow is over."""
        self.abort()

    def _ready(self, mask: int) -> None:
        for _ in range(BURST):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(MAX_DATAGRAM)
            except ConnectionRefusedError:
                self._unreachable()
                return
            except OSError:
                return  # nothing there, or an ICMP error that says nothing final
            self._programs.outcome(self._target, ReplyCode.SUCCEEDED)
            framed = frame_datagram(data)
            if self._stream.room >= len(framed):
                self._stream.send(framed, now=self._loop.now())
            else:
                self.dropped += 1

    def _unreachable(self) -> None:
        self._stream.reset(now=self._loop.now())
        self.abort()
        self._programs.outcome(self._target, ReplyCode.CONNECTION_REFUSED)

    def abort(self) -> None:
        """Forget the socket."""
        self._programs.left(self)
        sock: Any = self._socket
        if sock is not None:
            self._socket = None
            if self._loop.running:
                self._loop.watch(sock.fileno(), 0, self._ready)
            sock.close()

"""One lane of a client: its tunnel, its streams, and the pod's connections behind them; it outlives its carriers.

A carrier that comes is a session of its own until its hello says that an older one goes on: then it is handed over. The carrier is
always read: a reader that stops would hold up every stream on the websocket, so back-pressure is credit only.

Not here: listening (server.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from kt_net.addr import IPAddress
from kt_net.errors import KtError, LimitExceeded, StreamClosed, TunnelProtocolError
from kt_net.tunnel.events import (
    Forgotten,
    GoneAway,
    GoneOn,
    HelloReceived,
    PeerSilent,
    RoomGranted,
    StreamData,
    StreamFinished,
    StreamOpened,
    StreamReset,
    TunnelEvent,
)
from kt_net.tunnel.hello import INBOUND, SESSION_OCTETS, Hello, parse_hello
from kt_net.tunnel.lane import RESUME, forgotten
from kt_net.tunnel.limits import CROWDED, Limits
from kt_net.tunnel.mux import Role
from kt_net.tunnel.requests import MAX_REPLY_OCTETS, Arrival, Network, Reply, ReplyCode, Request, parse_request
from kt_net.tunnel.session import Tunnel
from shadow_image.caps import Caps
from shadow_image.datagrams import DatagramConnection, Echo, Udp
from shadow_image.dial import Refused, reply_code, resolve
from shadow_image.listening import (
    Arrived,
    Callers,
    Lane,
    TcpListener,
    UdpListener,
    least_loaded,
    listen_code,
    open_listeners,
)
from shadow_image.nft import Protocol as Transport
from shadow_image.policy import Policy
from shadow_image.redirect import Redirections
from shadow_image.tcp import Connecting, TcpConnection

logger = logging.getLogger("agent")


class Connection(Protocol):
    """What the session asks of a pod-side connection."""

    @property
    def unwritten(self) -> int: ...
    def data(self, data: bytes | memoryview) -> None: ...
    def room(self) -> None: ...
    def finished(self) -> None: ...
    def abort(self) -> None: ...
    def regulate(self) -> None: ...


class _Opening:
    """A stream whose request is not answered yet: keeps what comes behind the request (the stream's window bounds it)."""

    def __init__(self) -> None:
        self.start = b""
        self.waiting: list[bytes | memoryview] = []
        self.finished = False
        self.requested = False
        #: Ends what is under way for it.
        self.cancel: Callable[[], object] = _nothing


def _nothing() -> None:
    pass


class Home(Protocol):
    """What a session asks of the agent."""

    #: Callers of the pod's own program are redirected to us; None: the pod is ours, and we listen where we are told to.
    redirections: Redirections | None

    def started(self, session: Session) -> bool:
        """A carrier has come; False when it is to be turned away."""
        ...

    def greeted(self, session: Session, identity: bytes) -> None:
        """A client has introduced itself: an older session of that identity is over."""
        ...

    def find(self, identity: bytes) -> Session | None:
        """The session of a client that comes again."""
        ...

    def lanes(self, client: bytes) -> list[Session]:
        """All lanes of the client with this session id."""
        ...

    def carrier_lost(self, session: Session) -> None:
        """The session of a client (not of somebody who only knocked) is without a carrier."""
        ...

    def ended(self, session: Session) -> None:
        """It is gone; called once."""
        ...


class Session(asyncio.Protocol):
    """Serves one client."""

    def __init__(
        self,
        *,
        report: dict[str, Any],
        policy: Policy,
        caps: Caps,
        home: Home,
    ) -> None:
        self._policy = policy
        self._caps = caps
        self._home = home
        self._hello = b""  # of the carrier, until it is whole
        self._over = False
        self._tunnel = Tunnel(role=Role.AGENT, hello=Hello(session=bytes(SESSION_OCTETS), report=report))
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._openings: dict[int, _Opening] = {}
        self._connections: dict[int, Connection] = {}
        self._paused = False
        self._held: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._ended = False
        self._greeted = False
        self._flushing = False
        self._client = b""  # its session id
        self._inbound = False  # the client wants callers by this lane
        self._callers = Callers(caps)
        self._absent_since = 0.0
        #: Octets that pod-side sockets have not taken.
        self.unwritten = 0

    # -- the carrier

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A port-forward has reached us."""
        carrier = cast(asyncio.Transport, transport)
        self._use(carrier)
        if not self._home.started(self):
            carrier.abort()
            return
        self._loop.call_later(self._caps.hello_seconds, self._check_greeted)
        self._flush()

    def _use(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # Small: what waits in the transport is no longer scheduled fairly.
        transport.set_write_buffer_limits(high=256 * 1024)
        self._paused = False

    def data_received(self, data: bytes) -> None:
        """Octets from the client."""
        try:
            if not self._greeted:
                self._hello += data
                parsed = parse_hello(self._hello, limits=Limits())
                if parsed is None:
                    return
                hello, used = parsed
                data, self._hello = self._hello, b""
                if hello.report.get(RESUME):
                    self._hand_over(hello, data[used:])
                    return
                self._home.greeted(self, hello.identity)
            self._tunnel.receive_data(data, now=self._loop.time())
            self._events()
        except KtError as error:
            logger.warning("session closed: %s", error)
            self.close()
            return
        if self._tunnel.busy or self._held:
            self._flush()

    def _hand_over(self, hello: Hello, rest: bytes) -> None:
        """Our carrier is that of a session that is there already."""
        older, transport = self._home.find(hello.identity), self._transport
        if transport is None:
            return
        if older is None:
            transport.write(forgotten())
            transport.close()
            return
        self._transport = None
        self._end()
        older.go_on(transport, hello, rest)

    def go_on(self, transport: asyncio.Transport, hello: Hello, rest: bytes) -> None:
        """The client has come again, on another carrier.

        Raises:
            TunnelProtocolError: with offsets that cannot be.
        """
        if self._transport is not None:
            # The client knows better than we: its carrier is dead.
            self._transport.set_protocol(asyncio.Protocol())
            self._transport.abort()
        self._tunnel.carrier_lost()
        transport.set_protocol(self)
        self._use(transport)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        logger.info("session %s lane %d goes on", hello.session.hex()[:8], hello.lane)
        try:
            self._tunnel.going_on(hello, now=self._loop.time())
        except TunnelProtocolError:
            self.close()  # whoever it was knew the session's number and not where it is: it cannot be mended
            raise
        if rest:
            self.data_received(rest)
        self._flush()

    def eof_received(self) -> bool:
        """The client's end is gone; nothing of a half-open carrier is of use."""
        return False

    def pause_writing(self) -> None:
        """The carrier is slow: what is not handed over yet stays in the tunnel."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The carrier is gone; the client may come again on another one, if it ever was there."""
        self._transport = None
        self._absent_since = self._loop.time()
        self._tunnel.carrier_lost()
        if self._greeted:
            self._home.carrier_lost(self)
        if not self._greeted or self._over:
            self._end()
        else:
            self._linger = self._loop.call_later(self._caps.keep_seconds, self._end)

    def close(self) -> None:
        """End the session."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()
        else:
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = self._over = True
        for handle in (self._timer, self._linger):
            if handle is not None:
                handle.cancel()
        for opening in list(self._openings.values()):
            opening.cancel()
        for connection in list(self._connections.values()):
            connection.abort()
        self._home.ended(self)

    @property
    def greeted(self) -> bool:
        """Whether a client has introduced itself."""
        return self._greeted

    @property
    def present(self) -> bool:
        """Whether a client has introduced itself and has a carrier."""
        return self._greeted and self._transport is not None

    # -- for connections

    def send(self, stream: int, data: bytes) -> None:
        """Payload for the client."""
        try:
            self._tunnel.send(stream, data, now=self._loop.time())
        except StreamClosed:
            return
        self._flush_soon()

    def room(self, stream: int) -> int:
        """Octets that the stream takes now."""
        return self._tunnel.send_room(stream)

    def may_read(self, stream: int) -> bool:
        """Whether a connection should read its socket."""
        if self._tunnel.backlog > self._caps.backlog:
            self._held.add(stream)
            return False
        return self._tunnel.send_room(stream) > 0

    def consume(self, stream: int, octets: int) -> None:
        """The client may send as many octets again."""
        try:
            self._tunnel.consume(stream, octets, now=self._loop.time())
        except StreamClosed:
            return
        self._flush_soon()

    def finish(self, stream: int) -> None:
        """Nothing more comes from the pod's side."""
        self._tunnel.finish(stream, now=self._loop.time())
        self._flush_soon()

    def reset(self, stream: int) -> None:
        """The pod's side is gone."""
        self._tunnel.reset(stream, now=self._loop.time())
        self._flush_soon()

    def forget(self, stream: int, unwritten: int) -> None:
        """The connection has ended."""
        self.unwritten -= unwritten
        self._connections.pop(stream, None)
        self._held.discard(stream)
        self._flush_soon()  # others may have been held back by what it had queued

    # -- events of the tunnel

    def _events(self) -> None:
        while (event := self._tunnel.next_event()) is not None:
            self._event(event)

    def _event(self, event: TunnelEvent) -> None:
        match event:
            case StreamData(stream, data):
                self._data(stream, data)
            case RoomGranted(stream):
                if (connection := self._connections.get(stream)) is not None:
                    connection.room()
            case StreamOpened(stream):
                self._openings[stream] = _Opening()
            case StreamFinished(stream):
                if (connection := self._connections.get(stream)) is not None:
                    connection.finished()
                elif (opening := self._openings.get(stream)) is not None:
                    opening.finished = True
            case StreamReset(stream):
                if (connection := self._connections.get(stream)) is not None:
                    connection.abort()
                elif (opening := self._openings.pop(stream, None)) is not None:
                    opening.cancel()
            case HelloReceived(hello):
                self._greeted = True
                self._client = hello.session
                self._inbound = hello.report.get(INBOUND) is True
                self._arm()  # pings begin
                logger.info("session %s lane %d started", hello.session.hex()[:8], hello.lane)
            case PeerSilent():
                logger.info("the client is silent: its carrier is closed")
                if self._transport is not None:
                    self._transport.abort()
            case Forgotten() | GoneOn():
                pass  # said to clients only
            case GoneAway():
                logger.info("session ended by the client")
                self.close()

    def _data(self, stream: int, data: bytes | memoryview) -> None:
        connection = self._connections.get(stream)
        if connection is not None:
            connection.data(data)
            if self.unwritten > self._caps.unwritten:
                # Not whoever happens to send now: the one whose socket takes least.
                worst = max(self._connections, key=lambda number: self._connections[number].unwritten)
                self._connections[worst].abort()
                self.reset(worst)
            return
        opening = self._openings.get(stream)
        if opening is None:
            return
        if opening.requested:
            opening.waiting.append(data)
            return
        opening.start += bytes(data)
        parsed = parse_request(opening.start)
        if parsed is None:
            if len(opening.start) > MAX_REPLY_OCTETS:
                raise TunnelProtocolError("a request does not end")
            return
        request, used = parsed
        if len(opening.start) > used:
            opening.waiting.append(opening.start[used:])
        self.consume(stream, used)  # the client may have reset it with the next frame
        if len(self._openings) > self._caps.connecting:
            self._refuse(stream, ReplyCode.GENERAL_FAILURE)
            return
        opening.requested = True
        self._begin(stream, request, opening)

    # -- requests

    def _begin(self, stream: int, request: Request, opening: _Opening) -> None:
        if request.network in (Network.LISTEN_TCP, Network.LISTEN_UDP):
            self._listen(stream, request)
            return
        # An echo identifier is no port: nothing listens on it.
        port = 0 if request.network is Network.ECHO else request.port
        try:
            address = ipaddress.ip_address(request.host)
        except ValueError:
            opening.cancel = self._loop.create_task(self._resolve(stream, request, port, opening)).cancel
        else:
            self._dial(stream, request, port, opening, [address])

    async def _resolve(self, stream: int, request: Request, port: int, opening: _Opening) -> None:
        try:
            found = await resolve(request.host, port)
        except Refused as refused:
            self._refuse(stream, refused.code)
        else:
            self._dial(stream, request, port, opening, found)

    def _dial(self, stream: int, request: Request, port: int, opening: _Opening, found: list[IPAddress]) -> None:
        may = [address for address in found if self._policy.refusal(address, port) is None]
        if not may:
            self._refuse(stream, ReplyCode.NOT_ALLOWED)
        elif request.network is Network.TCP:
            connecting = Connecting(
                may,
                port,
                seconds=self._caps.connect_seconds,
                connected=partial(self._connected, stream),
                failed=lambda error: self._refuse(stream, reply_code(error)),
            )
            opening.cancel = connecting.cancel
            connecting.start()
        else:
            self._open_datagrams(stream, request.network, may[0], port)

    def _connected(self, stream: int, sock: socket.socket) -> None:
        self._join(stream, sock, TcpConnection(self, stream, sock))

    def _open_datagrams(self, stream: int, network: Network, address: IPAddress, port: int) -> None:
        kind = Udp() if network is Network.UDP else Echo()
        try:
            sock = kind.open(address, port)
        except OSError as error:
            # No ping sockets for this pod: nothing that another address would change.
            forbidden = network is Network.ECHO and isinstance(error, PermissionError)
            self._refuse(stream, ReplyCode.COMMAND_NOT_SUPPORTED if forbidden else reply_code(error))
            return
        self._join(stream, sock, DatagramConnection(self, stream, kind, sock))

    def _listen(self, stream: int, request: Request) -> None:
        if self._callers.listeners >= self._caps.listeners:
            self._refuse(stream, ReplyCode.GENERAL_FAILURE)
            return
        tcp = request.network is Network.LISTEN_TCP
        redirections = self._home.redirections
        sockets: list[socket.socket] = []
        closed = _nothing
        try:
            sockets = open_listeners(
                socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, request.port if redirections is None else 0
            )
            if redirections is not None:
                transport: Transport = "tcp" if tcp else "udp"
                redirections.add(
                    transport,
                    request.port,
                    sockets[0].getsockname()[1],
                    wanted=self._near,
                    given_back=self._callers.turn_away,
                )
                closed = partial(redirections.remove, transport, request.port)
        except OSError as error:
            for sock in sockets:
                sock.close()
            self._refuse(stream, listen_code(error))
            return
        port = request.port or sockets[0].getsockname()[1]
        listener = TcpListener if tcp else UdpListener
        lane = self._lane_of_callers if tcp else self._lane_of_datagrams
        self._join(
            stream,
            sockets[0],
            listener(self, stream, sockets, self._callers, lane, port=port, closed=closed),
        )

    def _near(self) -> bool:
        """Whether the client is there, or was a moment ago."""
        return self._there(self._caps.near_seconds)

    def _there(self, seconds: float) -> bool:
        return self._transport is not None or self._loop.time() - self._absent_since < seconds

    def _join(self, stream: int, sock: socket.socket, connection: Connection) -> None:
        """`connection`, whose socket is `sock`, is the stream's from now on."""
        opening = self._openings.pop(stream)
        self._connections[stream] = connection
        host, port = sock.getsockname()[:2]
        self.send(stream, Reply(ReplyCode.SUCCEEDED, host.partition("%")[0], port).emit())
        for data in opening.waiting:
            connection.data(data)
        if opening.finished:
            connection.finished()

    # -- callers

    def _lane_of_datagrams(self) -> Lane | None:
        """This one, the control lane; None when the client has been away for long: whoever waits for it waits for nothing."""
        patience = self._caps.absent_seconds if self._home.redirections is None else self._caps.near_seconds
        return self if self._there(patience) else None

    def _lane_of_callers(self) -> Lane | None:
        """Of the lanes that the client offers, the one that has least to carry, so that nobody waits behind a bulk transfer."""
        offered = [lane for lane in self._home.lanes(self._client) if lane.offered]
        found = least_loaded((lane.load, lane.streams, lane) for lane in offered)
        return found or self._lane_of_datagrams()

    @property
    def offered(self) -> bool:
        """Whether callers may go by this lane now."""
        return self._inbound and self._transport is not None

    @property
    def load(self) -> int:
        """How crowded the lane is."""
        return self._tunnel.load // CROWDED

    @property
    def streams(self) -> int:
        """How many there are."""
        return self._tunnel.streams

    def begin(self, arrival: Arrival, make: Callable[[int], Arrived]) -> Arrived | None:
        """See `Lane`."""
        now = self._loop.time()
        try:
            stream = self._tunnel.open_stream(now=now)
            self._tunnel.send(stream, arrival.emit(), now=now)
        except (LimitExceeded, StreamClosed):
            return None
        connection = self._connections[stream] = make(stream)
        self._flush_soon()
        return connection

    def _refuse(self, stream: int, code: ReplyCode) -> None:
        if self._openings.pop(stream, None) is not None:
            self.send(stream, Reply(code).emit())
            self.finish(stream)

    # -- out, and time

    def _flush_soon(self) -> None:
        """Once, after everything that has happened by now: what several connections have to say goes out together."""
        if not self._flushing and (self._tunnel.busy or self._held):
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hand to the carrier what it takes, then let sockets be read again that were held back."""
        self._flushing = False
        if self._transport is None:
            return
        while not self._paused and not self._transport.is_closing():
            buffers = self._tunnel.data_to_send(now=self._loop.time(), limit=256 * 1024)
            if not buffers:
                break
            self._transport.write(b"".join(buffers) if len(buffers) > 1 else buffers[0])
        if self._held and self._tunnel.backlog <= self._caps.backlog // 2:
            held, self._held = self._held, set()
            for stream in held:
                if (connection := self._connections.get(stream)) is not None:
                    connection.regulate()
        self._arm()

    def _arm(self) -> None:
        due = self._tunnel.next_timer()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return  # early is harmless: the handler looks again
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = self._tunnel.next_timer()
        if due is not None and due <= now:
            self._tunnel.handle_timer(now=now)
            try:
                self._events()
            except KtError as error:
                logger.warning("session closed: %s", error)
                self.close()
        self._flush()

    def _check_greeted(self) -> None:
        if not self._greeted:
            self.close()

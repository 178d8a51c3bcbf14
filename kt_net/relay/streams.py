"""The switchboard: opens streams with a request on one of the session's lanes, and hands what comes back to the stream's owner.

A stream stays on its lane. Datagrams (names, UDP, ping) go by lane 0, the control lane; TCP by the others as soon as one is there, each
stream by the lane that has least to carry: what a bulk transfer has queued is in front of nobody else's small messages.

One owner per stream. The request is the first thing on the stream, the reply the first thing back (docs/tunnel-protocol.md); the
switchboard takes the reply off, so that owners see payload only. Streams that the agent opens (somebody has come to a port on which it
listens for us) go to the acceptor once it is known who comes; without an acceptor they are turned down.

Not here: what the payload is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from kt_net.errors import StreamClosed, TunnelProtocolError
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
from kt_net.tunnel.limits import CROWDED
from kt_net.tunnel.requests import (
    MAX_REPLY_OCTETS,
    Arrival,
    Network,
    Reply,
    ReplyCode,
    Request,
    parse_arrival,
    parse_reply,
)
from kt_net.tunnel.session import Tunnel

#: The lane of datagrams, and of everything while there is no other.
CONTROL_LANE: Final = 0


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """What a lane said about itself; passed on to whoever drives the session."""

    lane: int
    event: HelloReceived | GoneAway | PeerSilent | Forgotten | GoneOn


class StreamOwner(Protocol):
    """What the owner of a stream is told. Calls come from within `Switchboard.pump`, in the order of the octets."""

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        """The far side has connected."""

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        """The far side could not connect; the stream is gone."""

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        """Payload; the owner calls `Stream.consume` when it has disposed of it."""

    def stream_room(self, *, now: float) -> None:
        """`Stream.room` grew."""

    def stream_finished(self, *, now: float) -> None:
        """No more payload will come; ours may still go."""

    def stream_reset(self, *, now: float) -> None:
        """The stream is gone in both directions."""


@dataclass(slots=True, eq=False)
class Stream:
    """One stream, as its owner sees it. After it is gone every method does nothing and `room` is 0."""

    _tunnel: Tunnel
    _forget: Callable[[Stream], None]
    lane: int
    number: int
    owner: StreamOwner
    open: bool = True
    replied: bool = False
    _start: bytes = b""

    @property
    def room(self) -> int:
        """Octets that may be sent now."""
        return self._tunnel.send_room(self.number) if self.open else 0

    def send(self, data: bytes | memoryview, *, now: float) -> None:
        """Send payload; more than `room` waits in the tunnel."""
        if self.open:
            try:
                self._tunnel.send(self.number, data, now=now)
            except StreamClosed:
                pass  # the peer has reset it; its StreamReset is on the way

    def consume(self, octets: int, *, now: float) -> None:
        """The owner has disposed of received octets: the far side may send as many again."""
        if self.open and octets:
            try:
                self._tunnel.consume(self.number, octets, now=now)
            except StreamClosed:
                pass  # both ends have finished: nobody waits for credit any more

    def finish(self, *, now: float) -> None:
        """No more payload will be sent."""
        if self.open:
            self._tunnel.finish(self.number, now=now)

    def reset(self, *, now: float) -> None:
        """Give the stream up in both directions."""
        if self.open:
            self.open = False
            self._forget(self)
            self._tunnel.reset(self.number, now=now)

    def forget(self) -> None:
        """The owner wants to hear nothing more; the stream ends by itself or has ended."""
        if self.open:
            self.open = False
            self._forget(self)

    def reply_taken(self, data: bytes | memoryview, *, now: float) -> tuple[Reply, memoryview] | None:
        """The reply and the payload behind it, or None while more is needed.

        Raises:
            TunnelProtocolError: the stream does not begin with a reply.
        """
        self._start += bytes(data)
        parsed = parse_reply(self._start)
        if parsed is None:
            if len(self._start) > MAX_REPLY_OCTETS:
                raise TunnelProtocolError("the agent's reply does not end")
            return None
        reply, used = parsed
        rest = memoryview(self._start)[used:]
        self._start = b""
        self.replied = True
        self.consume(used, now=now)
        return reply, rest


class Acceptor(Protocol):
    """Takes streams that the agent opens."""

    def stream_arrived(self, arrival: Arrival, stream: Stream, *, now: float) -> StreamOwner:
        """Somebody has come. The owner sends the reply, and is told what comes behind the arrival."""


class _Arriving:
    """The owner of a stream of the agent's until it is known who comes."""

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._start = b""
        self.stream: Stream | None = None

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        stream = self.stream
        if stream is None:
            return
        self._start += bytes(data)
        parsed = parse_arrival(self._start)
        if parsed is None:
            return
        arrival, used = parsed
        stream.consume(used, now=now)
        stream.owner = self._acceptor.stream_arrived(arrival, stream, now=now)
        if len(self._start) > used:
            stream.owner.stream_data(memoryview(self._start)[used:], now=now)

    def stream_finished(self, *, now: float) -> None:
        if self.stream is not None:
            self.stream.reset(now=now)  # before it has said who comes

    def stream_reset(self, *, now: float) -> None: ...
    def stream_room(self, *, now: float) -> None: ...
    def stream_opened(self, reply: Reply, *, now: float) -> None: ...
    def stream_refused(self, code: ReplyCode, *, now: float) -> None: ...


class Switchboard:
    """All streams over all lanes of the session."""

    def __init__(self) -> None:
        self._lanes: dict[int, Tunnel] = {}
        self._streams: dict[tuple[int, int], Stream] = {}
        self._events: deque[SessionEvent] = deque()
        #: Streams opened since the start.
        self.opened_total = 0
        #: A stream has had to share a lane that has much to carry; whoever can open another lane takes note and sets it back.
        self.crowded = False
        #: Who takes streams that the agent opens.
        self.acceptor: Acceptor | None = None

    def add(self, lane: int, tunnel: Tunnel) -> None:
        """From now on streams may go by this lane, once it has begun."""
        self._lanes[lane] = tunnel

    def remove(self, lane: int) -> None:
        """No stream goes by this lane any more; none is on it."""
        del self._lanes[lane]

    def open(self, request: Request, owner: StreamOwner, *, now: float) -> Stream:
        """Open a stream and ask for `request`; the owner is told the outcome.

        Raises:
            LimitExceeded: as many streams as a lane allows are open.
            StreamClosed: the tunnel has ended.
        """
        lane = self._choose(request)
        tunnel = self._lanes[lane]
        number = tunnel.open_stream(now=now)
        stream = Stream(tunnel, self._remove, lane, number, owner)
        self._streams[lane, number] = stream
        self.opened_total += 1
        tunnel.send(number, request.emit(), now=now)
        return stream

    def _choose(self, request: Request) -> int:
        if request.network is not Network.TCP:
            return CONTROL_LANE
        lanes = [lane for lane, tunnel in self._lanes.items() if lane != CONTROL_LANE and tunnel.ready]
        if not lanes:
            return CONTROL_LANE
        load, _, lane = min((self._lanes[lane].load // CROWDED, self._lanes[lane].streams, lane) for lane in lanes)
        if load:
            self.crowded = True
        return lane

    def next_event(self) -> SessionEvent | None:
        """What a lane said about itself."""
        return self._events.popleft() if self._events else None

    def pump(self, *, now: float) -> bool:
        """Hand every waiting tunnel event to its owner; True when there was one.

        Raises:
            TunnelProtocolError: the agent's bytes make no sense; the tunnel is to be closed.
        """
        busy = False
        for lane, tunnel in self._lanes.items():
            while (event := tunnel.next_event()) is not None:
                busy = True
                self._event(lane, tunnel, event, now=now)
        return busy

    def _event(self, lane: int, tunnel: Tunnel, event: TunnelEvent, *, now: float) -> None:
        match event:
            case StreamData(number, data):
                if (stream := self._streams.get((lane, number))) is not None:
                    self._data(stream, data, now=now)
            case RoomGranted(number):
                if (stream := self._streams.get((lane, number))) is not None and stream.replied:
                    stream.owner.stream_room(now=now)
            case StreamFinished(number):
                if (stream := self._streams.get((lane, number))) is not None:
                    self._finished(stream, now=now)
            case StreamReset(number):
                if (stream := self._streams.get((lane, number))) is not None:
                    self._reset(stream, now=now)
            case StreamOpened(number):
                self._opened(lane, tunnel, number, now=now)
            case HelloReceived() | GoneAway() | PeerSilent() | Forgotten() | GoneOn():
                self._events.append(SessionEvent(lane, event))

    def _opened(self, lane: int, tunnel: Tunnel, number: int, *, now: float) -> None:
        if self.acceptor is None:
            tunnel.reset(number, now=now)  # nobody has asked for it; not left hanging
            return
        arriving = _Arriving(self.acceptor)
        arriving.stream = Stream(tunnel, self._remove, lane, number, arriving, replied=True)
        self._streams[lane, number] = arriving.stream

    def _remove(self, stream: Stream) -> None:
        self._streams.pop((stream.lane, stream.number), None)

    def _data(self, stream: Stream, data: bytes | memoryview, *, now: float) -> None:
        if stream.replied:
            stream.owner.stream_data(data, now=now)
            return
        taken = stream.reply_taken(data, now=now)
        if taken is None:
            return
        reply, rest = taken
        if reply.code is not ReplyCode.SUCCEEDED:
            stream.reset(now=now)
            stream.owner.stream_refused(reply.code, now=now)
            return
        stream.owner.stream_opened(reply, now=now)
        if len(rest):
            stream.owner.stream_data(rest, now=now)

    def _finished(self, stream: Stream, *, now: float) -> None:
        if stream.replied:
            stream.owner.stream_finished(now=now)
        else:
            stream.reset(now=now)
            stream.owner.stream_refused(ReplyCode.GENERAL_FAILURE, now=now)

    def _reset(self, stream: Stream, *, now: float) -> None:
        replied = stream.replied
        stream.forget()
        if replied:
            stream.owner.stream_reset(now=now)
        else:
            stream.owner.stream_refused(ReplyCode.GENERAL_FAILURE, now=now)

"""The tunnel as others see it: streams over one lane.

Not here: sockets. `receive_data` and `data_to_send` face the carrier, everything else the one above.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from kt_net.tunnel.events import Forgotten, GoneOn, HelloReceived, PeerSilent, StreamReset, TunnelEvent
from kt_net.tunnel.frames import GoAwayCode
from kt_net.tunnel.hello import Hello
from kt_net.tunnel.lane import MAX_RECORD_DATA, Lane
from kt_net.tunnel.limits import Limits
from kt_net.tunnel.mux import Mux, Role


@dataclass(frozen=True, slots=True)
class TunnelCounters:
    """Octets of lane data since the start; `rtt_s` is None before the first pong."""

    streams: int
    octets_sent: int
    octets_received: int
    rtt_s: float | None


class Tunnel:
    """One session with the other end.

    Args:
        role: CLIENT on this machine, AGENT in the pod.
        hello: what we say first.
    """

    def __init__(self, *, role: Role, hello: Hello, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._role = role
        self._limits = limits
        self._lane = Lane(hello=hello, limits=limits)
        self._mux = Mux(role=role, limits=limits)
        self._events: deque[TunnelEvent] = deque()
        self._greeted = False
        self._going_on = False
        self._said_silent = False

    # -- the carrier

    def receive_data(self, data: bytes | memoryview, *, now: float) -> None:
        """Octets from the carrier; `data` may be kept.

        Raises:
            TunnelProtocolError: they break the protocol; the carrier is to be closed.
        """
        self._lane.receive_data(data, now=now)
        if not self._greeted and self._lane.peer is not None:
            self._greeted = True
            self._events.append(HelloReceived(self._lane.peer))
        if self._going_on and self._lane.ready:
            self._going_on = False
            self._events.append(GoneOn())
        while self._lane.received:
            self._mux.receive_data(self._lane.received.popleft())
        if self._lane.forgotten:
            self._lane.forgotten = False
            self._events.append(Forgotten())

    def carrier_lost(self) -> None:
        """The carrier is gone. Streams stay; `data_to_send` gives nothing until `go_on` or `going_on`."""
        self._lane.carrier_lost()
        self._said_silent = False

    def go_on(self) -> None:
        """The client's side, with a new carrier: the next octets are hellos, then what the other end has not received."""
        self._going_on = True
        self._lane.go_on()

    def going_on(self, peer: Hello, *, now: float) -> None:
        """The agent's side, with a new carrier on which `peer` has come and our hello has gone.

        Raises:
            TunnelProtocolError: this lane never was where `peer` says that it was.
        """
        self._lane.going_on(peer, now=now)

    def begin_anew(self, hello: Hello) -> None:
        """The other end is gone for good, and with it every stream (each is told of as reset); `go_on` begins with another one."""
        gone = self._mux.numbers()
        self._mux = Mux(role=self._role, limits=self._limits, after=self._mux)
        self._lane = Lane(hello=hello, limits=self._limits)
        self._lane.carrier_lost()
        self._greeted = self._said_silent = False
        self._events.extend(StreamReset(stream) for stream in gone)

    def data_to_send(self, *, now: float, limit: int = MAX_RECORD_DATA) -> list[bytes | memoryview]:
        """Buffers for the carrier, in order, about `limit` octets; empty when there is nothing."""
        if self._lane.ready and self._mux.busy:
            room = min(limit, self._lane.room, MAX_RECORD_DATA // 2)
            if room > 0:
                frames = self._mux.frames_to_send(room)
                if frames:
                    self._lane.send(frames, now=now)
        return self._lane.data_to_send(now=now)

    @property
    def busy(self) -> bool:
        """Whether `data_to_send` may give something."""
        return self._lane.queued or self._mux.busy

    # -- time and events

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return self._lane.next_timer()

    def handle_timer(self, *, now: float) -> None:
        """Pings, and notices a silent peer."""
        self._lane.handle_timer(now=now)
        if self._lane.silent and not self._said_silent:
            self._said_silent = True
            self._events.append(PeerSilent())

    def next_event(self) -> TunnelEvent | None:
        """What happened, in order."""
        return self._events.popleft() if self._events else self._mux.next_event()

    def stats(self) -> TunnelCounters:
        """A snapshot."""
        lane = self._lane
        return TunnelCounters(self._mux.streams, lane.octets_sent, lane.octets_received, lane.rtt)

    # -- streams

    @property
    def ready(self) -> bool:
        """Whether the other end has introduced itself, on this carrier too: what is sent goes out now."""
        return self._lane.ready

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._mux.streams

    @property
    def load(self) -> int:
        """Octets in front of whatever is sent next: queued here, or on the way and not acknowledged."""
        return self._mux.backlog + self._lane.unacknowledged

    @property
    def backlog(self) -> int:
        """Payload octets queued and not yet handed to the carrier."""
        return self._mux.backlog

    def open_stream(self, *, now: float) -> int:
        """See `Mux.open_stream`. Before the peer's hello everything waits."""
        return self._mux.open_stream()

    def send(self, stream: int, data: bytes | memoryview, *, now: float) -> None:
        """See `Mux.send`."""
        self._mux.send(stream, data)

    def send_room(self, stream: int) -> int:
        """See `Mux.send_room`."""
        return self._mux.send_room(stream)

    def finish(self, stream: int, *, now: float) -> None:
        """See `Mux.finish`. A stream that is gone already is no error: both ends may finish at once."""
        if self._mux.has(stream):
            self._mux.finish(stream)

    def reset(self, stream: int, *, now: float) -> None:
        """See `Mux.reset`."""
        self._mux.reset(stream)

    def consume(self, stream: int, octets: int, *, now: float) -> None:
        """See `Mux.consume`."""
        self._mux.consume(stream, octets, now=now, round_trip=self._lane.round_trip)

    def go_away(self, *, now: float) -> None:
        """Tell the peer that the session ends, normally."""
        self._mux.go_away(GoAwayCode.NORMAL)

    def ping(self, *, now: float) -> None:
        """Ask the other end for a sign of life now."""
        self._lane.ping(now=now)

    def probe(self, *, now: float) -> None:
        """Something has changed on this machine: see `Lane.probe`."""
        self._lane.probe(now=now)

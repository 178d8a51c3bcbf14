"""A local UDP port: each program's address and port is a flow, each flow a stream of datagrams to one place in the cluster.

A flow ends when nothing has gone either way for `IDLE_SECONDS`, or when the far side ends it; the next datagram begins another.

Not here: which place (kt_net.forward.choice).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from kt_net.drivers.loop import READ, Loop
from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.forward.choice import Choice
from kt_net.forward.places import Place, Places
from kt_net.relay.datagrams import WaitingDatagrams
from kt_net.relay.streams import Stream, Switchboard
from kt_net.tunnel.datagrams import MAX_DATAGRAM, DatagramParser
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request

#: RFC 4787 section 4.3: not under two minutes.
IDLE_SECONDS: Final = 120.0
#: Of one local port; the one that has been silent for longest makes room.
MAX_FLOWS: Final = 1024
#: Datagrams taken from one socket before others get their turn.
BURST: Final = 64

#: Socket and address of a program.
_Key = tuple[socket.socket, Any]


class DatagramListener:
    """A part of the loop from `start` on.

    Args:
        taken: bound sockets, all to one port.
        refused: told when the far side did not take a flow.
    """

    def __init__(
        self,
        loop: Loop,
        switchboard: Switchboard,
        taken: Sequence[socket.socket],
        choice: Choice,
        refused: Callable[[ReplyCode], None],
    ) -> None:
        self._loop = loop
        self._switchboard = switchboard
        self._sockets = taken
        self._choice = choice
        self._refused = refused
        #: In the order of their last datagram.
        self._flows: dict[_Key, _Flow] = {}

    def start(self) -> None:
        """Take datagrams; on the loop's thread."""
        self._loop.add(self)
        for one in self._sockets:
            self._loop.watch(one.fileno(), READ, lambda mask, one=one: self._readable(one))  # type: ignore[misc]

    def close(self) -> None:
        """Once the loop has ended."""
        for one in self._sockets:
            one.close()

    def replace(self, known: Places) -> None:
        """Flows to places that are not there any more are over; on the loop's thread."""
        self._choice.replace(known)
        for flow in list(self._flows.values()):
            if self._choice.lost(flow.place):
                flow.end(now=self._loop.now())

    def _readable(self, taken: socket.socket) -> None:
        for _ in range(BURST):
            try:
                data, source = taken.recvfrom(MAX_DATAGRAM)
            except OSError:
                return
            now = self._loop.now()
            flow = self._flow((taken, source), now=now)
            if flow is not None:
                flow.send(data, now=now)

    def _flow(self, key: _Key, *, now: float) -> _Flow | None:
        flow = self._flows.get(key)
        if flow is not None:
            return flow
        if len(self._flows) >= MAX_FLOWS:
            next(iter(self._flows.values())).end(now=now)
        place = self._choice.choose()
        if place is None:
            return None
        flow = _Flow(self, key, place)
        self._flows[key] = flow
        try:
            flow.stream = self._switchboard.open(Request(Network.UDP, place.address, place.port), flow, now=now)
        except (LimitExceeded, StreamClosed):
            self.forget(key, place)
            return None
        return flow

    # -- for flows

    def touch(self, key: _Key, flow: _Flow, *, now: float) -> None:
        """A datagram went one way or the other."""
        flow.idle_at = now + IDLE_SECONDS
        if self._flows.pop(key, None) is not None:
            self._flows[key] = flow

    def forget(self, key: _Key, place: Place) -> None:
        """The flow is over."""
        if self._flows.pop(key, None) is not None:
            self._choice.closed(place)

    def refused(self, code: ReplyCode) -> None:
        """The far side did not take a flow."""
        self._refused(code)

    # -- a part of the loop

    def pump(self, *, now: float) -> None:
        """See `Part`."""

    def next_timer(self) -> float | None:
        """See `Part`."""
        first = next(iter(self._flows.values()), None)
        return first.idle_at if first is not None else None

    def handle_timer(self, *, now: float) -> None:
        """End the flows that have been silent for long."""
        for flow in list(self._flows.values()):
            if flow.idle_at > now:
                return
            flow.end(now=now)


class _Flow:
    """One program's address and port, and the owner of its stream."""

    def __init__(self, listener: DatagramListener, key: _Key, place: Place) -> None:
        self.stream: Stream | None = None
        self.place = place
        self.idle_at = 0.0
        self._listener = listener
        self._key = key
        self._parser = DatagramParser()
        self._waiting = WaitingDatagrams()

    def send(self, data: bytes, *, now: float) -> None:
        """The program sent a datagram."""
        self._listener.touch(self._key, self, now=now)
        self._waiting.add(data)
        self._waiting.drain(self.stream, now=now)

    def end(self, *, now: float) -> None:
        """Give it up."""
        if self.stream is not None:
            self.stream.reset(now=now)
        self._listener.forget(self._key, self.place)

    # -- from the switchboard

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        self._waiting.drain(self.stream, now=now)

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        self._listener.forget(self._key, self.place)
        self._listener.refused(code)

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        taken, source = self._key
        for datagram in self._parser.receive(data):
            try:
                taken.sendto(datagram, source)
            except OSError:
                pass  # no buffer, or nobody there any more: datagrams get lost
        self._listener.touch(self._key, self, now=now)
        if self.stream is not None:
            self.stream.consume(len(data), now=now)

    def stream_room(self, *, now: float) -> None:
        self._waiting.drain(self.stream, now=now)

    def stream_finished(self, *, now: float) -> None:
        self.end(now=now)

    def stream_reset(self, *, now: float) -> None:
        self._listener.forget(self._key, self.place)
        self._listener.refused(ReplyCode.CONNECTION_REFUSED)

"""One UDP flow, or one series of echo requests, joined to one tunnel stream of length-prefixed datagrams.

Datagrams that find no room wait, at most `MAX_WAITING_DATAGRAMS` and `MAX_WAITING_OCTETS`; beyond that the oldest is dropped and
counted, as a router would (RFC 8085 section 3 leaves loss to the program).

Not here: fragmentation, checksums (kt_net.stack).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from kt_net.errors import StreamClosed
from kt_net.relay.streams import Stream
from kt_net.relay.tcp import UNREACHABLE
from kt_net.stack import Stack
from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.requests import Reply, ReplyCode

MAX_WAITING_DATAGRAMS = 256
MAX_WAITING_OCTETS = 256 * 1024

_SEQUENCE = struct.Struct("!H")


class WaitingDatagrams:
    """Datagrams on their way to a stream."""

    def __init__(self) -> None:
        #: Datagrams dropped for want of room.
        self.dropped = 0
        self._waiting: deque[bytes] = deque()
        self._octets = 0

    def add(self, data: bytes | memoryview) -> None:
        """One more; the oldest make room for it."""
        framed = frame_datagram(data)
        self._waiting.append(framed)
        self._octets += len(framed)
        while len(self._waiting) > MAX_WAITING_DATAGRAMS or self._octets > MAX_WAITING_OCTETS:
            self._octets -= len(self._waiting.popleft())
            self.dropped += 1

    def drain(self, stream: Stream | None, *, now: float) -> None:
        """As many as there is room for. They follow the request without waiting for its reply: one round trip less for the first one."""
        while self._waiting and stream is not None and stream.room >= len(self._waiting[0]):
            framed = self._waiting.popleft()
            self._octets -= len(framed)
            stream.send(framed, now=now)


class DatagramJoint:
    """Owner of the stream of one UDP flow. `closed` is called once, when the far side ended it."""

    def __init__(self, flow: int, stack: Stack, closed: Callable[[int], None]) -> None:
        self.flow = flow
        self.stream: Stream | None = None
        self._stack = stack
        self._closed = closed
        self._parser = DatagramParser()
        self._waiting = WaitingDatagrams()

    @property
    def dropped(self) -> int:
        """Datagrams dropped for want of room."""
        return self._waiting.dropped

    # -- from the stack

    def flow_datagram(self, data: bytes | memoryview, *, now: float) -> None:
        """The program sent a datagram."""
        self._waiting.add(data)
        self._drain(now=now)

    def flow_expired(self, *, now: float) -> None:
        """The program has been silent for long."""
        if self.stream is not None:
            self.stream.reset(now=now)

    # -- from the switchboard

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        """The agent has a socket for the flow."""
        self._drain(now=now)

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        """The agent has no way to the destination."""
        self._closed(self.flow)
        self._say(code, now=now)

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        """Datagrams from the far side, in whatever pieces."""
        for datagram in self._parser.receive(data):
            try:
                self._deliver(datagram, now=now)
            except StreamClosed:
                pass  # the flow had to make room; its UdpFlowExpired is on the way
        if self.stream is not None:
            self.stream.consume(len(data), now=now)

    def stream_room(self, *, now: float) -> None:
        """The stream may carry more."""
        self._drain(now=now)

    def stream_finished(self, *, now: float) -> None:
        """The agent closed its socket after its idle time: the next datagram opens another stream."""
        if self.stream is not None:
            self.stream.reset(now=now)
        self._closed(self.flow)
        self._stack.close_flow(self.flow, now=now)

    def stream_reset(self, *, now: float) -> None:
        """The far side answered "port unreachable"."""
        self._closed(self.flow)
        self._say(ReplyCode.CONNECTION_REFUSED, now=now)

    def _say(self, code: ReplyCode, *, now: float) -> None:
        try:
            self._refuse(code, now=now)
        except StreamClosed:
            pass  # nobody waits for the answer any more

    # -- what UDP and echo do differently

    def _deliver(self, datagram: bytes, *, now: float) -> None:
        self._stack.send_datagram(self.flow, datagram, now=now)

    def _refuse(self, code: ReplyCode, *, now: float) -> None:
        reason = UNREACHABLE.get(code)
        if reason is None:
            self._stack.refuse(self.flow, now=now)
        else:
            self._stack.unreachable(self.flow, reason, now=now)

    def _drain(self, *, now: float) -> None:
        self._waiting.drain(self.stream, now=now)


class EchoJoint(DatagramJoint):
    """Owner of the stream of one series of echo requests (same source, destination and identifier)."""

    def flow_echo(self, sequence: int, data: bytes | memoryview, *, now: float) -> None:
        """The program sent an echo request."""
        self.flow_datagram(_SEQUENCE.pack(sequence) + bytes(data), now=now)

    def _deliver(self, datagram: bytes, *, now: float) -> None:
        if len(datagram) >= _SEQUENCE.size:
            (sequence,) = _SEQUENCE.unpack_from(datagram)
            self._stack.send_echo_reply(self.flow, sequence, datagram[_SEQUENCE.size :], now=now)

    def _refuse(self, code: ReplyCode, *, now: float) -> None:
        reason = UNREACHABLE.get(code)
        if reason is None:
            # No ping socket in the pod, or no word from it: an honest ping goes unanswered.
            self._stack.close_flow(self.flow, now=now)
        else:
            self._stack.unreachable(self.flow, reason, now=now)

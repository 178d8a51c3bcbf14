"""Questions of programs to the resolver's address, and the resolver's questions to the cluster's DNS through the tunnel.

DNS over UDP to the cluster shares one stream, answers are told apart by message id; DNS over TCP takes a stream per question
(RFC 7766 section 6.2.1 allows re-use; questions over TCP are rare enough here).

Not here: which name goes where (kt_net.dns), sockets to this machine's own resolver (kt_net.drivers).
"""

from __future__ import annotations

from typing import Protocol

from kt_net.dns.resolver import Ask, Transport
from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.relay.streams import Stream, Switchboard
from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request

DNS_PORT = 53

#: DNS over TCP has two octets of length before each message (RFC 1035 section 4.2.2), just as datagrams on a tunnel stream have.
MessageSplitter = DatagramParser
framed_message = frame_datagram

#: What one program may send over TCP without a whole question: one message and its length (RFC 1035 section 4.2.2).
MAX_QUESTION_OCTETS = 2 + 65535


class Outcome(Protocol):
    """Who wants to know what came of a question: called once, with None when no answer will come."""

    def __call__(self, ask: int, data: bytes | None, *, now: float) -> None: ...


class ClusterNames:
    """The way of the resolver's questions to the cluster's DNS server."""

    def __init__(self, switchboard: Switchboard, outcome: Outcome) -> None:
        self._switchboard = switchboard
        self._outcome = outcome
        self._servers: tuple[str, ...] = ()
        self._shared: _SharedStream | None = None

    def use(self, servers: tuple[str, ...]) -> None:
        """The addresses of the cluster's DNS servers, as the pod's resolv.conf names them."""
        self._servers = servers

    def ask(self, ask: Ask, *, now: float) -> None:
        """Send one question."""
        if not self._servers:
            self._outcome(ask.ask, None, now=now)
            return
        try:
            if ask.transport is Transport.TCP:
                question = _SingleStream(ask.ask, self._outcome)
                question.stream = self._open(Network.TCP, question, now=now)
                question.stream.send(frame_datagram(ask.data), now=now)
                return
            if self._shared is None or not self._shared.usable:
                self._shared = _SharedStream(self._outcome)
                self._shared.stream = self._open(Network.UDP, self._shared, now=now)
            self._shared.ask(ask, now=now)
        except (LimitExceeded, StreamClosed):
            self._outcome(ask.ask, None, now=now)

    def _open(self, network: Network, owner: _SharedStream | _SingleStream, *, now: float) -> Stream:
        return self._switchboard.open(Request(network, self._servers[0], DNS_PORT), owner, now=now)


class _SharedStream:
    """One UDP stream for many questions."""

    def __init__(self, outcome: Outcome) -> None:
        self.stream: Stream | None = None
        self.usable = True
        self._outcome = outcome
        self._parser = DatagramParser()
        self._asks: dict[int, int] = {}  # message id -> ask

    def ask(self, ask: Ask, *, now: float) -> None:
        self._asks[int.from_bytes(ask.data[:2], "big")] = ask.ask
        if self.stream is not None:
            self.stream.send(frame_datagram(ask.data), now=now)

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        pass  # questions are on their way already

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        self._fail(now=now)

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        for message in self._parser.receive(data):
            ask = self._asks.pop(int.from_bytes(message[:2], "big"), None)
            if ask is not None:
                self._outcome(ask, message, now=now)
        if self.stream is not None:
            self.stream.consume(len(data), now=now)

    def stream_room(self, *, now: float) -> None:
        pass  # what found no room waits in the tunnel: questions are few and small

    def stream_finished(self, *, now: float) -> None:
        if self.stream is not None:
            self.stream.reset(now=now)
        self._fail(now=now)

    def stream_reset(self, *, now: float) -> None:
        self._fail(now=now)

    def _fail(self, *, now: float) -> None:
        self.usable = False
        asks, self._asks = self._asks, {}
        for ask in asks.values():
            self._outcome(ask, None, now=now)


class _SingleStream:
    """One TCP stream for one question."""

    def __init__(self, ask: int, outcome: Outcome) -> None:
        self.stream: Stream | None = None
        self._ask: int | None = ask
        self._outcome = outcome
        self._splitter = DatagramParser()

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        pass  # the question is on its way already

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        self._end(None, now=now)

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        for message in self._splitter.receive(data)[:1]:
            self._end(message, now=now)

    def stream_room(self, *, now: float) -> None:
        pass

    def stream_finished(self, *, now: float) -> None:
        self._end(None, now=now)

    def stream_reset(self, *, now: float) -> None:
        self._end(None, now=now)

    def _end(self, message: bytes | None, *, now: float) -> None:
        if self._ask is None:
            return
        ask, self._ask = self._ask, None
        if self.stream is not None:
            self.stream.reset(now=now)
        self._outcome(ask, message, now=now)

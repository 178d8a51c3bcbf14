"""Questions of programs to the resolver's address, and the resolver's questions to the cluster's DNS through the tunnel.

DNS over UDP to one server of the cluster shares one stream, answers are told apart by message id and question; DNS over TCP takes a
stream per question (RFC 7766 section 6.2.1 allows re-use; questions over TCP are rare enough here).

Not here: which name goes where and which server is next (kt_net.dns), sockets to this machine's own resolver (kt_net.drivers).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from kt_net.dns.messages import answers_to
from kt_net.dns.resolver import Ask, Transport
from kt_net.dns.servers import Servers, Turns
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
    """The way of the resolver's questions to the cluster's DNS servers."""

    def __init__(self, switchboard: Switchboard, outcome: Outcome) -> None:
        self._switchboard = switchboard
        self._outcome = outcome
        self._servers = Servers(())
        self._shared: dict[str, _SharedStream] = {}
        self._questions: dict[int, _Question] = {}  # in the order of their turns

    def use(self, servers: tuple[str, ...]) -> None:
        """The addresses of the cluster's DNS servers, as the pod's resolv.conf names them."""
        self._servers = Servers(servers)

    @property
    def under_way(self) -> int:
        """Questions that have no answer yet."""
        return len(self._questions)

    def ask(self, ask: Ask, *, now: float) -> None:
        """Send one question: to one server, and to the others in turn while there is no answer."""
        question = _Question(ask, self._servers.turns(again=ask.transport is Transport.UDP, now=now))
        self._questions[ask.ask] = question
        self._next(question, now=now)

    def next_timer(self) -> float | None:
        """When the oldest question's next server is to be asked."""
        return next(iter(self._questions.values())).turns.due if self._questions else None

    def handle_timer(self, *, now: float) -> None:
        """Ask the next server what has not been answered."""
        for question in list(self._questions.values()):
            if question.turns.due > now:
                break
            self._next(question, now=now)

    def _next(self, question: _Question, *, now: float) -> None:
        number = question.ask.ask
        while number in self._questions:
            servers = question.turns.take(now=now)
            if servers is None:
                self._end(question, question.turns.second_best, now=now)
                return
            self._questions[number] = self._questions.pop(number)  # the last whose turn comes
            if not servers:
                return
            try:
                self._send(question, servers[0], now=now)
                return
            except (LimitExceeded, StreamClosed):
                question.turns.lost(servers[0])

    def _send(self, question: _Question, server: str, *, now: float) -> None:
        if question.ask.transport is Transport.TCP:
            single = _SingleStream(self, question, server)
            single.stream = self._open(Network.TCP, server, single, now=now)
            question.streams.append(single.stream)
            single.stream.send(frame_datagram(question.ask.data), now=now)
            return
        shared = self._shared.get(server)
        if shared is None or not shared.usable:
            shared = _SharedStream(self, server)
            shared.stream = self._open(Network.UDP, server, shared, now=now)
            self._shared[server] = shared
        question.shared.add(shared)
        shared.ask(question, now=now)

    def _open(self, network: Network, server: str, owner: _SharedStream | _SingleStream, *, now: float) -> Stream:
        return self._switchboard.open(Request(network, server, DNS_PORT), owner, now=now)

    # -- from the streams

    def answered(self, question: _Question, server: str, message: bytes, *, now: float) -> None:
        """A server's word."""
        if not question.turns.receive(server, message):
            self._next(question, now=now)
            return
        self._servers.answered(server, now=now)
        self._end(question, message, now=now)

    def lost(self, question: _Question, server: str, *, now: float) -> None:
        """A server cannot be reached, or not any more."""
        question.turns.lost(server)
        if not question.turns.waiting:
            self._next(question, now=now)

    def _end(self, question: _Question, message: bytes | None, *, now: float) -> None:
        if self._questions.pop(question.ask.ask, None) is None:
            return
        for shared in question.shared:
            shared.forget(question)
        for stream in question.streams:
            stream.reset(now=now)
        self._outcome(question.ask.ask, message, now=now)


@dataclass(slots=True, eq=False)
class _Question:
    """One question, and where it is asked."""

    ask: Ask
    turns: Turns
    shared: set[_SharedStream] = field(default_factory=set)
    streams: list[Stream] = field(default_factory=list)

    @property
    def message_id(self) -> int:
        return int.from_bytes(self.ask.data[:2], "big")


class _SharedStream:
    """One UDP stream to one server for many questions."""

    def __init__(self, names: ClusterNames, server: str) -> None:
        self.stream: Stream | None = None
        self.usable = True
        self._names = names
        self._server = server
        self._parser = DatagramParser()
        self._asks: dict[int, _Question] = {}  # by message id: the resolver gives no two the same

    def ask(self, question: _Question, *, now: float) -> None:
        self._asks[question.message_id] = question
        if self.stream is not None:
            self.stream.send(frame_datagram(question.ask.data), now=now)

    def forget(self, question: _Question) -> None:
        if self._asks.get(question.message_id) is question:
            del self._asks[question.message_id]

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        pass  # questions are on their way already

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        self._fail(now=now)

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        for message in self._parser.receive(data):
            question = self._asks.get(int.from_bytes(message[:2], "big"))
            # The id may have been another question's, which another server has answered before.
            if question is not None and answers_to(message, question.ask.data):
                self.forget(question)
                self._names.answered(question, self._server, message, now=now)
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
        for question in asks.values():
            self._names.lost(question, self._server, now=now)


class _SingleStream:
    """One TCP stream to one server for one question."""

    def __init__(self, names: ClusterNames, question: _Question, server: str) -> None:
        self.stream: Stream | None = None
        self._names = names
        self._question = question
        self._server = server
        self._splitter = DatagramParser()
        self._ended = False

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
        if self._ended:
            return
        self._ended = True
        if self.stream is not None:
            self.stream.reset(now=now)
        if message is None or not answers_to(message, self._question.ask.data):
            self._names.lost(self._question, self._server, now=now)
        else:
            self._names.answered(self._question, self._server, message, now=now)

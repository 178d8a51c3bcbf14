"""Several DNS servers of the cluster: the next one is asked when one cannot be reached, fails or is silent."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from dnslib import RCODE, RR, A, DNSRecord

from kt_net.dns.messages import question
from kt_net.dns.resolver import ASK_SECONDS, Ask, Transport
from kt_net.dns.routing import Upstream
from kt_net.dns.servers import MAX_TURNS, SERVER_SECONDS
from kt_net.relay.names import ClusterNames
from kt_net.relay.streams import Switchboard
from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.events import StreamData, StreamOpened
from kt_net.tunnel.requests import Reply, ReplyCode, parse_request
from tests.quiet.tunnel.pair import Pair

SERVERS = ("10.96.0.10", "10.96.0.11", "10.96.0.12")
#: What a server makes of a question; None for silence.
Behaviour = Callable[[bytes], bytes | None]


def answers(query: bytes) -> bytes:
    reply = DNSRecord.parse(query).reply()
    reply.add_answer(RR(reply.q.qname, rdata=A("192.0.2.1"), ttl=30))
    return bytes(reply.pack())


def says(code: int) -> Behaviour:
    def behave(query: bytes) -> bytes:
        reply = DNSRecord.parse(query).reply()
        reply.header.rcode = code
        return bytes(reply.pack())

    return behave


def silent(query: bytes) -> None:
    return None


def another(query: bytes) -> bytes:
    """A late answer to what had this id before."""
    return answers(question("other.default", "A", int.from_bytes(query[:2], "big")))


class World:
    """The cluster's servers behind the tunnel: what they were asked, and how each behaves. "refuses" is a word for the agent."""

    def __init__(self, *behaviours: Behaviour | str) -> None:
        self.pair = Pair()
        switchboard = Switchboard()
        switchboard.add(0, self.pair.client)
        self._switchboard = switchboard
        self.outcomes: dict[int, bytes | None] = {}
        self.names = ClusterNames(switchboard, self._outcome)
        self.names.use(SERVERS[: len(behaviours)])
        self.behaviours = dict(zip(SERVERS, behaviours, strict=False))
        #: (seconds, server) in order.
        self.asked: list[tuple[float, str]] = []
        self._started = self.pair.now
        self._streams: dict[int, tuple[str, DatagramParser]] = {}
        self._numbers = iter(range(1, 100_000))

    def _outcome(self, ask: int, data: bytes | None, *, now: float) -> None:
        assert ask not in self.outcomes, "told twice"
        self.outcomes[ask] = data

    def ask(self, name: str = "web.default", *, transport: Transport = Transport.UDP, message_id: int = 0) -> int:
        number = next(self._numbers)
        data = question(name, "A", message_id or number)
        self.names.ask(Ask(number, Upstream.CLUSTER, data, transport), now=self.pair.now)
        self.turn()
        return number

    def turn(self) -> None:
        for _ in range(8):
            self.pair.carry()
            for event in self.pair.events(self.pair.agent):
                self._agent(event)
            self.pair.carry()
            self._switchboard.pump(now=self.pair.now)

    def _agent(self, event: object) -> None:
        agent, now = self.pair.agent, self.pair.now
        if isinstance(event, StreamOpened):
            self._streams[event.stream] = ("", DatagramParser())
        if not isinstance(event, StreamData):
            return
        server, parser = self._streams[event.stream]
        data = bytes(event.data)
        if not server:
            parsed = parse_request(data)
            assert parsed is not None
            server, data = parsed[0].host, data[parsed[1] :]
            self._streams[event.stream] = server, parser
            if self.behaviours[server] == "refuses":
                self.asked.append((now - self._started, server))
                agent.send(event.stream, Reply(ReplyCode.CONNECTION_REFUSED).emit(), now=now)
                return
            agent.send(event.stream, Reply(ReplyCode.SUCCEEDED).emit(), now=now)
        for query in parser.receive(data):
            self.asked.append((now - self._started, server))
            behave = self.behaviours[server]
            said = behave(query) if callable(behave) else None
            if said is not None:
                agent.send(event.stream, frame_datagram(said), now=now)

    def later(self, seconds: float) -> None:
        end = self.pair.now + seconds
        while (due := self.names.next_timer()) is not None and due <= end:
            self.pair.now = max(due, self.pair.now)
            self.names.handle_timer(now=self.pair.now)
            self.turn()
        self.pair.now = end


A_, B, C = SERVERS
BOTH = pytest.mark.parametrize("transport", list(Transport))


@BOTH
@pytest.mark.parametrize("first", ["refuses", says(int(RCODE.SERVFAIL)), says(int(RCODE.REFUSED))])
def test_the_next_one_at_once(first: Behaviour | str, transport: Transport) -> None:
    world = World(first, answers)
    ask = world.ask(transport=transport)
    assert world.asked == [(0.0, A_), (0.0, B)]
    assert world.outcomes[ask] is not None
    world.ask(transport=transport)
    assert world.asked[2:] == [(0.0, B)], "who answered last is asked first"
    assert world.names.under_way == 0


@BOTH
def test_the_next_one_after_a_while(transport: Transport) -> None:
    world = World(silent, silent, answers)
    ask = world.ask(transport=transport)
    world.later(2 * SERVER_SECONDS)
    assert world.asked == [(0.0, A_), (SERVER_SECONDS, B), (2 * SERVER_SECONDS, C)]
    assert world.outcomes[ask] is not None
    assert world.pair.client.stats().streams == (3 if transport is Transport.UDP else 0)
    assert 2 * SERVER_SECONDS < ASK_SECONDS


def test_a_name_that_is_not_there_is_an_answer() -> None:
    world = World(says(int(RCODE.NXDOMAIN)), answers)
    world.ask()
    assert world.asked == [(0.0, A_)]


@BOTH
def test_when_all_fail_their_word_is_passed_on(transport: Transport) -> None:
    world = World(says(int(RCODE.REFUSED)), "refuses", says(int(RCODE.SERVFAIL)))
    ask = world.ask(transport=transport)
    data = world.outcomes[ask]
    assert data is not None
    assert DNSRecord.parse(data).header.rcode == RCODE.REFUSED
    world = World("refuses", "refuses")
    assert world.outcomes[world.ask(transport=transport)] is None


@BOTH
def test_silence_is_bounded(transport: Transport) -> None:
    world = World(silent, silent)
    ask = world.ask(transport=transport)
    world.later(60)
    assert world.outcomes == {ask: None}
    assert len(world.asked) == (MAX_TURNS if transport is Transport.UDP else 2)
    assert world.names.under_way == 0
    assert world.names.next_timer() is None


def test_one_server_that_loses_a_question() -> None:
    world = World(silent)
    ask = world.ask()
    world.behaviours[A_] = answers
    world.later(SERVER_SECONDS)
    assert world.outcomes[ask] is not None
    assert world.asked == [(0.0, A_), (SERVER_SECONDS, A_)]


def test_a_late_answer_to_another_question_is_none() -> None:
    """Its id is in use again meanwhile."""
    world = World(another, answers)
    ask = world.ask()
    world.later(SERVER_SECONDS)
    data = world.outcomes[ask]
    assert data is not None
    assert str(DNSRecord.parse(data).q.qname) == "web.default."


def test_a_server_that_goes_while_it_is_asked() -> None:
    world = World(silent, answers)
    asks = [world.ask() for _ in range(3)]
    (stream,) = world._streams
    world.pair.agent.reset(stream, now=world.pair.now)
    world.turn()
    assert all(world.outcomes[ask] is not None for ask in asks)


@pytest.mark.parametrize("seed", range(20))
def test_many_questions_and_servers_of_every_kind(seed: int) -> None:
    """Each question has one outcome, and where one server answers, an answer."""
    chance = random.Random(seed)
    kinds: list[Behaviour | str] = [silent, another, "refuses", says(2), lambda query: b"\0", lambda query: query]
    behaviours = [chance.choice(kinds), chance.choice(kinds), answers]
    chance.shuffle(behaviours)
    world, asks = World(*behaviours), list[int]()
    for _ in range(50):
        asks.append(world.ask(f"name-{len(asks)}", transport=chance.choice(list(Transport))))
        world.later(chance.random())
    world.later(MAX_TURNS * SERVER_SECONDS)
    assert all(world.outcomes[ask] is not None for ask in asks)
    assert world.names.under_way == 0

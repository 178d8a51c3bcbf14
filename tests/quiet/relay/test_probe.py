"""Attempts to reach something from the agent: one outcome each, and no stream that stays."""

from __future__ import annotations

import pytest

from kt_net.relay.probe import Probe
from kt_net.relay.streams import Switchboard
from kt_net.tunnel.datagrams import frame_datagram
from kt_net.tunnel.events import StreamData, StreamOpened, StreamReset
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request, parse_request
from tests.quiet.tunnel.pair import Pair

TCP = Request(Network.TCP, "10.96.0.1", 443)
UDP = Request(Network.UDP, "10.96.0.10", 53)


class World:
    """One probe, and the agent's end."""

    def __init__(self, request: Request, question: bytes = b"") -> None:
        self.pair = Pair()
        self.switchboard = Switchboard()
        self.switchboard.add(0, self.pair.client)
        self.outcomes: list[tuple[ReplyCode, bytes, float]] = []
        self.probe = Probe(request, lambda *outcome: self.outcomes.append(outcome), question=question)
        self.probe.start(self.switchboard, now=self.pair.now)
        self.pair.carry()
        events = self.pair.events(self.pair.agent)
        assert isinstance(events[0], StreamOpened)
        self.stream = events[0].stream
        self.asked = b"".join(bytes(event.data) for event in events if isinstance(event, StreamData))

    def agent(self, *data: bytes) -> list[object]:
        """The agent says it; what it hears."""
        self.pair.now += 0.25
        for piece in data:
            self.pair.agent.send(self.stream, piece, now=self.pair.now)
        return self.turn()

    def turn(self) -> list[object]:
        self.pair.carry()
        self.switchboard.pump(now=self.pair.now)
        self.pair.carry()
        return list(self.pair.events(self.pair.agent))


@pytest.mark.parametrize(
    "code", [ReplyCode.SUCCEEDED, ReplyCode.CONNECTION_REFUSED, ReplyCode.HOST_UNREACHABLE, ReplyCode.NOT_ALLOWED]
)
def test_a_dial(code: ReplyCode) -> None:
    world = World(TCP)
    assert parse_request(world.asked) == (TCP, len(world.asked))
    assert StreamReset(world.stream) in world.agent(Reply(code).emit())
    assert world.outcomes == [(code, b"", 100.25)]
    world.probe.repeat(now=101.0)
    world.probe.give_up(now=101.0)
    assert world.pair.client.streams == 0
    assert len(world.outcomes) == 1


def test_a_question_is_answered_by_the_first_datagram() -> None:
    world = World(UDP, b"who?")
    assert world.asked == UDP.emit() + frame_datagram(b"who?")
    assert world.agent(Reply(ReplyCode.SUCCEEDED).emit()) == []
    assert world.outcomes == []
    world.probe.repeat(now=world.pair.now)
    (again,) = world.turn()
    assert isinstance(again, StreamData)
    assert bytes(again.data) == frame_datagram(b"who?")
    framed = frame_datagram(b"me") + frame_datagram(b"me again")
    world.agent(framed[:3])
    assert world.outcomes == []
    assert StreamReset(world.stream) in world.agent(framed[3:])
    assert world.outcomes == [(ReplyCode.SUCCEEDED, b"me", 100.75)]
    assert world.pair.client.streams == 0


def test_a_question_to_a_port_where_nothing_listens() -> None:
    world = World(UDP, b"who?")
    world.agent(Reply(ReplyCode.SUCCEEDED).emit())
    world.pair.agent.reset(world.stream, now=world.pair.now)
    world.turn()
    assert [outcome[0] for outcome in world.outcomes] == [ReplyCode.CONNECTION_REFUSED]


def test_a_stream_that_ends_without_a_word() -> None:
    world = World(UDP, b"who?")
    world.agent(Reply(ReplyCode.SUCCEEDED).emit())
    world.pair.agent.finish(world.stream, now=world.pair.now)
    world.turn()
    assert [outcome[0] for outcome in world.outcomes] == [ReplyCode.GENERAL_FAILURE]


def test_given_up() -> None:
    world = World(UDP, b"who?")
    world.agent(Reply(ReplyCode.SUCCEEDED).emit())
    world.probe.give_up(now=world.pair.now)
    assert StreamReset(world.stream) in world.turn()
    assert world.outcomes == []
    assert world.pair.client.streams == 0


def test_a_tunnel_that_has_ended() -> None:
    pair, switchboard = Pair(), Switchboard()
    switchboard.add(0, pair.client)
    pair.agent.go_away(now=pair.now)
    pair.carry()
    outcomes: list[ReplyCode] = []
    probe = Probe(UDP, lambda code, answer, now: outcomes.append(code), question=b"who?")
    probe.start(switchboard, now=pair.now)
    probe.repeat(now=pair.now)
    assert outcomes == [ReplyCode.GENERAL_FAILURE]

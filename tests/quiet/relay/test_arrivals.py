"""Streams that the agent opens: who takes them, in any pieces, over a carrier that is cut, and octets that are no arrival."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from kt_net.errors import TunnelProtocolError
from kt_net.relay.streams import Stream, Switchboard
from kt_net.tunnel.events import StreamData, StreamFinished, StreamReset
from kt_net.tunnel.requests import Arrival, Network, Reply, ReplyCode, parse_reply
from tests.quiet.relay.test_lanes import Owner
from tests.quiet.tunnel.pair import Pair

ARRIVAL = Arrival(Network.TCP, ip_address("10.245.0.9"), 8080, ip_address("10.245.0.3"), 40000)
ARRIVAL6 = Arrival(Network.UDP, ip_address("::"), 53, ip_address("fd00::3"), 40000)


@dataclass
class Taker:
    """Takes everybody, and keeps what it gets."""

    streams: list[Stream] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)

    def stream_arrived(self, arrival: Arrival, stream: Stream, *, now: float) -> Owner:
        self.streams.append(stream)
        self.arrivals.append(arrival)
        self.owners.append(Owner())
        stream.send(Reply(ReplyCode.SUCCEEDED).emit(), now=now)
        return self.owners[-1]


class Session:
    """A switchboard with one lane, and what the agent does on it."""

    def __init__(self) -> None:
        self.pair = Pair()
        self.switchboard = Switchboard()
        self.switchboard.acceptor = self.taker = Taker()
        self.switchboard.add(0, self.pair.client)

    def turn(self) -> None:
        self.pair.carry()
        self.switchboard.pump(now=self.pair.now)
        self.pair.carry()

    def open(self, data: bytes) -> int:
        stream = self.pair.agent.open_stream(now=self.pair.now)
        self.pair.agent.send(stream, data, now=self.pair.now)
        return stream


@pytest.mark.parametrize("arrival", [ARRIVAL, ARRIVAL6], ids=["TCP over IPv4", "UDP over IPv6"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_taken_in_any_pieces_with_what_is_behind(arrival: Arrival, size: int) -> None:
    session = Session()
    octets = arrival.emit() + b"payload"
    stream = session.open(b"")
    for at in range(0, len(octets), size):
        session.pair.agent.send(stream, octets[at : at + size], now=100.0)
        session.turn()
    session.pair.agent.finish(stream, now=100.0)
    session.turn()
    assert session.taker.arrivals == [arrival]
    assert session.taker.owners[0].data == b"payload"
    assert session.taker.owners[0].told == ["finished"]
    said = b"".join(
        bytes(event.data) for event in session.pair.events(session.pair.agent) if isinstance(event, StreamData)
    )
    assert parse_reply(said) == (Reply(ReplyCode.SUCCEEDED), len(said))


def test_both_ways_and_each_end_may_finish_or_reset() -> None:
    session = Session()
    numbers = [session.open(ARRIVAL.emit()) for _ in range(3)]
    session.turn()
    first, second, third = session.taker.streams
    first.send(b"down", now=100.0)
    first.finish(now=100.0)
    second.reset(now=100.0)
    session.pair.agent.reset(numbers[2], now=100.0)
    session.turn()
    events = session.pair.events(session.pair.agent)
    assert StreamFinished(numbers[0]) in events
    assert StreamReset(numbers[1]) in events
    assert session.taker.owners[2].told == ["reset"]
    assert (first.open, second.open, third.open) == (True, False, False)


def test_a_cut_carrier_loses_nobody_who_was_on_the_way() -> None:
    session = Session()
    for turn in range(10):
        session.open(ARRIVAL.emit() + b"%d" % turn)
        session.pair.cut(arrives=turn / 10)
        session.turn()
    assert [owner.data for owner in session.taker.owners] == [b"%d" % turn for turn in range(10)]


def test_who_ends_before_saying_who_comes_is_reset() -> None:
    session = Session()
    stream = session.open(ARRIVAL.emit()[:9])
    session.pair.agent.finish(stream, now=100.0)
    session.turn()
    assert session.taker.arrivals == []
    assert session.pair.client.streams == 0


def test_octets_that_are_no_arrival_end_the_session_and_nothing_else() -> None:
    """20,000 of them: only the tunnel's own error comes out, and what was taken can be said."""
    chance, refused = random.Random(7), 0
    for _ in range(20_000 // 10):
        session = Session()
        for _ in range(10):
            octets = bytearray(chance.choice((ARRIVAL, ARRIVAL6)).emit())
            for _ in range(chance.choice((0, 1, 1, 3))):
                octets[chance.randrange(len(octets))] = chance.choice((0, 1, 2, 3, 4, 5, 0x80, 0x81, 0xFF))
            del octets[chance.choice((len(octets), chance.randrange(len(octets)))) :]
            session.open(bytes(octets) + chance.randbytes(chance.choice((0, 0, 5))))
            try:
                session.turn()
            except TunnelProtocolError:
                refused += 1
                break
        for arrival in session.taker.arrivals:
            arrival.emit()
    assert 500 < refused < 2000

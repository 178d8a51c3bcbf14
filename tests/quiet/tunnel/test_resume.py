"""A lane that goes on over other carriers: nothing is lost, nothing comes twice, and what cannot be is refused."""

from __future__ import annotations

import random

import pytest

from kt_net.errors import TunnelProtocolError
from kt_net.tunnel.events import Forgotten, GoneOn, HelloReceived, StreamData, StreamFinished, StreamReset
from kt_net.tunnel.hello import Hello, parse_hello
from kt_net.tunnel.lane import RESUME, forgotten
from kt_net.tunnel.limits import Limits
from kt_net.tunnel.mux import Role
from kt_net.tunnel.session import Tunnel
from tests.quiet.tunnel.pair import Pair

AGENT = Hello(session=bytes(16), report={"agent": "test"})


def taken(tunnel: Tunnel, now: float) -> dict[int, bytes]:
    """Payload in the events that wait, by stream; given back as credit."""
    got: dict[int, bytes] = {}
    while (event := tunnel.next_event()) is not None:
        if isinstance(event, StreamData):
            got[event.stream] = got.get(event.stream, b"") + bytes(event.data)
            tunnel.consume(event.stream, len(event.data), now=now)
    return got


@pytest.mark.parametrize("seed", range(20))
def test_octets_arrive_once_however_often_the_carrier_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(seed=seed)
    streams = [pair.client.open_stream(now=pair.now) for _ in range(5)]
    for stream in streams:
        pair.client.send(stream, b"!", now=pair.now)
    pair.carry()
    sent: dict[tuple[bool, int], bytes] = {
        (up, stream): b"!" if up else b"" for up in (True, False) for stream in streams
    }
    got: dict[tuple[bool, int], bytes] = dict.fromkeys(sent, b"")

    def move() -> None:
        for up, tunnel in ((True, pair.agent), (False, pair.client)):
            for stream, data in taken(tunnel, pair.now).items():
                got[up, stream] += data

    for _ in range(200):
        up, stream = chance.random() < 0.5, chance.choice(streams)
        data = chance.randbytes(chance.choice((1, 100, 30_000)))
        (pair.client if up else pair.agent).send(stream, data, now=pair.now)
        sent[up, stream] += data
        luck = chance.random()
        if luck < 0.2:
            pair.cut(arrives=chance.random())
        elif luck < 0.7:
            pair.carry(largest=chance.choice((7, 5000, 1 << 20)))
        move()
    for _ in range(50):
        pair.carry()
        move()
    assert got == sent


def test_what_the_other_end_has_is_not_sent_again() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, bytes(200_000), now=pair.now)
    pair.cut(arrives=1.0)
    assert sum(len(buffer) for buffer in pair.client.data_to_send(now=pair.now)) < 50
    pair.carry()
    assert len(taken(pair.agent, pair.now)[stream]) == 200_000


def test_ends_cross_a_cut() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, b"last", now=pair.now)
    pair.client.finish(stream, now=pair.now)
    pair.cut()
    pair.carry()
    assert [type(event) for event in pair.events(pair.agent)][-2:] == [StreamData, StreamFinished]


def test_a_lane_without_a_carrier_keeps_still() -> None:
    pair = Pair()
    pair.client.carrier_lost()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, b"waits", now=pair.now)
    assert pair.client.data_to_send(now=pair.now) == []
    assert pair.client.next_timer() is None


def test_the_hello_says_where_the_lane_is_and_is_told_once() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, b"request", now=pair.now)
    pair.carry()
    pair.agent.send(stream, b"answer", now=pair.now)
    pair.carry()
    pair.events(pair.client)
    received = pair.client.stats().octets_received
    pair.client.carrier_lost()
    pair.client.go_on()
    parsed = parse_hello(b"".join(pair.client.data_to_send(now=pair.now)), limits=Limits())
    assert parsed is not None
    assert (parsed[0].session, parsed[0].received, parsed[0].report[RESUME]) == (b"s" * 16, received, True)
    pair.client.receive_data(AGENT.emit(), now=pair.now)
    assert not any(isinstance(event, HelloReceived) for event in pair.events(pair.client))
    assert pair.client.data_to_send(now=pair.now) == []  # not before it is known where to go on


def test_a_lane_that_never_began_begins() -> None:
    pair = Pair(greet=False)
    pair.client.data_to_send(now=pair.now)
    pair.client.carrier_lost()
    pair.client.go_on()
    parsed = parse_hello(b"".join(pair.client.data_to_send(now=pair.now)), limits=Limits())
    assert parsed is not None
    assert RESUME not in parsed[0].report


def test_a_forgotten_session_is_said_to_be() -> None:
    pair = Pair()
    pair.client.carrier_lost()
    pair.client.go_on()
    pair.client.data_to_send(now=pair.now)
    pair.client.receive_data(AGENT.emit() + forgotten(), now=pair.now)
    assert pair.events(pair.client) == [Forgotten()]


@pytest.mark.parametrize("received", [1, 10_000_000])
def test_an_agent_refuses_an_offset_that_cannot_be(received: int) -> None:
    pair = Pair()
    pair.agent.carrier_lost()
    with pytest.raises(TunnelProtocolError):
        pair.agent.going_on(Hello(session=b"s" * 16, received=received), now=pair.now)


def test_resumed_out_of_the_blue_is_refused() -> None:
    pair = Pair()
    with pytest.raises(TunnelProtocolError):
        pair.client.receive_data(b"\x04\0\0\0\0\0\0\x08" + bytes(8), now=pair.now)


def test_data_before_the_answer_is_refused() -> None:
    pair = Pair()
    pair.client.carrier_lost()
    pair.client.go_on()
    with pytest.raises(TunnelProtocolError):
        pair.client.receive_data(AGENT.emit() + b"\x01\0\0\0\0\0\0\x08" + bytes(8), now=pair.now)


def test_beginning_anew_ends_every_stream_and_uses_no_number_again() -> None:
    pair = Pair()
    old = [pair.client.open_stream(now=pair.now) for _ in range(3)]
    for stream in old:
        pair.client.send(stream, b"request", now=pair.now)
    pair.carry()
    pair.client.carrier_lost()
    pair.client.begin_anew(Hello(session=b"t" * 16))
    early = pair.client.open_stream(now=pair.now)  # before anybody has heard of the resets
    pair.client.send(early, b"early", now=pair.now)
    assert early not in old
    assert pair.events(pair.client) == [StreamReset(stream) for stream in old]
    pair.client.go_on()
    pair.agent = Tunnel(role=Role.AGENT, hello=AGENT)
    pair.carry()
    assert [type(event) for event in pair.events(pair.client)] == [HelloReceived, GoneOn]
    assert taken(pair.agent, pair.now) == {early: b"early"}

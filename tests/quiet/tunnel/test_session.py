"""Tunnels in pairs: streams, credit, fairness, ends, silence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_net.errors import LimitExceeded, StreamClosed, TunnelProtocolError
from kt_net.tunnel.events import (
    GoneAway,
    HelloReceived,
    PeerSilent,
    RoomGranted,
    StreamData,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from kt_net.tunnel.frames import HEADER
from kt_net.tunnel.limits import INITIAL_WINDOW, Limits
from kt_net.tunnel.mux import Mux, Role
from kt_net.tunnel.session import Tunnel
from tests.quiet.tunnel.pair import Pair


def payload(events: Sequence[object], stream: int) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, StreamData) and event.stream == stream)


def test_hellos_are_exchanged() -> None:
    pair = Pair(greet=False)
    pair.carry()
    (event,) = pair.events(pair.client)
    assert isinstance(event, HelloReceived)
    assert event.hello.report == {"agent": "test"}
    (event,) = pair.events(pair.agent)
    assert isinstance(event, HelloReceived)
    assert event.hello.session == b"s" * 16


def test_a_stream_opened_before_the_hello_waits_for_it() -> None:
    pair = Pair(greet=False)
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, b"early", now=pair.now)
    pair.carry()
    events = pair.events(pair.agent)
    assert isinstance(events[0], HelloReceived)
    assert payload(events, stream) == b"early"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(st.integers(0, 70_000), min_size=1, max_size=6))
def test_octets_arrive_whole_and_in_order(seed: int, sizes: list[int]) -> None:
    pair = Pair(seed=seed)
    stream = pair.client.open_stream(now=pair.now)
    sent = b""
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        pair.client.send(stream, data, now=pair.now)
        sent += data
    pair.client.finish(stream, now=pair.now)
    got, finished = b"", False
    while not finished:
        pair.carry(largest=5000)
        for event in pair.events(pair.agent):
            if isinstance(event, StreamData):
                got += bytes(event.data)
                pair.agent.consume(stream, len(event.data), now=pair.now)
            finished = finished or isinstance(event, StreamFinished)
    assert got == sent


def test_a_sender_stops_at_the_window_and_goes_on_when_there_is_room() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, bytes(INITIAL_WINDOW + 1000), now=pair.now)
    assert pair.client.send_room(stream) == 0
    pair.carry()
    first = payload(pair.events(pair.agent), stream)
    assert len(first) == INITIAL_WINDOW
    pair.agent.consume(stream, INITIAL_WINDOW // 2, now=pair.now)
    pair.carry()
    assert len(payload(pair.events(pair.agent), stream)) == 1000
    assert RoomGranted(stream, INITIAL_WINDOW // 2) in pair.events(pair.client)
    assert pair.client.send_room(stream) == INITIAL_WINDOW // 2 - 1000


def test_less_than_half_a_window_consumed_is_not_told_yet() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, bytes(1000), now=pair.now)
    pair.carry()
    pair.events(pair.agent)
    pair.agent.consume(stream, 1000, now=pair.now)
    pair.carry()
    assert not any(isinstance(event, RoomGranted) for event in pair.events(pair.client))


def test_a_small_message_does_not_wait_behind_a_bulk_stream() -> None:
    pair = Pair()
    bulk, small = pair.client.open_stream(now=pair.now), pair.client.open_stream(now=pair.now)
    pair.client.send(bulk, bytes(200_000), now=pair.now)
    pair.client.send(small, b"ping", now=pair.now)
    first = b"".join(pair.client.data_to_send(now=pair.now, limit=40_000))
    assert b"ping" in first


def test_half_close_both_ways() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, b"question", now=pair.now)
    pair.client.finish(stream, now=pair.now)
    pair.carry()
    assert StreamFinished(stream) in pair.events(pair.agent)
    pair.agent.send(stream, b"answer", now=pair.now)
    pair.agent.finish(stream, now=pair.now)
    pair.carry()
    events = pair.events(pair.client)
    assert payload(events, stream) == b"answer"
    assert events[-1] == StreamFinished(stream)
    assert pair.client.stats().streams == pair.agent.stats().streams == 0


def test_reset_drops_what_waits() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.carry()
    pair.client.send(stream, bytes(1000), now=pair.now)
    pair.client.reset(stream, now=pair.now)
    pair.carry()
    events = pair.events(pair.agent)
    assert StreamReset(stream) in events
    assert payload(events, stream) == b""
    assert pair.client.backlog == 0
    with pytest.raises(StreamClosed):
        pair.client.send(stream, b"late", now=pair.now)


def test_late_frames_of_a_stream_that_was_reset_are_dropped() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.carry()
    pair.events(pair.agent)
    late = b"".join(pair.agent.data_to_send(now=pair.now))
    pair.agent.send(stream, b"late", now=pair.now)
    late += b"".join(pair.agent.data_to_send(now=pair.now))
    pair.client.reset(stream, now=pair.now)
    pair.client.receive_data(late, now=pair.now)
    assert pair.events(pair.client) == []


def test_both_sides_open_streams() -> None:
    pair = Pair()
    assert [pair.client.open_stream(now=pair.now) for _ in range(3)] == [1, 3, 5]
    assert [pair.agent.open_stream(now=pair.now) for _ in range(3)] == [2, 4, 6]
    pair.carry()
    assert [event.stream for event in pair.events(pair.client) if isinstance(event, StreamOpened)] == [2, 4, 6]


def test_go_away_refuses_new_streams() -> None:
    pair = Pair()
    pair.agent.go_away(now=pair.now)
    pair.carry()
    assert pair.events(pair.client) == [GoneAway(0)]
    with pytest.raises(StreamClosed):
        pair.client.open_stream(now=pair.now)


def test_one_stream_more_than_allowed() -> None:
    pair = Pair(limits=Limits(streams=2))
    pair.client.open_stream(now=pair.now)
    pair.client.open_stream(now=pair.now)
    with pytest.raises(LimitExceeded):
        pair.client.open_stream(now=pair.now)


def test_one_stream_more_than_the_peer_allows_is_reset() -> None:
    pair = Pair(limits=Limits(opened_by_peer=1))
    first, second = pair.client.open_stream(now=pair.now), pair.client.open_stream(now=pair.now)
    pair.carry()
    assert StreamReset(second) in pair.events(pair.client)
    assert [event.stream for event in pair.events(pair.agent) if isinstance(event, StreamOpened)] == [first]


def test_replay_buffer_bounds_what_is_unacknowledged() -> None:
    pair = Pair(limits=Limits(replay=50_000, window=INITIAL_WINDOW))
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, bytes(INITIAL_WINDOW), now=pair.now)
    octets = 0
    while buffers := pair.client.data_to_send(now=pair.now):
        octets += sum(map(len, buffers))
    assert 50_000 <= octets < 50_000 + 1_000


def test_pings_measure_and_silence_is_noticed() -> None:
    pair = Pair()
    due = pair.client.next_timer()
    assert due is not None
    pair.now = max(due, pair.now)
    pair.client.handle_timer(now=pair.now)
    question = b"".join(pair.client.data_to_send(now=pair.now))
    pair.now += 0.25
    pair.agent.receive_data(question, now=pair.now)
    pair.client.receive_data(b"".join(pair.agent.data_to_send(now=pair.now)), now=pair.now)
    assert pair.client.stats().rtt_s == 0.25
    silent_since = pair.now
    events: list[object] = []
    while not events:
        timer = pair.client.next_timer()
        assert timer is not None
        pair.now = max(timer, pair.now)
        pair.client.handle_timer(now=pair.now)
        pair.client.data_to_send(now=pair.now)
        events = list(pair.events(pair.client))
    assert events == [PeerSilent()]
    assert pair.now - silent_since == Limits().dead_after


def silent_after(pair: Pair, tunnel: Tunnel) -> float:
    """Seconds until `tunnel` says that nothing comes, when nothing does."""
    since = pair.now
    while True:
        due = tunnel.next_timer()
        assert due is not None
        pair.now = due
        tunnel.handle_timer(now=pair.now)
        tunnel.data_to_send(now=pair.now)
        if PeerSilent() in pair.events(tunnel):
            return pair.now - since


@pytest.mark.parametrize("of_agent", [False, True])
def test_silence_is_noticed_sooner_while_data_is_unacknowledged(of_agent: bool) -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, b"request", now=pair.now)
    pair.carry()
    sender = pair.agent if of_agent else pair.client
    sender.send(stream, bytes(100_000), now=pair.now)
    sender.data_to_send(now=pair.now)  # and it never arrives
    assert silent_after(pair, sender) == pytest.approx(Limits().dead_after_unacknowledged)


def test_a_little_data_that_needs_no_acknowledgement_is_no_reason() -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, b"request", now=pair.now)
    pair.client.data_to_send(now=pair.now)
    assert silent_after(pair, pair.client) == pytest.approx(Limits().dead_after)


def test_probe_is_answered_or_the_carrier_is_dead() -> None:
    pair = Pair()
    pair.client.probe(now=pair.now)
    pair.carry()
    pair.now += 1
    pair.client.probe(now=pair.now)
    pair.client.data_to_send(now=pair.now)  # lost
    assert silent_after(pair, pair.client) == pytest.approx(Limits().dead_after_probe)


def test_probe_without_a_carrier_does_nothing() -> None:
    pair = Pair()
    pair.client.carrier_lost()
    pair.client.probe(now=pair.now)
    assert pair.client.next_timer() is None
    assert pair.client.data_to_send(now=pair.now) == []
    assert pair.client.next_timer() is None


FRAMES = {
    "version": HEADER.pack(1, 0, 0, 1, 0),
    "type": HEADER.pack(0, 9, 0, 1, 0),
    "flags": HEADER.pack(0, 0, 0x40, 1, 0),
    "stream 0": HEADER.pack(0, 0, 0, 0, 0),
    "never opened": HEADER.pack(0, 0, 0, 7, 0),
    "our number": HEADER.pack(0, 1, 1, 2, 0),
    "ping of a stream": HEADER.pack(0, 2, 1, 3, 0),
    "ping that is neither": HEADER.pack(0, 2, 0, 0, 0),
    "beyond the window": HEADER.pack(0, 0, 1, 1, INITIAL_WINDOW + 1),
    "data after its end": HEADER.pack(0, 0, 5, 1, 0) + HEADER.pack(0, 0, 0, 1, 1) + b"x",
    "ends twice": HEADER.pack(0, 0, 5, 1, 0) + HEADER.pack(0, 1, 4, 1, 0),
    "too much credit": HEADER.pack(0, 1, 1, 1, 0xFFFFFFFF),
    "an old number again": HEADER.pack(0, 1, 1, 3, 0) + HEADER.pack(0, 1, 1, 3, 0),
}


@pytest.mark.parametrize("name", FRAMES)
def test_illegal_frames(name: str) -> None:
    mux = Mux(role=Role.AGENT, limits=Limits())
    with pytest.raises(TunnelProtocolError):
        mux.receive_data(FRAMES[name])


def test_ping_of_the_mux_is_answered() -> None:
    mux = Mux(role=Role.AGENT, limits=Limits())
    mux.receive_data(HEADER.pack(0, 2, 1, 0, 77))
    assert mux.frames_to_send(1000) == [HEADER.pack(0, 2, 2, 0, 77)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_transcripts_raise_only_our_error(data: st.DataObject) -> None:
    pair = Pair()
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, b"hello" * 20, now=pair.now)
    pair.client.finish(stream, now=pair.now)
    octets = bytearray(b"".join(pair.client.data_to_send(now=pair.now)))
    for _ in range(data.draw(st.integers(1, 5))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        pair.agent.receive_data(bytes(octets), now=pair.now)
    except TunnelProtocolError:
        pass


@given(st.binary(max_size=100))
def test_foreign_octets_as_hello(data: bytes) -> None:
    pair = Pair(greet=False)
    try:
        pair.agent.receive_data(data, now=0.0)
    except TunnelProtocolError:
        pass


def test_a_hello_of_another_version_is_refused() -> None:
    pair = Pair(greet=False)
    hello = bytearray(b"".join(pair.client.data_to_send(now=0.0)))
    hello[4] = 2
    with pytest.raises(TunnelProtocolError, match="version 2"):
        pair.agent.receive_data(bytes(hello), now=0.0)

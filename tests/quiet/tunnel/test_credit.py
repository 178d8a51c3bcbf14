"""Credit: windows that grow for readers that keep up, what bounds them, and who waits behind whom."""

from __future__ import annotations

import random

import pytest

from kt_net.errors import TunnelProtocolError
from kt_net.tunnel.events import StreamData, StreamOpened
from kt_net.tunnel.flight import QUEUE
from kt_net.tunnel.frames import HEADER, Flag, FrameType
from kt_net.tunnel.lane import MAX_RECORD_DATA
from kt_net.tunnel.limits import FAIR_FRAME_PAYLOAD, INITIAL_WINDOW, MAX_FRAME_PAYLOAD, Limits
from kt_net.tunnel.mux import MAX_SKIPPED, Mux, Role
from tests.quiet.tunnel.pair import Pair

ROLES = list(Role)
MIB = 1024 * 1024


def other(role: Role) -> Role:
    return Role.AGENT if role is Role.CLIENT else Role.CLIENT


# -- windows that grow


class Distance:
    """A pair with a way of `delay` seconds between its ends, and one that reads what the other sends."""

    def __init__(self, *, delay: float, reader: Role = Role.AGENT, limits: Limits | None = None) -> None:
        self.pair = Pair(limits=limits)
        self.delay = delay
        self.reader = self.pair.client if reader is Role.CLIENT else self.pair.agent
        self.sender = self.pair.agent if reader is Role.CLIENT else self.pair.client
        self.unread: dict[int, int] = {}
        self.sender.ping(now=self.pair.now)
        self.reader.ping(now=self.pair.now)
        for _ in range(2):
            self.turn()

    def open(self) -> int:
        stream = self.sender.open_stream(now=self.pair.now)
        self.unread[stream] = 0
        return stream

    def turn(self) -> None:
        """What both ends have goes over, and takes its time."""
        ways = []
        for sender, receiver in ((self.sender, self.reader), (self.reader, self.sender)):
            while buffers := sender.data_to_send(now=self.pair.now):
                ways.append((receiver, b"".join(buffers)))
        self.pair.now += self.delay
        for receiver, data in ways:
            receiver.receive_data(data, now=self.pair.now)
        while (event := self.reader.next_event()) is not None:
            if isinstance(event, StreamData):
                self.unread[event.stream] += len(event.data)
        self.pair.events(self.sender)

    def read(self) -> None:
        for stream, octets in self.unread.items():
            if octets and self.reader._mux.has(stream):
                self.reader.consume(stream, octets, now=self.pair.now)
            self.unread[stream] = 0

    def offer(self, stream: int) -> None:
        """The sender always has more than the window."""
        if self.sender._mux._streams[stream].out_octets < MIB:
            self.sender.send(stream, bytes(2 * MIB), now=self.pair.now)

    def size(self, stream: int) -> int:
        return self.reader._mux._streams[stream].size


@pytest.mark.parametrize("reader", ROLES)
@pytest.mark.parametrize("delay", [0.0005, 0.01, 0.1])
def test_window_of_a_reader_that_keeps_up_grows_to_the_largest_and_not_beyond(delay: float, reader: Role) -> None:
    path = Distance(delay=delay, reader=reader)
    stream = path.open()
    sizes = []
    for _ in range(400):
        path.offer(stream)
        path.turn()
        path.read()
        sizes.append(path.size(stream))
    assert sizes == sorted(sizes)
    assert sizes[0] == INITIAL_WINDOW
    assert sizes[-1] == Limits().largest_window
    assert path.reader._mux.grown == Limits().largest_window - INITIAL_WINDOW


def test_window_of_a_slow_reader_stays() -> None:
    path = Distance(delay=0.01)
    stream = path.open()
    for _ in range(100):
        path.offer(stream)
        for _ in range(4):
            path.turn()
        path.pair.now += 2 * (0.02 + QUEUE)
        path.read()
        assert path.size(stream) == INITIAL_WINDOW
    assert path.sender.stats().octets_sent > 20 * INITIAL_WINDOW  # it did read


def test_window_of_a_reader_that_never_reads_stays() -> None:
    path = Distance(delay=0.01)
    stream = path.open()
    for _ in range(100):
        path.offer(stream)
        path.turn()
    assert path.unread[stream] == path.size(stream) == INITIAL_WINDOW
    assert path.reader._mux._streams[stream].window == 0


def test_a_reader_that_falls_behind_gets_no_more_and_loses_nothing() -> None:
    path = Distance(delay=0.01)
    stream = path.open()
    path.turn()
    while path.size(stream) < MIB:
        path.offer(stream)
        path.turn()
        path.read()
    for _ in range(30):
        path.offer(stream)
        for _ in range(4):
            path.turn()
        path.pair.now += 1.0
        path.read()
    assert path.size(stream) == MIB


@pytest.mark.parametrize("reset", [True, False])
def test_budget_bounds_all_streams_and_comes_back_with_their_ends(reset: bool) -> None:
    budget = 3 * MIB
    path = Distance(delay=0.02, limits=Limits(window_budget=budget))
    streams = [path.open() for _ in range(8)]
    for _ in range(4):
        path.turn()  # all announced before the first has much to send
    most = 0
    for _ in range(150):
        for stream in streams:
            path.offer(stream)
        path.turn()
        path.read()
        grown = sum(path.size(stream) - INITIAL_WINDOW for stream in streams)
        assert grown == path.reader._mux.grown <= budget
        most = max(most, grown)
    assert most == budget
    for stream in streams:
        (path.sender if reset else path.reader).reset(stream, now=path.pair.now)
    for _ in range(4):
        path.turn()
    assert (path.reader.streams, path.reader._mux.grown) == (0, 0)
    again = path.open()
    for _ in range(60):
        path.offer(again)
        path.turn()
        path.read()
    assert path.size(again) == INITIAL_WINDOW + budget


def test_budget_comes_back_when_both_have_finished() -> None:
    path = Distance(delay=0.02)
    stream = path.open()
    path.sender.send(stream, bytes(6 * MIB), now=path.pair.now)
    path.sender.finish(stream, now=path.pair.now)
    for _ in range(60):
        path.turn()
        path.read()
    assert path.reader._mux.grown > 0
    path.reader.finish(stream, now=path.pair.now)
    path.turn()
    assert (path.reader.streams, path.sender.streams, path.reader._mux.grown) == (0, 0, 0)


# -- nobody sends more than was given


class Judge:
    """Reads the frames of both directions, and keeps books of its own."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.given: dict[tuple[Role, int], int] = {}
        self.sent: dict[tuple[Role, int], int] = {}

    def frames(self, sender: Role, data: bytes) -> None:
        """As they arrive at the other end."""
        at = 0
        while at < len(data):
            _, kind, _, stream, length = HEADER.unpack_from(data, at)
            at += HEADER.size
            if kind == FrameType.DATA:
                at += length
                assert length <= MAX_FRAME_PAYLOAD
                key = (sender, stream)
                self.sent[key] = self.sent.get(key, 0) + length
                assert self.sent[key] <= INITIAL_WINDOW + self.given.get(key, 0)
            elif kind == FrameType.WINDOW_UPDATE:
                key = (other(sender), stream)
                self.given[key] = self.given.get(key, 0) + length
        assert at == len(data)


@pytest.mark.parametrize("seed", range(12))
def test_a_sender_never_exceeds_what_it_was_given(seed: int) -> None:
    chance = random.Random(seed)
    limits = Limits(window_budget=2 * MIB)
    ends = {role: Mux(role=role, limits=limits) for role in ROLES}
    ways: dict[Role, list[bytes]] = {role: [] for role in ROLES}  # what each has sent and the other not received
    judge, now = Judge(limits), 0.0
    unread: dict[Role, dict[int, int]] = {role: {} for role in ROLES}
    for _ in range(400):
        role = chance.choice(ROLES)
        mux, numbers = ends[role], ends[role].numbers()
        now += chance.choice((0.001, 0.02, 0.2))
        match chance.randrange(6):
            case 0 if len(numbers) < 6:
                mux.open_stream()
            case 1 | 2 if numbers:
                mux.send(chance.choice(numbers), bytes(chance.choice((1, 1000, 100_000, 400_000))))
            case 3:
                ways[role].append(b"".join(mux.frames_to_send(chance.choice((1, 10_000, 500_000)))))
            case 4 if ways[role]:
                data = ways[role].pop(0)
                judge.frames(role, data)  # credit that is still on its way is no credit
                ends[other(role)].receive_data(data)
            case 5:
                while (event := mux.next_event()) is not None:
                    if isinstance(event, StreamData):
                        unread[role][event.stream] = unread[role].get(event.stream, 0) + len(event.data)
                for stream, octets in unread[role].items():
                    octets = chance.choice((0, octets, octets // 3))
                    mux.consume(stream, octets, now=now, round_trip=0.02)
                    unread[role][stream] -= octets
        for end in ends.values():
            assert 0 <= end.grown <= limits.window_budget
            for one in end._streams.values():
                assert one.room >= 0
                assert 0 <= one.window <= one.size <= limits.largest_window
    assert sum(judge.sent.values()) > INITIAL_WINDOW
    assert {role for role, _ in judge.sent} == set(ROLES)


# -- fairness


def payload_before(frames: bytes, stream: int) -> tuple[int, int, bool]:
    """Octets, and the largest frame, of other streams' payload in front of the first payload of `stream`; whether there was one."""
    at = octets = largest = 0
    while at < len(frames):
        _, kind, _, number, length = HEADER.unpack_from(frames, at)
        at += HEADER.size
        if kind == FrameType.DATA:
            if number == stream:
                return octets, largest, True
            at += length
            octets, largest = octets + length, max(largest, length)
    return octets, largest, False


def loaded(role: Role, bulks: int) -> tuple[Mux, list[int]]:
    """A mux with so many streams that have 4 MiB each to send and the credit for it."""
    mux = Mux(role=role, limits=Limits())
    streams = [mux.open_stream() for _ in range(bulks)]
    for stream in streams:
        mux.send(stream, bytes(4 * MIB))
    mux.frames_to_send(1)
    for stream in streams:
        mux.receive_data(HEADER.pack(0, FrameType.WINDOW_UPDATE, 0, stream, 8 * MIB))
    return mux, streams


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("seed", range(10))
def test_a_small_message_waits_behind_one_frame_of_a_bulk_stream(seed: int, role: Role) -> None:
    chance = random.Random(seed)
    mux, _ = loaded(role, 1)
    small = mux.open_stream()
    mux.frames_to_send(1)
    for _ in range(20):
        mux.frames_to_send(chance.choice((1, 1000, 100_000)))
        mux.send(small, b"small")
        before, _, found = 0, 0, False
        while not found:
            octets, largest, found = payload_before(
                b"".join(mux.frames_to_send(chance.choice((1, 1000, 100_000)))), small
            )
            before += octets
            assert largest <= FAIR_FRAME_PAYLOAD
        assert before <= FAIR_FRAME_PAYLOAD <= MAX_FRAME_PAYLOAD


@pytest.mark.parametrize("bulks", [2, 10, 30])
def test_a_small_message_waits_behind_one_fair_frame_of_each_bulk_stream(bulks: int) -> None:
    mux, _ = loaded(Role.CLIENT, bulks)
    small = mux.open_stream()
    mux.send(small, b"small")
    before, largest, found = payload_before(b"".join(mux.frames_to_send(8 * MIB)), small)
    assert found
    assert largest == FAIR_FRAME_PAYLOAD
    assert before == bulks * FAIR_FRAME_PAYLOAD


def test_a_stream_that_is_alone_has_large_frames() -> None:
    mux, _ = loaded(Role.CLIENT, 1)
    _, largest, _ = payload_before(b"".join(mux.frames_to_send(MIB)), 0)
    assert largest == MAX_FRAME_PAYLOAD


def test_bulk_streams_share_evenly() -> None:
    mux, streams = loaded(Role.CLIENT, 5)
    frames = b"".join(mux.frames_to_send(5 * MIB))
    queued = [mux._streams[stream].out_octets for stream in streams]
    assert max(queued) - min(queued) <= FAIR_FRAME_PAYLOAD + MAX_FRAME_PAYLOAD
    assert len(frames) >= 5 * MIB


def test_credit_goes_before_data() -> None:
    mux, (bulk,) = loaded(Role.CLIENT, 1)
    mux.receive_data(HEADER.pack(0, FrameType.DATA, 0, bulk, INITIAL_WINDOW) + bytes(INITIAL_WINDOW))
    mux.consume(bulk, INITIAL_WINDOW, now=0.0, round_trip=0.1)
    _, kind, _, number, length = HEADER.unpack_from(b"".join(mux.frames_to_send(1)))
    assert (kind, number, length) == (FrameType.WINDOW_UPDATE, bulk, INITIAL_WINDOW)


# -- numbers


def announced(*numbers: int) -> bytes:
    return b"".join(HEADER.pack(0, FrameType.WINDOW_UPDATE, Flag.SYN, number, 0) for number in numbers)


def opened(mux: Mux) -> list[int]:
    found = []
    while (event := mux.next_event()) is not None:
        assert isinstance(event, StreamOpened)
        found.append(event.stream)
    return found


@pytest.mark.parametrize(("role", "shift"), [(Role.AGENT, 0), (Role.CLIENT, 1)])
def test_a_number_may_come_before_a_lower_one_and_none_twice(role: Role, shift: int) -> None:
    mux = Mux(role=role, limits=Limits())
    mux.receive_data(announced(1 + shift, 5 + shift, 3 + shift, 11 + shift, 7 + shift, 9 + shift))
    assert opened(mux) == [number + shift for number in (1, 5, 3, 11, 7, 9)]
    for number in (1, 3, 5, 7, 9, 11):
        with pytest.raises(TunnelProtocolError, match="may not use"):
            mux.receive_data(announced(number + shift))


def test_a_number_that_was_left_out_has_no_frames_before_it_is_announced() -> None:
    mux = Mux(role=Role.AGENT, limits=Limits())
    mux.receive_data(announced(1, 5))
    with pytest.raises(TunnelProtocolError, match="never opened"):
        mux.receive_data(HEADER.pack(0, FrameType.DATA, 0, 3, 1) + b"x")


def test_late_numbers_are_used_up_when_their_streams_have_ended() -> None:
    mux = Mux(role=Role.AGENT, limits=Limits())
    mux.receive_data(announced(1, 5, 3))
    mux.reset(3)
    with pytest.raises(TunnelProtocolError, match="may not use"):
        mux.receive_data(announced(3))


@pytest.mark.parametrize("at_once", [True, False])
def test_of_more_numbers_left_out_than_allowed_the_lowest_count_as_used(at_once: bool) -> None:
    mux = Mux(role=Role.AGENT, limits=Limits())
    last = 1 + 2 * (MAX_SKIPPED + 2)
    numbers = [1, last] if at_once else list(range(1, 4 * MAX_SKIPPED + 10, 4))
    mux.receive_data(announced(*numbers))
    assert len(mux._skipped) == MAX_SKIPPED
    with pytest.raises(TunnelProtocolError, match="may not use"):
        mux.receive_data(announced(3 if at_once else 5))


def test_numbers_that_were_used_late_count_no_more() -> None:
    mux = Mux(role=Role.AGENT, limits=Limits())
    mux.receive_data(announced(1))
    for number in range(3, 8 * MAX_SKIPPED, 4):
        mux.receive_data(announced(number + 2, number))
    assert not mux._skipped


# -- faults that are known


def test_as_many_numbers_as_allowed_may_be_left_out() -> None:
    mux = Mux(role=Role.AGENT, limits=Limits())
    mux.receive_data(announced(1, 1 + 2 * (MAX_SKIPPED + 1)))  # leaves out MAX_SKIPPED
    mux.receive_data(announced(1 + 2 * (MAX_SKIPPED + 2)))  # and this one none


def test_the_first_two_numbers_may_change_places_too() -> None:
    mux = Mux(role=Role.AGENT, limits=Limits())
    mux.receive_data(announced(3, 1))
    assert opened(mux) == [3, 1]


@pytest.mark.parametrize("without_carrier", [True, False])
def test_streams_given_up_before_they_were_announced_do_not_end_the_session(without_carrier: bool) -> None:
    """Programs that try again and again while the carrier is away, or that give up at once."""
    pair = Pair()
    first = pair.client.open_stream(now=pair.now)
    pair.carry()
    if without_carrier:
        pair.client.carrier_lost()
    for _ in range(MAX_SKIPPED + 1):
        given_up = pair.client.open_stream(now=pair.now)
        pair.client.send(given_up, b"request", now=pair.now)
        pair.client.reset(given_up, now=pair.now)
    if without_carrier:
        pair.cut()
    late = pair.client.open_stream(now=pair.now)
    pair.carry()
    assert [event for event in pair.events(pair.agent) if isinstance(event, StreamOpened)] == [
        StreamOpened(first),
        StreamOpened(late),
    ]


def test_many_control_frames_are_no_record_that_the_other_end_refuses() -> None:
    pair = Pair()
    asked = HEADER.pack(0, FrameType.PING, Flag.SYN, 0, 0) * (MAX_RECORD_DATA // HEADER.size // 2 + 1)
    for _ in range(2):  # two records that are legal, before there is an answer
        pair.agent.receive_data(len(asked).to_bytes(8, "big") + asked, now=pair.now)
    out, sizes = b"".join(pair.agent.data_to_send(now=pair.now)), []
    while out:
        length = int.from_bytes(out[4:8], "big")
        sizes.append(length if out[0] == 0 else 0)
        out = out[8 + length :]
    assert 0 < max(sizes) <= MAX_RECORD_DATA

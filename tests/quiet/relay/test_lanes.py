"""The switchboard with several lanes: which stream goes by which, and what one lane's trouble does to the others."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kt_net.relay.streams import CONTROL_LANE, Stream, Switchboard
from kt_net.tunnel.events import GoneOn, HelloReceived, StreamData, StreamOpened, StreamReset
from kt_net.tunnel.hello import Hello
from kt_net.tunnel.limits import CROWDED
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request, parse_request
from tests.quiet.tunnel.pair import Pair

WEB = Request(Network.TCP, "10.96.0.10", 80)


@dataclass
class Owner:
    """Remembers what it was told."""

    told: list[str] = field(default_factory=list)
    data: bytes = b""

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        self.told.append("opened")

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        self.told.append(f"refused {code.name}")

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        self.data += bytes(data)

    def stream_room(self, *, now: float) -> None:
        pass

    def stream_finished(self, *, now: float) -> None:
        self.told.append("finished")

    def stream_reset(self, *, now: float) -> None:
        self.told.append("reset")


class Lanes:
    """A switchboard, a pair for each lane, and an agent that answers every request and keeps what comes after it."""

    def __init__(self, count: int, *, ready: bool = True) -> None:
        self.switchboard = Switchboard()
        self.pairs: dict[int, Pair] = {}
        self.owners: dict[tuple[int, int], Owner] = {}
        #: What the agent has got, by lane and stream, requests included.
        self.got: dict[tuple[int, int], bytes] = {}
        for lane in range(count):
            self.add(lane, ready=ready or lane == CONTROL_LANE)

    def add(self, lane: int, *, ready: bool = True) -> None:
        self.pairs[lane] = Pair(seed=lane, greet=ready)
        self.switchboard.add(lane, self.pairs[lane].client)

    def open(self, request: Request = WEB) -> Stream:
        owner = Owner()
        stream = self.switchboard.open(request, owner, now=100.0)
        self.owners[stream.lane, stream.number] = owner
        return stream

    def owner(self, stream: Stream) -> Owner:
        return self.owners[stream.lane, stream.number]

    def turn(self, *lanes: int) -> None:
        """Everything on `lanes` goes over, or on all of them."""
        for lane in lanes or self.pairs:
            pair = self.pairs[lane]
            pair.carry()
            for event in pair.events(pair.agent):
                if isinstance(event, StreamOpened):
                    self.got[lane, event.stream] = b""
                    pair.agent.send(event.stream, Reply(ReplyCode.SUCCEEDED).emit(), now=pair.now)
                elif isinstance(event, StreamData):
                    self.got[lane, event.stream] += bytes(event.data)
                    pair.agent.consume(event.stream, len(event.data), now=pair.now)
            pair.carry()
        self.switchboard.pump(now=100.0)

    def arrived(self, stream: Stream) -> bytes:
        """What the agent has got behind the request."""
        data = self.got[stream.lane, stream.number]
        parsed = parse_request(data)
        assert parsed is not None
        return data[parsed[1] :]

    def answer(self, stream: Stream, data: bytes) -> None:
        self.pairs[stream.lane].agent.send(stream.number, data, now=100.0)

    def load(self, lane: int, octets: int = 2 * CROWDED) -> None:
        """Somebody else's bulk on a lane."""
        tunnel = self.pairs[lane].client
        tunnel.send(tunnel.open_stream(now=100.0), bytes(octets), now=100.0)


# -- which lane


@pytest.mark.parametrize("network", [Network.UDP, Network.ECHO])
def test_datagrams_go_by_the_control_lane_whatever_it_carries(network: Network) -> None:
    lanes = Lanes(3)
    lanes.load(CONTROL_LANE)
    assert {lanes.open(Request(network, "10.96.0.53", 53)).lane for _ in range(5)} == {CONTROL_LANE}
    assert not lanes.switchboard.crowded


def test_tcp_goes_by_the_control_lane_until_another_has_begun() -> None:
    lanes = Lanes(2, ready=False)
    first = lanes.open()
    assert first.lane == CONTROL_LANE
    lanes.turn(1)
    assert lanes.pairs[1].client.ready
    second = lanes.open()
    assert second.lane == 1
    lanes.turn()
    assert [lanes.owner(stream).told for stream in (first, second)] == [["opened"], ["opened"]]


def test_tcp_goes_by_the_control_lane_when_it_is_the_only_one() -> None:
    lanes = Lanes(1)
    lanes.load(CONTROL_LANE)
    assert lanes.open().lane == CONTROL_LANE
    assert not lanes.switchboard.crowded


def test_streams_are_spread_over_lanes_that_carry_nothing() -> None:
    lanes = Lanes(4)
    assert [lanes.open().lane for _ in range(6)] == [1, 2, 3, 1, 2, 3]


def test_lane_with_the_fewest_streams_is_chosen_among_equals() -> None:
    lanes = Lanes(3)
    streams = [lanes.open() for _ in range(6)]
    lanes.turn()
    for stream in streams:
        if stream.lane == 2:
            stream.reset(now=100.0)
    lanes.turn()
    assert [lanes.open().lane for _ in range(3)] == [2, 2, 2]


def test_lane_with_little_to_carry_is_chosen_before_one_with_few_streams() -> None:
    lanes = Lanes(3)
    for _ in range(4):
        lanes.open()
    lanes.turn()
    lanes.load(1)
    assert [lanes.open().lane for _ in range(4)] == [2, 2, 2, 2]
    assert not lanes.switchboard.crowded
    lanes.turn()  # it has arrived
    assert lanes.open().lane == 1


def test_what_is_on_its_way_counts_as_load() -> None:
    lanes = Lanes(3)
    lanes.load(1)
    client = lanes.pairs[1].client
    before, queued = client.load, client.backlog
    while client.data_to_send(now=100.0):
        pass
    assert client.backlog < queued
    assert client.load >= before
    assert lanes.open().lane == 2


def test_less_than_crowded_is_no_load() -> None:
    lanes = Lanes(3)
    lanes.load(1, CROWDED // 2)
    lanes.load(2, 1)
    lanes.load(2, 1)
    assert lanes.open().lane == 1  # fewer streams


def test_crowded_when_every_lane_has_much_to_carry() -> None:
    lanes = Lanes(3)
    lanes.load(1, 4 * CROWDED)
    lanes.open()
    assert not lanes.switchboard.crowded
    lanes.load(2)
    assert lanes.open().lane == 2  # the lesser evil
    assert lanes.switchboard.crowded
    lanes.switchboard.crowded = False
    lanes.add(3)
    assert lanes.open().lane == 3
    assert not lanes.switchboard.crowded


def test_flow_stays_on_its_lane() -> None:
    lanes = Lanes(3)
    stream = lanes.open()
    lanes.turn()
    stream.send(bytes(3 * CROWDED), now=100.0)  # the lane is the worst of all now
    lanes.add(3)
    lanes.turn()
    stream.send(b"last", now=100.0)
    lanes.turn()
    assert stream.lane == 1
    assert lanes.arrived(stream) == bytes(3 * CROWDED) + b"last"
    assert [len(lanes.pairs[lane].client._mux.numbers()) for lane in (0, 1, 2, 3)] == [0, 1, 0, 0]


def test_equal_numbers_on_different_lanes_do_not_mix() -> None:
    lanes = Lanes(4)
    streams = [lanes.open(Request(Network.UDP, "10.96.0.53", 53)), *(lanes.open() for _ in range(3))]
    assert [(stream.lane, stream.number) for stream in streams] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    lanes.turn()
    for stream in streams:
        stream.send(b"up %d" % stream.lane, now=100.0)
        lanes.answer(stream, b"down %d" % stream.lane)
    lanes.turn()
    streams[1].reset(now=100.0)
    lanes.pairs[2].agent.finish(1, now=100.0)
    lanes.turn()
    for stream in streams:
        assert lanes.arrived(stream) == b"up %d" % stream.lane
        assert lanes.owner(stream).data == b"down %d" % stream.lane
    assert [lanes.owner(stream).told[1:] for stream in streams] == [[], [], ["finished"], []]
    assert [stream.open for stream in streams] == [True, False, True, True]
    assert lanes.switchboard.opened_total == 4


# -- trouble


def test_a_lane_without_its_carrier_delays_its_own_streams_only() -> None:
    lanes = Lanes(3)
    held, free = lanes.open(), lanes.open()
    lanes.turn()
    held.send(b"early", now=100.0)
    lanes.pairs[1].cut(arrives=0.5)
    held.send(b" late", now=100.0)
    lanes.answer(held, b"answer")
    for number in range(5):
        free.send(b"%d" % number, now=100.0)
        lanes.answer(free, b"%d" % number)
        lanes.turn(0, 2)
    assert lanes.arrived(free) == lanes.owner(free).data == b"01234"
    assert (lanes.arrived(held), lanes.owner(held).data) == (b"", b"")
    new = [lanes.open() for _ in range(3)]  # by lanes that work
    assert {stream.lane for stream in new} == {2}
    lanes.turn()
    assert (lanes.arrived(held), lanes.owner(held).data) == (b"early late", b"answer")
    assert lanes.owner(held).told == ["opened"]
    gone_on = [found.lane for found in iter(lanes.switchboard.next_event, None) if isinstance(found.event, GoneOn)]
    assert gone_on == [1]


def test_tcp_goes_by_the_control_lane_while_every_other_has_no_carrier() -> None:
    lanes = Lanes(3)
    for lane in (1, 2):
        lanes.pairs[lane].cut()
    stream = lanes.open()
    assert stream.lane == CONTROL_LANE
    lanes.turn(CONTROL_LANE)
    assert lanes.owner(stream).told == ["opened"]
    lanes.turn()
    assert lanes.open().lane == 1
    assert stream.lane == CONTROL_LANE


@pytest.mark.parametrize("lane", [0, 1, 2])
def test_every_lane_may_be_cut_at_any_time(lane: int) -> None:
    lanes = Lanes(3)
    streams = [lanes.open(Request(Network.UDP, "10.96.0.53", 53)), lanes.open(), lanes.open()]
    lanes.turn()
    for turn in range(20):
        for stream in streams:
            stream.send(b"%02d" % turn + bytes(5000), now=100.0)
        lanes.pairs[lane].cut(arrives=turn / 20)
        if turn % 3:
            lanes.turn()
    lanes.turn()
    expected = b"".join(b"%02d" % turn + bytes(5000) for turn in range(20))
    assert [lanes.arrived(stream) == expected for stream in streams] == [True] * 3


def test_beginning_anew_resets_the_streams_of_its_lane_only() -> None:
    lanes = Lanes(3)
    replied, other = lanes.open(), lanes.open()
    lanes.turn()
    lanes.switchboard.open(WEB, waiting := Owner(), now=100.0)  # by lane 1, and not answered yet
    pair = lanes.pairs[1]
    pair.client.carrier_lost()
    pair.client.begin_anew(Hello(session=b"t" * 16))
    lanes.switchboard.pump(now=100.0)
    assert lanes.owner(replied).told == ["opened", "reset"]
    assert waiting.told == ["refused GENERAL_FAILURE"]
    assert (replied.open, replied.room) == (False, 0)
    replied.send(b"late", now=100.0)  # nobody is told, nothing is raised
    replied.finish(now=100.0)
    other.send(b"goes on", now=100.0)
    lanes.turn(2)
    assert lanes.arrived(other) == b"goes on"
    assert lanes.owner(other).told == ["opened"]
    lanes.pairs[1] = anew = Pair(greet=False)
    anew.client = pair.client
    anew.client.go_on()
    anew.carry()
    lanes.switchboard.pump(now=100.0)
    events = [(found.lane, type(found.event)) for found in iter(lanes.switchboard.next_event, None)]
    assert events == [(1, HelloReceived), (1, GoneOn)]
    fresh = lanes.open()
    assert (fresh.lane, fresh.number > replied.number) == (1, True)
    lanes.turn()
    assert lanes.owner(fresh).told == ["opened"]


def test_streams_of_the_agent_are_turned_down_on_their_lane() -> None:
    lanes = Lanes(2)
    stream = lanes.pairs[1].agent.open_stream(now=100.0)
    lanes.pairs[1].carry()
    lanes.switchboard.pump(now=100.0)
    lanes.pairs[1].carry()
    assert StreamReset(stream) in lanes.pairs[1].events(lanes.pairs[1].agent)


def test_a_lane_that_was_removed_gets_nothing_more() -> None:
    lanes = Lanes(3)
    first = lanes.open()
    lanes.turn()
    first.reset(now=100.0)
    lanes.turn()
    lanes.switchboard.remove(first.lane)
    assert {lanes.open().lane for _ in range(4)} == {2}
    lanes.switchboard.remove(2)
    assert lanes.open().lane == CONTROL_LANE
    lanes.add(2)
    assert lanes.open().lane == 2

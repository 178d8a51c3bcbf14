"""Mutated octets at every level of the tunnel: only its own errors come out, and nothing is kept. 20,000; `--long`: 1,000,000."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

from kt_net.errors import CarrierProtocolError, LimitExceeded, StreamClosed, TunnelProtocolError
from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.events import StreamData
from kt_net.tunnel.frames import HEADER, Flag, FrameType, GoAwayCode
from kt_net.tunnel.hello import Hello, parse_hello
from kt_net.tunnel.lane import ACK, DATA, FORGOTTEN, MAX_RECORD_DATA, PING, PONG, RESUMED, Lane
from kt_net.tunnel.limits import INITIAL_WINDOW, Limits
from kt_net.tunnel.mux import Mux, Role
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request, parse_reply, parse_request
from kt_net.tunnel.session import Tunnel
from kt_net.wire.portforward import MAX_ERROR, ChannelForward
from kt_net.wire.spdy import SpdyForward
from kt_net.wire.websocket import BINARY, CLOSE, CONTINUATION, MAX_HEADER, FrameParser
from kt_net.wire.websocket import PING as WS_PING
from kt_net.wire.websocket import PONG as WS_PONG

SEEDS = 2
PORT = 7777
#: Small windows: they fill, empty and grow within a case.
SMALL = Limits(window=256, largest_window=4096, window_budget=3000, opened_by_peer=6, streams=12, replay=50_000)
#: Where the length is in a frame of each kind.
WEBSOCKET, SPDY, RECORD, YAMUX = slice(1, 2), slice(5, 8), slice(4, 8), slice(8, 12)
ODD_OCTETS = (0, 1, 2, 3, 4, 0x7E, 0x7F, 0x80, 0x81, 0xFE, 0xFF)


def cases(long: bool, share: float) -> int:
    """Of one test with one seed."""
    return int((1_000_000 if long else 20_000) * share / SEEDS)


# -- mutation


def mutated(chance: random.Random, frames: list[bytes], length: slice) -> list[bytes]:
    """`frames` with up to four faults in them; with none at times."""
    frames = list(frames)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        at, other = chance.randrange(len(frames)), chance.randrange(len(frames))
        frame = bytearray(frames[at])
        where = chance.randint(0, max(0, len(frame) - 1)) if chance.random() < 0.5 else chance.randint(0, 12)
        match chance.randrange(9):
            case 0 if where < len(frame):
                frame[where] ^= 1 << chance.randrange(8)
            case 1 if where < len(frame):
                frame[where] = chance.choice(ODD_OCTETS)
            case 2:
                del frame[where:]
            case 3:
                frames.insert(other, bytes(frame))
            case 4:
                frame[where:where] = chance.randbytes(chance.randint(1, 20))
            case 5:
                here, there = frame[length], frames[other][length]
                frame[length] = there
                if other != at:
                    frames[other] = frames[other][: length.start] + bytes(here) + frames[other][length.stop :]
            case 6:
                frames[at], frames[other] = frames[other], frames[at]
                continue
            case 7:
                frame[length] = chance.randbytes(length.stop - length.start)
            case 8 if len(frames) > 1:
                del frames[at]
                continue
        if at < len(frames):
            frames[at] = bytes(frame)
    return frames


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """`data` cut anywhere."""
    if chance.random() < 0.3:
        return [data]
    most = chance.choice((1, 7, 30, 100, 2000)) if len(data) < 500 else chance.choice((40, 300, 5000))
    found, at = [], 0
    while at < len(data):
        size = chance.randint(1, most)
        found.append(data[at : at + size])
        at += size
    return found


# -- the carrier


def server_frame(payload: bytes, opcode: int, *, fin: bool = True) -> bytes:
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    return struct.pack("!BBH", first, 126, len(payload)) + payload


def in_frames(chance: random.Random, messages: list[bytes]) -> list[bytes]:
    """Messages in fragments, control frames between them."""
    frames = []
    for message in messages:
        opcode, left = BINARY, message
        while left or opcode == BINARY:
            size = chance.choice((0, 1, 5, len(left), len(left)))
            part, left = left[:size], left[size:]
            frames.append(server_frame(part, opcode, fin=not left))
            opcode = CONTINUATION
            if chance.random() < 0.2:
                frames.append(server_frame(chance.randbytes(chance.choice((0, 4))), chance.choice((WS_PING, WS_PONG))))
    if chance.random() < 0.2:
        frames.append(server_frame(b"\x03\xe8", CLOSE))
    return frames


def spdy_data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack("!II", stream, flags << 24 | len(payload)) + payload


def spdy_control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!HHI", 0x8003, kind, flags << 24 | len(body)) + body


def channel_messages(chance: random.Random) -> tuple[list[bytes], bytes]:
    """What a kubelet says in channels, and the data in it."""
    port = PORT.to_bytes(2, "little")
    payloads = [chance.randbytes(chance.choice((1, 10, 300))) for _ in range(chance.randint(1, 4))]
    messages = [b"\0" + port, b"\1" + port] + [b"\0" + one for one in payloads]
    if chance.random() < 0.3:
        messages.append(b"\1" + b"no such port \xc3\xa9" * chance.choice((1, 500)))
    return messages, b"".join(payloads)


def spdy_messages(chance: random.Random) -> tuple[list[bytes], bytes]:
    """What a node says in SPDY, and the data in it; a message of the websocket may end anywhere in it."""
    payloads = [chance.randbytes(chance.choice((0, 1, 10, 300))) for _ in range(chance.randint(1, 4))]
    frames = [spdy_control(2, struct.pack("!I", stream) + b"headers") for stream in (1, 3)]
    for one in payloads:
        frames.append(spdy_data(3, one))
        if chance.random() < 0.4:
            frames.append(
                chance.choice(
                    (
                        spdy_control(6, struct.pack("!I", 2)),
                        spdy_control(4, bytes(4)),
                        spdy_control(3, struct.pack("!II", 3, 5)),
                        spdy_control(7, bytes(8)),
                        spdy_control(9, b""),
                        spdy_data(1, b"refused" * chance.choice((1, 1000))),
                    )
                )
            )
    if chance.random() < 0.5:
        frames.append(spdy_data(3, b"", 1))
    return frames, b"".join(payloads)


def through(form: ChannelForward | SpdyForward, parser: FrameParser, data: bytes, out: list[memoryview]) -> None:
    """As the driver does it."""
    for piece in parser.receive(data):
        if piece.opcode < CLOSE:
            form.receive(piece, out)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("spdy", [False, True])
def test_carrier(seed: int, spdy: bool, long: bool) -> None:
    chance = random.Random(seed)
    refused = whole = 0
    for _ in range(cases(long, 0.2)):
        messages, expected = spdy_messages(chance) if spdy else channel_messages(chance)
        # A fault in the messages, in their frames, or in both.
        broken = mutated(chance, messages, SPDY) if spdy and chance.random() < 0.6 else messages
        frames = in_frames(chance, broken)
        octets = b"".join(mutated(chance, frames, WEBSOCKET) if chance.random() < 0.6 else frames)
        form: ChannelForward | SpdyForward = SpdyForward(PORT) if spdy else ChannelForward(PORT)
        parser, out = FrameParser(), list[memoryview]()
        try:
            for piece in pieces(chance, octets):
                through(form, parser, piece, out)
                assert len(parser._head) < MAX_HEADER
                assert len(parser._control) <= 125
                assert len(form.error) <= MAX_ERROR
                if isinstance(form, SpdyForward):
                    assert len(form._body) <= 16 * 1024
                    assert form._left >= 0
        except CarrierProtocolError:
            refused += 1
        got = b"".join(out)
        assert len(got) <= len(octets)
        if octets == b"".join(frames) and broken == messages:
            assert got == expected
            whole += 1
    assert min(refused, whole) > cases(long, 0.2) // 20


# -- the mux


def peer_frames(chance: random.Random, role: Role, count: int) -> list[bytes]:
    """What the other end of a mux in `role` may say, more or less."""
    number = 2 if role is Role.CLIENT else 1
    ours = [1, 3, 5] if role is Role.CLIENT else [2, 4, 6]
    live: list[int] = []
    late: list[int] = []
    frames = []
    for _ in range(count):
        flags, luck = 0, chance.random()
        if luck < 0.05:
            frames.append(
                HEADER.pack(0, FrameType.PING, chance.choice((Flag.SYN, Flag.ACK)), 0, chance.getrandbits(32))
            )
            continue
        if luck < 0.06:
            frames.append(HEADER.pack(0, FrameType.GO_AWAY, 0, 0, chance.randrange(3)))
            continue
        if not live or luck < 0.3:
            if late and chance.random() < 0.5:
                stream = late.pop()
            else:
                if number > 2 and chance.random() < 0.2:
                    late.append(number)
                    number += 2
                stream, number = number, number + 2
            flags = Flag.SYN
            live.append(stream)
        else:
            stream = chance.choice(live[-2:])
        flags |= chance.choice((0, 0, 0, 0, 0, 0, Flag.ACK, Flag.FIN, Flag.RST))
        if flags & (Flag.FIN | Flag.RST):
            live.remove(stream)
        if chance.random() < 0.6:
            body = chance.randbytes(chance.choice((0, 1, 50, 90, 130)))
            frames.append(HEADER.pack(0, FrameType.DATA, flags, stream, len(body)) + body)
        else:
            credit = chance.choice((0, 1, 1000, 20_000, INITIAL_WINDOW))
            frames.append(HEADER.pack(0, FrameType.WINDOW_UPDATE, flags, stream, credit))
        if ours and chance.random() < 0.1:
            frames.append(HEADER.pack(0, FrameType.WINDOW_UPDATE, Flag.ACK, ours[0], chance.choice((0, 500))))
            live.append(ours.pop(0))
    return frames


def check(mux: Mux, limits: Limits) -> None:
    """What holds whatever has come."""
    assert mux.backlog >= 0
    assert 0 <= mux.grown <= limits.window_budget
    backlog = grown = peers = 0
    for number, stream in mux._streams.items():
        assert stream.number == number
        assert not stream.closed
        assert stream.room >= 0
        assert stream.owed >= 0
        assert 0 <= stream.window <= stream.size <= limits.largest_window
        assert stream.out_octets == sum(map(len, stream.out))
        backlog += stream.out_octets
        grown += stream.size - limits.window
        peers += number & 1 != mux._our_parity
    assert (backlog, grown, peers) == (mux.backlog, mux.grown, mux._peers_open)
    assert peers <= limits.opened_by_peer
    assert all(mux._streams.get(stream.number) is stream and stream.scheduled for stream in mux._ready)


def check_empty(mux: Mux, limits: Limits) -> None:
    """Every stream is reset: nothing is left of any."""
    for number in mux.numbers():
        mux.reset(number)
        check(mux, limits)
    assert (mux.streams, mux.backlog, mux.grown, mux._peers_open) == (0, 0, 0, 0)
    assert not mux._ready
    assert len(mux._head) < HEADER.size


def act(chance: random.Random, mux: Mux, unread: dict[int, int], now: float) -> None:
    """Something that the one above may do."""
    numbers = mux.numbers()
    number = chance.choice(numbers) if numbers else 1
    try:
        match chance.randrange(8):
            case 0:
                mux.open_stream()
            case 1 | 2 if numbers:
                mux.send(number, bytes(chance.choice((0, 1, 500, 20_000))))
            case 3 if chance.random() < 0.3 and numbers:
                mux.finish(number)
            case 4 if chance.random() < 0.3:
                mux.reset(number)
            case 5 | 6:
                while (event := mux.next_event()) is not None:
                    if isinstance(event, StreamData):
                        unread[event.stream] = unread.get(event.stream, 0) + len(event.data)
                for stream, octets in list(unread.items()):
                    octets = chance.choice((octets, octets, octets // 2))
                    unread[stream] -= octets
                    if mux.has(stream):
                        mux.consume(stream, octets, now=now, round_trip=0.01)
            case 7:
                wanted = chance.choice((1, 100, 100_000))
                mux.frames_to_send(wanted)
                if chance.random() < 0.01:
                    mux.go_away(GoAwayCode.NORMAL)
    except (StreamClosed, LimitExceeded):
        pass  # the caller's own error: the stream has ended, or too many are open


def warmed_up(mux: Mux, number: int, times: int) -> None:
    """The peer answers on a stream of ours, faster than its window lets it: the window grows."""
    mux.frames_to_send(1000)
    for turn in range(times):
        octets = SMALL.window // 2 << turn
        mux.receive_data(HEADER.pack(0, FrameType.DATA, 0, number, octets) + bytes(octets))
        mux.consume(number, octets, now=turn / 1000, round_trip=0.01)
        mux.next_event()


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("role", list(Role))
def test_mux(seed: int, role: Role, long: bool) -> None:
    chance = random.Random(seed * 2 + role.value)
    refused = grown = 0
    for _ in range(cases(long, 0.12)):
        mux, unread, now = Mux(role=role, limits=SMALL), dict[int, int](), 0.0
        for _ in range(3):
            warmed_up(mux, mux.open_stream(), chance.randrange(4))
        grown += mux.grown > 0
        octets = b"".join(mutated(chance, peer_frames(chance, role, chance.randint(3, 25)), YAMUX))
        try:
            for piece in pieces(chance, octets):
                mux.receive_data(piece)
                check(mux, SMALL)
                now += chance.choice((0.001, 0.1))
                act(chance, mux, unread, now)
                check(mux, SMALL)
        except TunnelProtocolError:
            refused += 1
        check(mux, SMALL)
        check_empty(mux, SMALL)
    wanted = cases(long, 0.12)
    assert wanted // 5 < refused < wanted * 9 // 10  # most of what is said is understood for a while
    assert grown > wanted // 10


# -- the lane

REPORTS: list[bytes] = [
    b"{}",
    b'{"agent":"test","resume":true}',
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 5000,
    b'{"a":' * 5000,
    b"9" * 5000,
    b'{"a":1e999,"b":NaN}',
    b'{"\\ud800":"\\udfff"}',
    b"{}\0",
]


def hello_octets(chance: random.Random, received: int = 0) -> bytes:
    """A hello, mostly a good one."""
    good = Hello(session=b"s" * 16, received=received, report={"agent": "test"}).emit()
    if chance.random() < 0.95:
        return good
    report = chance.choice(REPORTS)
    return struct.pack("!4sBBH16sQI", b"KTNT", 1, 0, 0, bytes(16), received, len(report)) + report


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("!B3xI", kind, len(body)) + body


def records(chance: random.Random, lane: Lane, data: bytes, least: int) -> list[bytes]:
    """What the peer's lane may say, its mux's octets among it; nothing below `least` is acknowledged."""
    found = []
    for piece in pieces(chance, data):
        found.append(record(DATA, piece))
        if chance.random() < 0.3:
            body = chance.choice((1, 2, 3)).to_bytes(8, "big")
            found.append(record(chance.choice((PING, PONG)), body))
        if chance.random() < 0.1:
            least = chance.randint(least, lane.octets_sent)
            found.append(record(ACK, least.to_bytes(8, "big")))
    return found


def check_lane(lane: Lane) -> None:
    """What holds whatever has come."""
    assert lane.room >= 0
    assert 0 <= lane.unacknowledged <= lane.octets_sent
    assert sum(map(len, lane._replay)) == lane.unacknowledged
    assert 0 <= lane._left <= MAX_RECORD_DATA
    assert lane._acknowledged_to_peer <= lane.octets_received
    assert len(lane._in) <= 36 + Limits().hello


class Case:
    """A tunnel in the middle of something, and a peer that is not to be trusted."""

    def __init__(self, chance: random.Random, role: Role) -> None:
        self.chance, self.role = chance, role
        self.tunnel = Tunnel(role=role, hello=Hello(session=b"s" * 16), limits=SMALL)
        self.unread: dict[int, int] = {}
        self.now = 100.0
        self.said = b"".join(peer_frames(chance, role, chance.randint(3, 40)))
        for _ in range(3):
            self.tunnel.open_stream(now=self.now)

    def run(self) -> None:
        """Some carriers, one after another."""
        self.feed([hello_octets(self.chance), *self.talk(0)])
        for _ in range(self.chance.choice((0, 1, 1, 2))):
            self.tunnel.carrier_lost()
            self.check()
            assert self.tunnel.data_to_send(now=self.now) == []
            if self.role is Role.CLIENT:
                self.go_on()
            else:
                self.going_on()

    def go_on(self) -> None:
        """The client's side: the agent knows the lane, or does not, or says something else."""
        begun = self.tunnel._lane.peer is not None
        self.tunnel.go_on()
        said = b"".join(self.tunnel.data_to_send(now=self.now))
        assert parse_hello(said, limits=SMALL) is not None
        offset = self.offset()
        answer = record(RESUMED, offset.to_bytes(8, "big"))
        if self.chance.random() < 0.1:
            answer = record(FORGOTTEN, b"")
        self.feed([hello_octets(self.chance), *([answer] if begun else []), *self.talk(offset)])

    def going_on(self) -> None:
        """The agent's side: its server has parsed the client's hello."""
        offset = self.offset()
        parsed = parse_hello(Hello(session=b"s" * 16, received=offset).emit(), limits=SMALL)
        assert parsed is not None
        self.tunnel.going_on(parsed[0], now=self.now)
        self.check()
        self.feed(self.talk(offset))

    def offset(self) -> int:
        """How far the peer says that it has come."""
        lane = self.tunnel._lane
        if self.chance.random() < 0.1:
            return self.chance.choice((0, lane.octets_sent + 1, (1 << 64) - 1))
        return self.chance.randint(lane.octets_sent - lane.unacknowledged, lane.octets_sent)

    def talk(self, least: int) -> list[bytes]:
        """From where this side says that it is."""
        lane = self.tunnel._lane
        size = self.chance.choice((100, 1000, 10_000))
        data = self.said[lane.octets_received : lane.octets_received + size]
        least = max(lane.octets_sent - lane.unacknowledged, min(least, lane.octets_sent))
        return records(self.chance, lane, data, least) or [record(PING, bytes(8))]

    def feed(self, frames: list[bytes]) -> None:
        """Records with faults; after each piece something happens on this side, too."""
        for piece in pieces(self.chance, b"".join(mutated(self.chance, frames, RECORD))):
            self.tunnel.receive_data(piece, now=self.now)
            self.check()
            self.now += self.chance.choice((0.0, 0.001, 0.1, 3.0))
            act(self.chance, self.tunnel._mux, self.unread, self.now)
            if self.chance.random() < 0.5:
                self.tunnel.data_to_send(now=self.now, limit=self.chance.choice((1, 1000, 1 << 20)))
            timer = self.tunnel.next_timer()
            if timer is not None and self.now >= timer:
                self.tunnel.handle_timer(now=self.now)
            while self.chance.random() < 0.5 and self.tunnel._events:
                self.tunnel.next_event()
            self.check()

    def check(self) -> None:
        check_lane(self.tunnel._lane)
        check(self.tunnel._mux, SMALL)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("role", list(Role))
def test_lane(seed: int, role: Role, long: bool) -> None:
    chance = random.Random(100 + seed * 2 + role.value)
    refused = 0
    for _ in range(cases(long, 0.12)):
        case = Case(chance, role)
        try:
            case.run()
        except TunnelProtocolError:
            refused += 1
        case.check()
        check_empty(case.tunnel._mux, SMALL)
        case.tunnel.carrier_lost()
        case.tunnel.begin_anew(Hello(session=b"t" * 16))
        case.check()
        assert (case.tunnel.streams, case.tunnel.load) == (0, 0)
    assert cases(long, 0.12) // 5 < refused < cases(long, 0.12) * 19 // 20


@pytest.mark.parametrize("report", REPORTS)
def test_reports(report: bytes) -> None:
    octets = struct.pack("!4sBBH16sQI", b"KTNT", 1, 0, 0, bytes(16), 0, len(report)) + report
    try:
        parsed = parse_hello(octets, limits=Limits())
    except TunnelProtocolError:
        return
    assert parsed is not None
    assert parsed[1] == len(octets)


# -- requests, replies, datagrams


def a_host(chance: random.Random) -> str:
    return chance.choice(("10.1.2.3", "fd00::1", "::ffff:1.2.3.4", "web", "a" * 255, "web.default.svc.cluster.local"))


def in_growing_pieces(
    parse: Callable[[bytes], tuple[Request, int] | tuple[Reply, int] | None], octets: bytes
) -> tuple[Request, int] | tuple[Reply, int] | None:
    """As a stream's owner does it: with more octets each time, until there is an answer."""
    for end in range(len(octets) + 1):
        if (parsed := parse(octets[:end])) is not None:
            assert parsed[1] == end  # not one octet more than was needed
            assert parse(octets) == parsed
            return parsed
    return None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_requests_and_replies(seed: int, long: bool) -> None:
    chance = random.Random(seed)
    refused = 0
    for _ in range(cases(long, 0.07)):
        host, port = a_host(chance), chance.randrange(65536)
        ask = chance.random() < 0.5
        good = (
            Request(chance.choice(list(Network)), host, port).emit()
            if ask
            else Reply(chance.choice(list(ReplyCode)), host, port).emit()
        )
        octets = b"".join(mutated(chance, [good], slice(4, 5)))
        try:
            parsed = in_growing_pieces(parse_request if ask else parse_reply, octets)
            if parsed is not None:
                assert len(parsed[0].host) <= 255
                assert 0 <= parsed[0].port <= 65535
                parsed[0].emit()  # what was understood can be said
        except TunnelProtocolError:
            refused += 1
    assert cases(long, 0.07) // 10 < refused < cases(long, 0.07) * 9 // 10


@pytest.mark.parametrize("seed", range(SEEDS))
def test_datagrams(seed: int, long: bool) -> None:
    chance = random.Random(seed)
    for _ in range(cases(long, 0.05)):
        sent = [chance.randbytes(chance.choice((0, 1, 30, 1400))) for _ in range(chance.randint(1, 5))]
        frames = [frame_datagram(one) for one in sent]
        octets = b"".join(mutated(chance, frames, slice(0, 2)))
        parser, got, fed = DatagramParser(), list[bytes](), 0
        for piece in pieces(chance, octets):
            got += parser.receive(piece)
            fed += len(piece)
            assert sum(map(len, got)) + 2 * len(got) + len(parser._waiting) == fed  # every octet once
            assert len(parser._waiting) < 2 + 65535
        if octets == b"".join(frames):
            assert got == sent


# -- a fault that is known


def test_data_before_the_answer_is_refused() -> None:
    tunnel = Tunnel(role=Role.CLIENT, hello=Hello(session=b"s" * 16))
    tunnel.receive_data(Hello(session=bytes(16)).emit(), now=0.0)
    tunnel.carrier_lost()
    tunnel.go_on()
    with pytest.raises(TunnelProtocolError):
        tunnel.receive_data(Hello(session=bytes(16)).emit() + record(DATA, HEADER.pack(0, 3, 0, 0, 0)), now=0.0)

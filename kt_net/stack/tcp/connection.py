"""Heads up: read RFC 9293 section 3.10.7 ("SEGMENT ARRIVES") beside `receive`; the order of its checks is the RFC's.

One connection of a program of this machine, seen from the far end that we play.

Not here: addresses, packets (the sink's business), what is sent when (sender.py), which events mean what (kt_net.relay).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from kt_net.errors import StreamClosed
from kt_net.stack.config import StackConfig
from kt_net.stack.events import (
    DataAcknowledged,
    DataReceived,
    EndReceived,
    FlowClosed,
    FlowEstablished,
    FlowReset,
    StackEvent,
)
from kt_net.stack.path import Path
from kt_net.stack.tcp.receive import ReceiveHalf
from kt_net.stack.tcp.send import Sent
from kt_net.stack.tcp.sender import Sender, Timer
from kt_net.stack.tcp.seq import add
from kt_net.stack.tcp.states import Input, State, StateHolder
from kt_net.stack.tcp.timestamps import Timestamps
from kt_net.wire.tcp import (
    ACK,
    FIN,
    MAX_SACK_BLOCKS,
    MAX_SACK_BLOCKS_BESIDE_TIMESTAMPS,
    PSH,
    RST,
    SYN,
    TIMESTAMPS,
    TIMESTAMPS_OCTETS,
    TIMESTAMPS_WORD,
    TcpHeader,
    sack_option,
)

#: The scale that we offer: 2**7 * 65535 is 8 MiB, more than any stream's credit (RFC 7323 section 2.2).
OUR_WINDOW_SCALE: Final = 7
#: Without the option (RFC 9293 section 3.7.1); and the least that we believe: smaller ones only make us slow.
DEFAULT_MSS: Final = 536
DEFAULT_MSS_V6: Final = 1220
LEAST_MSS: Final = 48

# By names of this module, and in tuples, the likely first: before Python 3.12 looking a member up in its class runs Python code, and so
# does its hash.
_SYN_RECEIVED: Final = State.SYN_RECEIVED
_CLOSED: Final = State.CLOSED
_CAN_SEND: Final = (State.ESTABLISHED, State.CLOSE_WAIT)
_CAN_RECEIVE: Final = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)
_OPENING: Final = (State.PENDING, State.SYN_SENT, State.SYN_RECEIVED)
_UNWATCHED: Final = (*_OPENING, State.TIME_WAIT, State.CLOSED)

#: Acknowledgements are delayed (RFC 9293 section 3.8.6.3) once so many requests in a row were followed by an answer that carried
#: them, and never for longer than this; one miss, and they are immediate again.
_EXCHANGES: Final = 8
_ACK_DELAY: Final = 0.01


class Sink(Protocol):
    """Where segments go."""

    def segment(
        self,
        path: Path,
        mss: int,
        sequence: int,
        acknowledgement: int,
        flags: int,
        window: int,
        options: bytes,
        buffers: list[memoryview],
        octets: int,
    ) -> None:
        """One segment; more than `mss` octets of payload become a super-packet."""


class Connection(StateHolder):
    """A connection from its first SYN to its end.

    Args:
        flow: its number.
        path: both ends; what the sink needs to address packets.
        initial: our initial sequence number (RFC 9293 section 3.4.1: not guessable).
        clock_offset: of our timestamps.
        mss: what the device carries, without options (RFC 9293 section 3.7.1).
        largest: payload octets of one segment: MSS, or a super-packet's worth.
    """

    __slots__ = (
        "_ack_at",
        "_answering",
        "_challenge",
        "_clock_offset",
        "_complained_at",
        "_config",
        "_emit",
        "_exchanges",
        "_heard_at",
        "_largest",
        "_last_ack",
        "_opened",
        "_own_mss",
        "_probed_at",
        "_probes",
        "_syn_wanted",
        "_timestamps",
        "_wscale",
        "ack_wanted",
        "flow",
        "mss",
        "octets_down",
        "octets_up",
        "opened_at",
        "path",
        "receiving",
        "sender",
    )

    def __init__(
        self,
        flow: int,
        path: Path,
        *,
        initial: int,
        clock_offset: int,
        mss: int,
        largest: int,
        config: StackConfig,
        emit: Callable[[StackEvent], None],
        challenge: Callable[[float], bool],
        now: float,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.path = path
        #: Octets of payload in one packet, both sides' options considered.
        self.mss = self._own_mss = mss
        self.opened_at = now
        self.octets_up = 0
        self.octets_down = 0
        self.receiving = ReceiveHalf(0, config.out_of_order)
        self._largest = largest
        self.sender = Sender(initial, mss=mss, largest=largest, algorithm=config.congestion)
        self._wscale: int | None = None
        self._clock_offset = clock_offset
        self._timestamps: Timestamps | None = None
        self._config = config
        self._emit = emit
        self._challenge = challenge
        self._syn_wanted = False
        self._opened = False  # by us, and not said to be established
        self.ack_wanted = False
        self._ack_at: float | None = None
        self._last_ack = 0
        self._answering = False
        self._exchanges = 0
        self._complained_at = now - 1.0
        self._heard_at = now
        self._probes = 0
        self._probed_at = 0.0

    def adopt(self, syn: TcpHeader, *, now: float) -> None:
        """The program's SYN: its number and what it offers."""
        self.receiving.initial = syn.sequence
        self._wscale = syn.window_scale
        default = DEFAULT_MSS_V6 if self.path.v6 else DEFAULT_MSS
        self.mss = max(LEAST_MSS, min(self._own_mss, syn.mss or default))
        if syn.timestamp is not None:
            self._timestamps = Timestamps(self._clock_offset, syn.timestamp, now=now)
            self.mss -= TIMESTAMPS_OCTETS  # RFC 6691: the option's room is the payload's
        self.sender.selective = syn.sack_permitted
        self.sender.set_mss(self.mss, max(self.mss, self._largest - self._largest % self.mss))
        self._heard_at = now

    # -- the relay's verbs

    def open(self, window: int, *, now: float) -> None:
        """Connect to the program (RFC 9293 section 3.10.1), and take `window` octets."""
        self.move(Input.OPEN)
        self._opened = True
        self.receiving.edge = 1 + window
        # Offered here, and kept only when the SYN's answer agrees.
        self._timestamps = Timestamps(self._clock_offset, 0, now=now)
        self._wscale, self.sender.selective = 0, True
        self.sender.half.next = 1
        self._syn_wanted = True

    def accept(self, window: int) -> None:
        """The far side has connected: answer the SYN, and take `window` octets."""
        self.move(Input.ACCEPT)
        self.receiving.edge = 1 + window
        self.sender.half.next = 1
        self._syn_wanted = True

    def grant(self, octets: int) -> bool:
        """Take `octets` more; True when the program should be told now."""
        receiving = self.receiving
        receiving.edge += octets
        if self.state in _OPENING or receiving.tellable() <= receiving.advertised:
            return False  # an acknowledgement that says nothing new looks like one of a loss
        # RFC 9293 section 3.8.6.2.2: silly window avoidance; tell of two segments, or when it was nearly shut.
        if receiving.edge - receiving.advertised >= 2 * self.mss or receiving.advertised - receiving.next < self.mss:
            self.ack_wanted = True
        return self.ack_wanted

    def send(self, data: bytes | memoryview) -> None:
        """Queue payload for the program.

        Raises:
            StreamClosed: after `finish`.
        """
        if self.sender.half.fin_queued:
            raise StreamClosed(f"payload for flow {self.flow} after its end")
        self.octets_down += len(data)
        self.sender.half.queue(data)

    @property
    def waiting(self) -> int:
        """Octets for the program that its kernel has not acknowledged."""
        return self.sender.half.queued + self.sender.half.in_flight

    def finish(self) -> None:
        """FIN after what is queued."""
        self.sender.half.fin_queued = True

    def abort(self, sink: Sink) -> None:
        """RST now; the flow is over."""
        if not self.is_in(State.PENDING, State.SYN_SENT, State.CLOSED):
            half = self.sender.half
            sink.segment(self.path, self.mss, half.number(half.next), self._ack_number(), RST | ACK, 0, b"", [], 0)
        self._end()

    def refuse(self, sink: Sink) -> None:
        """RST in answer to the SYN (RFC 9293 section 3.10.7.1)."""
        sink.segment(self.path, self.mss, 0, self._ack_number(), RST | ACK, 0, b"", [], 0)
        self._end()

    def drop(self) -> None:
        """Forget the flow without a word."""
        self._end()

    # -- segments in

    def receive(self, header: TcpHeader, data: memoryview, sink: Sink, *, now: float) -> None:
        """One segment of the program."""
        if self.state in _OPENING and self._opening(header, sink, now=now):
            return
        flags = header.flags
        receiving = self.receiving
        start = receiving.position(header.sequence)
        if self._timestamps is not None and not flags & RST and not self._timely(header, start, now=now):
            return
        octets = len(data) + (1 if flags & FIN else 0) + (1 if flags & SYN else 0)
        if not receiving.acceptable(start, octets):
            self._unacceptable(header, start, octets, sink, now=now)
            return
        if flags & RST:
            # RFC 5961 section 3.2: exactly the next number, or a challenge.
            if start == receiving.next:
                self._reset()
            else:
                self._challenged(now=now)
            return
        if flags & SYN:
            self._challenged(now=now)  # RFC 5961 section 4.2
            return
        self._heard_at, self._probes = now, 0
        if not flags & ACK or not self._acknowledged(header, start, len(data), sink, now=now):
            return
        if self._timestamps is not None and header.timestamp is not None and start <= self._last_ack:
            # RFC 7323 section 5.3, R3, and only now: a forged segment must not make real ones look old.
            self._timestamps.update(header.timestamp, now=now)
        if self.state in _CAN_RECEIVE:
            if len(data):
                self._payload(start, data, now=now)
                if self._tell_now(start + len(data), len(data)):
                    self._acknowledge(sink, now=now)
            if flags & FIN:
                receiving.fin = start + len(data)
                self.ack_wanted = True
            if receiving.fin is not None and receiving.fin_reached():
                self._fin_received(now=now)

    def _opening(self, header: TcpHeader, sink: Sink, *, now: float) -> bool:
        """States before the first acknowledgement; False when the segment goes the way of all others."""
        flags = header.flags
        if self.state is State.PENDING:
            if flags & RST and self.receiving.position(header.sequence) in (0, 1):
                self._reset()
            return True  # the SYN again: its answer waits for the far side
        if self.state is State.SYN_SENT:
            self._syn_answered(header, sink, now=now)
            return True
        if flags & SYN and not flags & RST and self.receiving.position(header.sequence) == 0:
            if not flags & ACK:
                self._syn_wanted = True  # our answer was lost
                return True
            # The answer to our SYN, after both sides sent one at once (RFC 9293 section 3.5, figure 7).
            header.sequence = add(header.sequence, 1)
            header.flags &= ~SYN
            header.window >>= self._wscale or 0  # that of a SYN is never scaled
        return False

    def _syn_answered(self, header: TcpHeader, sink: Sink, *, now: float) -> None:
        """RFC 9293 section 3.10.7.3."""
        half = self.sender.half
        if header.flags & ACK and header.acknowledgement != half.number(1):
            if not header.flags & RST:
                sink.segment(self.path, self.mss, header.acknowledgement, 0, RST, 0, b"", [], 0)
            return
        if header.flags & RST:
            if header.flags & ACK:
                self._reset()
            return
        if not header.flags & SYN:
            return
        self._timestamps = None
        self.adopt(header, now=now)
        if header.flags & ACK:
            self._established(header, 0)
            self.sender.handshake_done(echoed=self._echoed(header, now=now), now=now)
            self.ack_wanted = True
            self._emit(FlowEstablished(self.flow))
        else:
            self.move(Input.SYN_RECEIVED)
            self._syn_wanted = True

    def _timely(self, header: TcpHeader, start: int, *, now: float) -> bool:
        """RFC 7323 sections 3.2 and 5.3; False when the segment is to be dropped."""
        timestamps = self._timestamps
        if timestamps is None or header.timestamp is None:
            return False
        if timestamps.too_old(header.timestamp, now=now):
            self._complain(now=now)
            return False
        return True

    def _unacceptable(self, header: TcpHeader, start: int, octets: int, sink: Sink, *, now: float) -> None:
        if header.flags & RST:
            return
        if (
            header.flags & ACK
            and not header.flags & SYN
            and self.receiving.window() == 0
            and start <= self.receiving.edge
        ):
            # RFC 9293 section 3.10.7.4: a shut window must not keep acknowledgements out.
            self._heard_at, self._probes = now, 0
            if not self._acknowledged(header, start, octets, sink, now=now):
                return
        if header.flags & FIN and self.state is State.TIME_WAIT:
            # RFC 9293 section 3.10.7.4: it has not seen our acknowledgement.
            self.sender.linger(now + self._config.time_wait)
        if octets and not header.flags & SYN:
            self.receiving.repeated(start, octets)
            self.ack_wanted = True
        else:
            self._complain(now=now)

    def _complain(self, *, now: float) -> None:
        """Acknowledge a segment without payload that nobody wants; two ends must not do so for ever (an "ACK storm")."""
        if now - self._complained_at >= self._config.complaint_gap:
            self._complained_at = now
            self.ack_wanted = True

    def _challenged(self, *, now: float) -> None:
        if self._challenge(now):
            self.ack_wanted = True

    def _acknowledged(self, header: TcpHeader, start: int, octets: int, sink: Sink, *, now: float) -> bool:
        """RFC 9293 section 3.10.7.4, fifth check; False when the segment is to be dropped."""
        sender = self.sender
        half = sender.half
        place = half.position(header.acknowledgement)
        if self.state is _SYN_RECEIVED:
            if place < 1 or place > half.next:
                sink.segment(self.path, self.mss, header.acknowledgement, 0, RST, 0, b"", [], 0)
                return False
            self._established(header, start)
            sender.handshake_done(echoed=self._echoed(header, now=now), now=now)
            if self._opened:  # both sides had sent a SYN
                self._emit(FlowEstablished(self.flow))
        elif place > half.next or place < half.unacknowledged - half.max_window:
            self._challenged(now=now)  # RFC 5961 section 5.2
            return False
        window = header.window << half.scale
        ahead = place - half.unacknowledged
        if ahead > 0 or half.sent:
            blocks = (
                [(half.position(left), half.position(right)) for left, right in header.sacks] if header.sacks else []
            )
            # RFC 5681 section 2: what counts as a duplicate acknowledgement.
            duplicate = ahead == 0 and not octets and not header.flags & FIN and window == half.window
            gone = sender.acknowledged(
                max(place, half.unacknowledged),
                blocks,
                duplicate=duplicate,
                echoed=self._echoed(header, now=now),
                now=now,
            )
            if ahead > 0:
                self._delivered(ahead, gone, now=now)
        # RFC 9293 section 3.10.7.4: SND.WL1 and SND.WL2.
        newer = start > half.window_seq or (start == half.window_seq and place >= half.window_ack)
        if place >= half.unacknowledged and newer:
            opened = window > 0 and not half.window
            half.window, half.window_seq, half.window_ack = window, start, place
            half.max_window = max(half.max_window, window)
            sender.window_told(opened=opened, now=now)
        return self.state is not _CLOSED

    def _echoed(self, header: TcpHeader, *, now: float) -> float | None:
        """When the segment was sent that this one acknowledges, as its timestamp tells."""
        if self._timestamps is None or not header.timestamp_echo:
            return None
        return self._timestamps.sent_at(header.timestamp_echo, now=now)

    def _delivered(self, octets: int, gone: list[Sent], *, now: float) -> None:
        fin = gone[-1].fin if gone else False
        octets -= fin
        if octets:
            self._emit(DataAcknowledged(self.flow, octets))
        if fin:
            self.move(Input.FIN_ACKED)
            if self.state is State.TIME_WAIT:
                self._linger(now=now)
            elif self.state is State.CLOSED:
                self.sender.stop()
                self._emit(FlowClosed(self.flow))

    def _established(self, header: TcpHeader, start: int) -> None:
        self.move(Input.SYN_ACKED)
        half = self.sender.half
        if self._wscale is not None:
            half.scale = self._wscale
            self.receiving.scale = OUR_WINDOW_SCALE
        half.window = half.max_window = header.window if header.flags & SYN else header.window << half.scale
        half.window_seq, half.window_ack = start, 1

    def _payload(self, start: int, data: memoryview, *, now: float) -> None:
        pieces = self.receiving.receive(start, data)
        if self._answering:
            self._exchanges = 0  # two without an answer between them: no exchange of requests and answers
        self._answering = True
        if self._exchanges < _EXCHANGES or self.receiving.news or self._ack_at is not None:
            self.ack_wanted = True
        else:
            self._ack_at = now + _ACK_DELAY
        for piece in pieces:
            self.octets_up += len(piece)
            self._emit(DataReceived(self.flow, piece))

    def _tell_now(self, end: int, octets: int) -> bool:
        """Whether this segment's acknowledgement must not be that of later ones of the same turn, too (RFC 5681 section 4.2): what is out
        of order or fills a gap is told of one by one, everything else after two segments. One acknowledgement for a whole flight would
        be a flight's worth of waiting when it is lost. Super-packets have a flight in them and are told of once a turn."""
        receiving = self.receiving
        if not self.ack_wanted or receiving.gap or end != receiving.next:
            return self.ack_wanted
        return octets <= self.mss and receiving.next - self._last_ack >= 2 * self.mss

    def _fin_received(self, *, now: float) -> None:
        self.move(Input.FIN_RECEIVED)
        self._emit(EndReceived(self.flow))
        if self.state is State.TIME_WAIT:
            self._linger(now=now)

    def _linger(self, *, now: float) -> None:
        self.sender.linger(now + self._config.time_wait)
        self._emit(FlowClosed(self.flow))

    def _reset(self) -> None:
        quiet = self.state is State.TIME_WAIT
        self._end()
        if not quiet:
            self._emit(FlowReset(self.flow))

    def _end(self) -> None:
        if self.state is not State.CLOSED:
            self.move(Input.ABORT)
        self.sender.half.drop()
        self.sender.stop()
        self._syn_wanted = self.ack_wanted = False
        self._ack_at = None

    # -- segments out

    def transmit(self, sink: Sink, *, now: float) -> None:
        """Everything that is due: a SYN, data, FIN, or an acknowledgement."""
        if self._syn_wanted:
            self._send_syn(sink, now=now)
        half = self.sender.half
        # What is lost goes out in every state; payload and FIN for the first time only where there can be any.
        if half.lost or ((half.queued or half.fin_queued) and not half.fin_sent and self.state in _CAN_SEND):
            self.sender.transmit(lambda segment, push: self._put(segment, push, sink, now), now=now)
        if self.ack_wanted:
            self._acknowledge(sink, now=now)

    def _send_syn(self, sink: Sink, *, now: float) -> None:
        self._syn_wanted = False
        receiving, half = self.receiving, self.sender.half
        window = min(receiving.window(), 0xFFFF)
        receiving.advertised = max(receiving.advertised, receiving.next + window)
        answer = self.state is not State.SYN_SENT
        head = TcpHeader(0, 0, 0, 0, 0, 0, mss=self._own_mss, sack_permitted=self.sender.selective)
        if self._wscale is not None:
            head.window_scale = OUR_WINDOW_SCALE  # RFC 7323 section 2.2: in an answer only when it was offered
        if self._timestamps is not None:
            head.timestamp = self._timestamps.value(now)
            head.timestamp_echo = self._timestamps.recent if answer else 0
        flags, number = (SYN | ACK, receiving.number(receiving.next)) if answer else (SYN, 0)
        self._last_ack = receiving.next
        sink.segment(self.path, self.mss, half.number(0), number, flags, window, head.emit_options(), [], 0)
        self.sender.watch_handshake(now)

    def _put(self, segment: Sent, push: bool, sink: Sink, now: float) -> None:
        half = self.sender.half
        flags = ACK | (PSH if push else 0) | (FIN if segment.fin else 0)
        number, options = self._acknowledgement(now)
        sink.segment(
            self.path,
            self.mss,
            half.number(segment.start),
            number,
            flags,
            self.receiving.field(),
            options,
            segment.buffers,
            segment.octets,
        )
        if self._answering:
            self._answering = False
            self._exchanges += 1
        # Blocks take the room of payload, so they have a segment of their own.
        self.ack_wanted = self.ack_wanted and self.receiving.news
        if segment.fin and not half.fin_sent:
            half.fin_sent = True
            self.move(Input.FIN_SENT)

    def _acknowledge(self, sink: Sink, *, now: float) -> None:
        self.ack_wanted = False
        if self.state in _OPENING:
            return
        half = self.sender.half
        number, options = self._acknowledgement(now)
        if self.receiving.news:
            most = MAX_SACK_BLOCKS if self._timestamps is None else MAX_SACK_BLOCKS_BESIDE_TIMESTAMPS
            options += sack_option(self.receiving.blocks(most if self.sender.selective else 0))
        sink.segment(self.path, self.mss, half.number(half.next), number, ACK, self.receiving.field(), options, [], 0)

    def _acknowledgement(self, now: float) -> tuple[int, bytes]:
        """The acknowledgement number and the timestamps of a segment that goes out now."""
        receiving, timestamps = self.receiving, self._timestamps
        self._last_ack = receiving.next
        self._ack_at = None
        number = receiving.number(receiving.next)
        if timestamps is None:
            return number, b""
        return number, TIMESTAMPS.pack(TIMESTAMPS_WORD, timestamps.value(now), timestamps.recent)

    def _ack_number(self) -> int:
        return self.receiving.number(self.receiving.next)

    # -- time

    @property
    def timer_at(self) -> float | None:
        """When `handle_timer` wants to be called."""
        at = self.sender.timer_at
        if self._ack_at is not None and (at is None or self._ack_at < at):
            at = self._ack_at
        if self.state not in _UNWATCHED:
            watch = self._watch_at()
            if at is None or watch < at:
                at = watch
        return at

    def _watch_at(self) -> float:
        if self._probes:
            return self._probed_at + self._config.keepalive_interval
        return self._heard_at + self._config.keepalive_idle

    def handle_timer(self, sink: Sink, *, now: float) -> None:
        """What is due."""
        if self._ack_at is not None and self._ack_at <= now:
            self._exchanges = 0  # no answer came: not that kind of program, or not now
            self.ack_wanted = True
            self._ack_at = None
        if self.sender.timer_at is not None and self.sender.timer_at <= now:
            self._sender_timer(sink, now=now)
        if self.state not in _UNWATCHED and self._watch_at() <= now:
            self._watch(sink, now=now)

    def _sender_timer(self, sink: Sink, *, now: float) -> None:
        sender = self.sender
        if sender.timer is Timer.TIME_WAIT:
            sender.stop()
            self.move(Input.EXPIRED)
            return
        if sender.timer is Timer.WINDOW:
            if sender.window_timed_out(now=now):
                self._probe(sink, now=now)
        else:
            sender.timed_out(lambda segment, push: self._put(segment, push, sink, now), now=now)
            if self.state in (State.SYN_SENT, State.SYN_RECEIVED):
                self._syn_wanted = True
        limit = self._config.syn_retransmissions if self.state in _OPENING else self._config.retransmissions
        if sender.retries > limit:
            self._give_up(sink)

    def _watch(self, sink: Sink, *, now: float) -> None:
        """RFC 9293 section 3.8.4: is the program's kernel still there?"""
        self._probes += 1
        self._probed_at = now  # however late: what sleeps, sleeps for everybody
        if self._probes > self._config.keepalive_probes:
            self._give_up(sink)
        else:
            self._probe(sink, now=now)

    def _probe(self, sink: Sink, *, now: float) -> None:
        """A segment that has to be answered: the number before the next, without payload."""
        half = self.sender.half
        number, options = self._acknowledgement(now)
        sink.segment(
            self.path, self.mss, half.number(half.next - 1), number, ACK, self.receiving.field(), options, [], 0
        )

    def _give_up(self, sink: Sink) -> None:
        self.abort(sink)
        self._emit(FlowReset(self.flow))

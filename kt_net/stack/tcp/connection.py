"""Heads up: read RFC 9293 section 3.10.7 ("SEGMENT ARRIVES") beside `receive`; the order of its checks is the RFC's.

One connection of a program of this machine, seen from the far end that we play.

Not here: addresses, packets (the sink's business), which events mean what (kt_net.relay).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from kt_net.stack.config import StackConfig
from kt_net.stack.events import DataAcknowledged, DataReceived, EndReceived, FlowClosed, FlowReset, StackEvent
from kt_net.stack.tcp.congestion import CongestionControl, NewReno
from kt_net.stack.tcp.receive import ReceiveHalf
from kt_net.stack.tcp.rtt import RttEstimator
from kt_net.stack.tcp.send import SendHalf, Sent
from kt_net.stack.tcp.seq import add, distance
from kt_net.stack.tcp.states import Input, State, StateHolder
from kt_net.wire.tcp import ACK, FIN, PSH, RST, SYN, TcpHeader

#: The scale that we offer: 2**7 * 65535 is 8 MiB, more than any stream's credit (RFC 7323 section 2.2).
OUR_WINDOW_SCALE = 7
#: Without the option (RFC 9293 section 3.7.1).
DEFAULT_MSS = 536
#: RFC 5681 section 3.2.
DUPLICATES = 3

_CAN_SEND = (State.ESTABLISHED, State.CLOSE_WAIT)
_CAN_RECEIVE = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)


class Sink(Protocol):
    """Where segments go."""

    def segment(
        self,
        connection: Connection,
        sequence: int,
        acknowledgement: int,
        flags: int,
        window: int,
        buffers: list[memoryview],
        octets: int,
        *,
        options: bool = False,
    ) -> None:
        """One segment; more than one MSS of payload becomes a super-packet. `options`: MSS and window scale (on SYN)."""


class Timer(Enum):
    """What the connection's one timer is for."""

    NONE = 0
    RETRANSMIT = 1
    PROBE = 2
    TIME_WAIT = 3


class Connection(StateHolder):
    """A connection from its SYN to its end.

    Args:
        flow: its number.
        path: opaque to TCP: what the sink needs to address packets.
        syn: the SYN's header.
        initial: our initial sequence number (RFC 9293 section 3.4.1: not guessable).
        mss: what the device carries.
        largest: payload octets of one segment: MSS, or a super-packet's worth.
    """

    __slots__ = (
        "_challenge",
        "_config",
        "_congestion",
        "_duplicates",
        "_emit",
        "_largest",
        "_recover",
        "_retries",
        "_rtt",
        "_synack",
        "_wscale",
        "ack_wanted",
        "flow",
        "initial",
        "mss",
        "octets_down",
        "octets_up",
        "opened_at",
        "path",
        "receiving",
        "sending",
        "timer",
        "timer_at",
    )

    def __init__(
        self,
        flow: int,
        path: object,
        syn: TcpHeader,
        *,
        initial: int,
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
        self.initial = initial
        #: Octets of payload in one packet, both sides' options considered.
        self.mss = min(mss, syn.mss or DEFAULT_MSS)
        self.opened_at = now
        self.octets_up = 0
        self.octets_down = 0
        self.receiving = ReceiveHalf(syn.sequence, config.out_of_order)
        self.sending = SendHalf(initial)
        self._wscale = syn.window_scale
        self._largest = max(self.mss, largest - largest % self.mss)
        self._config = config
        self._emit = emit
        self._challenge = challenge
        self._congestion: CongestionControl = NewReno(self.mss)
        self._rtt = RttEstimator()
        self._retries = 0
        self._duplicates = 0
        self._recover: int | None = None  # in recovery until this is acknowledged (RFC 6582)
        self._synack = False
        self.ack_wanted = False
        self.timer = Timer.NONE
        self.timer_at: float | None = None

    # -- the relay's verbs

    def accept(self, window: int) -> None:
        """The far side has connected: answer the SYN, and take `window` octets."""
        self.move(Input.ACCEPT)
        self.receiving.edge = add(self.receiving.next, window)
        self.sending.next = add(self.initial, 1)
        self._synack = True

    def grant(self, octets: int) -> bool:
        """Take `octets` more; True when the program should be told now."""
        receiving = self.receiving
        receiving.edge = add(receiving.edge, octets)
        if self.is_in(State.PENDING, State.SYN_RECEIVED):
            return False
        # RFC 9293 section 3.8.6.2.2: silly window avoidance; tell of two segments, or when it was nearly shut.
        gained = distance(receiving.advertised, receiving.edge)
        told = distance(receiving.next, receiving.advertised)
        if gained >= 2 * self.mss or told < self.mss:
            self.ack_wanted = True
        return self.ack_wanted

    def send(self, data: bytes | memoryview) -> None:
        """Queue payload for the program."""
        self.octets_down += len(data)
        self.sending.queue(data)

    def finish(self) -> None:
        """FIN after what is queued."""
        self.sending.fin_queued = True

    def abort(self, sink: Sink) -> None:
        """RST now; the flow is over."""
        if not self.is_in(State.PENDING, State.CLOSED):
            sink.segment(self, self.sending.next, self.receiving.next, RST | ACK, 0, [], 0)
        self._end()

    def refuse(self, sink: Sink) -> None:
        """RST in answer to the SYN (RFC 9293 section 3.10.7.1)."""
        sink.segment(self, 0, self.receiving.next, RST | ACK, 0, [], 0)
        self._end()

    def drop(self) -> None:
        """Forget the flow without a word."""
        self._end()

    # -- segments in

    def receive(self, header: TcpHeader, data: memoryview, sink: Sink, *, now: float) -> None:
        """One segment of the program."""
        octets = len(data) + (1 if header.flags & FIN else 0) + (1 if header.flags & SYN else 0)
        if self.is_in(State.PENDING):
            if header.flags & RST and distance(self.receiving.next, header.sequence) in (0, -1):
                self._reset()
            return  # the SYN again: its answer waits for the far side
        if not self.receiving.acceptable(header.sequence, octets):
            self._unacceptable(header)
            return
        if header.flags & RST:
            # RFC 5961 section 3.2: exactly the next number, or a challenge.
            if header.sequence == self.receiving.next:
                self._reset()
            else:
                self._challenged(now=now)
            return
        if header.flags & SYN:
            self._challenged(now=now)  # RFC 5961 section 4.2
            return
        if not header.flags & ACK or not self._acknowledged(header, data, sink, now=now):
            return
        if len(data) and self.is_in(*_CAN_RECEIVE):
            self._payload(header.sequence, data)
        if header.flags & FIN and self.is_in(*_CAN_RECEIVE):
            self.receiving.fin = add(header.sequence, len(data))
            self.ack_wanted = True
        if self.receiving.fin is not None and self.is_in(*_CAN_RECEIVE) and self.receiving.fin_reached():
            self._fin_received(now=now)

    def _unacceptable(self, header: TcpHeader) -> None:
        if header.flags & RST:
            return
        if self.is_in(State.SYN_RECEIVED) and header.flags & SYN:
            self._synack = True  # our answer was lost
            return
        self.ack_wanted = True

    def _challenged(self, *, now: float) -> None:
        if self._challenge(now):
            self.ack_wanted = True

    def _acknowledged(self, header: TcpHeader, data: memoryview, sink: Sink, *, now: float) -> bool:
        """RFC 9293 section 3.10.7.4, fifth check; False when the segment is to be dropped."""
        sending = self.sending
        number = header.acknowledgement
        ahead = distance(sending.unacknowledged, number)
        if ahead > distance(sending.unacknowledged, sending.next) or ahead < -(1 << 30):
            if self.is_in(State.SYN_RECEIVED):
                sink.segment(self, number, 0, RST, 0, [], 0)
            else:
                self._challenged(now=now)
            return False
        if self.is_in(State.SYN_RECEIVED):
            if ahead <= 0:
                return False
            self._established(header)
            sending.unacknowledged = add(self.initial, 1)
            ahead -= 1
            self._retries = 0
            self._stop_timer()
        if ahead > 0:
            self._advance(number, sink, now=now)
        elif (
            # RFC 5681 section 2: what counts as a duplicate acknowledgement
            ahead == 0
            and sending.sent
            and not len(data)
            and not header.flags & FIN
            and header.window << sending.scale == sending.window
        ):
            self._duplicate(sink, now=now)
        if self._newer_window(header):
            sending.window = header.window << sending.scale
            sending.window_seq = header.sequence
            sending.window_ack = number
            if self.timer is Timer.PROBE:
                self._retries = 0  # shut, but alive
                if sending.window:
                    self._stop_timer()
        return not self.is_in(State.CLOSED)

    def _established(self, header: TcpHeader) -> None:
        self.move(Input.SYN_ACKED)
        if self._wscale is not None:
            self.sending.scale = self._wscale
            self.receiving.scale = OUR_WINDOW_SCALE
        self.sending.window = header.window << self.sending.scale
        self.sending.window_seq = header.sequence
        self.sending.window_ack = header.acknowledgement

    def _newer_window(self, header: TcpHeader) -> bool:
        """RFC 9293 section 3.10.7.4: SND.WL1 and SND.WL2."""
        sending = self.sending
        newer = distance(sending.window_seq, header.sequence)
        return newer > 0 or (newer == 0 and distance(sending.window_ack, header.acknowledgement) >= 0)

    def _advance(self, number: int, sink: Sink, *, now: float) -> None:
        sending = self.sending
        octets, fin, last = sending.acknowledge(number)
        self._retries = 0
        self._duplicates = 0
        if last is not None and not last.again:
            self._rtt.measured(now - last.sent_at)
        else:
            self._rtt.backoff = 0
        if octets:
            self._emit(DataAcknowledged(self.flow, octets))
        if self._recover is not None:
            if distance(self._recover, number) >= 0:
                self._recover = None
                self._congestion.recovered()
            elif sending.sent:
                self._retransmit(sink, now=now)  # RFC 6582 section 3.2 step 3: a partial acknowledgement
        elif octets:
            self._congestion.acknowledged(octets)
        if sending.sent:
            self._set_timer(Timer.RETRANSMIT, now + self._rtt.timeout())
        else:
            self._stop_timer()
        if fin:
            self._fin_acknowledged(now=now)

    def _duplicate(self, sink: Sink, *, now: float) -> None:
        self._duplicates += 1
        if self._duplicates == DUPLICATES and self._recover is None:
            self._recover = self.sending.next
            self._congestion.lost(self.sending.in_flight)
            self._retransmit(sink, now=now)

    def _payload(self, sequence: int, data: memoryview) -> None:
        self.ack_wanted = True
        for piece in self.receiving.receive(sequence, data):
            self.octets_up += len(piece)
            self._emit(DataReceived(self.flow, piece))

    def _fin_received(self, *, now: float) -> None:
        self.move(Input.FIN_RECEIVED)
        self._emit(EndReceived(self.flow))
        if self.is_in(State.TIME_WAIT):
            self._linger(now=now)

    def _fin_acknowledged(self, *, now: float) -> None:
        self.move(Input.FIN_ACKED)
        if self.is_in(State.TIME_WAIT):
            self._linger(now=now)
        elif self.is_in(State.CLOSED):
            self._stop_timer()
            self._emit(FlowClosed(self.flow))

    def _linger(self, *, now: float) -> None:
        self._set_timer(Timer.TIME_WAIT, now + self._config.time_wait)
        self._emit(FlowClosed(self.flow))

    def _reset(self) -> None:
        quiet = self.is_in(State.TIME_WAIT)
        self._end()
        if not quiet:
            self._emit(FlowReset(self.flow))

    def _end(self) -> None:
        if not self.is_in(State.CLOSED):
            self.move(Input.ABORT)
        self.sending.drop()
        self._synack = self.ack_wanted = False
        self._stop_timer()

    # -- segments out

    def transmit(self, sink: Sink, *, now: float) -> None:
        """Everything that is due: the SYN's answer, data, FIN, or an acknowledgement."""
        if self._synack:
            self._synack = False
            self._send_synack(sink, now=now)
        if self.is_in(*_CAN_SEND):
            self._send_data(sink, now=now)
        if self.ack_wanted:
            self._acknowledge(sink)

    def _send_synack(self, sink: Sink, *, now: float) -> None:
        window = min(self.receiving.window(), 0xFFFF)
        self.receiving.advertised = add(self.receiving.next, window)
        sink.segment(self, self.initial, self.receiving.next, SYN | ACK, window, [], 0, options=True)
        self._set_timer(Timer.RETRANSMIT, now + self._rtt.timeout())

    @property
    def offered_scale(self) -> int | None:
        """The window scale for our SYN: offered when the program's SYN did (RFC 7323 section 2.2)."""
        return None if self._wscale is None else OUR_WINDOW_SCALE

    def _send_data(self, sink: Sink, *, now: float) -> None:
        sending = self.sending
        while sending.queued:
            allowed = min(sending.window, self._congestion.window) - sending.in_flight
            octets = min(allowed, self._largest, sending.queued)
            if octets <= 0 or (octets < self.mss and octets < sending.queued and sending.sent):
                break  # RFC 9293 section 3.8.6.2.1: no silly segments while something is on its way
            if octets < sending.queued and octets > self.mss:
                octets -= octets % self.mss
            last = octets == sending.queued
            fin = last and sending.fin_queued
            self._send_segment(sending.take(octets, fin=fin, now=now), sink, push=last)
        if sending.fin_queued and not sending.queued and not sending.fin_sent:
            self._send_segment(sending.take(0, fin=True, now=now), sink, push=False)
        if sending.sent and self.timer is Timer.NONE:
            self._set_timer(Timer.RETRANSMIT, now + self._rtt.timeout())
        elif sending.queued and not sending.sent and self.timer is Timer.NONE:
            self._set_timer(Timer.PROBE, now + self._rtt.timeout())

    def _send_segment(self, segment: Sent, sink: Sink, *, push: bool) -> None:
        flags = ACK | (PSH if push else 0) | (FIN if segment.fin else 0)
        sink.segment(
            self,
            segment.sequence,
            self.receiving.next,
            flags,
            self.receiving.field(),
            segment.buffers,
            segment.octets,
        )
        self.ack_wanted = False
        if segment.fin and not self.sending.fin_sent:
            self.sending.fin_sent = True
            self.move(Input.FIN_SENT)

    def _acknowledge(self, sink: Sink) -> None:
        self.ack_wanted = False
        if not self.is_in(State.SYN_RECEIVED, State.PENDING):
            sink.segment(self, self.sending.next, self.receiving.next, ACK, self.receiving.field(), [], 0)

    def _retransmit(self, sink: Sink, *, now: float) -> None:
        segment = self.sending.sent[0]
        segment.again = True
        self._send_segment(segment, sink, push=True)
        self._set_timer(Timer.RETRANSMIT, now + self._rtt.timeout())

    # -- time

    def handle_timer(self, sink: Sink, *, now: float) -> None:
        """The timer went off."""
        timer = self.timer
        self._stop_timer()
        match timer:
            case Timer.TIME_WAIT:
                self.move(Input.EXPIRED)
            case Timer.RETRANSMIT | Timer.PROBE:
                self._timed_out(timer, sink, now=now)
            case Timer.NONE:
                pass

    def _timed_out(self, timer: Timer, sink: Sink, *, now: float) -> None:
        self._retries += 1
        self._rtt.timed_out()
        # A shut window may stay shut for ever while it is acknowledged (RFC 9293 section 3.8.6.1): `_retries` starts
        # again with every acknowledgement of a probe.
        if self._retries > self._config.retransmissions:
            self.abort(sink)
            self._emit(FlowReset(self.flow))
        elif timer is Timer.PROBE:
            sink.segment(self, add(self.sending.next, -1), self.receiving.next, ACK, self.receiving.field(), [], 0)
            self._set_timer(Timer.PROBE, now + self._rtt.timeout())
        elif self.is_in(State.SYN_RECEIVED):
            self._send_synack(sink, now=now)
        elif self.sending.sent:
            self._congestion.timed_out(self.sending.in_flight)
            self._recover = self.sending.next
            self._retransmit(sink, now=now)

    def _set_timer(self, timer: Timer, at: float) -> None:
        self.timer = timer
        self.timer_at = at

    def _stop_timer(self) -> None:
        self.timer = Timer.NONE
        self.timer_at = None

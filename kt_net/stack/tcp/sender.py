"""What the sending half does: how much goes out, what goes out again, and the timer that watches over both. Octets, seconds.

One timer at a time, as in Linux: a retransmission timeout (RFC 6298), a tail loss probe (RFC 8985 section 7), the end of the patience with
reordering (RFC 8985 section 6.2), a probe of a shut window (RFC 9293 section 3.8.6.1), or TIME-WAIT.

Not here: bookkeeping of what is in flight (send.py), states (connection.py).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

from kt_net.stack.tcp.congestion import ALGORITHMS, CongestionControl
from kt_net.stack.tcp.rack import DUPLICATES, Rack
from kt_net.stack.tcp.rtt import RttEstimator
from kt_net.stack.tcp.send import SendHalf, Sent

#: Sends a segment that is in flight; `push` when nothing waits behind it.
Put: TypeAlias = Callable[[Sent, bool], None]

#: RFC 8985 section 7.2: what a receiver may delay an acknowledgement of a single segment; and how exact anybody's timers are (Linux
#: waits two ticks).
_TAIL_ACK_DELAY: Final = 0.2
_GRANULARITY: Final = 0.002
#: RFC 9293 section 3.8.6.2.1: how long a sender holds back what would be a silly segment (0.1 to 1 s).
_OVERRIDE: Final = 0.2


class Timer(Enum):
    """What the timer is for."""

    NONE = 0
    RETRANSMIT = 1
    TAIL = 2
    REORDER = 3
    WINDOW = 4
    TIME_WAIT = 5


# By names of this module: before Python 3.12 looking a member up in its class runs Python code, and every segment asks.
_NONE, _RETRANSMIT, _TAIL, _REORDER, _WINDOW, _TIME_WAIT = Timer


class Sender:
    """Sends what is queued.

    Args:
        initial: our initial sequence number.
        algorithm: "cubic" or "newreno".
    """

    __slots__ = (
        "_busy_at",
        "_duplicates",
        "_fast",
        "_handshake_at",
        "_inflation",
        "_largest",
        "_mss",
        "_override",
        "_prompt",
        "_rack",
        "_recover",
        "_tail",
        "_tail_again",
        "_timeout_at",
        "congestion",
        "half",
        "retransmits",
        "retries",
        "rtt",
        "selective",
        "timer",
        "timer_at",
    )

    def __init__(self, initial: int, *, mss: int, largest: int, algorithm: str) -> None:
        self.half = SendHalf(initial)
        self._mss = mss
        self._largest = largest
        self.congestion: CongestionControl = ALGORITHMS[algorithm](mss)
        self.rtt = RttEstimator()
        self._rack = Rack()
        #: RFC 2018 was agreed on.
        self.selective = False
        self.timer = _NONE
        self.timer_at: float | None = None
        self._timeout_at = 0.0  # the latest that a probe may be put off to
        #: Timeouts in a row; segments sent again, ever.
        self.retries = 0
        self.retransmits = 0
        self._recover: int | None = None  # in recovery until this is acknowledged (RFC 6582)
        self._fast = False  # fast recovery, as opposed to that of a timeout
        self._handshake_at = 0.0
        self._busy_at = 0.0  # since then the window may have been what limits us
        self._duplicates = 0
        self._inflation = 0  # RFC 5681 section 3.2 step 4: segments that have left the path without our knowing which
        self._tail: int | None = None  # TLP.end_seq
        self._tail_again = False  # TLP.is_retrans
        self._prompt = False  # the first retransmission of a recovery waits for no room (RFC 6675 section 5, step 4.3)
        self._override = False  # a small segment has waited long enough

    def set_mss(self, mss: int, largest: int) -> None:
        """Before anything is sent."""
        self._mss, self._largest = mss, largest
        self.congestion = type(self.congestion)(mss)

    # -- acknowledgements

    def acknowledged(
        self, place: int, blocks: list[tuple[int, int]], *, duplicate: bool, echoed: float | None, now: float
    ) -> list[Sent]:
        """An acceptable acknowledgement of everything before `place`; gives back the segments that it covers.

        Args:
            blocks: selective acknowledgements, in positions.
            duplicate: it is one in the sense of RFC 5681 section 2.
            echoed: when the segment that caused it was sent, as its timestamp tells.
        """
        half = self.half
        before, flight = half.unacknowledged, half.in_flight
        told_twice = bool(blocks) and self._is_duplicate_told(place, blocks)
        known = half.sacked
        gone = half.acknowledge(place) if place > before else []
        # What was acknowledged selectively arrived then, not now.
        fresh = [segment for segment in gone if not segment.sacked] if known else gone
        news = half.sack(blocks) if blocks and half.sent else []
        if fresh:
            self._measure(fresh, echoed, now)
            self._rack.delivered(fresh, least=self.rtt.least, echoed=echoed, now=now)
        elif gone:
            self.rtt.backoff = 0
        if news:
            self._rack.delivered(news, least=self.rtt.least, echoed=echoed, now=now)
        if told_twice:
            self._rack.duplicate_told(half)
        if gone:
            self.retries = self._duplicates = 0
            self._recovery_progress(place, place - before, flight, now)
        elif duplicate and not self.selective:
            self._duplicate(now)
        if self._tail is not None and place >= self._tail:
            self._end_tail(place > self._tail, told_twice, duplicate, now)
        wait = self._find_losses(now) if self.selective and (half.sacked or half.lost or self._recover) else None
        if gone or news or not half.sent:
            self._arm(now)
        if wait is not None and half.sent:
            self._set(_REORDER, now + wait)
        return gone

    def _is_duplicate_told(self, place: int, blocks: list[tuple[int, int]]) -> bool:
        """RFC 2883 section 4: the first block is below the acknowledgement, or inside the second."""
        left, right = blocks[0]
        return right <= place or (len(blocks) > 1 and blocks[1][0] <= left and right <= blocks[1][1])

    def _measure(self, gone: list[Sent], echoed: float | None, now: float) -> None:
        last = gone[-1]
        if not last.again:
            self.rtt.measured(now - last.sent_at)
        elif echoed is not None:
            self.rtt.measured(max(0.001, now - echoed))  # RFC 7323 section 4
        else:
            self.rtt.backoff = 0

    def _recovery_progress(self, place: int, octets: int, flight: int, now: float) -> None:
        if self._recover is None:
            self._inflation = 0
        elif place < self._recover:
            if not self.selective:
                # RFC 6582 section 3.2 step 3: a partial acknowledgement tells of the next loss.
                self._inflation = max(0, self._inflation - octets + self._mss)
                if self._fast:
                    self.half.mark_first_lost(self._mss)
                    self._prompt = True
            if self._fast:
                return
        else:
            fast, self._recover, self._inflation = self._fast, None, 0
            if fast:
                self.congestion.recovered()
                self._rack.recovery_ended()
                return
        # RFC 9438 section 4.2, RFC 5681 section 3.1: a window that is not used says nothing, and does not grow.
        window = self.congestion.window
        if 2 * flight >= window if window < self.congestion.threshold else flight + self._largest >= window:
            self.congestion.acknowledged(octets, rtt=self.rtt.smoothed or 0.0, now=now)
        else:
            self.congestion.idle(now - self._busy_at)
        self._busy_at = now

    def _duplicate(self, now: float) -> None:
        self._duplicates += 1
        self._inflation += self._mss
        if self._duplicates == DUPLICATES and self._recover is None:
            self.half.mark_first_lost(self._mss)
            self._begin_recovery(now)

    def _find_losses(self, now: float) -> float | None:
        half, lost = self.half, self.half.lost
        patience = self._rack.patience(
            half,
            recovering=self._recover is not None,
            mss=self._mss,
            least=self.rtt.least,
            smoothed=self.rtt.smoothed,
        )
        wait = self._rack.mark(half, patience=patience, now=now)
        if half.lost > lost and self._recover is None:
            self._begin_recovery(now)
        return wait

    def _begin_recovery(self, now: float) -> None:
        self._recover, self._fast, self._tail = self.half.next, True, None
        self._prompt = True
        self.congestion.lost(self._flight(), now=now)

    def _flight(self) -> int:
        """What a loss is measured against: RFC 5681's FlightSize, but not what was sent in an earlier recovery while selective
        acknowledgements made room; that was never within one window."""
        return min(self.half.in_flight, self.congestion.window)

    def _end_tail(self, beyond: bool, told_twice: bool, duplicate: bool, now: float) -> None:
        """RFC 8985 section 7.4.2: what became of a probe; `beyond`: more than it was acknowledged. Acknowledgements of a probe that was
        sent again say nothing by themselves: both or one of two may have arrived."""
        if self._tail_again and not told_twice:
            if not beyond and not duplicate:
                return
            if beyond and self._recover is None:
                self.congestion.lost(self._flight(), now=now)
        self._tail = None

    # -- sending

    def transmit(self, put: Put, *, now: float) -> None:
        """What is lost, then what is queued, as far as the windows go."""
        half = self.half
        if half.lost:
            self._send_lost(put, now)
        if half.queued and not half.sent:
            self.congestion.idle(now - self._busy_at)
            self._busy_at = now
        while half.queued and not half.lost:
            octets = self._next_size()
            if octets <= 0:
                break
            fin = octets == half.queued and half.fin_queued
            put(half.take(octets, fin=fin, now=now), octets == half.queued)
            self._after_new(now)
        if half.fin_queued and not half.queued and not half.fin_sent:
            put(half.take(0, fin=True, now=now), False)
            self._after_new(now)
        if half.queued and not half.sent and self.timer is _NONE:
            self._set(_WINDOW, now + (_OVERRIDE if half.window else self.rtt.timeout()))

    def _next_size(self) -> int:
        """Octets of the next new segment; 0: not now."""
        half = self.half
        open_window = half.unacknowledged + half.window - half.next
        allowed = min(open_window, self.congestion.window + self._inflation - half.pipe)
        octets = min(allowed, self._largest, half.queued)
        if octets >= half.queued or octets >= self._mss:
            # Whole segments while there is more: the rest would be a silly one.
            return octets - octets % self._mss if self._mss < octets < half.queued else octets
        if half.sent or octets <= 0:
            return 0
        # RFC 9293 section 3.8.6.2.1 (3): half of the largest window, or the override timer.
        return octets if self._override or 2 * octets >= half.max_window else 0

    def _after_new(self, now: float) -> None:
        self._override = False
        if self.timer in (_NONE, _WINDOW):
            self._arm(now)
        elif self.timer in (_TAIL, _RETRANSMIT):
            self._watch(now)

    def _send_lost(self, put: Put, now: float) -> None:
        half = self.half
        while (segment := half.first_lost()) is not None:
            room = self.congestion.window + self._inflation - half.pipe
            if room < self._mss and half.pipe > 0 and not self._prompt:
                break
            self._prompt = False
            allowed = max(self._mss, min(room, self._largest))
            part = half.head(segment, allowed - allowed % self._mss)
            half.sent_again(part, now)
            self.retransmits += 1
            put(part, True)
            self._arm(now)

    # -- the timer

    def timed_out(self, put: Put, *, now: float) -> None:
        """The timer went off (not TIME-WAIT's); what is to be sent is sent by the next `transmit`, a probe is sent at once."""
        timer = self.timer
        self.stop()
        if timer is _REORDER:
            wait = self._find_losses(now)
            self._arm(now)
            if wait is not None:
                self._set(_REORDER, now + wait)
        elif timer is _TAIL:
            self._probe_tail(put, now)
        elif timer is _RETRANSMIT:
            self.retries += 1
            self.rtt.timed_out()
            if self.half.sent:
                self._retransmission_timeout(now)

    def _retransmission_timeout(self, now: float) -> None:
        half = self.half
        self.congestion.timed_out(self._flight(), again=self.rtt.backoff > 1, now=now)
        if half.sent[0].sacked:
            half.forget_sacks()  # what was told of at the edge of the window is not acknowledged: the receiver has dropped it
        patience = self._rack.patience(
            half, recovering=True, mss=self._mss, least=self.rtt.least, smoothed=self.rtt.smoothed
        )
        for segment in half.sent:
            # RFC 8985 section 6.3; without SACK, everything (RFC 5681 section 3.1 starts again at the first).
            if segment is half.sent[0] or not self.selective or segment.sent_at + self._rack.rtt + patience <= now:
                half.mark_lost(segment)
        self._recover, self._fast, self._tail = half.next, False, None
        self._prompt = True  # RFC 6298 section 5.4: the earliest goes out, whatever else may be on its way
        self._duplicates = self._inflation = 0
        self._arm(now)

    def _probe_tail(self, put: Put, now: float) -> None:
        half = self.half
        room = half.unacknowledged + half.window - half.next
        self._tail_again = False
        if half.lost:
            self._prompt = True  # the probe is what is known to be missing; `transmit` sends it
        elif half.queued and room >= min(self._mss, half.queued):
            octets = min(self._mss, half.queued)
            put(half.take(octets, fin=octets == half.queued and half.fin_queued, now=now), True)
        else:
            segment = half.tail(self._mss)
            half.sent_again(segment, now)
            self.retransmits += 1
            self._tail_again = True
            put(segment, True)
        self._tail = half.next
        self._arm(now)

    def window_told(self, *, opened: bool, now: float) -> None:
        """The program's kernel told a window: a probe of a shut one is answered. `opened`: it was shut."""
        if self.timer is _WINDOW:
            self.retries = 0
            if self.half.window:
                self.rtt.backoff = 0
                self.stop()
        elif opened and self.half.sent and self.rtt.backoff:
            self.rtt.backoff = 0  # what was beyond the shut window was dropped, not lost on the way
            self._arm(now)
        elif not self.half.window:
            self.retries = 0  # shrunk to nothing under what is in flight, but alive (RFC 9293 section 3.8.6.1)

    def window_timed_out(self, *, now: float) -> bool:
        """The timer of a shut or nearly shut window; True when a probe is to be sent."""
        self.stop()
        if self.half.window:
            self._override = True
            return False
        self.retries += 1
        self.rtt.timed_out()
        self._set(_WINDOW, now + self.rtt.timeout())
        return True

    def linger(self, until: float) -> None:
        """TIME-WAIT."""
        self._set(_TIME_WAIT, until)

    def watch_handshake(self, now: float) -> None:
        """Our SYN is on its way."""
        self._handshake_at = now
        self._set(_RETRANSMIT, now + self.rtt.timeout())

    def handshake_done(self, *, echoed: float | None, now: float) -> None:
        """Our SYN is acknowledged; `echoed` as for `acknowledged`."""
        if not self.retries:
            self.rtt.measured(now - self._handshake_at)
        else:
            if echoed is not None:
                self.rtt.measured(max(0.001, now - echoed))
            self.congestion.window = self._mss  # RFC 5681 section 3.1: a SYN was lost, begin with one segment
        self.half.unacknowledged = 1
        self._busy_at = now
        self.retries = self.rtt.backoff = 0
        self.stop()

    def stop(self) -> None:
        """No timer."""
        self.timer = _NONE
        self.timer_at = None

    def _set(self, timer: Timer, at: float) -> None:
        self.timer = timer
        self.timer_at = at

    def _arm(self, now: float) -> None:
        """The timer over what is in flight, from now on (RFC 6298 section 5)."""
        if self.half.sent:
            self._timeout_at = now + self.rtt.timeout()
            self._watch(now)
        elif self.timer is not _TIME_WAIT:
            self.stop()

    def _watch(self, now: float) -> None:
        """A probe comes before the timeout (RFC 8985 section 7.2), once for what is in flight.

        Deviation: RFC 8985 has none during a recovery or beside selective acknowledgements; RFC 9002 section 6.2 (QUIC) has. A flight
        whose last acknowledgement is lost would cost a timeout, which is hundreds of round trips of this path.
        """
        half, smoothed = self.half, self.rtt.smoothed
        if self.selective and smoothed is not None and self._tail is None and not self.retries:
            alone = half.next - half.unacknowledged <= self._mss
            probe_at = now + 2 * smoothed + (_TAIL_ACK_DELAY if alone else _GRANULARITY)
            if probe_at < self._timeout_at:
                self._set(_TAIL, probe_at)
                return
        self._set(_RETRANSMIT, self._timeout_at)

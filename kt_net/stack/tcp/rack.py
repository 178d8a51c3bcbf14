"""What counts as lost: RACK (RFC 8985 sections 5 and 6), by the time of transmission. Seconds, positions (seq.py).

Not here: what is done about it (recovery.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kt_net.stack.tcp.send import SendHalf, Sent

#: RFC 8985 section 6.2 step 4, and RFC 5681 section 3.2.
DUPLICATES: Final = 3
#: RFC 8985 section 6.2 step 4: how many recoveries a widened reordering window lasts.
_PERSIST: Final = 16
#: Nothing waits for less: sums of floats are not exact, and a timer for their difference would go off for ever.
_INSTANT: Final = 1e-6


class Rack:
    """The most recently sent segment that has arrived, and what follows for the others."""

    __slots__ = ("_end", "_forward", "_multiplier", "_persist", "_round", "_sent_at", "reordering", "rtt")

    def __init__(self) -> None:
        self._sent_at = -1.0  # RACK.xmit_ts, of the segment that ends at `_end`
        self._end = 0
        self._forward = 0  # RACK.fack: the highest that has arrived
        self.rtt = 0.0
        self.reordering = False
        self._multiplier = 1
        self._persist = _PERSIST
        self._round: int | None = None  # until this is acknowledged, one widening is enough

    def delivered(self, segments: Iterable[Sent], *, least: float, echoed: float | None, now: float) -> None:
        """Segments that an acknowledgement has news of (section 6.2, steps 2 and 3).

        Args:
            least: the smallest round trip seen.
            echoed: when the segment was sent that caused the acknowledgement, as its timestamp tells (to the millisecond).
        """
        for segment in segments:
            rtt = now - segment.sent_at
            if segment.again and (rtt < least or (echoed is not None and echoed < segment.sent_at - 0.001)):
                continue  # perhaps it was an earlier transmission that arrived
            if not segment.again and segment.end < self._forward:
                self.reordering = True
            self._forward = max(self._forward, segment.end)
            if (segment.sent_at, segment.end) > (self._sent_at, self._end):
                self._sent_at, self._end = segment.sent_at, segment.end
                self.rtt = rtt

    def duplicate_told(self, sending: SendHalf) -> None:
        """A D-SACK: something was sent again for nothing, so more patience (section 6.2 step 4)."""
        if self._round is None or sending.unacknowledged >= self._round:
            self._round = sending.next
            self._multiplier += 1
            self._persist = _PERSIST

    def recovery_ended(self) -> None:
        """One recovery more without a D-SACK."""
        self._persist -= 1
        if self._persist <= 0:
            self._multiplier, self._persist = 1, _PERSIST

    def patience(self, sending: SendHalf, *, recovering: bool, mss: int, least: float, smoothed: float | None) -> float:
        """The reordering window (section 6.2 step 4)."""
        if not self.reordering and (recovering or sending.sacked >= DUPLICATES * mss):
            return 0.0
        return min(self._multiplier * least / 4, smoothed or 0.0)

    def mark(self, sending: SendHalf, *, patience: float, now: float) -> float | None:
        """Mark what is lost (section 6.2 step 5); gives back how long until something else may be."""
        wait: float | None = None
        latest, end = self._sent_at, self._end
        for segment in sending.sent:
            if segment.sacked or segment.lost or (segment.sent_at, segment.end) >= (latest, end):
                continue
            left = segment.sent_at + self.rtt + patience - now
            if left < _INSTANT:
                sending.mark_lost(segment)
            elif wait is None or left > wait:
                wait = left
        return wait

"""Round-trip time and retransmission timeout (RFC 6298). Seconds.

Not here: which segment is timed (recovery.py; Karn's rule is kept there).
"""

from __future__ import annotations

from typing import Final

#: Deviation: RFC 6298 section 2.4 has 1 s; Linux has 200 ms (TCP_RTO_MIN), and so have we.
MIN_RTO: Final = 0.2
MAX_RTO: Final = 60.0
#: RFC 6298 section 2.1.
INITIAL_RTO: Final = 1.0
_ALPHA: Final = 1 / 8
_BETA: Final = 1 / 4
_K: Final = 4


class RttEstimator:
    """Smoothed round trip and what follows from it. `least`: the smallest seen (RFC 8985 section 6.2, step 1)."""

    __slots__ = ("backoff", "least", "rto", "smoothed", "variation")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0
        self.rto = INITIAL_RTO
        self.backoff = 0
        self.least = MAX_RTO

    def measured(self, rtt: float) -> None:
        """One sample (RFC 6298 sections 2.2, 2.3, 3)."""
        if self.smoothed is None:
            self.smoothed = rtt
            self.variation = rtt / 2
        else:
            self.variation += _BETA * (abs(self.smoothed - rtt) - self.variation)
            self.smoothed += _ALPHA * (rtt - self.smoothed)
        if rtt < self.least:
            self.least = rtt
        self.rto = min(MAX_RTO, max(MIN_RTO, self.smoothed + _K * self.variation))
        self.backoff = 0

    def timed_out(self) -> None:
        """Back off (RFC 6298 section 5.5)."""
        self.backoff += 1

    def timeout(self) -> float:
        """How long to wait for an acknowledgement."""
        return min(MAX_RTO, self.rto * (1 << min(self.backoff, 10))) if self.backoff else self.rto

"""Congestion control behind one interface: CUBIC (RFC 9438), NewReno (RFC 5681, RFC 6582). Octets, seconds.

Not here: what is in flight (send.py), what is lost (rack.py), when a recovery begins and ends (recovery.py).
"""

from __future__ import annotations

from typing import Final, Protocol

#: RFC 6928: ten segments.
INITIAL_WINDOW_SEGMENTS: Final = 10
#: More in flight than this cannot make a TUN faster.
MAX_WINDOW: Final = 16 * 1024 * 1024


class CongestionControl(Protocol):
    """How much may be in flight.

    Attributes:
        window: cwnd.
        threshold: ssthresh.
    """

    window: int
    threshold: int

    def __init__(self, mss: int) -> None: ...

    def acknowledged(self, octets: int, *, rtt: float, now: float) -> None:
        """New data was acknowledged while the window was what limited us, outside fast recovery. `rtt`: the smoothed one."""

    def idle(self, seconds: float) -> None:
        """For so long the window was not what limited us."""

    def lost(self, in_flight: int, *, now: float) -> None:
        """A loss was seen; fast recovery begins."""

    def recovered(self) -> None:
        """Everything sent before the loss is acknowledged."""

    def timed_out(self, in_flight: int, *, again: bool, now: float) -> None:
        """The retransmission timer went off; `again` when it is not the first time for this octet (RFC 5681 section 3.1)."""


class NewReno:
    """RFC 5681 sections 3.1 and 3.2. Octets are counted, not acknowledgements (RFC 3465): super-packets are acknowledged at once."""

    __slots__ = ("_mss", "threshold", "window")

    def __init__(self, mss: int) -> None:
        self._mss = mss
        self.window = INITIAL_WINDOW_SEGMENTS * mss
        self.threshold = MAX_WINDOW

    def acknowledged(self, octets: int, *, rtt: float, now: float) -> None:
        """See `CongestionControl`."""
        if self.window < self.threshold:
            self.window = min(MAX_WINDOW, self.window + octets)
        else:
            self.window = min(MAX_WINDOW, self.window + max(1, self._mss * octets // self.window))

    def idle(self, seconds: float) -> None:
        """See `CongestionControl`."""

    def lost(self, in_flight: int, *, now: float) -> None:
        """See `CongestionControl`."""
        self.threshold = max(in_flight // 2, 2 * self._mss)
        self.window = self.threshold

    def recovered(self) -> None:
        """See `CongestionControl`; RFC 6582 section 3.2 step 3, option 2."""
        self.window = self.threshold

    def timed_out(self, in_flight: int, *, again: bool, now: float) -> None:
        """See `CongestionControl`."""
        if not again:
            self.threshold = max(in_flight // 2, 2 * self._mss)
        self.window = self._mss


class Cubic:
    """RFC 9438. The window is kept in octets; the cubic function's unit is the segment."""

    __slots__ = ("_credit", "_epoch", "_estimate", "_mss", "_origin", "_plateau", "_reno_until", "threshold", "window")

    #: RFC 9438 sections 4.6, 5.1 and 4.3.
    BETA: Final = 0.7
    C: Final = 0.4
    ALPHA: Final = 3 * (1 - BETA) / (1 + BETA)

    def __init__(self, mss: int) -> None:
        self._mss = mss
        self.window = INITIAL_WINDOW_SEGMENTS * mss
        self.threshold = MAX_WINDOW
        self._plateau = 0.0  # W_max, segments
        self._epoch: float | None = None  # when this congestion avoidance began
        self._origin = 0.0  # K: seconds from there to the plateau
        self._estimate = 0.0  # W_est: what Reno would have, segments
        self._reno_until = 0.0  # cwnd_prior: from there on alpha is 1
        self._credit = 0.0  # octets of growth not yet given

    def acknowledged(self, octets: int, *, rtt: float, now: float) -> None:
        """See `CongestionControl`; RFC 9438 sections 4.2 to 4.5."""
        if self.window < self.threshold:
            self.window = min(MAX_WINDOW, self.window + octets)
            return
        segments = self.window / self._mss
        if self._epoch is None:
            self._epoch = now
            self._plateau = max(self._plateau, segments)
            self._origin = ((self._plateau - segments) / self.C) ** (1 / 3)
            self._estimate = segments
        alpha = self.ALPHA if self._estimate < self._reno_until else 1.0
        self._estimate += alpha * octets / self._mss / segments
        elapsed = now - self._epoch
        if self.C * (elapsed - self._origin) ** 3 + self._plateau < self._estimate:
            self.window = min(MAX_WINDOW, max(self.window, int(self._estimate * self._mss)))
            return
        target = self.C * (elapsed + rtt - self._origin) ** 3 + self._plateau
        target = min(max(target, segments), 1.5 * segments)
        self._credit += (target - segments) / segments * octets
        whole = int(self._credit)
        self._credit -= whole
        self.window = min(MAX_WINDOW, self.window + whole)

    def idle(self, seconds: float) -> None:
        """See `CongestionControl`; RFC 9438 section 5.8: such time does not count."""
        if self._epoch is not None:
            self._epoch += seconds

    def lost(self, in_flight: int, *, now: float) -> None:
        """See `CongestionControl`; RFC 9438 sections 4.6 and 4.7."""
        self._reduce(in_flight)
        self.window = self.threshold

    def recovered(self) -> None:
        """See `CongestionControl`."""
        self.window = self.threshold

    def timed_out(self, in_flight: int, *, again: bool, now: float) -> None:
        """See `CongestionControl`; RFC 9438 section 4.8."""
        if not again:
            self._reduce(in_flight)
        self.window = self._mss

    def _reduce(self, in_flight: int) -> None:
        segments = self.window / self._mss
        # RFC 9438 section 4.7: fast convergence; a flow that did not reach its last plateau makes room.
        self._plateau = segments * (1 + self.BETA) / 2 if segments < self._plateau else segments
        self._reno_until = segments
        self._epoch = None
        self._credit = 0.0
        self.threshold = max(int(in_flight * self.BETA), 2 * self._mss)


ALGORITHMS: Final[dict[str, type[Cubic] | type[NewReno]]] = {"cubic": Cubic, "newreno": NewReno}

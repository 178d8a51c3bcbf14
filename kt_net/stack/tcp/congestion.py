"""Congestion control: NewReno (RFC 5681, RFC 6582), behind an interface that another may take. Octets.

Not here: what is in flight (send.py).
"""

from __future__ import annotations

from typing import Final, Protocol

#: RFC 6928: ten segments.
INITIAL_WINDOW_SEGMENTS: Final = 10
#: More in flight than this cannot make a TUN faster.
MAX_WINDOW: Final = 16 * 1024 * 1024


class CongestionControl(Protocol):
    """How much may be in flight."""

    window: int

    def acknowledged(self, octets: int) -> None:
        """New data was acknowledged, outside recovery."""

    def lost(self, in_flight: int) -> None:
        """A loss was seen by duplicate acknowledgements; recovery begins."""

    def recovered(self) -> None:
        """Everything sent before the loss is acknowledged."""

    def timed_out(self, in_flight: int) -> None:
        """The retransmission timer went off."""


class NewReno:
    """RFC 5681 section 3.1 and 3.2."""

    __slots__ = ("_mss", "_threshold", "window")

    def __init__(self, mss: int) -> None:
        self._mss = mss
        self.window = INITIAL_WINDOW_SEGMENTS * mss
        self._threshold = MAX_WINDOW

    def acknowledged(self, octets: int) -> None:
        """See `CongestionControl`. Octets are counted, not acknowledgements (RFC 3465): super-packets are acknowledged at once."""
        if self.window < self._threshold:
            self.window = min(MAX_WINDOW, self.window + octets)
        else:
            self.window = min(MAX_WINDOW, self.window + max(1, self._mss * octets // self.window))

    def lost(self, in_flight: int) -> None:
        """See `CongestionControl`."""
        self._threshold = max(in_flight // 2, 2 * self._mss)
        self.window = self._threshold

    def recovered(self) -> None:
        """See `CongestionControl`."""
        self.window = self._threshold

    def timed_out(self, in_flight: int) -> None:
        """See `CongestionControl`."""
        self._threshold = max(in_flight // 2, 2 * self._mss)
        self.window = self._mss

"""Timestamps of one connection (RFC 7323 sections 3 to 5): what we say, what we echo, what is too old. Milliseconds on the wire.

Not here: the option's octets (kt_net.wire.tcp).
"""

from __future__ import annotations

from typing import Final

from kt_net.stack.tcp.seq import MASK, distance

#: RFC 7323 section 5.5: after 24 days a remembered timestamp says nothing any more.
_OUTDATED: Final = 24 * 24 * 3600.0


class Timestamps:
    """Both directions.

    Args:
        offset: of our clock, not guessable (RFC 7323 section 7.1).
        first: the timestamp of the program's SYN.
    """

    __slots__ = ("_offset", "_recent_at", "recent")

    def __init__(self, offset: int, first: int, *, now: float) -> None:
        self._offset = offset
        #: TS.Recent.
        self.recent = first
        self._recent_at = now

    def value(self, now: float) -> int:
        """TSval."""
        return (int(now * 1000) + self._offset) & MASK

    def sent_at(self, echo: int, *, now: float) -> float | None:
        """When the segment was sent whose timestamp came back as `echo`; None when that cannot be."""
        age = distance(echo, self.value(now))
        return now - age / 1000 if age >= 0 else None

    def too_old(self, value: int, *, now: float) -> bool:
        """Protection against wrapped sequence numbers (RFC 7323 section 5.3, R1)."""
        return distance(self.recent, value) < 0 and now - self._recent_at < _OUTDATED

    def update(self, value: int, *, now: float) -> None:
        """The timestamp of a segment at the left edge of what was acknowledged (RFC 7323 section 4.3)."""
        if distance(self.recent, value) >= 0 or now - self._recent_at >= _OUTDATED:
            self.recent = value
            self._recent_at = now

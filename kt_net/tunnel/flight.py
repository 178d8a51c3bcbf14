"""How much of a lane may be on its way: what the path carries in its own round trip, and a few milliseconds of queue.

Everything between the two ends queues without a bound worth the name (a websocket through an API server takes megabytes), and what is
queued there is in front of every small message that comes later. So the sender keeps the queue short by itself: it compares the round
trip of its octets with the shortest one seen, and gives the path what its measured rate needs, as BBR does (draft-ietf-ccwg-bbr,
"BBR.max_inflight"; the same for a probe of the shortest round trip). There is no loss to react to: carriers lose nothing.

Not here: what is sent (lane.py), credit of single streams (mux.py).
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

#: Seconds of queue that a full lane may make on its path.
QUEUE: Final = 0.03
#: Octets on the way at first, and at least. On a link of 2 Mbit/s they are a quarter of a second, which somebody may have to wait behind
#: them; with half of it such a link is not filled. The first rounds double it.
FIRST: Final = 64 * 1024
FLOOR: Final = 64 * 1024
#: An acknowledgement of fewer octets comes from a timer, and says nothing about the path.
PROMPT: Final = 16 * 1024
#: Seconds after which the shortest round trip is to be seen again.
FRESH: Final = 10.0


class _Probe(Enum):
    """Where a probe of the shortest round trip is."""

    NONE = 0
    DRAINING = 1  # what is on the way was sent when there was a queue
    MEASURING = 2


class Flight:
    """One direction of one lane. Octets are offsets in the lane's data.

    Args:
        cap: octets on the way at the most.
    """

    def __init__(self, *, cap: int) -> None:
        self._cap = cap
        self._limit = min(FIRST, cap)
        self._growing = True  # nothing has queued yet
        #: When octets up to an offset were sent.
        self._marks: deque[tuple[int, float]] = deque()
        self._sent = 0
        self._acknowledged = 0
        self._shortest: float | None = None
        self._shortest_at = 0.0
        self._full = False  # the limit was reached in this round
        self._round_end = 0
        self._round_began: tuple[int, float] | None = None
        self._round_trip: float | None = None
        self._probe = _Probe.NONE

    @property
    def limit(self) -> int:
        """Octets that may be on the way now."""
        return self._limit if self._probe is _Probe.NONE else min(FLOOR, self._cap)

    @property
    def round_trip(self) -> float | None:
        """The shortest seen lately, seconds."""
        return self._shortest

    def room(self) -> int:
        """Octets that may be sent now."""
        room = self.limit - (self._sent - self._acknowledged)
        if room <= 0:
            self._full = True
        return max(0, room)

    def sent(self, octets: int, *, now: float) -> None:
        """So many more are on the way."""
        if self._sent == self._acknowledged:  # the path was empty: a round begins
            self._round_end, self._round_began, self._round_trip = self._sent + octets, (self._sent, now), None
        self._sent += octets
        self._marks.append((self._sent, now))

    def acknowledged(self, offset: int, *, now: float) -> None:
        """The other end has everything up to `offset`."""
        prompt = offset - self._acknowledged >= PROMPT
        self._acknowledged = offset
        sample: float | None = None
        while self._marks and self._marks[0][0] <= offset:
            sample = now - self._marks.popleft()[1]
        if sample is not None and prompt:
            self._round_trip = sample if self._round_trip is None else min(self._round_trip, sample)
            if self._shortest is None or sample <= self._shortest:
                self._shortest, self._shortest_at = sample, now
        if offset >= self._round_end:
            self._round_over(now=now)

    def restart(self, acknowledged: int, *, now: float) -> None:
        """Another carrier: the path is another one, and everything behind `acknowledged` is sent again now."""
        self._acknowledged = acknowledged
        self._marks.clear()
        if self._sent > acknowledged:
            self._marks.append((self._sent, now))
        self._limit, self._growing, self._shortest, self._probe = min(FIRST, self._cap), True, None, _Probe.NONE
        self._round_end, self._round_began, self._round_trip = self._sent, None, None

    def _round_over(self, *, now: float) -> None:
        """What was on its way when the round began has arrived."""
        began, trip, shortest = self._round_began, self._round_trip, self._shortest
        if self._probe is _Probe.DRAINING:
            self._probe = _Probe.MEASURING
        elif trip is not None and shortest is not None and began is not None:
            if self._probe is _Probe.MEASURING:
                self._shortest, self._shortest_at, self._probe = trip, now, _Probe.NONE
            else:
                self._judge(began, trip, trip - shortest, now=now)
        self._full = False
        self._round_end, self._round_trip = self._sent, None
        self._round_began = (self._acknowledged, now)

    def _judge(self, began: tuple[int, float], trip: float, queue: float, *, now: float) -> None:
        if queue > QUEUE:
            self._growing = False
            rate = (self._acknowledged - began[0]) / max(now - began[1], trip)
            self._limit = max(min(FLOOR, self._cap), min(self._limit, int(rate * (trip - queue + QUEUE))))
        elif self._full:
            self._limit = min(self._cap, self._limit * 2 if self._growing else self._limit + self._limit // 8)
        if self._full and now - self._shortest_at > FRESH:
            self._probe = _Probe.DRAINING

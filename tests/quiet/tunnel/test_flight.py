"""How much of a lane is on its way: against a path with a rate, a delay and a queue, in virtual time."""

from __future__ import annotations

import heapq
import statistics

import pytest

from kt_net.tunnel.flight import FLOOR, FRESH, PROMPT, QUEUE, Flight

CAP = 4 << 20
#: Octets sent at once.
PIECE = 16 * 1024


class Path:
    """A bottleneck of `rate` octets a second behind `delay` seconds, acknowledgements the same way back."""

    def __init__(self, flight: Flight, *, rate: float, delay: float) -> None:
        self.flight, self.rate, self.delay = flight, rate, delay
        self.now = 0.0
        self.sent = self.acknowledged = 0
        self._free = 0.0  # when the bottleneck has nothing to do
        self._acks: list[tuple[float, int]] = []
        self._unacknowledged = 0
        self.queues: list[float] = []

    def run(self, seconds: float, *, offered: float = 1e12) -> float:
        """Octets a second that arrived. `offered`: what the sender has, octets a second."""
        until, start, first = self.now + seconds, self.now, self.acknowledged
        while self.now < until:
            while self.flight.room() > 0 and self.sent - first <= 1 + offered * (self.now - start):
                self._send()
            self.now = min(self._acks[0][0], until) if self._acks else until
            if self.flight.room() > 0:  # the sender has nothing; when it has again
                self.now = min(self.now, start + (self.sent - first + 1) / offered)
            while self._acks and self._acks[0][0] <= self.now:
                _, self.acknowledged = heapq.heappop(self._acks)
                self.flight.acknowledged(self.acknowledged, now=self.now)
        return (self.acknowledged - first) / seconds

    def _send(self) -> None:
        self.flight.sent(PIECE, now=self.now)
        self.sent += PIECE
        begin = max(self.now + self.delay, self._free)
        self.queues.append(begin - self.now - self.delay)
        self._free = begin + PIECE / self.rate
        self._unacknowledged += PIECE
        if self._unacknowledged >= PROMPT:
            self._unacknowledged = 0
            heapq.heappush(self._acks, (self._free + self.delay, self.sent))


@pytest.mark.parametrize("rate", [2.5e5, 1e6, 1e7, 1e8])
@pytest.mark.parametrize("delay", [0.0003, 0.005, 0.05])
def test_path_is_full_and_its_queue_short(rate: float, delay: float) -> None:
    path = Path(Flight(cap=CAP), rate=rate, delay=delay)
    path.run(8)
    path.queues.clear()
    carried = path.run(30)
    possible = min(rate, CAP / (2 * delay))
    assert carried > 0.85 * possible
    assert statistics.median(path.queues) < 2 * QUEUE + FLOOR / rate


def test_slower_path_is_noticed() -> None:
    path = Path(Flight(cap=CAP), rate=1e8, delay=0.01)
    path.run(5)
    path.rate = 1e6
    path.run(12)  # what was on its way takes four seconds
    assert path.flight.limit < 1e6 * (0.02 + 3 * QUEUE) + FLOOR


def test_longer_path_is_learnt_within_a_probe() -> None:
    """A route changes under the same carrier: what was the shortest round trip is none any more, and must not starve the lane."""
    path = Path(Flight(cap=CAP), rate=1e7, delay=0.005)
    path.run(5)
    path.delay = 0.05
    path.run(2 * FRESH)
    assert path.run(10) > 0.8e7


def test_little_data_neither_grows_nor_shrinks() -> None:
    flight = Flight(cap=CAP)
    path = Path(flight, rate=1e8, delay=0.01)
    before = flight.limit
    path.run(10, offered=1e6)
    assert flight.limit == before


def test_late_acknowledgements_say_nothing() -> None:
    flight = Flight(cap=CAP)
    flight.sent(100, now=0.0)
    flight.acknowledged(100, now=5.0)
    assert flight.round_trip is None


def test_another_carrier_begins_anew() -> None:
    flight = Flight(cap=CAP)
    path = Path(flight, rate=1e8, delay=0.001)
    path.run(3)
    flight.restart(path.acknowledged, now=path.now)
    assert flight.round_trip is None
    assert flight.room() == max(0, flight.limit - (path.sent - path.acknowledged))


def test_cap() -> None:
    flight = Flight(cap=1000)
    flight.sent(1000, now=0.0)
    assert flight.room() == 0

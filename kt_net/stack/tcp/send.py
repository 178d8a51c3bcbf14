"""The sending half: what is queued, what is in flight, what is acknowledged. Octets.

Payload is kept as it came, in pieces; a segment is a list of slices, so nothing is copied between the tunnel and the device.

Not here: when to send (connection.py), how much may be in flight (congestion.py).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from kt_net.stack.tcp.seq import add, distance


@dataclass(slots=True)
class Sent:
    """One segment in flight; `fin` counts one in sequence space. `again` once it was sent more than once (Karn's rule)."""

    sequence: int
    octets: int
    buffers: list[memoryview]
    fin: bool
    sent_at: float
    again: bool = False

    @property
    def end(self) -> int:
        """The sequence number behind it."""
        return add(self.sequence, self.octets + (1 if self.fin else 0))


class SendHalf:
    """Sequence space to the program."""

    __slots__ = (
        "_queue",
        "fin_queued",
        "fin_sent",
        "in_flight",
        "next",
        "queued",
        "scale",
        "sent",
        "unacknowledged",
        "window",
        "window_ack",
        "window_seq",
    )

    def __init__(self, initial: int) -> None:
        self.unacknowledged = initial
        self.next = initial
        #: What the program's kernel takes, from `unacknowledged` on.
        self.window = 0
        self.window_seq = 0
        self.window_ack = initial
        self.scale = 0
        self.sent: deque[Sent] = deque()
        self.in_flight = 0
        self._queue: deque[memoryview] = deque()
        self.queued = 0
        self.fin_queued = False
        self.fin_sent = False

    def queue(self, data: bytes | memoryview) -> None:
        """More payload."""
        if len(data):
            self._queue.append(memoryview(data))
            self.queued += len(data)

    def take(self, octets: int, *, fin: bool, now: float) -> Sent:
        """The next segment: `octets` of the queue, which now are in flight."""
        buffers: list[memoryview] = []
        left = octets
        while left:
            first = self._queue[0]
            if len(first) > left:
                buffers.append(first[:left])
                self._queue[0] = first[left:]
                break
            buffers.append(self._queue.popleft())
            left -= len(first)
        segment = Sent(self.next, octets, buffers, fin, now)
        self.queued -= octets
        self.in_flight += octets
        self.next = segment.end
        self.sent.append(segment)
        return segment

    def acknowledge(self, number: int) -> tuple[int, bool, Sent | None]:
        """Everything before `number` has arrived.

        Returns:
            Octets of payload newly acknowledged, whether our FIN was, and the last segment that was wholly acknowledged.
        """
        octets, fin, last = 0, False, None
        while self.sent and distance(self.sent[0].end, number) >= 0:
            last = self.sent.popleft()
            octets += last.octets
            fin = fin or last.fin
        if self.sent:
            first = self.sent[0]
            part = distance(first.sequence, number)
            if part > 0:
                part = min(part, first.octets)
                _trim(first, part)
                octets += part
        self.in_flight -= octets
        self.unacknowledged = number
        return octets, fin, last

    def drop(self) -> None:
        """Forget all payload."""
        self._queue.clear()
        self.sent.clear()
        self.queued = self.in_flight = 0


def _trim(segment: Sent, octets: int) -> None:
    segment.sequence = add(segment.sequence, octets)
    segment.octets -= octets
    while octets:
        first = segment.buffers[0]
        if len(first) > octets:
            segment.buffers[0] = first[octets:]
            return
        octets -= len(first)
        segment.buffers.pop(0)

"""The sending half: what is queued, what is in flight, what of it is known to have arrived or to be lost. Octets, positions (seq.py).

Payload is kept as it came, in pieces; a segment is a list of slices, so nothing is copied between the tunnel and the device.

Not here: when to send (connection.py), what counts as lost (rack.py), how much may be in flight (congestion.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from kt_net.stack.tcp.seq import MASK, position

_START = attrgetter("start")
#: Blocks with edges inside segments split them; not beyond so many: a receiver that tells of every octet makes no work without end.
MOST_PIECES: Final = 16384


@dataclass(slots=True)
class Sent:
    """One segment in flight, `start` <= position < `end`; a FIN counts one.

    Attributes:
        sent_at: of the last transmission. Seconds.
        again: it was sent more than once (Karn's rule).
        sacked: the program's kernel has it, out of order (RFC 2018).
        lost: it is to be sent again.
    """

    start: int
    end: int
    buffers: list[memoryview]
    fin: bool
    sent_at: float
    again: bool = False
    sacked: bool = False
    lost: bool = False

    @property
    def octets(self) -> int:
        """Payload."""
        return self.end - self.start - self.fin


class SendHalf:
    """Sequence space to the program.

    Args:
        initial: our initial sequence number.
    """

    __slots__ = (
        "_queue",
        "fin_queued",
        "fin_sent",
        "initial",
        "lost",
        "max_window",
        "next",
        "pipe",
        "queued",
        "sacked",
        "scale",
        "sent",
        "unacknowledged",
        "window",
        "window_ack",
        "window_seq",
    )

    def __init__(self, initial: int) -> None:
        self.initial = initial
        #: SND.UNA and SND.NXT.
        self.unacknowledged = 0
        self.next = 0
        #: What the program's kernel takes, from `unacknowledged` on; the largest that it ever took.
        self.window = 0
        self.max_window = 0
        #: SND.WL1 (a position of the other half) and SND.WL2.
        self.window_seq = 0
        self.window_ack = 0
        self.scale = 0
        #: In the order of their positions, without gaps.
        self.sent: list[Sent] = []
        #: Thought to be on their way (RFC 6675's pipe); of `sent`: selectively acknowledged; lost and not yet sent again.
        self.pipe = 0
        self.sacked = 0
        self.lost = 0
        self._queue: deque[memoryview] = deque()
        self.queued = 0
        self.fin_queued = False
        self.fin_sent = False

    def number(self, place: int) -> int:
        """The sequence number of a position."""
        return (self.initial + place) & MASK

    def position(self, number: int) -> int:
        """The position of an acknowledgement number."""
        return position(number, self.initial, self.unacknowledged)

    @property
    def in_flight(self) -> int:
        """Sent and not acknowledged (RFC 5681's FlightSize)."""
        return self.next - self.unacknowledged

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
        end = self.next + octets + fin
        segment = Sent(self.next, end, buffers, fin, now)
        self.queued -= octets
        self.pipe += end - self.next
        self.next = end
        self.sent.append(segment)
        return segment

    def acknowledge(self, place: int) -> list[Sent]:
        """Everything before `place` has arrived: gives back the segments (or the parts of one) that it covers, now forgotten."""
        sent = self.sent
        if place == self.next:
            count = len(sent)
        else:
            count = bisect_left(sent, place, key=_START)
            if count and sent[count - 1].end > place:
                self._split(count - 1, place)
        gone = sent[:count]
        del sent[:count]
        if count and (self.sacked or self.lost):
            for segment in gone:
                size = segment.end - segment.start
                if segment.sacked:
                    self.sacked -= size
                elif segment.lost:
                    self.lost -= size
                else:
                    self.pipe -= size
        else:
            self.pipe -= place - self.unacknowledged
        self.unacknowledged = place
        return gone

    def sack(self, blocks: Iterable[tuple[int, int]]) -> list[Sent]:
        """Blocks of positions that have arrived out of order; gives back the segments that this is news of.

        Edges that fall inside a segment split it. What is not in flight is passed over (RFC 2018 leaves the receiver free; it may lie).
        """
        news: list[Sent] = []
        for left, right in blocks:
            if not self.unacknowledged < left < right <= self.next:
                continue
            for edge in (left, right) if len(self.sent) < MOST_PIECES else ():
                at = bisect_left(self.sent, edge, key=_START)
                if at and self.sent[at - 1].end > edge:
                    self._split(at - 1, edge)
            at = bisect_left(self.sent, left, key=_START)
            while at < len(self.sent) and self.sent[at].end <= right:
                segment = self.sent[at]
                at += 1
                if not segment.sacked:
                    self._discount(segment)
                    segment.sacked, segment.lost = True, False
                    self.sacked += segment.end - segment.start
                    news.append(segment)
        return news

    def mark_lost(self, segment: Sent) -> None:
        """`segment` is to be sent again."""
        if not segment.sacked and not segment.lost:
            segment.lost = True
            self.pipe -= segment.end - segment.start
            self.lost += segment.end - segment.start

    def mark_first_lost(self, octets: int) -> None:
        """The first `octets` in flight (or the first segment) are to be sent again: without SACK nothing more is known."""
        first = self.sent[0]
        if first.end - first.start > octets:
            self._split(0, first.start + octets)
        self.mark_lost(self.sent[0])

    def forget_sacks(self) -> None:
        """A receiver may drop what it acknowledged selectively (RFC 2018 section 8): after a timeout nothing of it counts."""
        for segment in self.sent:
            if segment.sacked:
                segment.sacked = False
                self.sacked -= segment.end - segment.start
                self.pipe += segment.end - segment.start

    def first_lost(self) -> Sent | None:
        """The first that is to be sent again."""
        return next((segment for segment in self.sent if segment.lost), None) if self.lost else None

    def head(self, segment: Sent, octets: int) -> Sent:
        """`segment`, of which no more than `octets` (at least 1) are left: the rest becomes a segment of its own."""
        if segment.end - segment.start > octets:
            self._split(bisect_left(self.sent, segment.start, key=_START), segment.start + octets)
        return segment

    def tail(self, octets: int) -> Sent:
        """The last `octets` in flight that have not arrived for all we know, or the last such segment when it is smaller."""
        last = len(self.sent) - 1
        at = next((at for at in range(last, -1, -1) if not self.sent[at].sacked), last)
        segment = self.sent[at]
        if segment.end - segment.start <= octets:
            return segment
        self._split(at, segment.end - octets)
        return self.sent[at + 1]

    def sent_again(self, segment: Sent, now: float) -> None:
        """`segment` goes out once more."""
        if segment.lost:
            segment.lost = False
            self.lost -= segment.end - segment.start
            self.pipe += segment.end - segment.start
        segment.again = True
        segment.sent_at = now

    def drop(self) -> None:
        """Forget all payload."""
        self._queue.clear()
        self.sent.clear()
        self.queued = self.pipe = self.sacked = self.lost = 0

    def _discount(self, segment: Sent) -> None:
        if segment.lost:
            self.lost -= segment.end - segment.start
        else:
            self.pipe -= segment.end - segment.start

    def _split(self, index: int, place: int) -> None:
        """Make two of a segment, at a position inside it. Counts stay as they are: both parts are what the whole was."""
        whole = self.sent[index]
        octets = place - whole.start
        before: list[memoryview] = []
        after = list(whole.buffers)
        while octets and after:
            first = after[0]
            if len(first) > octets:
                before.append(first[:octets])
                after[0] = first[octets:]
                break
            octets -= len(first)
            before.append(after.pop(0))
        rest = Sent(
            place, whole.end, after, whole.fin, whole.sent_at, again=whole.again, sacked=whole.sacked, lost=whole.lost
        )
        whole.end, whole.buffers, whole.fin = place, before, False
        self.sent.insert(index + 1, rest)

"""The receiving half: what is in order goes up, what is beyond a gap waits and is told of (RFC 2018). Octets, positions (seq.py).

The window is credit: the right edge is where the tunnel's credit ends, and it never moves left (RFC 9293 section 3.8.6.2.1).
What was told of as received is never dropped, although RFC 2018 section 8 would allow it.

Not here: acknowledging (connection.py).
"""

from __future__ import annotations

from bisect import bisect_right

from kt_net.stack.tcp.seq import MASK, position


class ReceiveHalf:
    """Sequence space from the program.

    Args:
        initial: the program's initial sequence number.
        most: pieces beyond a gap that are kept.
    """

    __slots__ = (
        "_blocks",
        "_duplicate",
        "_most",
        "_pieces",
        "_starts",
        "advertised",
        "edge",
        "fin",
        "initial",
        "next",
        "scale",
    )

    def __init__(self, initial: int, most: int) -> None:
        self.initial = initial
        #: RCV.NXT.
        self.next = 1
        #: Where credit ends.
        self.edge = 1
        #: The right edge as last told to the program's kernel.
        self.advertised = 1
        self.scale = 0
        #: Position of the program's FIN, once seen.
        self.fin: int | None = None
        # Pieces beyond a gap: sorted, apart from each other. Made when there is a first one; most connections never have any.
        self._starts: list[int] | None = None
        self._pieces: list[memoryview] = []
        self._most = most
        #: Ranges beyond the gap, the one that grew last first (RFC 2018 section 4).
        self._blocks: list[tuple[int, int]] = []
        self._duplicate: tuple[int, int] | None = None

    def number(self, place: int) -> int:
        """The sequence number of a position."""
        return (self.initial + place) & MASK

    def position(self, number: int) -> int:
        """The position of a sequence number."""
        return position(number, self.initial, self.next)

    def window(self) -> int:
        """Octets that the program may send."""
        return max(0, self.edge - self.next)

    def tellable(self) -> int:
        """How far to the right the header can say that the window goes: its field has 16 bits and a scale."""
        return self.next + (self._field() << self.scale)

    def field(self) -> int:
        """The window as the header carries it; remembers what was told."""
        field = self._field()
        # Rounded down by the scale it may say less than before: what was told stays told.
        self.advertised = max(self.advertised, self.next + (field << self.scale))
        return field

    def _field(self) -> int:
        return min(self.window() >> self.scale, 0xFFFF)

    def acceptable(self, start: int, octets: int) -> bool:
        """RFC 9293 section 3.10.7.4, the four cases; `octets` counts SYN and FIN."""
        window = max(0, self.edge - self.next)
        if octets == 0:
            return start == self.next if window == 0 else self.next <= start < self.next + window
        if window == 0:
            return False
        return self.next <= start < self.next + window or self.next <= start + octets - 1 < self.next + window

    def receive(self, start: int, data: memoryview) -> list[memoryview]:
        """Payload of an acceptable segment; gives back what is in order now, within the credit."""
        if start < self.next:
            self.repeated(start, len(data))
            data = data[self.next - start :]
            start = self.next
        room = self.edge - start
        if len(data) > room:
            data = data[: max(0, room)]
        if not len(data):
            return []
        if start > self.next:
            self._keep(start, data)
            return []
        if self._starts is None:
            self.next += len(data)
            return [data]
        return self._join(start, data)

    def repeated(self, start: int, octets: int) -> None:
        """Payload came that was there already: the next acknowledgement says so (RFC 2883)."""
        if start < self.next:
            self._duplicate = (start, min(self.next, start + octets))

    def fin_reached(self) -> bool:
        """Whether everything before the program's FIN has arrived; moves over the FIN when so."""
        if self.fin is None or self.next != self.fin:
            return False
        self.next += 1
        self.edge = max(self.edge, self.next)
        self._forget()
        return True

    @property
    def gap(self) -> bool:
        """Whether anything waits beyond a gap."""
        return self._starts is not None

    @property
    def news(self) -> bool:
        """Whether the next acknowledgement should carry blocks."""
        return self._starts is not None or self._duplicate is not None

    def blocks(self, most: int) -> tuple[tuple[int, int], ...]:
        """For the next acknowledgement, in sequence numbers: first what arrived twice, once (RFC 2883), then ranges, latest first."""
        found = list(self._blocks)
        if self._duplicate is not None:
            found.insert(0, self._duplicate)
            self._duplicate = None
        return tuple((self.number(left), self.number(right)) for left, right in found[:most])

    def _keep(self, start: int, data: memoryview) -> None:
        """Fill gaps with what is new of `data`; what is already there stays as it came first."""
        if self._starts is None:
            self._starts = []
        starts, pieces = self._starts, self._pieces
        end, place, new = start + len(data), start, False
        at = bisect_right(starts, start)
        if at:
            place = max(place, starts[at - 1] + len(pieces[at - 1]))
        while place < end:
            limit = min(end, starts[at]) if at < len(starts) else end
            if place < limit:
                if len(starts) >= self._most:
                    end = place  # no room: what is not kept is not told of
                    break
                starts.insert(at, place)
                pieces.insert(at, _own(data[place - start : limit - start]))
                new = True
                at += 1
            if limit == end:
                break
            place = starts[at] + len(pieces[at])
            at += 1
        if new:
            self._grow(start, end)
        elif end > start:
            self._duplicate = (start, end)
        if not starts:
            self._starts = None

    def _grow(self, left: int, right: int) -> None:
        others = []
        for block in self._blocks:
            if block[1] < left or block[0] > right:
                others.append(block)
            else:
                left, right = min(left, block[0]), max(right, block[1])
        self._blocks = [(left, right), *others]

    def _join(self, start: int, data: memoryview) -> list[memoryview]:
        """`data` is in order; what waits may be in order with it."""
        starts, pieces = self._starts or [], self._pieces
        ready, end, taken = [data], start + len(data), 0
        while taken < len(starts) and starts[taken] <= end:
            over = end - starts[taken]
            piece = pieces[taken][over:] if over < len(pieces[taken]) else None
            if piece is not None:
                ready.append(piece)
                end += len(piece)
            taken += 1
        self.next = end
        if taken == len(starts):
            self._forget()
        else:
            del starts[:taken], pieces[:taken]
            self._blocks = [block for block in self._blocks if block[1] > end]
        return ready

    def _forget(self) -> None:
        self._starts = None
        self._pieces = []
        self._blocks = []


def _own(piece: memoryview) -> memoryview:
    """`piece`, copied when it would keep a much larger packet alive."""
    whole = piece.obj
    return piece if isinstance(whole, bytes) and 2 * len(piece) >= len(whole) else memoryview(bytes(piece))

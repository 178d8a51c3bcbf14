"""The receiving half: what is in order goes up, what is beyond a gap waits. Octets.

The window is credit: the right edge is where the tunnel's credit ends, and it never moves left (RFC 9293 section 3.8.6.2.1).

Not here: acknowledging (connection.py).
"""

from __future__ import annotations

from kt_net.stack.tcp.seq import add, distance


class ReceiveHalf:
    """Sequence space from the program."""

    __slots__ = ("_beyond", "_max_beyond", "advertised", "edge", "fin", "next", "scale")

    def __init__(self, initial: int, max_out_of_order: int) -> None:
        self.next = add(initial, 1)
        #: Where credit ends.
        self.edge = self.next
        #: The right edge as last told to the program's kernel.
        self.advertised = self.next
        self.scale = 0
        #: Sequence number of the program's FIN, once seen.
        self.fin: int | None = None
        self._beyond: dict[int, memoryview] = {}
        self._max_beyond = max_out_of_order

    def window(self) -> int:
        """Octets that the program may send."""
        return max(0, distance(self.next, self.edge))

    def field(self) -> int:
        """The window as the header carries it; remembers what was told."""
        field = min(self.window() >> self.scale, 0xFFFF)
        self.advertised = add(self.next, field << self.scale)
        return field

    def acceptable(self, sequence: int, octets: int) -> bool:
        """RFC 9293 section 3.10.7.4, the four cases; `octets` counts SYN and FIN."""
        window = self.window()
        start = distance(self.next, sequence)
        if octets == 0:
            return start == 0 if window == 0 else 0 <= start < window
        if window == 0:
            return False
        return 0 <= start < window or 0 <= start + octets - 1 < window

    def receive(self, sequence: int, data: memoryview) -> list[memoryview]:
        """Payload of an acceptable segment; gives back what is in order now, within the credit."""
        start = distance(self.next, sequence)
        if start < 0:
            data = data[-start:]
            start = 0
        room = self.window() - start
        if len(data) > room:
            data = data[: max(0, room)]
        if not len(data):
            return []
        if start:
            self._keep(add(self.next, start), data)
            return []
        ready = [data]
        self.next = add(self.next, len(data))
        if self._beyond:
            self._join(ready)
        return ready

    def fin_reached(self) -> bool:
        """Whether everything before the program's FIN has arrived; moves over the FIN when so."""
        if self.fin is None or distance(self.next, self.fin):
            return False
        self.next = add(self.next, 1)
        self.edge = add(self.edge, 1) if distance(self.edge, self.next) > 0 else self.edge
        self._beyond.clear()
        return True

    def _keep(self, sequence: int, data: memoryview) -> None:
        known = self._beyond.get(sequence)
        if (known is None or len(known) < len(data)) and len(self._beyond) < self._max_beyond:
            self._beyond[sequence] = data

    def _join(self, ready: list[memoryview]) -> None:
        for sequence in sorted(self._beyond, key=lambda sequence: distance(self.next, sequence)):
            start = distance(self.next, sequence)
            if start > 0:
                return
            data = self._beyond.pop(sequence)[-start:] if start else self._beyond.pop(sequence)
            if len(data):
                ready.append(data)
                self.next = add(self.next, len(data))

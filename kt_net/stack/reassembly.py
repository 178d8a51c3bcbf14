"""Fragments into packets (RFC 791 section 3.2, RFC 8200 section 4.5), with caps.

Overlapping fragments end the whole packet, for both families (RFC 5722; for IPv4 it is a deviation in the safe direction), and keep it
ended: what comes later for the same packet is dropped until its time is over. An exact copy of a fragment is no overlap.

Not here: what is in the packets.
"""

from __future__ import annotations

from typing import TypeAlias

#: A packet's payload cannot be longer.
MAX_OCTETS = 65535
#: Fragments of one packet: 65535 octets at the smallest MTU that anybody uses.
MAX_FRAGMENTS = 128

#: source + destination, protocol (of IPv4, RFC 791 section 3.2; 0 for IPv6, RFC 8200 section 4.5), identification.
Key: TypeAlias = tuple[bytes, int, int]


class _Partial:
    __slots__ = ("cause", "expires", "octets", "pieces", "protocol", "total")

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.pieces: dict[int, bytes] | None = {}  # None: the packet is spoilt
        self.octets = 0
        self.total: int | None = None
        self.protocol = 0  # as the first fragment has it
        self.cause = b""  # the start of the first fragment, for an ICMP error

    def spoil(self) -> None:
        self.pieces = None
        self.cause = b""


class Reassembly:
    """Packets that are being put together.

    Args:
        packets: at most so many at once; the oldest makes room.
        seconds: for so long.
    """

    def __init__(self, *, packets: int, seconds: float) -> None:
        self._packets = packets
        self._seconds = seconds
        self._partial: dict[Key, _Partial] = {}

    def __len__(self) -> int:
        return len(self._partial)

    def receive(
        self, key: Key, protocol: int, offset: int, data: memoryview, more: bool, *, cause: memoryview, now: float
    ) -> tuple[int, bytes] | None:
        """One fragment, of a packet that begins with `cause`; what the payload is and all of it, when this was the last missing one."""
        partial = self._partial.get(key)
        if partial is None:
            if len(self._partial) >= self._packets:
                del self._partial[next(iter(self._partial))]
            partial = self._partial[key] = _Partial(now + self._seconds)
        if partial.pieces is None:
            return None
        known = partial.pieces.get(offset)
        if known is not None and known == data:
            return None
        end = offset + len(data)
        if not self._fits(partial, partial.pieces, offset, end, more):
            partial.spoil()
            return None
        partial.pieces[offset] = bytes(data)
        partial.octets += len(data)
        if not offset:
            partial.cause, partial.protocol = bytes(cause), protocol
        if not more:
            partial.total = end
        if partial.total != partial.octets:
            return None
        del self._partial[key]
        return partial.protocol, b"".join(partial.pieces[start] for start in sorted(partial.pieces))

    @staticmethod
    def _fits(partial: _Partial, pieces: dict[int, bytes], offset: int, end: int, more: bool) -> bool:
        if end > MAX_OCTETS or end == offset or len(pieces) >= MAX_FRAGMENTS or (more and (end - offset) % 8):
            return False
        if partial.total is not None and (not more or end > partial.total):
            return False
        if not more and any(start + len(piece) > end for start, piece in pieces.items()):
            return False
        return all(end <= start or offset >= start + len(piece) for start, piece in pieces.items())

    def next_timer(self) -> float | None:
        """When the oldest expires; entries are in the order of their start."""
        return next(iter(self._partial.values())).expires if self._partial else None

    def handle_timer(self, *, now: float) -> list[tuple[Key, bytes]]:
        """Drop what has waited too long; gives back those whose first fragment was there, and its start."""
        told: list[tuple[Key, bytes]] = []
        for key in [key for key, partial in self._partial.items() if partial.expires <= now]:
            partial = self._partial.pop(key)
            if partial.cause:
                told.append((key, partial.cause))
        return told

"""Sequence numbers: arithmetic modulo 2**32 (RFC 9293 section 3.4), and positions, which do not wrap.

Both halves of a connection count octets as positions: 0 is the SYN, 1 the first octet of payload, and Python's integers have no end.
A number of a segment becomes a position beside a known one, in one place (`position`), and everything after that is plain comparison.

Not here: windows.
"""

from __future__ import annotations

from typing import Final

MODULUS: Final = 1 << 32
_HALF: Final = 1 << 31
MASK: Final = MODULUS - 1


def add(number: int, octets: int) -> int:
    """`number` moved on by `octets` (which may be negative)."""
    return (number + octets) & MASK


def distance(start: int, end: int) -> int:
    """How far `end` is ahead of `start`: -2**31 .. 2**31-1."""
    return ((end - start + _HALF) & MASK) - _HALF


def position(number: int, initial: int, near: int) -> int:
    """The position of sequence number `number`: the one nearest to the position `near`, where `initial` is the number of position 0."""
    return near + ((number - initial - near + _HALF) & MASK) - _HALF

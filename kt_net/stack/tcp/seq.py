"""Sequence numbers: arithmetic modulo 2**32 (RFC 9293 section 3.4). Nobody else compares them.

Not here: windows.
"""

from __future__ import annotations

from typing import Final

MODULUS: Final = 1 << 32
_HALF: Final = 1 << 31
_MASK: Final = MODULUS - 1


def add(number: int, octets: int) -> int:
    """`number` moved on by `octets` (which may be negative)."""
    return (number + octets) & _MASK


def distance(start: int, end: int) -> int:
    """How far `end` is ahead of `start`: -2**31 .. 2**31-1."""
    return ((end - start + _HALF) & _MASK) - _HALF

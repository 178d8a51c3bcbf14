"""Datagrams on a stream: each has its length before it (two octets, big endian).

Not here: how many may wait (the relay's and the agent's caps).
"""

from __future__ import annotations

import struct

_LENGTH = struct.Struct("!H")

#: The largest datagram: what the length can say.
MAX_DATAGRAM = 65535


def frame_datagram(data: bytes | memoryview) -> bytes:
    """`data` (at most 65535 octets) with its length before it."""
    return _LENGTH.pack(len(data)) + bytes(data)


class DatagramParser:
    """Takes datagrams out of a stream. Holds at most one that is not whole."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def receive(self, data: bytes | memoryview) -> list[bytes]:
        """The datagrams that are whole now."""
        self._waiting += data
        datagrams: list[bytes] = []
        start = 0
        while len(self._waiting) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._waiting, start)
            end = start + _LENGTH.size + length
            if len(self._waiting) < end:
                break
            datagrams.append(bytes(self._waiting[start + _LENGTH.size : end]))
            start = end
        del self._waiting[:start]
        return datagrams

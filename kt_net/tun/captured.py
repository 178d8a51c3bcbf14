"""Captured packets on their way to another process: records with a length, one after the other. Pure.

A record is kind (1 octet: a packet, or the end), direction and whether it was lost and has a virtio-net header (1 octet), seconds since
the epoch (8, IEEE 754), packets dropped so far because the reader was too slow (4), octets that follow (4); network byte order.

Not here: sockets (kt_net.drivers.tap, kt_net.session.capture).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kt_net.errors import MalformedPacket
from kt_net.tun.tap import Direction

_HEAD: Final = struct.Struct("!BBdII")
_PACKET: Final = 1
_END: Final = 2
_OUT: Final = 1
_LOST: Final = 2
_OFFLOAD: Final = 4
#: A super-packet and its header (kt_net.tun.linux reads no more).
MAX_PACKET: Final = 65535 + 64
#: The field that counts what was dropped is full then.
MAX_DROPPED: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Captured:
    """One packet.

    Attributes:
        at: seconds since the epoch.
        lost: the kernel had no room for it.
        offload: a virtio-net header is before it.
        dropped: packets that the reader did not get, up to this one.
    """

    data: bytes
    at: float
    direction: Direction
    lost: bool = False
    offload: bool = False
    dropped: int = 0

    def emit(self) -> bytes:
        """The record."""
        flags = (_OUT if self.direction is Direction.OUT else 0) | (_LOST if self.lost else 0)
        flags |= _OFFLOAD if self.offload else 0
        return _HEAD.pack(_PACKET, flags, self.at, min(self.dropped, MAX_DROPPED), len(self.data)) + self.data


@dataclass(frozen=True, slots=True)
class CaptureEnd:
    """The reader has said that it wants no more; `dropped` in all."""

    dropped: int

    def emit(self) -> bytes:
        """The record."""
        return _HEAD.pack(_END, 0, 0.0, min(self.dropped, MAX_DROPPED), 0)


class CapturedParser:
    """Takes octets, gives records."""

    def __init__(self) -> None:
        self._data = bytearray()

    def receive(self, data: bytes) -> list[Captured | CaptureEnd]:
        """What has become whole.

        Raises:
            MalformedPacket: these are no records.
        """
        self._data += data
        found: list[Captured | CaptureEnd] = []
        at = 0
        while len(self._data) - at >= _HEAD.size:
            kind, flags, when, dropped, octets = _HEAD.unpack_from(self._data, at)
            if kind not in (_PACKET, _END) or octets > MAX_PACKET:
                raise MalformedPacket("the connection speaks nonsense about its packets")
            end = at + _HEAD.size + octets
            if len(self._data) < end:
                break
            if kind == _END:
                found.append(CaptureEnd(dropped))
            else:
                direction = Direction.OUT if flags & _OUT else Direction.IN
                packet = bytes(self._data[at + _HEAD.size : end])
                found.append(Captured(packet, when, direction, bool(flags & _LOST), bool(flags & _OFFLOAD), dropped))
            at = end
        del self._data[:at]
        return found

"""A device middleware that breaks things: packets lost, doubled, held back, damaged. For tests and for trying programs out.

Not here: delays and rates; a device has no clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from kt_net.tun.device import Buffers, Device
from kt_net.tun.middleware import Middleware


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities, 0..1, for each packet of either direction.

    Attributes:
        reorder: it is held back until `distance` others have passed; one that nothing follows is lost.
        corrupt: one bit of it changes.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    distance: int = 3


class _Path:
    """One direction."""

    def __init__(self, faults: Faults, chance: random.Random) -> None:
        self._faults = faults
        self._chance = chance
        self._held: list[tuple[int, bytes]] = []
        self._passed = 0

    def through(self, packet: bytes) -> list[bytes]:
        faults, chance = self._faults, self._chance
        if chance.random() < faults.loss:
            return []
        if chance.random() < faults.corrupt:
            damaged = bytearray(packet)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            packet = bytes(damaged)
        if chance.random() < faults.reorder:
            self._held.append((self._passed + faults.distance, packet))
            return []
        out = [packet, packet] if chance.random() < faults.duplicate else [packet]
        self._passed += 1
        while self._held and self._held[0][0] <= self._passed:
            out.append(self._held.pop(0)[1])
        return out


class FaultyDevice(Middleware):
    """Wraps a device.

    Args:
        chance: where luck comes from; a seeded one makes a run repeatable.
    """

    def __init__(self, device: Device, faults: Faults, chance: random.Random) -> None:
        super().__init__(device)
        self._in = _Path(faults, chance)
        self._out = _Path(faults, chance)

    def read_packets(self, limit: int) -> list[bytes]:
        """See `Device`."""
        return [out for packet in self._device.read_packets(limit) for out in self._in.through(packet)]

    def write_packet(self, buffers: Buffers) -> bool:
        """See `Device`; what is lost here counts as taken."""
        # Not all(...): every packet is to be tried.
        return False not in [self._device.write_packet([out]) for out in self._out.through(b"".join(buffers))]

"""A device middleware that breaks things: packets lost, doubled, held back, damaged. For tests and for trying programs out.

Not here: delays and rates of everything; waiting (whoever drives the device asks `next_timer`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from kt_net.tun.device import Buffers, Device
from kt_net.tun.middleware import Middleware


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities, 0..1, for each packet of either direction.

    Attributes:
        reorder: it is held back until `distance` others have passed, or for `late` seconds when nothing follows it.
        corrupt: one bit of it changes.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    distance: int = 3
    late: float = 0.002


class _Path:
    """One direction."""

    def __init__(self, faults: Faults, chance: random.Random) -> None:
        self._faults = faults
        self._chance = chance
        #: Until how many have passed, until when, what.
        self._held: deque[tuple[int, float, bytes]] = deque()
        self._passed = 0

    def through(self, packet: bytes, *, now: float) -> list[bytes]:
        faults, chance = self._faults, self._chance
        if chance.random() < faults.loss:
            return []
        if chance.random() < faults.corrupt:
            damaged = bytearray(packet)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            packet = bytes(damaged)
        if chance.random() < faults.reorder:
            self._held.append((self._passed + faults.distance, now + faults.late, packet))
            return []
        out = [packet, packet] if chance.random() < faults.duplicate else [packet]
        self._passed += 1
        return out + self.due(now=now)

    def due(self, *, now: float) -> list[bytes]:
        out = []
        while self._held and (self._held[0][0] <= self._passed or self._held[0][1] <= now):
            out.append(self._held.popleft()[2])
        return out

    def next_timer(self) -> float | None:
        return self._held[0][1] if self._held else None


class FaultyDevice(Middleware):
    """Wraps a device.

    Args:
        chance: where luck comes from; a seeded one makes a run repeatable.
        clock: seconds.
    """

    def __init__(self, device: Device, faults: Faults, chance: random.Random, clock: Callable[[], float]) -> None:
        super().__init__(device)
        self._in = _Path(faults, chance)
        self._out = _Path(faults, chance)
        self._clock = clock

    def read_packets(self, limit: int) -> list[bytes]:
        """See `Device`; what has been late for long enough comes first."""
        now = self._clock()
        late = self._in.due(now=now)
        return late + [out for packet in self._device.read_packets(limit) for out in self._in.through(packet, now=now)]

    def write_packet(self, buffers: Buffers) -> bool:
        """See `Device`; what is lost here counts as taken."""
        return self._write(self._out.through(b"".join(buffers), now=self._clock()))

    def next_timer(self) -> float | None:
        """When something has been held back for long enough; then `handle_timer` and `read_packets` let it go on."""
        return min((at for at in (self._in.next_timer(), self._out.next_timer()) if at is not None), default=None)

    def handle_timer(self, *, now: float) -> None:
        """What is late on its way out is written."""
        self._write(self._out.due(now=now))

    def _write(self, packets: list[bytes]) -> bool:
        # Not all(...): every packet is to be tried.
        return False not in [self._device.write_packet([packet]) for packet in packets]

"""A device middleware that says every packet in a line, as tcpdump would.

Not here: the line (dissect.py); where the lines go.
"""

from __future__ import annotations

from collections.abc import Callable

from kt_net.tun.device import Device
from kt_net.tun.dissect import in_line
from kt_net.tun.tap import Direction, TapDevice


class TracingDevice(TapDevice):
    """Wraps a device.

    Args:
        say: takes a line.
        clock: seconds, for the lines' beginnings.
    """

    def __init__(self, device: Device, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        super().__init__(device)
        self._say = say
        self._clock = clock

    def see(self, packet: bytes, direction: Direction, *, lost: bool) -> None:
        """See `TapDevice`."""
        self._say(trace_line(f"{self._clock():.6f}", packet, direction, offload=self.offload, lost=lost))


def trace_line(when: str, packet: bytes, direction: Direction, *, offload: bool, lost: bool) -> str:
    """A packet that passed: when, which way, what it is, and whether the kernel had no room for it."""
    no_room = " (no room: lost)" if lost else ""
    return f"{when} {direction.value:3} {in_line(packet, offload=offload)}{no_room}"

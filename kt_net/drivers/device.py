"""Drives the TUN device: packets of this machine's kernel to the stack, and the stack's back.

Not here: what a packet means. Read next: kt_net.stack.
"""

from __future__ import annotations

from kt_net.drivers.loop import READ, Loop
from kt_net.stack import Stack
from kt_net.tun.device import Device

#: Packets taken from the device before others get their turn.
PACKETS_A_TURN = 64


class DeviceDriver:
    """A part of the loop; the stack's events are moved by a mover of the loop."""

    def __init__(self, loop: Loop, device: Device, stack: Stack) -> None:
        self._loop = loop
        self._device = device
        self._stack = stack
        self._on_ready = self._ready
        #: Packets that the kernel's queue had no room for; TCP sends them again.
        self.dropped = 0
        loop.watch(device.fileno(), READ, self._on_ready)
        loop.add(self)

    @property
    def device(self) -> Device:
        """What packets come from and go to."""
        return self._device

    def exchange(self, device: Device) -> None:
        """Packets come from and go to `device` from now on: the same one, with or without a middleware around it."""
        self._device = device

    def _ready(self, mask: int) -> None:
        now = self._loop.now()
        for packet in self._device.read_packets(PACKETS_A_TURN):
            self._stack.receive_packet(packet, now=now)

    def pump(self, *, now: float) -> None:
        """See `Part`."""
        for buffers in self._stack.packets_to_send(now=now):
            if not self._device.write_packet(buffers):
                self.dropped += 1

    def next_timer(self) -> float | None:
        """See `Part`."""
        return self._stack.next_timer()

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        self._stack.handle_timer(now=now)

    def detach(self) -> None:
        """Leave the device alone from now on; it is about to go."""
        self._loop.watch(self._device.fileno(), 0, self._on_ready)
        self._loop.remove(self)
        self._device.close()

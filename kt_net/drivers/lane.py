"""Drives one lane: the carrier's socket and the tunnel's octets on the loop.

Not here: what the octets mean. Read next: kt_net.tunnel.session.
"""

from __future__ import annotations

from collections.abc import Callable

from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.kube.carrier import Carrier
from kt_net.tunnel.session import Tunnel

#: Octets handed to the carrier that the kernel has not taken. More only adds delay: what waits in the tunnel is still scheduled fairly.
MAX_CARRIER_QUEUE = 256 * 1024


class LaneDriver:
    """A part of the loop.

    Args:
        pump_above: moves events of whatever stands on the tunnel (relay, switchboard); called before octets are taken from the tunnel.
    """

    def __init__(self, loop: Loop, carrier: Carrier, tunnel: Tunnel, pump_above: Callable[[float], None]) -> None:
        self._loop = loop
        self._carrier = carrier
        self._tunnel = tunnel
        self._pump_above = pump_above
        self._descriptor = carrier.fileno()
        self._on_ready = self._ready
        loop.watch(self._descriptor, READ, self._on_ready)
        loop.add(self)

    def _ready(self, mask: int) -> None:
        if mask & READ:
            self._receive()

    def _receive(self) -> None:
        now = self._loop.now()
        for piece in self._carrier.receive():
            self._tunnel.receive_data(piece, now=now)

    def pump(self, *, now: float) -> None:
        """See `Part`."""
        self._pump_above(now)
        while (room := MAX_CARRIER_QUEUE - self._carrier.queued) > 0:
            buffers = self._tunnel.data_to_send(now=now, limit=room)
            if not buffers:
                break
            self._carrier.send(buffers)
            self._carrier.flush()
        interest = READ | WRITE if self._carrier.wants_write and not self._carrier.flush() else READ
        self._loop.watch(self._descriptor, interest, self._on_ready)

    def next_timer(self) -> float | None:
        """See `Part`. Octets that TLS has decrypted already do not wake the selector: they are due now."""
        if self._carrier.pending:
            return 0.0
        return self._tunnel.next_timer()

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        if self._carrier.pending:
            self._receive()
        timer = self._tunnel.next_timer()
        if timer is not None and timer <= now:
            self._tunnel.handle_timer(now=now)

    def close_carrier(self) -> None:
        """Close the carrier, once the loop has ended."""
        self._carrier.close()

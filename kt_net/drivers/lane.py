"""Drives one lane: the carrier's socket and the tunnel's octets on the loop; and another carrier when one is lost.

Not here: what the octets mean, how a carrier is dialled. Read next: kt_net.tunnel.session.
"""

from __future__ import annotations

from collections.abc import Callable

from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.errors import TunnelLost
from kt_net.kube.carrier import Carrier
from kt_net.tunnel.hello import Hello
from kt_net.tunnel.session import Tunnel

#: Octets handed to the carrier that the kernel has not taken. More only adds delay: what waits in the tunnel is still scheduled fairly.
MAX_CARRIER_QUEUE = 256 * 1024


class LaneDriver:
    """A part of the loop.

    Args:
        lost: told why a carrier is gone; sees to it that `attach` is called with another one, on the loop's thread.
    """

    def __init__(self, loop: Loop, tunnel: Tunnel, lost: Callable[[TunnelLost], None]) -> None:
        self._loop = loop
        self._carrier: Carrier | None = None
        self._tunnel = tunnel
        self._lost = lost
        self._on_ready = self._ready
        self._writing = False  # the socket had no room; the selector tells when it has
        # A lane's times change only with what passes here: most turns of the loop are about another lane.
        self._due: float | None = None
        self._stale = True
        loop.add(self)

    def attach(self, carrier: Carrier) -> None:
        """Begin, or go on, over this carrier."""
        self._tunnel.go_on()
        self._carrier, self._writing, self._stale = carrier, False, True
        self._loop.watch(carrier.fileno(), READ, self._on_ready)

    def begin_anew(self, hello: Hello) -> None:
        """The other end is gone for good: every stream ends now; the next carrier leads to another one."""
        self._drop()
        self._tunnel.begin_anew(hello)

    def give_up(self, why: TunnelLost) -> None:
        """The carrier is of no use any more; without one this does nothing."""
        if self._drop():
            self._tunnel.carrier_lost()
            self._lost(why)

    def _drop(self) -> bool:
        carrier, self._carrier, self._stale = self._carrier, None, True
        if carrier is None:
            return False
        self._loop.watch(carrier.fileno(), 0, self._on_ready)
        carrier.close()
        return True

    def _ready(self, mask: int) -> None:
        if mask & READ:
            self._receive()

    def _receive(self) -> None:
        if self._carrier is None:
            return
        now, self._stale = self._loop.now(), True
        try:
            for piece in self._carrier.receive():
                self._tunnel.receive_data(piece, now=now)
        except TunnelLost as why:
            self.give_up(why)

    def pump(self, *, now: float) -> None:
        """See `Part`."""
        carrier = self._carrier
        if carrier is None or not (self._writing or self._tunnel.busy):
            return
        self._stale = True
        try:
            while (room := MAX_CARRIER_QUEUE - carrier.queued) > 0:
                buffers = self._tunnel.data_to_send(now=now, limit=room)
                if not buffers:
                    break
                carrier.send(buffers)
                carrier.flush()
            writing = carrier.wants_write and not carrier.flush()
        except TunnelLost as why:
            self.give_up(why)
            return
        if writing != self._writing:
            self._writing = writing
            self._loop.watch(carrier.fileno(), READ | WRITE if writing else READ, self._on_ready)

    def next_timer(self) -> float | None:
        """See `Part`. Octets that TLS has decrypted already do not wake the selector: they are due now."""
        if self._carrier is not None and self._carrier.pending:
            return 0.0
        if self._stale:
            self._stale, self._due = False, self._tunnel.next_timer()
        return self._due

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        if self._carrier is not None and self._carrier.pending:
            self._receive()
        self._stale = True
        timer = self._tunnel.next_timer()
        if timer is not None and timer <= now:
            self._tunnel.handle_timer(now=now)

    def detach(self) -> None:
        """The lane has ended: leave the loop, and close the carrier."""
        self._drop()
        self._loop.remove(self)

    def close_carrier(self) -> None:
        """Close the carrier, once the loop has ended."""
        if self._carrier is not None:
            self._carrier.close()

"""Two tunnels joined in memory, on a virtual clock: what one sends the other receives, in pieces of any size.

Not here: tests.
"""

from __future__ import annotations

import random

from kt_net.tunnel.events import TunnelEvent
from kt_net.tunnel.hello import Hello, parse_hello
from kt_net.tunnel.limits import Limits
from kt_net.tunnel.mux import Role
from kt_net.tunnel.session import Tunnel


class Pair:
    """A client, an agent, a clock. `carry` moves octets until there are none."""

    def __init__(self, *, seed: int = 0, limits: Limits | None = None, greet: bool = True) -> None:
        limits = limits or Limits()
        self.client = Tunnel(role=Role.CLIENT, hello=Hello(session=b"s" * 16, report={"client": "test"}), limits=limits)
        self.agent = Tunnel(role=Role.AGENT, hello=Hello(session=bytes(16), report={"agent": "test"}), limits=limits)
        self.now = 100.0
        self._random = random.Random(seed)
        #: (from client?, octets) as they went.
        self.transcript: list[tuple[bool, bytes]] = []
        if greet:
            self.carry()
            self.events(self.client)
            self.events(self.agent)

    def carry(self, *, largest: int = 1 << 20) -> int:
        """Move what there is, in pieces of at most `largest`; how many octets."""
        moved = 0
        while True:
            turn = 0
            for sender, receiver in ((self.client, self.agent), (self.agent, self.client)):
                data = b"".join(sender.data_to_send(now=self.now))
                turn += len(data)
                if data:
                    self.transcript.append((sender is self.client, data))
                while data:
                    size = self._random.randint(1, largest) if largest < 1 << 20 else len(data)
                    receiver.receive_data(data[:size], now=self.now)
                    data = data[size:]
            moved += turn
            if not turn:
                return moved

    @staticmethod
    def events(tunnel: Tunnel) -> list[TunnelEvent]:
        """All that wait."""
        found = []
        while (event := tunnel.next_event()) is not None:
            found.append(event)
        return found

    def cut(self, *, arrives: float = 0.0) -> None:
        """The carrier is gone, on its way a part of what was given to it; both sides have another one."""
        for sender, receiver in ((self.client, self.agent), (self.agent, self.client)):
            data = b"".join(sender.data_to_send(now=self.now))
            receiver.receive_data(data[: int(len(data) * arrives)], now=self.now)
        self.client.carrier_lost()
        self.agent.carrier_lost()
        self.client.go_on()
        hello = parse_hello(b"".join(self.client.data_to_send(now=self.now)), limits=Limits())
        assert hello is not None
        self.client.receive_data(Hello(session=bytes(16), report={"agent": "test"}).emit(), now=self.now)
        self.agent.going_on(hello[0], now=self.now)

"""Tables of UDP and echo flows: found by key, forgotten after idle time, the one idle longest makes room.

Not here: what datagrams mean.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from kt_net.stack.path import Path


@dataclass(slots=True)
class DatagramFlow:
    """One flow. `cause` is the last packet of the program, as an ICMP error quotes it."""

    flow: int
    key: bytes
    path: Path
    protocol: int
    identifier: int
    opened_at: float
    seen: float
    cause: bytes = b""
    octets_up: int = 0
    octets_down: int = 0


class DatagramFlows:
    """All datagram flows, the one seen least recently first."""

    def __init__(self, *, most: int, idle: float) -> None:
        self._most = most
        self._idle = idle
        self._by_key: OrderedDict[bytes, DatagramFlow] = OrderedDict()
        self._by_flow: dict[int, DatagramFlow] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def flows(self) -> list[DatagramFlow]:
        """All of them."""
        return list(self._by_key.values())

    def find(self, key: bytes, *, now: float) -> DatagramFlow | None:
        """The flow of `key`, which counts as seen now."""
        flow = self._by_key.get(key)
        if flow is not None:
            flow.seen = now
            self._by_key.move_to_end(key)
        return flow

    def peek(self, key: bytes) -> DatagramFlow | None:
        """The flow of `key`, without making it younger."""
        return self._by_key.get(key)

    def add(self, flow: DatagramFlow) -> DatagramFlow | None:
        """A new flow; gives back the one that had to make room."""
        pushed = None
        if len(self._by_key) >= self._most:
            _, pushed = self._by_key.popitem(last=False)
            del self._by_flow[pushed.flow]
        self._by_key[flow.key] = flow
        self._by_flow[flow.flow] = flow
        return pushed

    def get(self, flow: int) -> DatagramFlow | None:
        """The flow of that number."""
        return self._by_flow.get(flow)

    def touch(self, flow: DatagramFlow, *, now: float) -> None:
        """An answer counts as life, too (RFC 4787 REQ-6 allows it for outbound only; a relay has no reason to be strict)."""
        flow.seen = now
        self._by_key.move_to_end(flow.key)

    def remove(self, flow: int) -> DatagramFlow | None:
        """Forget a flow."""
        found = self._by_flow.pop(flow, None)
        if found is not None:
            del self._by_key[found.key]
        return found

    def next_timer(self) -> float | None:
        """When the next one expires."""
        return next(iter(self._by_key.values())).seen + self._idle if self._by_key else None

    def expired(self, *, now: float) -> list[DatagramFlow]:
        """Forget and give back what has been idle too long."""
        gone: list[DatagramFlow] = []
        while self._by_key:
            flow = next(iter(self._by_key.values()))
            if flow.seen + self._idle > now:
                break
            self.remove(flow.flow)
            gone.append(flow)
        return gone

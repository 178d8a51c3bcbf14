"""Frozen snapshots: the only thing that `status` (and later the dashboard) reads.

Not here: counters that move (each floor keeps its own and makes a snapshot on request).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FlowStats:
    """One flow of a program of this machine.

    Attributes:
        protocol: "tcp", "udp" or "icmp".
        source, destination: text, `address:port`.
        state: TCP state name, or "".
        octets_up, octets_down: payload octets from and to the program.
        age_s: seconds since the flow was first seen.
    """

    protocol: str
    source: str
    destination: str
    state: str
    octets_up: int
    octets_down: int
    age_s: float


@dataclass(frozen=True, slots=True)
class TunnelStats:
    """The tunnel to the agent. Times in seconds; `rtt_s` is None until the first pong."""

    streams: int
    octets_sent: int
    octets_received: int
    rtt_s: float | None
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Everything that `ktctl status` says about a connected session."""

    cluster: str
    namespace: str
    pod: str
    device: str
    routes: tuple[str, ...]
    resolver: str
    search: tuple[str, ...]
    connected_s: float
    flows_open: int
    flows_total: int
    tunnel: TunnelStats
    flows: tuple[FlowStats, ...] = field(default=())

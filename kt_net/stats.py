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
        rtt_s: smoothed round trip to the program's kernel; None before the first measurement, and for UDP and ICMP, as below.
        retransmits: segments sent again.
        receive_window, send_window, congestion_window: octets that the program may send, that its kernel takes, and that may
            be in flight to it.
        waiting: octets for the program that its kernel has not acknowledged.
    """

    protocol: str
    source: str
    destination: str
    state: str
    octets_up: int
    octets_down: int
    age_s: float
    rtt_s: float | None = None
    retransmits: int = 0
    receive_window: int = 0
    send_window: int = 0
    congestion_window: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class TunnelStats:
    """The tunnel to the agent. Times in seconds; `rtt_s` is None until the first pong; `carrier` is the form of its websockets."""

    streams: int
    octets_sent: int
    octets_received: int
    rtt_s: float | None
    lanes: int = 1
    carrier: str = ""


@dataclass(frozen=True, slots=True)
class AgentStats:
    """What the agent says about its pod.

    Attributes:
        families: IP families of the pod's addresses: "ipv4", "ipv6".
        ping: families whose ping sockets work there.
    """

    version: str
    families: tuple[str, ...]
    ping: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Everything that `ktctl status` says about a connected session.

    Attributes:
        connected_s, since: seconds since it was begun, and when that was (RFC 3339, this machine's time).
        names_by: how programs come to the resolver (kt_net.host.naming.Hook), or by which other connection.
        cluster_domains: whose names nobody but the cluster is asked for.
        namespaces: how many there are: each is a routing domain.
        name: what this user calls the connection.
        server: URL of the API server.
    """

    cluster: str
    namespace: str
    pod: str
    device: str
    routes: tuple[str, ...]
    resolver: str
    names_by: str
    search: tuple[str, ...]
    connected_s: float
    flows_open: int
    flows_total: int
    tunnel: TunnelStats
    flows: tuple[FlowStats, ...] = field(default=())
    since: str = ""
    cluster_domains: tuple[str, ...] = ()
    namespaces: int = 0
    agent: AgentStats | None = None
    name: str = ""
    server: str = ""

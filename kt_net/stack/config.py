"""Caps, times and counters of the stack. Octets, seconds.

Not here: TCP's own timers' values that follow from measurements (tcp/rtt.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What the stack allows.

    Attributes:
        pending_flows: SYNs that wait for an answer from the far side (Linux's somaxconn has 4096); more are not answered.
        tcp_flows, datagram_flows: open at once; a further datagram flow pushes out the one idle longest.
        datagram_idle: UDP and echo flows (RFC 4787 section 4.3 wants two minutes for NATs; a relay can be shorter because a new
            flow costs nothing).
        retransmissions: of one segment before the flow is given up (RFC 9293 section 3.8.3: R2).
        time_wait: Deviation: RFC 9293 section 3.4.1 has 4 minutes; segments on a TUN cannot be older than its queue.
        out_of_order: segments kept of one flow beyond a gap.
        reassemblies: packets being put together at once; each for at most `reassembly_seconds` (RFC 8200 section 4.5: 60 s).
        challenge_acks: a second, over all flows (RFC 5961 section 7).
    """

    pending_flows: int = 4096
    tcp_flows: int = 65536
    datagram_flows: int = 4096
    datagram_idle: float = 60.0
    retransmissions: int = 9
    time_wait: float = 1.0
    out_of_order: int = 256
    reassemblies: int = 64
    reassembly_seconds: float = 30.0
    challenge_acks: int = 100


@dataclass(slots=True)
class Counters:
    """What happened to packets; moves, therefore not shown as it is (see `StackStats`)."""

    received: int = 0
    malformed: int = 0
    ignored: int = 0
    overflow: int = 0


@dataclass(frozen=True, slots=True)
class StackStats:
    """A snapshot: packets by fate, flows by kind."""

    received: int
    malformed: int
    ignored: int
    overflow: int
    tcp_flows: int
    datagram_flows: int

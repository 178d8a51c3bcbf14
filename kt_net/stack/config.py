"""Caps, times and counters of the stack. Octets, seconds.

Not here: TCP's own timers' values that follow from measurements (tcp/rtt.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What the stack allows.

    Attributes:
        pending_flows: connections that are not established yet (Linux's somaxconn has 4096); more SYNs are not answered.
        tcp_flows, datagram_flows: open at once; a further datagram flow pushes out the one idle longest.
        datagram_idle: UDP and echo flows (RFC 4787 section 4.3 wants two minutes for NATs; a relay can be shorter because a new
            flow costs nothing).
        congestion: "cubic" or "newreno".
        retransmissions: of one segment before the flow is given up (RFC 9293 section 3.8.3: R2).
        syn_retransmissions: of a SYN or its answer (Linux: 5 for an answer).
        time_wait: Deviation: RFC 9293 section 3.4.1 has 4 minutes; segments on a TUN cannot be older than its queue.
        keepalive_idle, keepalive_interval, keepalive_probes: Deviation: RFC 9293 section 3.8.4 has it off, and two hours before the
            first probe; the flow's program is on this machine, and a network namespace that is gone says no goodbye.
        out_of_order: pieces kept of one flow beyond a gap.
        send_buffer: octets of one flow that its program's kernel has not acknowledged; the tunnel's credit keeps far below.
        complaint_gap: between two answers to segments without payload that one flow does not want (Linux: 0.5 s).
        challenge_acks: a second, over all flows (RFC 5961 section 7).
        reassemblies: packets being put together at once; each for at most `reassembly_seconds` (RFC 8200 section 4.5: 60 s).
        icmp_errors: a second (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)).
        hop_v4, hop_v6: packed; whom "time exceeded" comes from, as from a router on the way. RFC 7600's address for those that
            have none, and a unique local one.
    """

    pending_flows: int = 4096
    tcp_flows: int = 65536
    datagram_flows: int = 4096
    datagram_idle: float = 60.0
    congestion: str = "cubic"
    retransmissions: int = 9
    syn_retransmissions: int = 5
    time_wait: float = 1.0
    keepalive_idle: float = 600.0
    keepalive_interval: float = 75.0
    keepalive_probes: int = 9
    out_of_order: int = 1024
    send_buffer: int = 16 * 1024 * 1024
    complaint_gap: float = 0.1
    challenge_acks: int = 100
    reassemblies: int = 64
    reassembly_seconds: float = 30.0
    icmp_errors: int = 1000
    hop_v4: bytes = bytes([192, 0, 0, 8])
    hop_v6: bytes = bytes.fromhex("fd6b746e657400000000000000000001")


@dataclass(slots=True)
class Counters:
    """What happened to packets; moves, therefore not shown as it is (see `StackStats`)."""

    received: int = 0
    malformed: int = 0
    ignored: int = 0
    overflow: int = 0
    icmp_errors: int = 0


@dataclass(frozen=True, slots=True)
class StackStats:
    """A snapshot: packets by fate, flows by kind."""

    received: int
    malformed: int
    ignored: int
    overflow: int
    icmp_errors: int
    tcp_flows: int
    datagram_flows: int

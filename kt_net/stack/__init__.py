"""TCP/IP for the programs of this machine: packets in, flows out. Sans-I/O.

`stack.py` is the door, `events.py` what it says; `ingress.py` takes packets apart (`reassembly.py` puts fragments together),
`egress.py` builds them; `tcp/` is TCP, `datagrams.py` UDP and ICMP (`datagram_flows.py` their table).

Not here: sockets, clocks, randomness, the tunnel. Read next: kt_net.relay, which joins flows to tunnel streams.
"""

from kt_net.stack.config import StackConfig, StackStats
from kt_net.stack.events import (
    DataAcknowledged,
    DatagramReceived,
    DataReceived,
    EchoRequested,
    EndReceived,
    FlowAddress,
    FlowClosed,
    FlowEstablished,
    FlowRequested,
    FlowReset,
    StackEvent,
    UdpFlowExpired,
    Unreachable,
)
from kt_net.stack.stack import Stack

__all__ = [
    "DataAcknowledged",
    "DataReceived",
    "DatagramReceived",
    "EchoRequested",
    "EndReceived",
    "FlowAddress",
    "FlowClosed",
    "FlowEstablished",
    "FlowRequested",
    "FlowReset",
    "Stack",
    "StackConfig",
    "StackEvent",
    "StackStats",
    "UdpFlowExpired",
    "Unreachable",
]

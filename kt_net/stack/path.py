"""Both ends of a flow, and what of its packets' headers never changes.

Not here: packets (egress.py).
"""

from __future__ import annotations

from typing import Final

from kt_net.addr import TCP
from kt_net.stack.events import FlowAddress
from kt_net.wire import ipv4
from kt_net.wire.checksum import ones_complement_sum, pseudo_header_sum

#: Words of an IPv4 header of ours that are always the same: version, DF, TTL.
_CONSTANT: Final = 0x4500 + ipv4.DONT_FRAGMENT + (ipv4.DEFAULT_TTL << 8)


class Path:
    """From `far` to `program`, as packets to the program have them.

    Attributes:
        v6: whether the flow is IPv6.
        tcp_sum, ports_sum: of TCP's pseudo header without its length; of the ports.
        ipv4_sum: of an unfragmented IPv4 header with TCP, without its length.
    """

    __slots__ = ("far", "ipv4_sum", "ports_sum", "program", "tcp_sum", "v6")

    def __init__(self, far: FlowAddress, program: FlowAddress) -> None:
        self.far = far
        self.program = program
        self.v6 = len(far.address) == 16
        self.tcp_sum = pseudo_header_sum(far.address, program.address, TCP, 0) % 0xFFFF
        self.ports_sum = far.port + program.port
        self.ipv4_sum = 0 if self.v6 else _CONSTANT + TCP + ones_complement_sum(far.address + program.address)

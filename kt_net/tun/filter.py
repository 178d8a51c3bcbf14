"""Which packets are wanted: by address, port and protocol, as pcap-filter(7) has "host", "port" and the names of protocols. Pure.

Of a fragmented packet only the first fragment has ports, so only that one can be found by them (as in pcap-filter(7)). What is no
whole IP packet is wanted only when nothing is asked for.

Not here: words for a packet (summary.py).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

from kt_net.addr import ICMP, ICMPV6, TCP, UDP, IPPrefix
from kt_net.errors import MalformedPacket, UsageFault
from kt_net.wire.ipv4 import parse_ipv4
from kt_net.wire.ipv6 import parse_ipv6

MAX_PORT = 65535


class Protocol(StrEnum):
    """What may be asked for; `icmp` is that of both families."""

    tcp = "tcp"
    udp = "udp"
    icmp = "icmp"


_NUMBERS = {Protocol.tcp: (TCP,), Protocol.udp: (UDP,), Protocol.icmp: (ICMP, ICMPV6)}


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """All that is set must fit.

    Attributes:
        host: an address, or a range of them: either end of the packet.
        port: either end's, of TCP or UDP.
    """

    host: IPPrefix | None = None
    port: int | None = None
    protocol: Protocol | None = None

    @property
    def is_empty(self) -> bool:
        """Whether everything is wanted."""
        return self.host is None and self.port is None and self.protocol is None

    def matches(self, packet: bytes | memoryview) -> bool:
        """Whether an IP packet (without a virtio-net header) is wanted. Foreign octets raise nothing."""
        if self.is_empty:
            return True
        try:
            head = parse_ipv6(packet) if packet and packet[0] >> 4 == 6 else parse_ipv4(packet)
        except MalformedPacket:
            return False
        if self.protocol is not None and head.protocol not in _NUMBERS[self.protocol]:
            return False
        if self.host is not None and not (_is_in(head.source, self.host) or _is_in(head.destination, self.host)):
            return False
        if self.port is None:
            return True
        if head.protocol not in (TCP, UDP) or head.fragment_offset:
            return False
        ports = bytes(packet[head.header_octets : min(head.header_octets + 4, head.total_octets)])
        wanted = self.port.to_bytes(2, "big")
        return len(ports) == 4 and wanted in (ports[:2], ports[2:])


def _is_in(packed: bytes, prefix: IPPrefix) -> bool:
    if len(packed) * 8 != prefix.max_prefixlen:
        return False
    return int.from_bytes(packed, "big") & int(prefix.netmask) == int(prefix.network_address)


def parse_filter(*, host: str = "", port: str = "", protocol: str = "") -> PacketFilter:
    """A filter from words; empty ones ask for nothing.

    Raises:
        UsageFault: one makes no sense.
    """
    return PacketFilter(_host(host) if host else None, _port(port) if port else None, _protocol(protocol))


def _host(text: str) -> IPPrefix:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageFault(
            f"--host: {text} is no address", next_step="write it like 10.1.0.7, 10.1.0.0/16 or fd00::7"
        ) from error


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_PORT):
        raise UsageFault(f"--port: {text} is no port", next_step=f"a number from 0 to {MAX_PORT}")
    return int(text)


def _protocol(text: str) -> Protocol | None:
    try:
        return Protocol(text) if text else None
    except ValueError as error:
        raise UsageFault(f"--protocol: {text} is none that can be asked for", next_step="tcp, udp or icmp") from error

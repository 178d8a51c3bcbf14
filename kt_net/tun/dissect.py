"""A packet taken apart for people and programs that look on: its headers, what they say in a line, and as fields.

Not here: what a packet does (kt_net.stack); which ones are wanted (filter.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kt_net.addr import ICMP, ICMPV6, TCP, UDP, Endpoint, address_text
from kt_net.dns.messages import in_words
from kt_net.errors import MalformedMessage, MalformedPacket
from kt_net.wire import icmp, tcp
from kt_net.wire.icmp import IcmpMessage, parse_icmp
from kt_net.wire.ipv4 import IPv4Header, parse_ipv4
from kt_net.wire.ipv6 import IPv6Header, parse_ipv6
from kt_net.wire.tcp import TcpHeader, parse_tcp
from kt_net.wire.udp import HEADER_OCTETS as UDP_OCTETS
from kt_net.wire.udp import UdpHeader, parse_udp
from kt_net.wire.vnet import GSO_NONE, HEADER_OCTETS, parse_vnet

DNS_PORT: Final = 53
#: Before each message over TCP (RFC 1035 section 4.2.2).
_LENGTH_OCTETS: Final = 2

_FLAGS: Final = (
    (tcp.SYN, "SYN"),
    (tcp.FIN, "FIN"),
    (tcp.RST, "RST"),
    (tcp.PSH, "PSH"),
    (tcp.ACK, "ACK"),
    (tcp.URG, "URG"),
)
_NAMES: Final = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6"}
#: Of messages that are seen on a TUN, as tcpdump calls them.
_ICMP_NAMES: Final = {
    (ICMP, icmp.ECHO_REQUEST): "echo request",
    (ICMP, icmp.ECHO_REPLY): "echo reply",
    (ICMP, icmp.UNREACHABLE): "unreachable",
    (ICMP, icmp.TIME_EXCEEDED): "time exceeded",
    (ICMPV6, icmp.V6_ECHO_REQUEST): "echo request",
    (ICMPV6, icmp.V6_ECHO_REPLY): "echo reply",
    (ICMPV6, icmp.V6_UNREACHABLE): "unreachable",
    (ICMPV6, icmp.V6_TIME_EXCEEDED): "time exceeded",
    (ICMPV6, icmp.V6_PARAMETER_PROBLEM): "parameter problem",
}


@dataclass(frozen=True, slots=True)
class Dissected:
    """One packet.

    Attributes:
        upper: None for a fragment, and for protocols that we do not know.
        length: octets of payload of the innermost header.
        gso_size: octets of payload in each packet that the device makes of a super-packet; 0 when it is none.
        dns: what a DNS message says, or "".
    """

    head: IPv4Header | IPv6Header
    upper: TcpHeader | UdpHeader | IcmpMessage | None
    length: int
    gso_size: int = 0
    dns: str = ""

    @property
    def is_fragment(self) -> bool:
        """Whether only a part of a packet is here."""
        return self.head.more_fragments or self.head.fragment_offset > 0

    @property
    def protocol(self) -> str:
        """Its name; of one that has none here, "protocol" and its number."""
        return _NAMES.get(self.head.protocol, f"protocol {self.head.protocol}")

    @property
    def ends(self) -> tuple[str, str]:
        """Source and destination, with ports where there are ports."""
        source, destination = address_text(self.head.source), address_text(self.head.destination)
        if isinstance(self.upper, TcpHeader | UdpHeader):
            return (
                str(Endpoint(source, self.upper.source_port)),
                str(Endpoint(destination, self.upper.destination_port)),
            )
        return source, destination


def dissect(packet: bytes, *, offload: bool) -> Dissected:
    """The packet taken apart.

    Args:
        offload: a virtio-net header is before it.

    Raises:
        MalformedPacket: it is none.
    """
    gso_size = 0
    if offload:
        meta = parse_vnet(packet)
        packet = packet[HEADER_OCTETS:]
        gso_size = meta.gso_size if meta.gso_type != GSO_NONE else 0
    if not packet:
        raise MalformedPacket("empty")
    head: IPv4Header | IPv6Header = parse_ipv6(packet) if packet[0] >> 4 == 6 else parse_ipv4(packet)
    data = packet[head.header_octets : head.total_octets]
    if head.more_fragments or head.fragment_offset:
        return Dissected(head, None, len(data), gso_size)
    if head.protocol == TCP:
        segment = parse_tcp(data)
        payload = data[segment.header_octets :]
        ports = (segment.source_port, segment.destination_port)
        return Dissected(head, segment, len(payload), gso_size, _dns(payload[_LENGTH_OCTETS:], ports))
    if head.protocol == UDP:
        datagram = parse_udp(data)
        payload = data[UDP_OCTETS : datagram.length]
        ports = (datagram.source_port, datagram.destination_port)
        return Dissected(head, datagram, len(payload), gso_size, _dns(payload, ports))
    if head.protocol in (ICMP, ICMPV6):
        message = parse_icmp(data)
        return Dissected(head, message, len(message.data), gso_size)
    return Dissected(head, None, len(data), gso_size)


def _dns(data: bytes, ports: tuple[int, int]) -> str:
    if DNS_PORT not in ports or not data:
        return ""
    try:
        return in_words(data)
    except MalformedMessage:
        return ""  # a part of one, or something else on that port


def in_line(packet: bytes, *, offload: bool) -> str:
    """One packet in one line; foreign octets raise nothing."""
    try:
        found = dissect(packet, offload=offload)
    except MalformedPacket as error:
        return f"malformed, {_octets(packet, offload)} octets: {error}"
    words = [" > ".join(found.ends)]
    if found.is_fragment:
        more = "+" if found.head.more_fragments else ""
        words += ["fragment", f"id={found.head.identification}", f"{found.head.fragment_offset}:{found.length}{more}"]
    else:
        words += [found.protocol, *_upper(found), f"len={found.length}"]
        if isinstance(found.upper, TcpHeader):
            words += _options(found.upper)
    if found.gso_size:
        words.append(f"gso={found.gso_size}")
    if found.dns:
        words.append(f"DNS {found.dns}")
    return " ".join(words)


def _octets(packet: bytes, offload: bool) -> int:
    return max(0, len(packet) - HEADER_OCTETS) if offload else len(packet)


def _upper(found: Dissected) -> list[str]:
    upper = found.upper
    if isinstance(upper, TcpHeader):
        words = [flags_text(upper.flags), f"seq={upper.sequence}"]
        if upper.flags & tcp.ACK:
            words.append(f"ack={upper.acknowledgement}")
        return [*words, f"win={upper.window}"]
    if isinstance(upper, IcmpMessage):
        words = [f"type={upper.type}", f"code={upper.code}"]
        name = _ICMP_NAMES.get((found.head.protocol, upper.type))
        if name is not None:
            words.insert(0, name)
        if name in ("echo request", "echo reply"):
            words += [f"id={upper.identifier}", f"seq={upper.sequence}"]
        return words
    return []


def _options(segment: TcpHeader) -> list[str]:
    words = []
    if segment.mss is not None:
        words.append(f"mss={segment.mss}")
    if segment.window_scale is not None:
        words.append(f"scale={segment.window_scale}")
    if segment.sack_permitted:
        words.append("sack-permitted")
    if segment.timestamp is not None:
        words.append(f"ts={segment.timestamp}/{segment.timestamp_echo}")
    return words + [f"sack={left}-{right}" for left, right in segment.sacks]


def flags_text(flags: int) -> str:
    """TCP flags by their names."""
    return "|".join(name for flag, name in _FLAGS if flags & flag) or "-"


def in_fields(packet: bytes, *, offload: bool) -> dict[str, Any]:
    """One packet as JSON has it; foreign octets raise nothing. What does not apply is not there."""
    try:
        found = dissect(packet, offload=offload)
    except MalformedPacket as error:
        return {"malformed": str(error), "octets": _octets(packet, offload)}
    fields: dict[str, Any] = {
        "protocol": found.protocol,
        "source": address_text(found.head.source),
        "destination": address_text(found.head.destination),
        "length": found.length,
    }
    upper = found.upper
    if found.is_fragment:
        fields |= {
            "fragment_id": found.head.identification,
            "fragment_offset": found.head.fragment_offset,
            "more_fragments": found.head.more_fragments,
        }
    if isinstance(upper, TcpHeader | UdpHeader):
        fields |= {"source_port": upper.source_port, "destination_port": upper.destination_port}
    if isinstance(upper, TcpHeader):
        fields |= {"flags": flags_text(upper.flags), "seq": upper.sequence, "win": upper.window}
        if upper.flags & tcp.ACK:
            fields["ack"] = upper.acknowledgement
    if isinstance(upper, IcmpMessage):
        fields |= {"type": upper.type, "code": upper.code, "id": upper.identifier, "seq": upper.sequence}
    if found.gso_size:
        fields["gso_size"] = found.gso_size
    if found.dns:
        fields["dns"] = found.dns
    return fields

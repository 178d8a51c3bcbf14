"""A device middleware that says every packet in a line, as tcpdump would.

Not here: where the lines go.
"""

from __future__ import annotations

from collections.abc import Callable

from kt_net.addr import ICMP, ICMPV6, TCP, UDP, Endpoint, address_text
from kt_net.errors import MalformedPacket
from kt_net.tun.device import Buffers, Device
from kt_net.tun.middleware import Middleware
from kt_net.wire import tcp
from kt_net.wire.icmp import parse_icmp
from kt_net.wire.ipv4 import IPv4Header, parse_ipv4
from kt_net.wire.ipv6 import IPv6Header, parse_ipv6
from kt_net.wire.tcp import parse_tcp
from kt_net.wire.udp import parse_udp
from kt_net.wire.vnet import GSO_NONE, HEADER_OCTETS, parse_vnet

_FLAGS = ((tcp.SYN, "SYN"), (tcp.FIN, "FIN"), (tcp.RST, "RST"), (tcp.PSH, "PSH"), (tcp.ACK, "ACK"), (tcp.URG, "URG"))


class TracingDevice(Middleware):
    """Wraps a device.

    Args:
        say: takes a line.
        clock: seconds, for the lines' beginnings.
    """

    def __init__(self, device: Device, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        super().__init__(device)
        self._say = say
        self._clock = clock

    def read_packets(self, limit: int) -> list[bytes]:
        """See `Device`."""
        packets = self._device.read_packets(limit)
        for packet in packets:
            self._say(f"{self._clock():.6f} in  {describe(packet, offload=self.offload)}")
        return packets

    def write_packet(self, buffers: Buffers) -> bool:
        """See `Device`."""
        taken = self._device.write_packet(buffers)
        lost = "" if taken else " (no room: lost)"
        self._say(f"{self._clock():.6f} out {describe(b''.join(buffers), offload=self.offload)}{lost}")
        return taken


def describe(packet: bytes, *, offload: bool) -> str:
    """One packet in one line; foreign octets raise nothing."""
    try:
        words = []
        if offload:
            meta = parse_vnet(packet)
            packet = packet[HEADER_OCTETS:]
            if meta.gso_type != GSO_NONE:
                words.append(f"gso={meta.gso_size}")
        if not packet:
            raise MalformedPacket("empty")
        head: IPv4Header | IPv6Header = parse_ipv6(packet) if packet[0] >> 4 == 6 else parse_ipv4(packet)
        data = packet[head.header_octets : head.total_octets]
        if head.more_fragments or head.fragment_offset:
            more = "+" if head.more_fragments else ""
            ends = f"{address_text(head.source)} > {address_text(head.destination)}"
            text = f"{ends} fragment id={head.identification} {head.fragment_offset}:{len(data)}{more}"
        else:
            text = _upper(head, data)
    except MalformedPacket as error:
        return f"malformed, {len(packet)} octets: {error}"
    return " ".join([text, *words])


def _upper(head: IPv4Header | IPv6Header, data: bytes) -> str:
    source, destination = address_text(head.source), address_text(head.destination)
    if head.protocol == TCP:
        segment = parse_tcp(data)
        ends = f"{Endpoint(source, segment.source_port)} > {Endpoint(destination, segment.destination_port)}"
        return f"{ends} TCP {_segment(segment, len(data) - segment.header_octets)}"
    if head.protocol == UDP:
        datagram = parse_udp(data)
        ends = f"{Endpoint(source, datagram.source_port)} > {Endpoint(destination, datagram.destination_port)}"
        return f"{ends} UDP len={datagram.length - 8}"
    if head.protocol in (ICMP, ICMPV6):
        message = parse_icmp(data)
        name = "ICMP" if head.protocol == ICMP else "ICMPv6"
        return (
            f"{source} > {destination} {name} type={message.type} code={message.code}"
            f" id={message.identifier} seq={message.sequence} len={len(message.data)}"
        )
    return f"{source} > {destination} protocol {head.protocol} len={len(data)}"


def _segment(segment: tcp.TcpHeader, octets: int) -> str:
    words = ["|".join(name for flag, name in _FLAGS if segment.flags & flag) or "-", f"seq={segment.sequence}"]
    if segment.flags & tcp.ACK:
        words.append(f"ack={segment.acknowledgement}")
    words += [f"win={segment.window}", f"len={octets}"]
    if segment.mss is not None:
        words.append(f"mss={segment.mss}")
    if segment.window_scale is not None:
        words.append(f"scale={segment.window_scale}")
    if segment.sack_permitted:
        words.append("sack-permitted")
    if segment.timestamp is not None:
        words.append(f"ts={segment.timestamp}/{segment.timestamp_echo}")
    words += [f"sack={left}-{right}" for left, right in segment.sacks]
    return " ".join(words)

"""Packets out: IP headers, checksums or what the device needs to compute them, super-packets, fragments.

Not here: what is sent and when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from kt_net.addr import ICMP, ICMPV6, TCP, UDP
from kt_net.stack.events import FlowAddress, Unreachable
from kt_net.stack.tcp.connection import Connection
from kt_net.wire import icmp, ipv4, ipv6, tcp, udp, vnet
from kt_net.wire.checksum import internet_checksum, pseudo_header_sum

Packet: TypeAlias = list[bytes | memoryview]

#: Largest payload of a super-packet: an IPv4 packet of 65535 octets less both headers.
SUPER_PAYLOAD = 65535 - ipv4.HEADER_OCTETS - tcp.HEADER_OCTETS


@dataclass(slots=True, frozen=True)
class Path:
    """Both ends of a flow, as packets to the program have them: from `far` to `program`."""

    far: FlowAddress
    program: FlowAddress

    @property
    def v6(self) -> bool:
        """Whether the flow is IPv6."""
        return len(self.far.address) == 16


class Egress:
    """Builds packets and keeps them until the device takes them.

    Args:
        offload: the device reads virtio-net headers: checksums are left to the kernel and super-packets are split by it.
    """

    def __init__(self, *, mtu: int, offload: bool) -> None:
        self._mtu = mtu
        self._offload = offload
        self._identification = 0
        self.packets: list[Packet] = []

    def segment(
        self,
        connection: Connection,
        sequence: int,
        acknowledgement: int,
        flags: int,
        window: int,
        buffers: list[memoryview],
        octets: int,
        *,
        options: bool = False,
    ) -> None:
        """See `tcp.connection.Sink`. Without offload a segment of more than one MSS goes out as several packets."""
        if octets > connection.mss and not self._offload:
            self._split(connection, sequence, acknowledgement, flags, window, buffers, octets)
            return
        path = connection.path
        if not isinstance(path, Path):
            raise TypeError("a connection of another stack")
        head = tcp.TcpHeader(path.far.port, path.program.port, sequence, acknowledgement, flags, window)
        if options:
            head.mss = self.mss(v6=path.v6)
            head.window_scale = connection.offered_scale
        plain = head.emit()
        length = len(plain) + octets
        pseudo = pseudo_header_sum(path.far.address, path.program.address, TCP, length)
        ip = self._ip(path, TCP, length)
        if not self._offload:
            payload = b"".join(buffers)
            checksum = internet_checksum(plain + payload, pseudo)
            self.packets.append([ip, _with_checksum(plain, tcp.CHECKSUM_OFFSET, checksum), payload])
            return
        start = len(ip)
        if octets > connection.mss:
            kind = vnet.GSO_TCPV6 if path.v6 else vnet.GSO_TCPV4
            meta = vnet.HEADER.pack(
                vnet.F_NEEDS_CSUM, kind, start + len(plain), connection.mss, start, tcp.CHECKSUM_OFFSET
            )
        else:
            meta = vnet.HEADER.pack(vnet.F_NEEDS_CSUM, vnet.GSO_NONE, 0, 0, start, tcp.CHECKSUM_OFFSET)
        self.packets.append([meta + ip + _with_checksum(plain, tcp.CHECKSUM_OFFSET, pseudo), *buffers])

    def mss(self, *, v6: bool) -> int:
        """Octets of payload in one packet (RFC 9293 section 3.7.1)."""
        return self._mtu - (ipv6.HEADER_OCTETS if v6 else ipv4.HEADER_OCTETS) - tcp.HEADER_OCTETS

    def _split(
        self,
        connection: Connection,
        sequence: int,
        acknowledgement: int,
        flags: int,
        window: int,
        buffers: list[memoryview],
        octets: int,
    ) -> None:
        payload = memoryview(b"".join(buffers))
        for start in range(0, octets, connection.mss):
            piece = payload[start : start + connection.mss]
            last = start + len(piece) == octets
            self.segment(
                connection,
                (sequence + start) & 0xFFFFFFFF,
                acknowledgement,
                flags if last else flags & ~(tcp.FIN | tcp.PSH),
                window,
                [piece],
                len(piece),
            )

    def datagram(self, path: Path, data: bytes | memoryview) -> bool:
        """A UDP datagram to the program, in fragments when it is larger than the MTU; False when no packet can carry it."""
        length = udp.HEADER_OCTETS + len(data)
        if length + ipv4.HEADER_OCTETS > 0xFFFF:
            return False
        head = udp.UdpHeader(path.far.port, path.program.port, length).emit()
        whole = head + bytes(data)
        pseudo = pseudo_header_sum(path.far.address, path.program.address, UDP, length)
        checksum = internet_checksum(whole, pseudo) or 0xFFFF  # RFC 768: a computed zero goes out as all ones
        self._payload(path, UDP, _with_checksum(whole, udp.CHECKSUM_OFFSET, checksum))
        return True

    def echo_reply(self, path: Path, identifier: int, sequence: int, data: bytes | memoryview) -> None:
        """An echo reply to the program."""
        kind = icmp.V6_ECHO_REPLY if path.v6 else icmp.ECHO_REPLY
        self._icmp(path, icmp.IcmpMessage(kind, 0, identifier, sequence, data))

    def unreachable(self, path: Path, reason: Unreachable, cause: bytes) -> None:
        """An ICMP error about the packet `cause`, of which it quotes what the RFCs allow."""
        v4_code, v6_code = reason.value
        if path.v6:
            quoted = cause[: icmp.V6_MAX_ERROR - ipv6.HEADER_OCTETS - icmp.HEADER_OCTETS]
            self._icmp(path, icmp.IcmpMessage(icmp.V6_UNREACHABLE, v6_code, 0, 0, quoted))
        else:
            quoted = cause[: icmp.V4_MAX_ERROR - ipv4.HEADER_OCTETS - icmp.HEADER_OCTETS]
            self._icmp(path, icmp.IcmpMessage(icmp.UNREACHABLE, v4_code, 0, 0, quoted))

    def _icmp(self, path: Path, message: icmp.IcmpMessage) -> None:
        plain = message.emit()
        initial = pseudo_header_sum(path.far.address, path.program.address, ICMPV6, len(plain)) if path.v6 else 0
        self._payload(path, ICMPV6 if path.v6 else ICMP, message.emit(internet_checksum(plain, initial)))

    def _payload(self, path: Path, protocol: int, payload: bytes) -> None:
        meta = [vnet.PLAIN] if self._offload else []
        if len(payload) + (ipv6.HEADER_OCTETS if path.v6 else ipv4.HEADER_OCTETS) <= self._mtu:
            self.packets.append([*meta, self._ip(path, protocol, len(payload)), payload])
            return
        self._identification = (self._identification + 1) & 0xFFFF
        overhead = ipv6.HEADER_OCTETS + ipv6.FRAGMENT_OCTETS if path.v6 else ipv4.HEADER_OCTETS
        step = (self._mtu - overhead) & ~7
        for start in range(0, len(payload), step):
            piece = payload[start : start + step]
            more = start + len(piece) < len(payload)
            self.packets.append([*meta, self._fragment_head(path, protocol, start, len(piece), more), piece])

    def _fragment_head(self, path: Path, protocol: int, start: int, octets: int, more: bool) -> bytes:
        if path.v6:
            total = ipv6.HEADER_OCTETS + ipv6.FRAGMENT_OCTETS + octets
            return ipv6.IPv6Header(
                path.far.address,
                path.program.address,
                protocol,
                0,
                total,
                fragmented=True,
                identification=self._identification,
                more_fragments=more,
                fragment_offset=start,
            ).emit()
        return ipv4.IPv4Header(
            path.far.address,
            path.program.address,
            protocol,
            ipv4.HEADER_OCTETS,
            ipv4.HEADER_OCTETS + octets,
            identification=self._identification,
            more_fragments=more,
            fragment_offset=start,
        ).emit()

    def _ip(self, path: Path, protocol: int, octets: int) -> bytes:
        if path.v6:
            total = ipv6.HEADER_OCTETS + octets
            return ipv6.IPv6Header(path.far.address, path.program.address, protocol, 0, total).emit()
        total = ipv4.HEADER_OCTETS + octets
        return ipv4.IPv4Header(
            path.far.address, path.program.address, protocol, ipv4.HEADER_OCTETS, total, dont_fragment=True
        ).emit()


def _with_checksum(data: bytes, offset: int, checksum: int) -> bytes:
    return data[:offset] + checksum.to_bytes(2, "big") + data[offset + 2 :]

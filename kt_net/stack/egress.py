"""Packets out: IP headers, checksums or what the device needs to compute them, super-packets, fragments.

Not here: what is sent and when.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from kt_net.addr import ICMP, ICMPV6, TCP, UDP
from kt_net.stack.events import FlowAddress, Unreachable
from kt_net.stack.path import Path
from kt_net.wire import icmp, ipv4, ipv6, tcp, udp, vnet
from kt_net.wire.checksum import internet_checksum, pseudo_header_sum

Packet: TypeAlias = list[bytes | memoryview]

#: Largest payload of a super-packet: 65535 octets less the headers, with timestamps, of either family.
SUPER_PAYLOAD: Final = 65535 - ipv6.HEADER_OCTETS - tcp.HEADER_OCTETS - tcp.TIMESTAMPS_OCTETS

#: An IP header and a TCP header at once: kt_net.wire has them one by one, and each call costs as much as all the fields together.
_TCP4: Final = struct.Struct(ipv4.HEADER.format + tcp.HEADER.format[1:])
_TCP6: Final = struct.Struct(ipv6.HEADER.format + tcp.HEADER.format[1:])


class Egress:
    """Builds packets and keeps them until the device takes them.

    Args:
        offload: the device reads virtio-net headers: checksums are left to the kernel and super-packets are split by it.
    """

    def __init__(self, *, mtu: int, offload: bool) -> None:
        self._mtu = mtu
        self._offload = offload
        self._identification = 0
        #: virtio-net headers, by IPv6 or not, header octets, and payload octets of one packet (0: not a super-packet).
        self._metas: dict[tuple[bool, int, int], bytes] = {}
        self.packets: list[Packet] = []

    def segment(
        self,
        path: Path,
        mss: int,
        sequence: int,
        acknowledgement: int,
        flags: int,
        window: int,
        options: bytes,
        buffers: list[memoryview],
        octets: int,
    ) -> None:
        """See `tcp.connection.Sink`. Without offload a segment of more than one MSS goes out as several packets."""
        if octets > mss and not self._offload:
            self._split(path, mss, sequence, acknowledgement, flags, window, options, buffers, octets)
            return
        header = tcp.HEADER_OCTETS + len(options)
        length = header + octets
        pseudo = path.tcp_sum + length
        if self._offload:
            checksum = pseudo % 0xFFFF or 0xFFFF
        else:
            if len(buffers) > 1:
                buffers = [memoryview(b"".join(buffers))]
            # Numbers of 32 bits count as their halves' sum: 2**16 is 1, modulo 0xFFFF.
            head_sum = path.ports_sum + sequence + acknowledgement + (header << 10 | flags) + window
            options_sum = int.from_bytes(options, "big")
            checksum = internet_checksum(buffers[0] if buffers else b"", pseudo + head_sum + options_sum)
        far, program = path.far, path.program
        if path.v6:
            head = _TCP6.pack(
                6 << 28,
                length,
                TCP,
                ipv6.DEFAULT_HOP_LIMIT,
                far.address,
                program.address,
                far.port,
                program.port,
                sequence,
                acknowledgement,
                header << 2,
                flags,
                window,
                checksum,
                0,
            )
        else:
            total = ipv4.HEADER_OCTETS + length
            head = _TCP4.pack(
                0x45,
                0,
                total,
                0,
                ipv4.DONT_FRAGMENT,
                ipv4.DEFAULT_TTL,
                TCP,
                0xFFFF - ((path.ipv4_sum + total) % 0xFFFF or 0xFFFF),
                far.address,
                program.address,
                far.port,
                program.port,
                sequence,
                acknowledgement,
                header << 2,
                flags,
                window,
                checksum,
                0,
            )
        if self._offload:
            size = mss if octets > mss else 0
            meta = self._metas.get((path.v6, header, size)) or self._meta(path.v6, header, size)
            self.packets.append([meta + head + options, *buffers])
        else:
            self.packets.append([head + options, *buffers])

    def _meta(self, v6: bool, header: int, size: int) -> bytes:
        start = ipv6.HEADER_OCTETS if v6 else ipv4.HEADER_OCTETS
        if size:
            kind = vnet.GSO_TCPV6 if v6 else vnet.GSO_TCPV4
            meta = vnet.VnetHeader(vnet.F_NEEDS_CSUM, kind, start + header, size, start, tcp.CHECKSUM_OFFSET)
        else:
            meta = vnet.VnetHeader(vnet.F_NEEDS_CSUM, vnet.GSO_NONE, 0, 0, start, tcp.CHECKSUM_OFFSET)
        if len(self._metas) > 1024:  # as many as there are sizes of segments that programs' kernels asked for
            self._metas.clear()
        self._metas[v6, header, size] = meta.emit()
        return self._metas[v6, header, size]

    def mss(self, *, v6: bool) -> int:
        """Octets of payload in one packet without options (RFC 9293 section 3.7.1)."""
        return self._mtu - (ipv6.HEADER_OCTETS if v6 else ipv4.HEADER_OCTETS) - tcp.HEADER_OCTETS

    def largest(self, *, v6: bool) -> int:
        """Octets of payload in one segment: what one write of the device carries, or sixteen packets' worth."""
        return SUPER_PAYLOAD if self._offload else 16 * self.mss(v6=v6)

    def _split(
        self,
        path: Path,
        mss: int,
        sequence: int,
        acknowledgement: int,
        flags: int,
        window: int,
        options: bytes,
        buffers: list[memoryview],
        octets: int,
    ) -> None:
        payload = memoryview(b"".join(buffers))
        for start in range(0, octets, mss):
            piece = payload[start : start + mss]
            last = start + len(piece) == octets
            self.segment(
                path,
                mss,
                (sequence + start) & 0xFFFFFFFF,
                acknowledgement,
                flags if last else flags & ~(tcp.FIN | tcp.PSH),
                window,
                options,
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

    def echo_reply(self, path: Path, identifier: int, sequence: int, data: bytes | memoryview) -> bool:
        """An echo reply to the program; False when no packet can carry it."""
        if icmp.HEADER_OCTETS + len(data) + ipv4.HEADER_OCTETS > 0xFFFF:
            return False
        kind = icmp.V6_ECHO_REPLY if path.v6 else icmp.ECHO_REPLY
        self._icmp(path, icmp.IcmpMessage(kind, 0, identifier, sequence, data))
        return True

    def unreachable(self, path: Path, reason: Unreachable, cause: bytes) -> None:
        """An ICMP error about the packet `cause` from the far end itself."""
        v4_code, v6_code = reason.value
        if path.v6:
            self._error(path, icmp.V6_UNREACHABLE, v6_code, 0, cause)
        else:
            self._error(path, icmp.UNREACHABLE, v4_code, 0, cause)

    def error(self, sender: bytes, program: bytes, kind: int, code: int, pointer: int, cause: bytes) -> None:
        """An ICMP error about the packet `cause` from the address `sender`.

        Args:
            pointer: the second word: zero, or where the problem is (RFC 4443 section 3.4).
        """
        self._error(Path(FlowAddress(sender, 0), FlowAddress(program, 0)), kind, code, pointer, cause)

    def _error(self, path: Path, kind: int, code: int, pointer: int, cause: bytes) -> None:
        """It quotes what the RFCs allow."""
        head = ipv6.HEADER_OCTETS if path.v6 else ipv4.HEADER_OCTETS
        quoted = cause[: (icmp.V6_MAX_ERROR if path.v6 else icmp.V4_MAX_ERROR) - head - icmp.HEADER_OCTETS]
        self._icmp(path, icmp.IcmpMessage(kind, code, pointer >> 16, pointer & 0xFFFF, quoted))

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

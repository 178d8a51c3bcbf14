"""The raw loop: what a device can do with super-packets when nobody does TCP.

A kernel only talks to something that looks like TCP, so this looks like it as little as it has to: templates with two numbers filled in,
no state but the next number, no timers, no checks, no loss. What it moves is the yardstick of `tests.bench.stack`.

Not here: anything that could be used.
"""

from __future__ import annotations

import os
import select
import struct
from dataclasses import dataclass

from kt_net.addr import TCP
from kt_net.tun.linux import TunDevice
from kt_net.wire import ipv4, ipv6, tcp, vnet
from kt_net.wire.checksum import ones_complement_sum, pseudo_header_sum
from kt_net.wire.ipv4 import IPv4Header
from kt_net.wire.ipv6 import IPv6Header
from kt_net.wire.tcp import ACK, SYN, TcpHeader, parse_tcp

_NUMBERS = struct.Struct("!II")
_SCALE = 10
#: Payload of one super-packet, in whole segments.
_MSS = 1428
_BLOCK = 45 * _MSS


@dataclass(slots=True)
class _Flow:
    sequence: int
    wanted: int
    acknowledged: int
    window: int
    scale: int
    repeated: int = 0
    bare: bytes = b""
    super_head: bytes = b""


class Toy:
    """One device of flows. `how`: "sink" acknowledges, "source" sends for ever, "echo" sends back."""

    def __init__(self, device: TunDevice, how: str) -> None:
        self._device = device.fileno()
        self._how = how
        self._flows: dict[bytes, _Flow] = {}
        self._block = bytes(_BLOCK)

    def run(self) -> None:
        """Until the process is ended."""
        while True:
            touched: dict[bytes, _Flow] = {}
            if not select.select([self._device], [], [], 0.2)[0]:
                for key, flow in self._flows.items():
                    flow.sequence = flow.acknowledged
                    touched[key] = flow
            try:
                for _ in range(32):
                    self._packet(os.read(self._device, 65600), touched)
            except BlockingIOError:
                pass
            for flow in touched.values():
                if self._how == "source":
                    self._send(flow)
                else:
                    self._write(flow.bare, flow, b"")

    def _packet(self, packet: bytes, touched: dict[bytes, _Flow]) -> None:
        v6 = packet[vnet.HEADER_OCTETS] >> 4 == 6
        at = vnet.HEADER_OCTETS + (ipv6.HEADER_OCTETS if v6 else ipv4.HEADER_OCTETS)
        if packet[vnet.HEADER_OCTETS + (6 if v6 else 9)] != TCP:
            return
        key = packet[at - (32 if v6 else 8) : at + 4]
        flow = self._flows.get(key)
        flags = packet[at + 13]
        if flow is None:
            if flags & SYN:
                self._open(key, packet[at:], v6)
            return
        sequence, acknowledgement = _NUMBERS.unpack_from(packet, at + 4)
        flow.repeated = flow.repeated + 1 if acknowledgement == flow.acknowledged else 0
        flow.acknowledged = acknowledgement
        if flow.repeated == 3:
            flow.sequence = acknowledgement  # the kernel had no room; all of it again, which is what a template can do
        flow.window = (packet[at + 14] << 8 | packet[at + 15]) << flow.scale
        octets = len(packet) - at - (packet[at + 12] >> 4) * 4
        if octets:
            flow.wanted = (sequence + octets) & 0xFFFFFFFF
            if self._how == "echo":
                self._write(flow.bare, flow, packet[len(packet) - octets :])
                flow.sequence = (flow.sequence + octets) & 0xFFFFFFFF
                return
            touched[key] = flow
        elif self._how == "source":
            touched[key] = flow

    def _open(self, key: bytes, segment: bytes, v6: bool) -> None:
        header = parse_tcp(segment)
        source, destination = (key[:16], key[16:32]) if v6 else (key[:4], key[4:8])
        flow = _Flow(1, (header.sequence + 1) & 0xFFFFFFFF, 1, 0, header.window_scale or 0)
        kind = vnet.GSO_TCPV6 if v6 else vnet.GSO_TCPV4
        flow.bare = self._head(source, destination, header, 0, vnet.GSO_NONE)
        flow.super_head = self._head(source, destination, header, _BLOCK, kind)
        self._flows[key] = flow
        answer = TcpHeader(0, 0, 0, flow.wanted, SYN | ACK, 0xFFFF, mss=1460, window_scale=_SCALE)
        whole = self._head(source, destination, header, 0, vnet.GSO_NONE, answer)
        os.write(self._device, whole)

    @staticmethod
    def _head(
        source: bytes, destination: bytes, asked: TcpHeader, octets: int, kind: int, head: TcpHeader | None = None
    ) -> bytes:
        head = head or TcpHeader(0, 0, 0, 0, ACK, 0xFFFF)
        head.source_port, head.destination_port = asked.destination_port, asked.source_port
        length = len(head.emit()) + octets
        partial = head.emit(ones_complement_sum(b"", pseudo_header_sum(destination, source, TCP, length)))
        if len(source) == 16:
            ip = IPv6Header(destination, source, TCP, 40, 40 + length).emit()
        else:
            ip = IPv4Header(destination, source, TCP, 20, 20 + length, dont_fragment=True).emit()
        size = _MSS if octets else 0
        meta = vnet.VnetHeader(vnet.F_NEEDS_CSUM, kind, len(ip) + len(head.emit()) if size else 0, size, len(ip), 16)
        return meta.emit() + ip + partial

    def _write(self, template: bytes, flow: _Flow, payload: bytes) -> None:
        at = len(template) - tcp.HEADER_OCTETS + 4
        if payload and template is flow.bare:
            template = self._lengthened(template, len(payload))
        head = template[:at] + _NUMBERS.pack(flow.sequence, flow.wanted) + template[at + 8 :]
        os.writev(self._device, [head, payload])

    @staticmethod
    def _lengthened(template: bytes, octets: int) -> bytes:
        """For the echo: a template without payload, made to carry some."""
        v6 = template[vnet.HEADER_OCTETS] >> 4 == 6
        packet = bytearray(template)
        start = vnet.HEADER_OCTETS
        if v6:
            packet[start + 4 : start + 6] = (tcp.HEADER_OCTETS + octets).to_bytes(2, "big")
            at = start + ipv6.HEADER_OCTETS
        else:
            head = IPv4Header(
                bytes(packet[start + 12 : start + 16]), bytes(packet[start + 16 : start + 20]), TCP, 20, 40 + octets
            )
            packet[start : start + 20] = head.emit()
            at = start + ipv4.HEADER_OCTETS
        total = int.from_bytes(packet[at + 16 : at + 18], "big") + octets
        packet[at + 16 : at + 18] = (total % 0xFFFF or 0xFFFF).to_bytes(2, "big")
        return bytes(packet)

    def _send(self, flow: _Flow) -> None:
        while (flow.sequence - flow.acknowledged & 0xFFFFFFFF) + _BLOCK <= flow.window:
            self._write(flow.super_head, flow, self._block)
            flow.sequence = (flow.sequence + _BLOCK) & 0xFFFFFFFF

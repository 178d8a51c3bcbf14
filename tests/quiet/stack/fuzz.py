"""A mutation fuzzer for the whole stack: conversations that are alive, packets of theirs that are not quite right. Seeded.

A little kernel (`_Peer`) keeps flows going with valid packets, so that mutated ones meet every state; a little relay accepts, refuses,
sends, grants and resets by chance. Each mutated packet keeps a prefix of a valid one; of most of them lengths and checksums are mended, so
that the damage reaches the floor it was meant for.

Not here: how many, and what must hold at the end (test_fuzz.py).
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from kt_net.addr import ICMP, ICMPV6, TCP, UDP
from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.stack import (
    DatagramReceived,
    DataReceived,
    EchoRequested,
    EndReceived,
    FlowAddress,
    FlowRequested,
    Stack,
    StackConfig,
    Unreachable,
)
from kt_net.tun.dissect import in_line
from kt_net.wire import ipv4, ipv6, tcp, vnet
from kt_net.wire.checksum import internet_checksum, pseudo_header_sum
from kt_net.wire.ipv4 import IPv4Header
from kt_net.wire.ipv6 import IPv6Header
from kt_net.wire.tcp import ACK, FIN, PSH, RST, SYN, TcpHeader, parse_tcp

MTU = 1500
PROGRAM = {False: bytes([10, 0, 0, 2]), True: bytes.fromhex("fd00" + "00" * 13 + "02")}
FAR = {False: bytes([10, 96, 0, 10]), True: bytes.fromhex("fd96" + "00" * 13 + "10")}
#: Small caps: a fuzzer that never meets one has not tried it.
CONFIG = StackConfig(
    pending_flows=24,
    tcp_flows=64,
    datagram_flows=32,
    out_of_order=32,
    send_buffer=1 << 18,
    reassemblies=8,
    challenge_acks=20,
    icmp_errors=50,
)
PORTS = 40
_INTERESTING = (0, 1, 2, 4, 5, 7, 8, 16, 20, 40, 0x45, 0x60, 0x7F, 0x80, 0xF0, 0xFE, 0xFF)
_WIDE = (0, 1, 0x7FFF, 0x8000, 0xFFFF)
_FRAGMENT_KINDS = (UDP, TCP, ICMP)


@dataclass(slots=True)
class _Peer:
    """What the program's kernel knows of one of its connections."""

    port: int
    v6: bool
    seq: int
    ack: int = 0
    clock: int | None = None  # of the stack's timestamps, when there are any


class Fuzz:
    """One stack under fire.

    Attributes:
        mutated: packets so far that were not valid ones.
    """

    def __init__(self, seed: int, *, offload: bool) -> None:
        self._chance = random.Random(seed)
        self._offload = offload
        self.now = 1000.0
        self.stack = Stack(entropy=self._chance.randbytes, mtu=MTU, offload=offload, config=CONFIG)
        self.mutated = 0
        self.emitted = 0
        self._peers: dict[tuple[int, bool], _Peer] = {}
        self._flows: dict[int, int] = {}  # what was granted and not used
        self._datagrams: list[int] = []
        self._last = self._udp(False)

    # -- one step

    def step(self) -> None:
        """A packet, mutated or not; then the relay's turn, time, and what comes out."""
        chance = self._chance
        packet = self._valid()
        if chance.random() < 0.75:
            packet = self._mutate(packet)
            self.mutated += 1
            if not self.mutated % 16:
                in_line(packet, offload=False)
        self.stack.receive_packet(self._dressed(packet), now=self.now)
        self._relay()
        if chance.random() < 0.3:
            self.pass_time(chance.choice((0.001, 0.001, 0.03, 0.25, 1.0, 30.0 if chance.random() < 0.1 else 0.01)))
        self._take()

    def pass_time(self, seconds: float) -> None:
        """Timers go off at their times, and each going off changes something."""
        end = self.now + seconds
        idle = 0
        while (at := self.stack.next_timer()) is not None and at <= end:
            assert at == self.stack.next_timer()
            self.now = max(self.now, at)
            self.stack.handle_timer(now=self.now)
            idle = 0 if self._take() or self.stack.next_timer() != at else idle + 1
            assert idle < 3, "a timer that changes nothing"
        self.now = end

    def check(self) -> None:
        """What is kept is within the caps."""
        stats = self.stack.stats(now=self.now)
        assert stats.tcp_flows <= CONFIG.tcp_flows
        assert stats.datagram_flows <= CONFIG.datagram_flows
        assert len(self.stack._ingress._reassembly) <= CONFIG.reassemblies
        assert len(self.stack._connections._timers) <= 2 * CONFIG.tcp_flows + 1025
        for connection in self.stack._connections.connections():
            assert len(connection.receiving._pieces) <= CONFIG.out_of_order
            assert connection.waiting <= CONFIG.send_buffer + 1
            assert connection.receiving.next <= connection.receiving.edge + 1
        self.stack.flow_stats(now=self.now)

    def settle(self) -> None:
        """Both sides fall silent; everything must go by itself. Only what waits for the relay's word waits for ever: it gets it."""
        self._events()
        for connection in self.stack._connections.connections():
            if connection.state.value == "PENDING":
                self.stack.refuse(connection.flow, now=self.now)
        self._events()
        self._take()
        self.pass_time(7200.0)
        self._events()
        self._peers.clear()
        self._flows.clear()
        self._datagrams.clear()

    # -- the relay

    def _events(self) -> None:
        while (event := self.stack.next_event()) is not None:
            try:
                self._event(event)
            except StreamClosed:
                pass  # it ended meanwhile, as flows of a real relay do

    def _relay(self) -> None:
        stack, chance = self.stack, self._chance
        self._events()
        if self._flows and chance.random() < 0.3:
            flow = chance.choice(list(self._flows))
            try:
                self._act(flow)
            except (StreamClosed, LimitExceeded):
                self._flows.pop(flow, None)  # gone, finished, or full
        if chance.random() < 0.01:
            v6 = chance.random() < 0.5
            ends = FlowAddress(FAR[v6], chance.randrange(1, 4)), FlowAddress(PROGRAM[v6], chance.randrange(1, PORTS))
            try:
                self._flows[stack.open(*ends, window=5000, now=self.now)] = 0
            except LimitExceeded:
                pass

    def _event(self, event: object) -> None:
        stack, chance = self.stack, self._chance
        if isinstance(event, FlowRequested):
            luck = chance.random()
            if luck < 0.8:
                stack.accept(event.flow, window=chance.choice((0, 1, 3000, 100_000)), now=self.now)
                self._flows[event.flow] = 0
            elif luck < 0.9:
                stack.refuse(event.flow, now=self.now)
            else:
                stack.unreachable(event.flow, chance.choice(list(Unreachable)), now=self.now)
        elif isinstance(event, DataReceived):
            stack.grant(event.flow, len(event.data), now=self.now)
        elif isinstance(event, EndReceived):
            if chance.random() < 0.5:
                stack.finish(event.flow, now=self.now)
        elif isinstance(event, DatagramReceived):
            self._datagrams = [event.flow, *self._datagrams[:7]]
            if chance.random() < 0.3:
                stack.send_datagram(event.flow, bytes(chance.choice((0, 10, 1400, 1500, 9000))), now=self.now)
            elif chance.random() < 0.1:
                stack.refuse(event.flow, now=self.now)
        elif isinstance(event, EchoRequested):
            stack.send_echo_reply(event.flow, event.sequence, event.data, now=self.now)

    def _act(self, flow: int) -> None:
        stack, chance = self.stack, self._chance
        luck = chance.random()
        if luck < 0.5:
            stack.send(flow, bytes(chance.choice((1, 100, 1448, 5000, 40_000))), now=self.now)
        elif luck < 0.8:
            stack.grant(flow, chance.choice((1, 1000, 20_000)), now=self.now)
        elif luck < 0.95:
            stack.finish(flow, now=self.now)
        else:
            stack.reset(flow, now=self.now)
            self._flows.pop(flow, None)

    # -- the program's kernel

    def _take(self) -> int:
        """What the stack sends: whole packets with right checksums, and news for the peers."""
        packets = self.stack.packets_to_send(now=self.now)
        for buffers in packets:
            self.emitted += 1
            packet = b"".join(buffers)
            packet = packet[vnet.HEADER_OCTETS :] if self._offload else packet
            v6 = packet[0] >> 4 == 6
            if not self.emitted % 32:
                self._judge(packet, v6)
            if packet[6 if v6 else 9] == TCP:
                self._learn(packet, v6)
        return len(packets)

    def _judge(self, packet: bytes, v6: bool) -> None:
        head: IPv4Header | IPv6Header = ipv6.parse_ipv6(packet) if v6 else ipv4.parse_ipv4(packet)
        assert head.total_octets == len(packet)
        data = packet[head.header_octets :]
        if not self._offload and head.protocol == TCP:
            assert not internet_checksum(data, pseudo_header_sum(head.source, head.destination, TCP, len(data)))

    def _learn(self, packet: bytes, v6: bool) -> None:
        start = ipv6.HEADER_OCTETS if v6 else ipv4.HEADER_OCTETS
        head = parse_tcp(packet[start:])
        port = head.destination_port
        if head.flags & RST:
            self._peers.pop((port, v6), None)
            return
        peer = self._peers.get((port, v6))
        if peer is None:
            if head.flags & (SYN | ACK) != SYN:
                return
            peer = self._peers[port, v6] = _Peer(port, v6, self._chance.getrandbits(32))
        octets = len(packet) - start - head.header_octets + bool(head.flags & (SYN | FIN))
        if octets and (head.flags & SYN or head.sequence == peer.ack or self._chance.random() < 0.1):
            peer.ack = (head.sequence + octets) & 0xFFFFFFFF
        if head.timestamp is not None:
            peer.clock = head.timestamp

    def _valid(self) -> bytes:
        """A packet that belongs."""
        chance = self._chance
        luck = chance.random()
        v6 = chance.random() < 0.5
        if luck < 0.65:
            packet = self._tcp(v6)
        elif luck < 0.75:
            packet = self._udp(v6)
        elif luck < 0.85:
            kind = 128 if v6 else chance.choice((8, 3, 11))
            data = bytes(chance.randrange(64)) if kind != 3 else self._last[:48]
            message = struct.pack("!BBHHH", kind, 3 if kind == 3 else 0, 0, chance.randrange(4), 1) + data
            packet = self._ip(v6, ICMPV6 if v6 else ICMP, message)
        elif luck < 0.95:
            packet = self._fragment(v6)
        else:
            packet = self._extended()
        self._last = packet
        return packet

    def _tcp(self, v6: bool) -> bytes:
        chance = self._chance
        port = chance.randrange(1, PORTS)
        peer = self._peers.get((port, v6))
        if peer is None or chance.random() < 0.02:
            peer = self._peers[port, v6] = _Peer(port, v6, chance.choice((chance.getrandbits(32), 0xFFFFFFF0)))
            head = TcpHeader(port, 80, peer.seq, 0, SYN, 0xFFFF, mss=chance.choice((None, 0, 40, 1460, 0xFFFF)))
            head.window_scale = chance.choice((None, 0, 7, 14))
            head.sack_permitted = chance.random() < 0.7
            if chance.random() < 0.7:
                head.timestamp = self._clock()
            peer.seq = (peer.seq + 1) & 0xFFFFFFFF
            return self._segment(v6, head, b"")
        flags = chance.choice((ACK, ACK, ACK, ACK, ACK | PSH, ACK | PSH, ACK | FIN, RST, SYN | ACK))
        head = TcpHeader(port, 80, peer.seq, peer.ack, flags, chance.choice((0, 1, 500, 0xFFFF)))
        data = bytes(chance.choice((0, 0, 1, 200, 1448)))
        luck = chance.random()
        if luck < 0.2:  # beyond a gap
            head.sequence = (peer.seq + chance.choice((1, 200, 1448, 2896))) & 0xFFFFFFFF
        elif luck < 0.9:
            peer.seq = (peer.seq + len(data) + bool(flags & FIN)) & 0xFFFFFFFF
        if peer.clock is not None and chance.random() < 0.95:
            head.timestamp, head.timestamp_echo = self._clock(), peer.clock
        if chance.random() < 0.2:
            left = (peer.ack + chance.choice((1, 1448, 5000, -1448))) & 0xFFFFFFFF
            head.sacks = ((left, (left + chance.choice((1, 1448, 3000))) & 0xFFFFFFFF),) * chance.choice((1, 2, 3))
        return self._segment(v6, head, data)

    def _clock(self) -> int:
        return int(self.now * 1000) & 0xFFFFFFFF

    def _segment(self, v6: bool, head: TcpHeader, data: bytes) -> bytes:
        return self._ip(v6, TCP, head.emit() + data)

    def _udp(self, v6: bool) -> bytes:
        data = bytes(self._chance.randrange(100))
        port = self._chance.randrange(1, PORTS)
        return self._ip(v6, UDP, struct.pack("!HHHH", port, 53, 8 + len(data), 0) + data)

    def _fragment(self, v6: bool) -> bytes:
        chance = self._chance
        number, offset = chance.randrange(12), chance.randrange(4) * 64
        more, kind = offset < 192, chance.choice(_FRAGMENT_KINDS)
        data = bytes(64)
        if v6:
            head = IPv6Header(PROGRAM[v6], FAR[v6], kind, 0, 48 + len(data), fragmented=True, identification=number)
            head.more_fragments, head.fragment_offset = more, offset
            return head.emit() + data
        return (
            IPv4Header(
                PROGRAM[v6],
                FAR[v6],
                kind,
                20,
                20 + len(data),
                identification=number,
                more_fragments=more,
                fragment_offset=offset,
            ).emit()
            + data
        )

    def _extended(self) -> bytes:
        """IPv6 with extension headers, IPv4 with options."""
        chance = self._chance
        if chance.random() < 0.3:
            inner = self._udp(False)
            packet = bytearray(inner[:20] + bytes((1, 1, 7, 4, 4, 0, 0, 0)) + inner[20:])
            packet[0] = 0x47
            packet[2:4] = len(packet).to_bytes(2, "big")
            return _mended(packet)
        kinds = [chance.choice((0, 43, 60, 44)) for _ in range(chance.randrange(1, 4))]
        inner = self._udp(True)
        chain = b""
        for index in range(len(kinds)):
            following = kinds[index + 1] if index + 1 < len(kinds) else UDP
            chain += bytes((following, 0, 1, 4, 0, 0, 0, 0) if kinds[index] != 44 else (following, 0, 0, 0, 0, 0, 0, 9))
        head = ipv6.HEADER.pack(6 << 28, len(chain) + len(inner) - 40, kinds[0], 64, PROGRAM[True], FAR[True])
        return _mended(bytearray(head + chain + inner[40:]))

    def _ip(self, v6: bool, protocol: int, data: bytes) -> bytes:
        if v6:
            packet = IPv6Header(PROGRAM[v6], FAR[v6], protocol, 40, 40 + len(data)).emit() + data
        else:
            packet = IPv4Header(PROGRAM[v6], FAR[v6], protocol, 20, 20 + len(data)).emit() + data
        return packet if self._offload else _mended(bytearray(packet))

    def _dressed(self, packet: bytes) -> bytes:
        if not self._offload:
            return packet
        luck = self._chance.random()
        if luck < 0.95:
            return vnet.VnetHeader(vnet.F_NEEDS_CSUM, 1, 54, 1448, 34, 16).emit() + packet
        return self._chance.randbytes(10) + packet if luck < 0.99 else packet[: self._chance.randrange(10)]

    # -- damage

    def _mutate(self, packet: bytes) -> bytes:
        chance = self._chance
        damaged = bytearray(packet)
        if len(damaged) < 2:
            return packet
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            # Headers are where the decisions are.
            at = chance.randrange(min(len(damaged), 80 if chance.random() < 0.9 else 2000) or 1)
            luck = chance.random()
            if luck < 0.3:
                damaged[at] = chance.choice(_INTERESTING)
            elif luck < 0.5:
                damaged[at] ^= 1 << chance.randrange(8)
            elif luck < 0.65:
                damaged[at] = chance.randrange(256)
            elif luck < 0.8:
                damaged[at : at + 2] = chance.choice(_WIDE).to_bytes(2, "big")
            elif luck < 0.86:
                del damaged[at : at + chance.randrange(1, 20)]
            elif luck < 0.92:
                damaged[at:at] = chance.randbytes(chance.randrange(1, 20))
            elif luck < 0.96:
                del damaged[at + 1 :]
            else:
                damaged[at:] = self._last[chance.randrange(len(self._last) + 1) :]
            if not damaged:
                return b""
        return _mended(damaged) if chance.random() < 0.8 else bytes(damaged)


def _mended(packet: bytearray) -> bytes:
    """Lengths and checksums made right, as far as the packet still says where they are."""
    v6 = packet[0] >> 4 == 6
    start = 40 if v6 else (packet[0] & 0xF) * 4
    if len(packet) < max(start, 20):
        return bytes(packet)
    if v6:
        packet[4:6] = min(0xFFFF, len(packet) - 40).to_bytes(2, "big")
        source, destination, protocol = bytes(packet[8:24]), bytes(packet[24:40]), packet[6]
    else:
        packet[2:4] = len(packet).to_bytes(2, "big")
        source, destination, protocol = bytes(packet[12:16]), bytes(packet[16:20]), packet[9]
        if start >= 20:
            packet[10:12] = b"\0\0"
            packet[10:12] = internet_checksum(bytes(packet[:start])).to_bytes(2, "big")
    at = {TCP: tcp.CHECKSUM_OFFSET, UDP: 6, ICMP: 2, ICMPV6: 2}.get(protocol)
    if at is not None and start + at + 2 <= len(packet):
        packet[start + at : start + at + 2] = b"\0\0"
        data = bytes(packet[start:])
        initial = 0 if protocol == ICMP else pseudo_header_sum(source, destination, protocol, len(data))
        packet[start + at : start + at + 2] = (internet_checksum(data, initial) or 0xFFFF).to_bytes(2, "big")
    return bytes(packet)

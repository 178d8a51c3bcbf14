"""The stack's door: packets of the device in, flows out; verbs of the relay in, packets out.

Not here: what TCP does (tcp/), how packets look (kt_net.wire, egress.py).
"""

from __future__ import annotations

import heapq
import ipaddress
from collections import deque
from collections.abc import Callable

from kt_net.addr import ICMP, ICMPV6, TCP, UDP, Endpoint, address_text
from kt_net.errors import MalformedPacket, StreamClosed
from kt_net.stack.config import Counters, StackConfig, StackStats
from kt_net.stack.datagram_flows import DatagramFlow, DatagramFlows
from kt_net.stack.egress import SUPER_PAYLOAD, Egress, Packet, Path
from kt_net.stack.events import (
    DatagramReceived,
    EchoRequested,
    FlowAddress,
    FlowRequested,
    StackEvent,
    UdpFlowExpired,
    Unreachable,
)
from kt_net.stack.reassembly import Reassembly
from kt_net.stack.tcp.connection import Connection
from kt_net.stack.tcp.states import State
from kt_net.stats import FlowStats
from kt_net.wire import icmp, ipv4, ipv6, tcp, udp, vnet
from kt_net.wire.checksum import internet_checksum, pseudo_header_sum
from kt_net.wire.icmp import parse_icmp
from kt_net.wire.ipv4 import parse_ipv4
from kt_net.wire.ipv6 import parse_ipv6
from kt_net.wire.tcp import ACK, RST, SYN, parse_tcp
from kt_net.wire.udp import parse_udp

#: What is kept of a packet for an ICMP error to quote.
QUOTED_OCTETS = 128


class Stack:
    """One TUN device's worth of TCP/IP. Accepts flows to any address.

    Args:
        entropy: like os.urandom; initial sequence numbers come from it.
        mtu: of the device.
        offload: packets have virtio-net headers, up to 64 KiB each way.
    """

    def __init__(
        self,
        *,
        entropy: Callable[[int], bytes],
        mtu: int,
        offload: bool,
        config: StackConfig = StackConfig(),  # noqa: B008 - frozen
    ) -> None:
        self._entropy = entropy
        self._offload = offload
        self._config = config
        self._egress = Egress(mtu=mtu, offload=offload)
        self._events: deque[StackEvent] = deque()
        self._connections: dict[bytes, Connection] = {}  # by far and program's end, as the packets have them
        self._tcp: dict[int, tuple[Connection, bytes, bytes]] = {}  # by flow: connection, its key, its SYN
        self._pending = 0
        self._dirty: dict[int, Connection] = {}
        self._datagrams = DatagramFlows(most=config.datagram_flows, idle=config.datagram_idle)
        self._reassembly = Reassembly(packets=config.reassemblies, seconds=config.reassembly_seconds)
        self._timers: list[tuple[float, int]] = []  # lazily: entries of dead or re-armed timers are passed over
        self._timer_of: dict[int, float] = {}  # flow -> its earliest entry
        self._next_flow = 1
        self._counters = Counters()
        self._challenges = (0.0, 0)  # start of the second, how many in it

    # -- device

    def receive_packet(self, packet: bytes | memoryview, *, now: float) -> None:
        """One packet as the device gave it; it may be kept. Foreign octets raise nothing: they are counted."""
        self._counters.received += 1
        try:
            view = memoryview(packet)
            partial = False
            if self._offload:
                meta = vnet.parse_vnet(view)
                # The kernel completes these itself when it has to: they never leave this machine.
                partial = bool(meta.flags & (vnet.F_NEEDS_CSUM | vnet.F_DATA_VALID))
                view = view[vnet.HEADER_OCTETS :]
            if not len(view):
                raise MalformedPacket("an empty packet")
            if view[0] >> 4 == 4:
                self._receive_v4(view, partial, now=now)
            elif view[0] >> 4 == 6:
                self._receive_v6(view, partial, now=now)
            else:
                raise MalformedPacket("neither IPv4 nor IPv6")
        except MalformedPacket:
            self._counters.malformed += 1

    def packets_to_send(self, *, now: float) -> list[Packet]:
        """Packets for the device, each a list of buffers (the virtio-net header is in the first)."""
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            for connection in dirty.values():
                connection.transmit(self._egress, now=now)
                self._after(connection)
        packets = self._egress.packets
        if packets:
            self._egress.packets = []
        return packets

    def next_event(self) -> StackEvent | None:
        """What happened, in order."""
        return self._events.popleft() if self._events else None

    # -- time

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        while self._timers and not self._timer_is_live(*self._timers[0]):
            heapq.heappop(self._timers)
        times = [self._timers[0][0]] if self._timers else []
        for timer in (self._datagrams.next_timer(), self._reassembly.next_timer()):
            if timer is not None:
                times.append(timer)
        return min(times) if times else None

    def handle_timer(self, *, now: float) -> None:
        """Retransmissions, probes, idle flows."""
        while self._timers and self._timers[0][0] <= now:
            at, flow = heapq.heappop(self._timers)
            if self._timer_of.get(flow) != at:
                continue
            del self._timer_of[flow]
            entry = self._tcp.get(flow)
            if entry is None:
                continue
            connection = entry[0]
            if connection.timer_at is not None and connection.timer_at <= now:
                connection.handle_timer(self._egress, now=now)
                self._dirty[flow] = connection
            self._after(connection)
        for gone in self._datagrams.expired(now=now):
            self._events.append(UdpFlowExpired(gone.flow))
        self._reassembly.handle_timer(now=now)

    def _timer_is_live(self, at: float, flow: int) -> bool:
        if self._timer_of.get(flow) != at:
            return False
        entry = self._tcp.get(flow)
        if entry is not None and entry[0].timer_at is not None:
            wanted = entry[0].timer_at
            if wanted > at:  # re-armed for later meanwhile: one entry a flow, moved when it surfaces
                self._timer_of[flow] = wanted
                heapq.heappush(self._timers, (wanted, flow))
                return False
            return True
        del self._timer_of[flow]
        return False

    def _after(self, connection: Connection) -> None:
        """Keep timers and tables right after anything happened to a connection."""
        flow = connection.flow
        if connection.is_in(State.CLOSED):
            self._forget_tcp(flow)
            return
        at = connection.timer_at
        if at is not None:
            known = self._timer_of.get(flow)
            if known is None or at < known:
                self._timer_of[flow] = at
                heapq.heappush(self._timers, (at, flow))

    # -- the relay's verbs

    def accept(self, flow: int, *, window: int, now: float) -> None:
        """The far side has connected: answer the SYN; `window` octets may come before more is granted.

        Raises:
            StreamClosed: no such flow waits.
        """
        connection = self._connection(flow)
        connection.accept(window)
        self._pending -= 1
        self._tcp[flow] = (connection, self._tcp[flow][1], b"")
        self._dirty[flow] = connection

    def refuse(self, flow: int, *, now: float) -> None:
        """RST for TCP; ICMP port unreachable for UDP; nothing for echo. The flow is forgotten.

        Raises:
            StreamClosed: no such flow.
        """
        if flow in self._tcp:
            self._connection(flow).refuse(self._egress)
            self._forget_tcp(flow)
        else:
            self.unreachable(flow, Unreachable.PORT, now=now)

    def unreachable(self, flow: int, reason: Unreachable, *, now: float) -> None:
        """An ICMP error about the flow's last packet (for TCP: its SYN). The flow is forgotten.

        Raises:
            StreamClosed: no such flow.
        """
        if flow in self._tcp:
            connection, _, cause = self._tcp[flow]
            path = _path(connection)
            connection.drop()
            self._forget_tcp(flow)
        else:
            datagrams = self._datagram_flow(flow)
            path, cause = datagrams.path, datagrams.cause
            self._datagrams.remove(flow)
        if cause:
            self._egress.unreachable(path, reason, cause)

    def grant(self, flow: int, octets: int, *, now: float) -> None:
        """`octets` more may come.

        Raises:
            StreamClosed: no such flow.
        """
        connection = self._connection(flow)
        if connection.grant(octets):
            self._dirty[flow] = connection

    def send(self, flow: int, data: bytes | memoryview, *, now: float) -> None:
        """Payload for the program; may be kept.

        Raises:
            StreamClosed: no such flow.
        """
        connection = self._connection(flow)
        connection.send(data)
        self._dirty[flow] = connection

    def finish(self, flow: int, *, now: float) -> None:
        """FIN after what was sent. A flow that has ended is no error: both sides may finish at once."""
        entry = self._tcp.get(flow)
        if entry is not None:
            entry[0].finish()
            self._dirty[flow] = entry[0]

    def reset(self, flow: int, *, now: float) -> None:
        """RST now. A flow that has ended is no error."""
        entry = self._tcp.get(flow)
        if entry is not None:
            entry[0].abort(self._egress)
            self._forget_tcp(flow)

    def send_datagram(self, flow: int, data: bytes | memoryview, *, now: float) -> None:
        """A UDP datagram for the program.

        Raises:
            StreamClosed: no such flow.
        """
        datagrams = self._datagram_flow(flow)
        self._datagrams.touch(datagrams, now=now)
        datagrams.octets_down += len(data)
        if not self._egress.datagram(datagrams.path, data):
            self._counters.overflow += 1

    def send_echo_reply(self, flow: int, sequence: int, data: bytes | memoryview, *, now: float) -> None:
        """An echo reply for the program.

        Raises:
            StreamClosed: no such flow.
        """
        datagrams = self._datagram_flow(flow)
        self._datagrams.touch(datagrams, now=now)
        datagrams.octets_down += len(data)
        self._egress.echo_reply(datagrams.path, datagrams.identifier, sequence, data)

    def close_flow(self, flow: int, *, now: float) -> None:
        """Forget a UDP or echo flow; one that is gone is no error."""
        self._datagrams.remove(flow)

    # -- snapshots

    def stats(self, *, now: float) -> StackStats:
        """Counters so far."""
        counters = self._counters
        return StackStats(
            counters.received,
            counters.malformed,
            counters.ignored,
            counters.overflow,
            len(self._tcp),
            len(self._datagrams),
        )

    def flow_stats(self, *, now: float) -> tuple[FlowStats, ...]:
        """Every flow."""
        flows: list[FlowStats] = []
        for connection, _, _ in self._tcp.values():
            path = _path(connection)
            flows.append(
                FlowStats(
                    "tcp",
                    _text(path.program),
                    _text(path.far),
                    connection.state.value,
                    connection.octets_up,
                    connection.octets_down,
                    now - connection.opened_at,
                )
            )
        for flow in self._datagrams.flows():
            flows.append(
                FlowStats(
                    "udp" if flow.protocol == UDP else "icmp",
                    _text(flow.path.program),
                    _text(flow.path.far),
                    "",
                    flow.octets_up,
                    flow.octets_down,
                    now - flow.opened_at,
                )
            )
        return tuple(flows)

    # -- IP

    def _receive_v4(self, view: memoryview, partial: bool, *, now: float) -> None:
        header = parse_ipv4(view)
        data = view[header.header_octets : header.total_octets]
        cause = view[:QUOTED_OCTETS]
        if header.more_fragments or header.fragment_offset:
            key = (header.source + header.destination, header.protocol, header.identification)
            whole = self._reassembly.receive(key, header.fragment_offset, data, header.more_fragments, now=now)
            if whole is None:
                return
            data, partial = memoryview(whole), False
            header.total_octets = header.header_octets + len(whole)
            header.more_fragments, header.fragment_offset = False, 0
            cause = memoryview(header.emit() + whole[: QUOTED_OCTETS - ipv4.HEADER_OCTETS])
        if header.destination[0] >= 224 or header.destination[0] in (0, 127) or header.source[0] >= 224:
            self._counters.ignored += 1  # multicast, broadcast, loopback: nobody in the cluster
            return
        self._upper(header.protocol, header.source, header.destination, data, cause, partial, now=now)

    def _receive_v6(self, view: memoryview, partial: bool, *, now: float) -> None:
        header = parse_ipv6(view)
        data = view[header.header_octets : header.total_octets]
        cause = view[:QUOTED_OCTETS]
        if header.fragmented and (header.more_fragments or header.fragment_offset):
            key = (header.source + header.destination, header.protocol, header.identification)
            whole = self._reassembly.receive(key, header.fragment_offset, data, header.more_fragments, now=now)
            if whole is None:
                return
            data, partial = memoryview(whole), False
            header.total_octets = ipv6.HEADER_OCTETS + len(whole)
            header.fragmented = False
            cause = memoryview(header.emit() + whole[: QUOTED_OCTETS - ipv6.HEADER_OCTETS])
        # Multicast (router solicitations and the like) and link-local: this link has no neighbours.
        if header.destination[0] == 0xFF or header.destination[0] == 0xFE or header.source[0] == 0xFF:
            self._counters.ignored += 1
            return
        self._upper(header.protocol, header.source, header.destination, data, cause, partial, now=now)

    def _upper(
        self,
        protocol: int,
        source: bytes,
        destination: bytes,
        data: memoryview,
        cause: memoryview,
        partial: bool,
        *,
        now: float,
    ) -> None:
        if protocol == TCP:
            if not partial and internet_checksum(data, pseudo_header_sum(source, destination, TCP, len(data))):
                raise MalformedPacket("a TCP segment with a wrong checksum")
            self._receive_tcp(source, destination, data, cause, now=now)
        elif protocol == UDP:
            self._receive_udp(source, destination, data, cause, partial, now=now)
        elif protocol == (ICMPV6 if len(source) == 16 else ICMP):
            self._receive_icmp(source, destination, data, cause, partial, now=now)
        else:
            self._counters.ignored += 1

    # -- TCP

    def _receive_tcp(
        self, source: bytes, destination: bytes, data: memoryview, cause: memoryview, *, now: float
    ) -> None:
        header = parse_tcp(data)
        key = b"".join((source, destination, data[:4]))
        payload = data[header.header_octets :]
        connection = self._connections.get(key)
        if connection is not None and connection.is_in(State.TIME_WAIT) and header.flags & (SYN | ACK | RST) == SYN:
            # RFC 9293 section 3.6.1: a new connection may follow at once; the program's kernel chose its number.
            connection.drop()
            self._forget_tcp(connection.flow)
            connection = None
        if connection is not None:
            connection.receive(header, payload, self._egress, now=now)
            self._dirty[connection.flow] = connection
            self._after(connection)
            return
        path = Path(FlowAddress(destination, header.destination_port), FlowAddress(source, header.source_port))
        if header.flags & (SYN | ACK | RST) != SYN:
            self._no_such_connection(path, header, len(payload))
            return
        if self._pending >= self._config.pending_flows or len(self._tcp) >= self._config.tcp_flows:
            self._counters.overflow += 1
            return
        self._open_tcp(key, path, header, bytes(cause), now=now)

    def _open_tcp(self, key: bytes, path: Path, header: tcp.TcpHeader, cause: bytes, *, now: float) -> None:
        flow = self._next_flow
        self._next_flow += 1
        mss = self._egress.mss(v6=path.v6)
        connection = Connection(
            flow,
            path,
            header,
            initial=int.from_bytes(self._entropy(4), "big"),
            mss=mss,
            largest=SUPER_PAYLOAD if self._offload else 16 * mss,
            config=self._config,
            emit=self._events.append,
            challenge=self._may_challenge,
            now=now,
        )
        self._connections[key] = connection
        self._tcp[flow] = (connection, key, cause)
        self._pending += 1
        self._events.append(FlowRequested(flow, TCP, path.program, path.far))

    def _no_such_connection(self, path: Path, header: tcp.TcpHeader, octets: int) -> None:
        """RFC 9293 section 3.10.7.1: a segment for no connection is answered with a reset."""
        if header.flags & RST:
            return
        stranger = Connection(
            0, path, header, initial=0, mss=1, largest=1, config=self._config, emit=_nobody, challenge=_never, now=0.0
        )
        if header.flags & ACK:
            self._egress.segment(stranger, header.acknowledgement, 0, RST, 0, [], 0)
        else:
            behind = header.sequence + octets + (1 if header.flags & tcp.FIN else 0)
            self._egress.segment(stranger, 0, behind & 0xFFFFFFFF, RST | ACK, 0, [], 0)

    def _may_challenge(self, now: float) -> bool:
        """RFC 5961 section 7: so many challenges a second, over all connections."""
        start, count = self._challenges
        if now - start >= 1.0:
            start, count = now, 0
        self._challenges = (start, count + 1)
        return count < self._config.challenge_acks

    def _connection(self, flow: int) -> Connection:
        entry = self._tcp.get(flow)
        if entry is None:
            raise StreamClosed(f"flow {flow} is gone")
        return entry[0]

    def _forget_tcp(self, flow: int) -> None:
        entry = self._tcp.pop(flow, None)
        if entry is None:
            return
        connection, key, cause = entry
        if cause:
            self._pending -= 1
        if self._connections.get(key) is connection:
            del self._connections[key]
        self._dirty.pop(flow, None)
        self._timer_of.pop(flow, None)

    # -- UDP and echo

    def _receive_udp(
        self, source: bytes, destination: bytes, data: memoryview, cause: memoryview, partial: bool, *, now: float
    ) -> None:
        header = parse_udp(data)
        data = data[: header.length]
        v6 = len(source) == 16
        if not partial and (header.checksum or v6):
            if not header.checksum:
                raise MalformedPacket("UDP over IPv6 without a checksum")  # RFC 8200 section 8.1
            if internet_checksum(data, pseudo_header_sum(source, destination, UDP, len(data))):
                raise MalformedPacket("a UDP datagram with a wrong checksum")
        key = b"".join((b"u", source, destination, data[:4]))
        payload = data[udp.HEADER_OCTETS :]
        flow, new = self._datagram(
            key,
            Path(FlowAddress(destination, header.destination_port), FlowAddress(source, header.source_port)),
            UDP,
            0,
            now=now,
        )
        flow.cause = bytes(cause)
        flow.octets_up += len(payload)
        self._events.append(DatagramReceived(flow.flow, flow.path.program, flow.path.far, payload, new))

    def _receive_icmp(
        self, source: bytes, destination: bytes, data: memoryview, cause: memoryview, partial: bool, *, now: float
    ) -> None:
        v6 = len(source) == 16
        message = parse_icmp(data)
        initial = pseudo_header_sum(source, destination, ICMPV6, len(data)) if v6 else 0
        if not partial and internet_checksum(data, initial):
            raise MalformedPacket("an ICMP message with a wrong checksum")
        if message.type != (icmp.V6_ECHO_REQUEST if v6 else icmp.ECHO_REQUEST):
            self._counters.ignored += 1
            return
        key = b"".join((b"e", source, destination, data[4:6]))
        flow, new = self._datagram(
            key,
            Path(FlowAddress(destination, 0), FlowAddress(source, 0)),
            ICMPV6 if v6 else ICMP,
            message.identifier,
            now=now,
        )
        flow.cause = bytes(cause)
        flow.octets_up += len(message.data)
        self._events.append(
            EchoRequested(
                flow.flow,
                flow.path.program,
                flow.path.far,
                message.identifier,
                message.sequence,
                message.data,
                new,
            )
        )

    def _datagram(
        self, key: bytes, path: Path, protocol: int, identifier: int, *, now: float
    ) -> tuple[DatagramFlow, bool]:
        flow = self._datagrams.find(key, now=now)
        if flow is not None:
            return flow, False
        flow = DatagramFlow(self._next_flow, key, path, protocol, identifier, now, now)
        self._next_flow += 1
        pushed = self._datagrams.add(flow)
        if pushed is not None:
            self._counters.overflow += 1
            self._events.append(UdpFlowExpired(pushed.flow))
        return flow, True

    def _datagram_flow(self, flow: int) -> DatagramFlow:
        found = self._datagrams.get(flow)
        if found is None:
            raise StreamClosed(f"flow {flow} is gone")
        return found


def _path(connection: Connection) -> Path:
    path = connection.path
    if not isinstance(path, Path):
        raise TypeError("a connection of another stack")
    return path


def _text(end: FlowAddress) -> str:
    address = ipaddress.ip_address(end.address)
    return str(Endpoint(str(address), end.port)) if end.port else address_text(end.address)


def _nobody(event: StackEvent) -> None:
    """Events of a connection that never was."""


def _never(now: float) -> bool:
    return False

"""UDP and ICMP: datagrams of programs in, as flows; datagrams and errors for them out.

Not here: the table of flows (datagram_flows.py), packets (egress.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from kt_net.addr import ICMP, ICMPV6, UDP
from kt_net.errors import MalformedPacket, StreamClosed
from kt_net.stack.config import Counters, StackConfig
from kt_net.stack.datagram_flows import DatagramFlow, DatagramFlows
from kt_net.stack.egress import Egress
from kt_net.stack.events import DatagramReceived, EchoRequested, FlowAddress, StackEvent, UdpFlowExpired
from kt_net.stack.path import Path
from kt_net.wire import icmp, ipv4, ipv6, udp
from kt_net.wire.checksum import internet_checksum, pseudo_header_sum
from kt_net.wire.icmp import parse_icmp
from kt_net.wire.udp import parse_udp


class Datagrams:
    """UDP and echo of one device.

    Args:
        numbers: gives out flow numbers.
    """

    def __init__(
        self,
        *,
        egress: Egress,
        events: deque[StackEvent],
        counters: Counters,
        config: StackConfig,
        numbers: Iterator[int],
    ) -> None:
        self._egress = egress
        self._events = events
        self._counters = counters
        self._numbers = numbers
        self.flows = DatagramFlows(most=config.datagram_flows, idle=config.datagram_idle)

    # -- packets in

    def receive_udp(
        self, source: bytes, destination: bytes, data: memoryview, cause: memoryview, partial: bool, *, now: float
    ) -> None:
        """A UDP datagram. `partial`: its checksum is the device's business.

        Raises:
            MalformedPacket: it is none.
        """
        header = parse_udp(data)
        data = data[: header.length]
        if not partial and (header.checksum or len(source) == 16):
            if not header.checksum:
                raise MalformedPacket("UDP over IPv6 without a checksum")  # RFC 8200 section 8.1
            if internet_checksum(data, pseudo_header_sum(source, destination, UDP, len(data))):
                raise MalformedPacket("a UDP datagram with a wrong checksum")
        key = b"".join((b"u", source, destination, data[:4]))
        payload = data[udp.HEADER_OCTETS :]
        flow, new = self._flow(
            key, source, header.source_port, destination, header.destination_port, UDP, 0, cause, len(payload), now=now
        )
        self._events.append(DatagramReceived(flow.flow, flow.path.program, flow.path.far, payload, new))

    def receive_icmp(
        self, source: bytes, destination: bytes, data: memoryview, cause: memoryview, partial: bool, *, now: float
    ) -> None:
        """An ICMP message of the source's family.

        Raises:
            MalformedPacket: it is none.
        """
        v6 = len(source) == 16
        message = parse_icmp(data)
        initial = pseudo_header_sum(source, destination, ICMPV6, len(data)) if v6 else 0
        if not partial and internet_checksum(data, initial):
            raise MalformedPacket("an ICMP message with a wrong checksum")
        port_unreachable = (
            (icmp.V6_UNREACHABLE, icmp.V6_PORT_UNREACHABLE) if v6 else (icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)
        )
        if (message.type, message.code) == port_unreachable:
            self._port_closed(message.data)
            return
        if message.type != (icmp.V6_ECHO_REQUEST if v6 else icmp.ECHO_REQUEST):
            self._counters.ignored += 1
            return
        key = b"".join((b"e", source, destination, data[4:6]))
        protocol = ICMPV6 if v6 else ICMP
        flow, new = self._flow(
            key, source, 0, destination, 0, protocol, message.identifier, cause, len(message.data), now=now
        )
        self._events.append(
            EchoRequested(
                flow.flow, flow.path.program, flow.path.far, message.identifier, message.sequence, message.data, new
            )
        )

    def _port_closed(self, quoted: bytes | memoryview) -> None:
        """The program's socket is gone (RFC 1122 section 4.1.3.3): what the kernel quotes is a datagram of ours."""
        v6 = len(quoted) > 0 and quoted[0] >> 4 == 6
        start = ipv6.HEADER_OCTETS if v6 else ipv4.HEADER_OCTETS
        protocol_at, ends_at = (6, 8) if v6 else (9, 12)
        if len(quoted) < start + 4 or quoted[protocol_at] != UDP:
            self._counters.ignored += 1
            return
        octets = (start - ends_at) // 2
        far, program = bytes(quoted[ends_at : ends_at + octets]), bytes(quoted[ends_at + octets : start])
        ports = bytes(quoted[start + 2 : start + 4]) + bytes(quoted[start : start + 2])
        flow = self.flows.peek(b"".join((b"u", program, far, ports)))
        if flow is None:
            self._counters.ignored += 1
            return
        self.flows.remove(flow.flow)
        self._events.append(UdpFlowExpired(flow.flow))

    def _flow(
        self,
        key: bytes,
        source: bytes,
        source_port: int,
        destination: bytes,
        destination_port: int,
        protocol: int,
        identifier: int,
        cause: memoryview,
        octets: int,
        *,
        now: float,
    ) -> tuple[DatagramFlow, bool]:
        flow = self.flows.find(key, now=now)
        new = flow is None
        if flow is None:
            path = Path(FlowAddress(destination, destination_port), FlowAddress(source, source_port))
            flow = DatagramFlow(next(self._numbers), key, path, protocol, identifier, now, now)
            pushed = self.flows.add(flow)
            if pushed is not None:
                self._counters.overflow += 1
                self._events.append(UdpFlowExpired(pushed.flow))
        flow.cause = bytes(cause)
        flow.octets_up += octets
        return flow, new

    # -- verbs

    def send(self, flow: int, data: bytes | memoryview, *, now: float) -> None:
        """See `Stack.send_datagram`."""
        found = self._found(flow)
        self.flows.touch(found, now=now)
        found.octets_down += len(data)
        if not self._egress.datagram(found.path, data):
            self._counters.overflow += 1

    def send_echo_reply(self, flow: int, sequence: int, data: bytes | memoryview, *, now: float) -> None:
        """See `Stack.send_echo_reply`."""
        found = self._found(flow)
        self.flows.touch(found, now=now)
        found.octets_down += len(data)
        if not self._egress.echo_reply(found.path, found.identifier, sequence, data):
            self._counters.overflow += 1

    def withdraw(self, flow: int) -> tuple[Path, bytes]:
        """Forget a flow; gives back what an ICMP error about it needs."""
        found = self._found(flow)
        self.flows.remove(flow)
        return found.path, found.cause

    def _found(self, flow: int) -> DatagramFlow:
        found = self.flows.get(flow)
        if found is None:
            raise StreamClosed(f"flow {flow} is gone")
        return found

    # -- time

    def next_timer(self) -> float | None:
        """When the next flow expires."""
        return self.flows.next_timer()

    def handle_timer(self, *, now: float) -> None:
        """Forget flows that have been idle too long."""
        for gone in self.flows.expired(now=now):
            self._events.append(UdpFlowExpired(gone.flow))

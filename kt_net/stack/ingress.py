"""Packets in, as far as IP goes: lengths and checksums, fragments, hop limits, and who gets the payload.

Not here: what the payload means (tcp/, datagrams.py).
"""

from __future__ import annotations

from kt_net.addr import ICMP, ICMPV6, TCP, UDP
from kt_net.errors import MalformedPacket, ParameterProblem
from kt_net.stack.config import Counters, StackConfig
from kt_net.stack.datagrams import Datagrams
from kt_net.stack.egress import Egress
from kt_net.stack.reassembly import Reassembly
from kt_net.stack.tcp.table import Connections
from kt_net.wire import icmp, ipv4, ipv6, vnet
from kt_net.wire.checksum import internet_checksum, pseudo_header_sum
from kt_net.wire.ipv4 import parse_ipv4
from kt_net.wire.ipv6 import parse_ipv6

#: What is kept of a packet for an ICMP error to quote.
QUOTED_OCTETS = 128
#: RFC 8200 section 4.7: nothing follows.
_NO_NEXT_HEADER = 59


class Ingress:
    """The way in of one device's packets."""

    def __init__(
        self,
        *,
        offload: bool,
        config: StackConfig,
        counters: Counters,
        egress: Egress,
        connections: Connections,
        datagrams: Datagrams,
    ) -> None:
        self._offload = offload
        self._config = config
        self._counters = counters
        self._egress = egress
        self._connections = connections
        self._datagrams = datagrams
        self._reassembly = Reassembly(packets=config.reassemblies, seconds=config.reassembly_seconds)
        self._errors = (0.0, 0)  # start of the second, how many ICMP errors in it

    def receive(self, packet: bytes | memoryview, *, now: float) -> None:
        """One packet as the device gave it. Nothing is raised: what makes no sense is counted."""
        self._counters.received += 1
        view = memoryview(packet)
        try:
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
            else:
                self._receive_v6(view, partial, now=now)
        except MalformedPacket:
            self._counters.malformed += 1

    def next_timer(self) -> float | None:
        """When the oldest packet in pieces expires."""
        return self._reassembly.next_timer()

    def handle_timer(self, *, now: float) -> None:
        """Give up packets whose other fragments do not come (RFC 792 "time exceeded", RFC 8200 section 4.5)."""
        for (addresses, _, _), cause in self._reassembly.handle_timer(now=now):
            self._time_exceeded(addresses[: len(addresses) // 2], icmp.REASSEMBLY_EXCEEDED, cause, now=now)

    def _receive_v4(self, view: memoryview, partial: bool, *, now: float) -> None:
        header = parse_ipv4(view)
        source, destination = header.source, header.destination
        if destination[0] >= 224 or destination[0] in (0, 127) or source[0] >= 224 or source[0] in (0, 127):
            self._counters.ignored += 1  # multicast, broadcast, loopback: nobody in the cluster
            return
        cause = view[:QUOTED_OCTETS]
        if header.ttl <= 1:
            if header.fragment_offset:
                self._counters.ignored += 1  # RFC 1122 section 3.2.2: of fragments, only the first is told of
            else:
                self._time_exceeded(source, icmp.HOPS_EXCEEDED, bytes(cause), now=now)
            return
        data = view[header.header_octets : header.total_octets]
        if header.more_fragments or header.fragment_offset:
            key = (source + destination, header.protocol, header.identification)
            found = self._reassembly.receive(
                key, header.protocol, header.fragment_offset, data, header.more_fragments, cause=cause, now=now
            )
            if found is None:
                return
            _, whole = found
            data, partial = memoryview(whole), False
            header.total_octets = ipv4.HEADER_OCTETS + len(whole)
            header.more_fragments, header.fragment_offset = False, 0
            if header.total_octets > 0xFFFF:
                raise MalformedPacket("fragments of more than a packet")
            cause = memoryview(header.emit() + whole[: QUOTED_OCTETS - ipv4.HEADER_OCTETS])
        if not self._upper(header.protocol, source, destination, data, cause, partial, now=now) and self._may_err(now):
            self._egress.error(destination, source, icmp.UNREACHABLE, icmp.PROTOCOL_UNREACHABLE, 0, bytes(cause))

    def _receive_v6(self, view: memoryview, partial: bool, *, whole: bool = False, now: float) -> None:
        """`whole`: it was put together here."""
        try:
            self._packet_v6(view, partial, whole, now=now)
        except ParameterProblem as problem:
            self._counters.malformed += 1
            self._problem(view, problem, now=now)

    def _packet_v6(self, view: memoryview, partial: bool, whole: bool, *, now: float) -> None:
        header = parse_ipv6(view)
        source, destination = header.source, header.destination
        # Multicast (router solicitations and the like) and link-local: this link has no neighbours.
        if destination[0] >= 0xFE or source[0] == 0xFF or not any(source):
            self._counters.ignored += 1
            return
        cause = view[:QUOTED_OCTETS]
        if header.hop_limit <= 1:
            self._time_exceeded(source, icmp.HOPS_EXCEEDED, bytes(cause), now=now)
            return
        data = view[header.header_octets : header.total_octets]
        if header.fragmented and (header.more_fragments or header.fragment_offset):
            # An atomic fragment (RFC 6946) is not even looked up.
            if whole:
                raise MalformedPacket("a fragment in fragments")
            key = (source + destination, 0, header.identification)
            found = self._reassembly.receive(
                key, header.protocol, header.fragment_offset, data, header.more_fragments, cause=cause, now=now
            )
            if found is not None:
                # It may go on with extension headers, and be refused for one: it is a packet like any other.
                following, payload = found
                total = ipv6.HEADER_OCTETS + len(payload)
                fixed = ipv6.IPv6Header(source, destination, following, ipv6.HEADER_OCTETS, total)
                self._receive_v6(memoryview(fixed.emit() + payload), False, whole=True, now=now)
            return
        if not self._upper(header.protocol, source, destination, data, cause, partial, now=now):
            raise ParameterProblem(
                "a next header that nobody knows", code=ipv6.UNKNOWN_NEXT_HEADER, pointer=header.protocol_at
            )

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
    ) -> bool:
        """Give the payload to whom it belongs; False when there is nobody."""
        if protocol == TCP:
            if not partial and internet_checksum(data, pseudo_header_sum(source, destination, TCP, len(data))):
                raise MalformedPacket("a TCP segment with a wrong checksum")
            self._connections.receive(source, destination, data, cause, now=now)
        elif protocol == UDP:
            self._datagrams.receive_udp(source, destination, data, cause, partial, now=now)
        elif protocol == (ICMPV6 if len(source) == 16 else ICMP):
            self._datagrams.receive_icmp(source, destination, data, cause, partial, now=now)
        else:
            self._counters.ignored += 1
            return protocol == _NO_NEXT_HEADER and len(source) == 16
        return True

    # -- errors

    def _time_exceeded(self, program: bytes, code: int, cause: bytes, *, now: float) -> None:
        self._counters.ignored += 1
        if self._is_error(cause) or not self._may_err(now):
            return
        if len(program) == 16:
            self._egress.error(self._config.hop_v6, program, icmp.V6_TIME_EXCEEDED, code, 0, cause)
        else:
            self._egress.error(self._config.hop_v4, program, icmp.TIME_EXCEEDED, code, 0, cause)

    def _problem(self, view: memoryview, problem: ParameterProblem, *, now: float) -> None:
        source, destination = bytes(view[8:24]), bytes(view[24:40])
        cause = bytes(view[:QUOTED_OCTETS])
        if destination[0] >= 0xFE or source[0] == 0xFF or not any(source) or self._is_error(cause):
            return
        if self._may_err(now):
            self._egress.error(destination, source, icmp.V6_PARAMETER_PROBLEM, problem.code, problem.pointer, cause)

    @staticmethod
    def _is_error(cause: bytes) -> bool:
        """RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e): an error is never about an error."""
        if cause[0] >> 4 == 6:
            return cause[6] == ICMPV6 and len(cause) > ipv6.HEADER_OCTETS and cause[ipv6.HEADER_OCTETS] < 128
        start = (cause[0] & 0xF) * 4
        return cause[9] == ICMP and len(cause) > start and cause[start] not in (icmp.ECHO_REQUEST, icmp.ECHO_REPLY)

    def _may_err(self, now: float) -> bool:
        """So many ICMP errors a second."""
        start, count = self._errors
        if now - start >= 1.0:
            start, count = now, 0
        self._errors = (start, count + 1)
        if count >= self._config.icmp_errors:
            return False
        self._counters.icmp_errors += 1
        return True

"""The stack's door: packets of the device in, flows out; verbs of the relay in, packets out.

Not here: IP (ingress.py, egress.py), what TCP does (tcp/), UDP and echo (datagrams.py).
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import deque
from collections.abc import Callable

from kt_net.addr import UDP, Endpoint, address_text
from kt_net.stack.config import Counters, StackConfig, StackStats
from kt_net.stack.datagrams import Datagrams
from kt_net.stack.egress import Egress, Packet
from kt_net.stack.events import FlowAddress, StackEvent, Unreachable
from kt_net.stack.ingress import Ingress
from kt_net.stack.tcp.table import Connections
from kt_net.stats import FlowStats


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
        self._counters = Counters()
        self._events: deque[StackEvent] = deque()
        self._egress = Egress(mtu=mtu, offload=offload)
        numbers = itertools.count(1)
        self._connections = Connections(
            egress=self._egress,
            events=self._events,
            counters=self._counters,
            config=config,
            entropy=entropy,
            numbers=numbers,
        )
        self._datagrams = Datagrams(
            egress=self._egress, events=self._events, counters=self._counters, config=config, numbers=numbers
        )
        self._ingress = Ingress(
            offload=offload,
            config=config,
            counters=self._counters,
            egress=self._egress,
            connections=self._connections,
            datagrams=self._datagrams,
        )

    # -- device

    def receive_packet(self, packet: bytes | memoryview, *, now: float) -> None:
        """One packet as the device gave it; it may be kept. Foreign octets raise nothing: they are counted."""
        self._ingress.receive(packet, now=now)

    def packets_to_send(self, *, now: float) -> list[Packet]:
        """Packets for the device, each a list of buffers (the virtio-net header is in the first)."""
        self._connections.transmit(now=now)
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
        soonest: float | None = None
        for at in (self._connections.next_timer(), self._datagrams.next_timer(), self._ingress.next_timer()):
            if at is not None and (soonest is None or at < soonest):
                soonest = at
        return soonest

    def handle_timer(self, *, now: float) -> None:
        """Retransmissions, probes, idle flows, fragments that miss others."""
        self._connections.handle_timer(now=now)
        self._datagrams.handle_timer(now=now)
        self._ingress.handle_timer(now=now)

    # -- the relay's verbs

    def open(self, far: FlowAddress, program: FlowAddress, *, window: int, now: float) -> int:
        """Open a TCP flow to a program of this machine; FlowEstablished or FlowReset follows.

        Returns:
            The flow.

        Raises:
            LimitExceeded: too many flows, or one between these ends exists.
        """
        return self._connections.open(far, program, window=window, now=now)

    def accept(self, flow: int, *, window: int, now: float) -> None:
        """The far side has connected: answer the SYN; `window` octets may come before more is granted.

        Raises:
            StreamClosed: no such flow waits.
        """
        self._connections.accept(flow, window=window)

    def refuse(self, flow: int, *, now: float) -> None:
        """RST for TCP; ICMP port unreachable for UDP; nothing for echo. The flow is forgotten.

        Raises:
            StreamClosed: no such flow.
        """
        if flow in self._connections:
            self._connections.refuse(flow)
        else:
            self.unreachable(flow, Unreachable.PORT, now=now)

    def unreachable(self, flow: int, reason: Unreachable, *, now: float) -> None:
        """An ICMP error about the flow's last packet (for TCP: its SYN). The flow is forgotten.

        Raises:
            StreamClosed: no such flow.
        """
        owner = self._connections if flow in self._connections else self._datagrams
        path, cause = owner.withdraw(flow)
        if cause:
            self._egress.unreachable(path, reason, cause)

    def grant(self, flow: int, octets: int, *, now: float) -> None:
        """`octets` more may come.

        Raises:
            StreamClosed: no such flow.
        """
        self._connections.grant(flow, octets)

    def send(self, flow: int, data: bytes | memoryview, *, now: float) -> None:
        """Payload for the program; may be kept.

        Raises:
            StreamClosed: no such flow, or `finish` was called.
            LimitExceeded: more than `StackConfig.send_buffer` would wait.
        """
        self._connections.send(flow, data)

    def finish(self, flow: int, *, now: float) -> None:
        """FIN after what was sent. A flow that has ended is no error: both sides may finish at once."""
        self._connections.finish(flow)

    def reset(self, flow: int, *, now: float) -> None:
        """RST now. A flow that has ended is no error."""
        self._connections.reset(flow)

    def send_datagram(self, flow: int, data: bytes | memoryview, *, now: float) -> None:
        """A UDP datagram for the program.

        Raises:
            StreamClosed: no such flow.
        """
        self._datagrams.send(flow, data, now=now)

    def send_echo_reply(self, flow: int, sequence: int, data: bytes | memoryview, *, now: float) -> None:
        """An echo reply for the program.

        Raises:
            StreamClosed: no such flow.
        """
        self._datagrams.send_echo_reply(flow, sequence, data, now=now)

    def close_flow(self, flow: int, *, now: float) -> None:
        """Forget a UDP or echo flow; one that is gone is no error."""
        self._datagrams.flows.remove(flow)

    # -- snapshots

    def stats(self, *, now: float) -> StackStats:
        """Counters so far."""
        counters = self._counters
        return StackStats(
            counters.received,
            counters.malformed,
            counters.ignored,
            counters.overflow,
            counters.icmp_errors,
            len(self._connections),
            len(self._datagrams.flows),
        )

    def flow_stats(self, *, now: float) -> tuple[FlowStats, ...]:
        """Every flow."""
        flows: list[FlowStats] = []
        for connection in self._connections.connections():
            sender = connection.sender
            flows.append(
                FlowStats(
                    "tcp",
                    _text(connection.path.program),
                    _text(connection.path.far),
                    connection.state.value,
                    connection.octets_up,
                    connection.octets_down,
                    now - connection.opened_at,
                    rtt_s=sender.rtt.smoothed,
                    retransmits=sender.retransmits,
                    receive_window=connection.receiving.window(),
                    send_window=sender.half.window,
                    congestion_window=sender.congestion.window,
                    waiting=connection.waiting,
                )
            )
        for flow in self._datagrams.flows.flows():
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


def _text(end: FlowAddress) -> str:
    address = ipaddress.ip_address(end.address)
    return str(Endpoint(str(address), end.port)) if end.port else address_text(end.address)

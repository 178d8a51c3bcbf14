"""The room's door: flows of the stack, streams of the tunnel and questions of the resolver, moved until nothing is left to move.

Whoever drives it calls `pump` after anything was fed to stack, tunnel or resolver, and then takes the events.

Not here: sockets; bytes of the device or the carrier go to the stack and the tunnel directly.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from kt_net.addr import TCP, address_text
from kt_net.dns.resolver import Answer, Ask, Resolver, Transport
from kt_net.dns.routing import Upstream
from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.relay.datagrams import DatagramJoint, EchoJoint
from kt_net.relay.names import DNS_PORT, MAX_QUESTION_OCTETS, ClusterNames, MessageSplitter, framed_message
from kt_net.relay.streams import SessionEvent, StreamOwner, Switchboard
from kt_net.relay.tcp import TcpJoint
from kt_net.stack import (
    DataAcknowledged,
    DatagramReceived,
    DataReceived,
    EchoRequested,
    EndReceived,
    FlowAddress,
    FlowClosed,
    FlowRequested,
    FlowReset,
    Stack,
    StackEvent,
    UdpFlowExpired,
)
from kt_net.tunnel.requests import Network, Request


@dataclass(frozen=True, slots=True)
class MachineQuestion:
    """A question for this machine's own resolver; its outcome goes to `Relay.receive_outcome`."""

    ask: int
    data: bytes
    transport: Transport


RelayEvent = MachineQuestion | SessionEvent


class Relay:
    """Joins one stack, one tunnel (behind its switchboard) and one resolver.

    Args:
        resolver_address: packed address at which the resolver answers; flows to it end here instead of in the cluster.
    """

    def __init__(self, *, stack: Stack, switchboard: Switchboard, resolver: Resolver, resolver_address: bytes) -> None:
        self._stack = stack
        self._switchboard = switchboard
        self._resolver = resolver
        self._resolver_address = resolver_address
        self._cluster_names = ClusterNames(switchboard, self._cluster_outcome)
        self._tcp: dict[int, TcpJoint] = {}
        self._datagrams: dict[int, DatagramJoint] = {}
        self._echoes: dict[int, EchoJoint] = {}
        self._questions: dict[int, MessageSplitter] = {}  # DNS over TCP to our own address
        self._events: deque[RelayEvent] = deque()

    def use_cluster_dns(self, servers: tuple[str, ...]) -> None:
        """The cluster's DNS servers, as the pod's resolv.conf names them."""
        self._cluster_names.use(servers)

    @property
    def flows(self) -> int:
        """How many flows are joined now."""
        return len(self._tcp) + len(self._datagrams) + len(self._echoes)

    def next_event(self) -> RelayEvent | None:
        """What the driver has to do or to know."""
        return self._events.popleft() if self._events else None

    def receive_outcome(self, ask: int, data: bytes | None, *, now: float) -> None:
        """What came of a question of the resolver; None: no answer."""
        if data is None:
            self._resolver.ask_failed(ask, now=now)
        else:
            self._resolver.receive_answer(ask, data, now=now)

    def next_timer(self) -> float | None:
        """When a server of names has been silent for long enough."""
        return self._cluster_names.next_timer()

    def handle_timer(self, *, now: float) -> None:
        """Ask the next one; `pump` is to be called afterwards."""
        self._cluster_names.handle_timer(now=now)

    def pump(self, *, now: float) -> None:
        """Move everything until stack, tunnel and resolver have nothing more to say.

        Raises:
            TunnelProtocolError: the agent's bytes make no sense; the tunnel is to be closed.
        """
        busy = True
        while busy:
            busy = self._switchboard.pump(now=now)
            while (flow_event := self._stack.next_event()) is not None:
                busy = True
                try:
                    self._flow_event(flow_event, now=now)
                except StreamClosed:
                    pass  # a later packet of the same batch has ended the flow; that event is on the way
            while (name_event := self._resolver.next_event()) is not None:
                busy = True
                self._name_event(name_event, now=now)
        while (session_event := self._switchboard.next_event()) is not None:
            self._events.append(session_event)

    # -- flows

    def _flow_event(self, event: StackEvent, *, now: float) -> None:
        match event:
            case DataReceived(flow, data):
                if (joint := self._tcp.get(flow)) is not None:
                    joint.flow_data(data, now=now)
                elif flow in self._questions:
                    self._tcp_questions(flow, data, now=now)
            case DataAcknowledged(flow, octets):
                if (joint := self._tcp.get(flow)) is not None:
                    joint.flow_acknowledged(octets, now=now)
            case FlowRequested(flow, protocol, _, destination):
                self._flow_requested(flow, protocol, destination, now=now)
            case EndReceived(flow):
                if (joint := self._tcp.get(flow)) is not None:
                    joint.flow_ended(now=now)
                elif self._questions.pop(flow, None) is not None:
                    self._stack.finish(flow, now=now)
            case FlowReset(flow):
                self._questions.pop(flow, None)
                if (joint := self._tcp.pop(flow, None)) is not None:
                    joint.flow_reset(now=now)
            case FlowClosed(flow):
                self._questions.pop(flow, None)
                if (joint := self._tcp.pop(flow, None)) is not None:
                    joint.flow_closed()
            case DatagramReceived():
                self._datagram(event, now=now)
            case EchoRequested():
                self._echo(event, now=now)
            case UdpFlowExpired(flow):
                expired = self._datagrams.pop(flow, None) or self._echoes.pop(flow, None)
                if expired is not None:
                    expired.flow_expired(now=now)

    def _flow_requested(self, flow: int, protocol: int, destination: FlowAddress, *, now: float) -> None:
        if protocol != TCP:
            self._stack.refuse(flow, now=now)
            return
        if destination.address == self._resolver_address:
            if destination.port == DNS_PORT:
                self._questions[flow] = MessageSplitter()
                self._stack.accept(flow, window=MAX_QUESTION_OCTETS, now=now)
            else:
                self._stack.refuse(flow, now=now)
            return
        joint = TcpJoint(flow, self._stack, self._forget_tcp)
        request = Request(Network.TCP, address_text(destination.address), destination.port)
        try:
            joint.stream = self._switchboard.open(request, joint, now=now)
        except (LimitExceeded, StreamClosed):
            self._stack.refuse(flow, now=now)
            return
        self._tcp[flow] = joint

    def _forget_tcp(self, flow: int) -> None:
        self._tcp.pop(flow, None)

    def _datagram(self, event: DatagramReceived, *, now: float) -> None:
        if event.destination.address == self._resolver_address:
            if event.destination.port == DNS_PORT:
                self._resolver.receive_query(
                    bytes(event.data), client=(Transport.UDP, event.flow), transport=Transport.UDP, now=now
                )
            else:
                self._stack.refuse(event.flow, now=now)
            return
        joint = self._datagrams.get(event.flow)
        if joint is None:
            joint = DatagramJoint(event.flow, self._stack, self._forget_datagrams)
            request = Request(Network.UDP, address_text(event.destination.address), event.destination.port)
            if not self._open_datagrams(joint, request, now=now):
                return
            self._datagrams[event.flow] = joint
        joint.flow_datagram(event.data, now=now)

    def _forget_datagrams(self, flow: int) -> None:
        self._datagrams.pop(flow, None)

    def _echo(self, event: EchoRequested, *, now: float) -> None:
        if event.destination.address == self._resolver_address:
            # The resolver is in this process: it is alive, so its echo is honest.
            self._stack.send_echo_reply(event.flow, event.sequence, event.data, now=now)
            return
        joint = self._echoes.get(event.flow)
        if joint is None:
            joint = EchoJoint(event.flow, self._stack, self._forget_echo)
            request = Request(Network.ECHO, address_text(event.destination.address), event.identifier)
            if not self._open_datagrams(joint, request, now=now):
                return
            self._echoes[event.flow] = joint
        joint.flow_echo(event.sequence, event.data, now=now)

    def _forget_echo(self, flow: int) -> None:
        self._echoes.pop(flow, None)

    def _open_datagrams(self, joint: DatagramJoint, request: Request, *, now: float) -> bool:
        owner: StreamOwner = joint
        try:
            joint.stream = self._switchboard.open(request, owner, now=now)
        except (LimitExceeded, StreamClosed):
            self._stack.close_flow(joint.flow, now=now)
            return False
        return True

    # -- names

    def _tcp_questions(self, flow: int, data: bytes | memoryview, *, now: float) -> None:
        for message in self._questions[flow].receive(data):
            self._resolver.receive_query(message, client=(Transport.TCP, flow), transport=Transport.TCP, now=now)
        self._stack.grant(flow, len(data), now=now)

    def _name_event(self, event: Ask | Answer, *, now: float) -> None:
        if isinstance(event, Ask):
            if event.upstream is Upstream.CLUSTER:
                self._cluster_names.ask(event, now=now)
            else:
                self._events.append(MachineQuestion(event.ask, event.data, event.transport))
            return
        if callable(event.client):
            event.client(event)  # somebody on this machine, not on the device
            return
        transport, flow = self._asker(event)
        try:
            if transport is Transport.TCP:
                if flow in self._questions:
                    self._stack.send(flow, framed_message(event.data), now=now)
            else:
                self._stack.send_datagram(flow, event.data, now=now)
        except StreamClosed:
            pass  # the program went away before its answer came

    @staticmethod
    def _asker(answer: Answer) -> tuple[Transport, int]:
        client = answer.client
        if not isinstance(client, tuple):
            raise StreamClosed("an answer for a client that never asked")
        transport, flow = client
        return transport, flow

    def _cluster_outcome(self, ask: int, data: bytes | None, *, now: float) -> None:
        self.receive_outcome(ask, data, now=now)

"""Stack and tunnel joined: a program's kernel on one side, the agent's end of the tunnel on the other, all in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from dnslib import RCODE, DNSRecord
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw

from kt_net.dns.messages import question
from kt_net.dns.resolver import Answer, Resolver, Transport
from kt_net.dns.routing import Routing
from kt_net.relay.datagrams import MAX_WAITING_DATAGRAMS, DatagramJoint
from kt_net.relay.relay import MachineQuestion, Relay
from kt_net.relay.streams import Switchboard
from kt_net.stack import Stack
from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.events import StreamData, StreamFinished, StreamOpened, StreamReset
from kt_net.tunnel.limits import INITIAL_WINDOW
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request, parse_request
from tests.quiet.tunnel.pair import Pair

PROGRAM, FAR, RESOLVER = "10.0.0.2", "10.96.0.10", "198.19.255.253"


class World:
    """Everything between a program and the agent."""

    def __init__(self) -> None:
        self.pair = Pair()
        self.stack = Stack(entropy=lambda n: bytes(n), mtu=1500, offload=False)
        switchboard = Switchboard()
        switchboard.add(0, self.pair.client)
        self.resolver = Resolver(
            routing=Routing(cluster_domains=["cluster.local"], namespace="default", namespaces=[], prefixes=[]),
            entropy=lambda n: b"\x77\x01"[:n],
        )
        self.relay = Relay(
            stack=self.stack,
            switchboard=switchboard,
            resolver=self.resolver,
            resolver_address=bytes([198, 19, 255, 253]),
        )
        self.relay.use_cluster_dns(("10.96.0.53",))

    def program(self, *packets: Packet) -> list[Packet]:
        """Packets of the program; what its kernel gets back."""
        for packet in packets:
            self.stack.receive_packet(bytes(packet), now=self.pair.now)
        return self.turn()

    def turn(self) -> list[Packet]:
        self.relay.pump(now=self.pair.now)
        self.pair.carry()
        self.relay.pump(now=self.pair.now)
        return [IP(b"".join(buffers)) for buffers in self.stack.packets_to_send(now=self.pair.now)]

    def agent(self) -> list[object]:
        return list(self.pair.events(self.pair.agent))

    def reply(self, stream: int, code: ReplyCode, rest: bytes = b"") -> list[Packet]:
        self.pair.agent.send(stream, Reply(code).emit() + rest, now=self.pair.now)
        self.pair.carry()
        return self.turn()


def octets(events: Sequence[object]) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, StreamData))


def syn(port: int = 80) -> Packet:
    return IP(src=PROGRAM, dst=FAR) / TCP(
        sport=4000, dport=port, flags="S", seq=100, options=[("MSS", 1460), ("WScale", 7)]
    )


def segment(flags: str, seq: int, ack: int, data: bytes = b"") -> Packet:
    packet = IP(src=PROGRAM, dst=FAR) / TCP(sport=4000, dport=80, flags=flags, seq=seq, ack=ack, window=0xFFFF)
    return packet / Raw(data) if data else packet


def opened(world: World) -> int:
    """A connection through to the agent; its stream."""
    assert world.program(syn()) == []
    events = world.agent()
    assert isinstance(events[0], StreamOpened)
    parsed = parse_request(octets(events))
    assert parsed is not None
    assert parsed[0] == Request(Network.TCP, FAR, 80)
    (answer,) = world.reply(events[0].stream, ReplyCode.SUCCEEDED)
    assert answer[TCP].flags == "SA"
    world.program(segment("A", 101, 1))
    return events[0].stream


def test_tcp_both_ways_and_closed() -> None:
    world = World()
    stream = opened(world)
    world.program(segment("PA", 101, 1, b"question"))
    assert octets(world.agent()) == b"question"
    world.pair.agent.send(stream, b"answer", now=world.pair.now)
    world.pair.agent.finish(stream, now=world.pair.now)
    world.pair.carry()
    packets = world.turn()
    assert b"".join(bytes(packet[TCP].payload) for packet in packets) == b"answer"
    world.program(segment("FA", 109, 8))
    assert StreamFinished(stream) in world.agent()
    assert world.relay.flows == 0
    assert world.pair.client.stats().streams == 0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ReplyCode.CONNECTION_REFUSED, "RA"),
        (ReplyCode.GENERAL_FAILURE, "RA"),
        (ReplyCode.HOST_UNREACHABLE, 1),
        (ReplyCode.NETWORK_UNREACHABLE, 0),
        (ReplyCode.NOT_ALLOWED, 13),
    ],
)
def test_what_the_agent_could_not_do_is_what_the_program_sees(code: ReplyCode, kind: str | int) -> None:
    world = World()
    world.program(syn())
    (opened_event, *_) = world.agent()
    assert isinstance(opened_event, StreamOpened)
    (answer,) = world.reply(opened_event.stream, code)
    if isinstance(kind, str):
        assert answer[TCP].flags == kind
    else:
        assert (answer[ICMP].type, answer[ICMP].code) == (3, kind)
    assert world.relay.flows == 0


def test_agent_that_resets_before_its_reply() -> None:
    world = World()
    world.program(syn())
    (opened_event, *_) = world.agent()
    assert isinstance(opened_event, StreamOpened)
    world.pair.agent.reset(opened_event.stream, now=world.pair.now)
    (answer,) = world.turn()
    assert answer[TCP].flags == "RA"


def test_reset_passes_both_ways() -> None:
    world = World()
    stream = opened(world)
    world.program(segment("R", 101, 0))
    assert StreamReset(stream) in world.agent()
    world = World()
    stream = opened(world)
    world.pair.agent.reset(stream, now=world.pair.now)
    assert [packet[TCP].flags for packet in world.turn()] == ["RA"]


def test_everything_at_once_in_one_batch() -> None:
    """What crosses on the way must not end more than its own flow."""
    world = World()
    stream = opened(world)
    world.pair.agent.send(stream, b"data", now=world.pair.now)
    world.pair.carry()
    world.program(segment("R", 101, 0))  # the reset and the agent's data meet
    assert StreamReset(stream) in world.agent()
    for code in (ReplyCode.SUCCEEDED, ReplyCode.CONNECTION_REFUSED, ReplyCode.HOST_UNREACHABLE):
        world.program(syn())
        (event, *_) = (found for found in world.agent() if isinstance(found, StreamOpened))
        world.pair.agent.send(event.stream, Reply(code).emit(), now=world.pair.now)
        world.pair.carry()
        world.program(segment("R", 101, 0))  # the program gives up while the reply comes
    world.program(syn(), segment("R", 101, 0))  # asked and given up in one batch
    resolver = IP(src=PROGRAM, dst=RESOLVER) / TCP(sport=4000, dport=53, flags="S", seq=100)
    given_up = IP(src=PROGRAM, dst=RESOLVER) / TCP(sport=4000, dport=53, flags="R", seq=101)
    world.program(resolver, given_up)
    refused = IP(src=PROGRAM, dst=RESOLVER) / TCP(sport=4000, dport=81, flags="S", seq=100)
    world.program(refused, IP(src=PROGRAM, dst=RESOLVER) / TCP(sport=4000, dport=81, flags="R", seq=101))
    assert world.relay.flows == 0
    world.turn()
    world.agent()
    assert opened(world)


def test_the_window_of_the_program_is_the_credit_of_the_stream() -> None:
    world = World()
    stream = opened(world)
    sent, number = 0, 101
    request = len(Request(Network.TCP, FAR, 80).emit())
    while sent < INITIAL_WINDOW + 50_000:
        answers = world.program(segment("A", number, 1, bytes(1460)))
        sent += 1460
        number += 1460
        window = answers[-1][TCP].window << 7
        if window < 1460:
            break
    assert INITIAL_WINDOW - request - 2000 <= sent <= INITIAL_WINDOW
    assert len(octets(world.agent())) <= INITIAL_WINDOW
    world.pair.agent.consume(stream, INITIAL_WINDOW // 2 + request, now=world.pair.now)
    (update,) = world.turn()
    assert update[TCP].window << 7 >= INITIAL_WINDOW // 2


def test_credit_goes_back_when_the_kernel_has_acknowledged() -> None:
    world = World()
    stream = opened(world)
    world.pair.agent.send(stream, bytes(INITIAL_WINDOW), now=world.pair.now)
    world.pair.carry()
    before = world.pair.agent.send_room(stream)
    packets, ack = world.turn(), 1
    while ack < INITIAL_WINDOW - 5000 and packets:
        ack = max((packet[TCP].seq + len(packet[TCP].payload)) for packet in packets)
        packets = world.program(segment("A", 101, ack))
    world.turn()
    assert world.pair.agent.send_room(stream) > before


def test_udp_follows_its_request_without_waiting() -> None:
    world = World()
    world.program(IP(src=PROGRAM, dst=FAR) / UDP(sport=5, dport=7) / Raw(b"first"))
    events = world.agent()
    assert isinstance(events[0], StreamOpened)
    data = octets(events)
    parsed = parse_request(data)
    assert parsed is not None
    assert parsed[0] == Request(Network.UDP, FAR, 7)
    assert DatagramParser().receive(data[parsed[1] :]) == [b"first"]
    (answer,) = world.reply(events[0].stream, ReplyCode.SUCCEEDED, frame_datagram(b"echo"))
    assert bytes(answer[UDP].payload) == b"echo"


def test_udp_reset_is_port_unreachable() -> None:
    world = World()
    world.program(IP(src=PROGRAM, dst=FAR) / UDP(sport=5, dport=7) / Raw(b"first"))
    (event, *_) = world.agent()
    assert isinstance(event, StreamOpened)
    world.reply(event.stream, ReplyCode.SUCCEEDED)
    world.pair.agent.reset(event.stream, now=world.pair.now)
    (answer,) = world.turn()
    assert (answer[ICMP].type, answer[ICMP].code) == (3, 3)


def test_waiting_datagrams_are_capped_and_the_oldest_dropped() -> None:
    joint = DatagramJoint(1, World().stack, lambda flow: None)
    for number in range(MAX_WAITING_DATAGRAMS + 10):
        joint.flow_datagram(str(number).encode(), now=0.0)
    assert joint.dropped == 10


def test_ping_is_answered_by_the_pod_or_not_at_all() -> None:
    world = World()
    world.program(IP(src=PROGRAM, dst=FAR) / ICMP(id=9, seq=2) / Raw(b"data"))
    events = world.agent()
    assert isinstance(events[0], StreamOpened)
    data = octets(events)
    parsed = parse_request(data)
    assert parsed is not None
    assert parsed[0].network is Network.ECHO
    assert DatagramParser().receive(data[parsed[1] :]) == [b"\x00\x02data"]
    (answer,) = world.reply(events[0].stream, ReplyCode.SUCCEEDED, frame_datagram(b"\x00\x02data"))
    assert (answer[ICMP].type, answer[ICMP].id, answer[ICMP].seq) == (0, 9, 2)
    silent = World()
    silent.program(IP(src=PROGRAM, dst=FAR) / ICMP(id=9, seq=2))
    (event, *_) = silent.agent()
    assert isinstance(event, StreamOpened)
    assert silent.reply(event.stream, ReplyCode.COMMAND_NOT_SUPPORTED) == []


def test_cluster_names_go_through_the_tunnel() -> None:
    world = World()
    question = DNSRecord.question("web")
    world.program(IP(src=PROGRAM, dst=RESOLVER) / UDP(sport=5, dport=53) / Raw(question.pack()))
    events = world.agent()
    assert isinstance(events[0], StreamOpened)
    data = octets(events)
    parsed = parse_request(data)
    assert parsed is not None
    assert parsed[0] == Request(Network.UDP, "10.96.0.53", 53)
    (asked,) = DatagramParser().receive(data[parsed[1] :])
    reply = DNSRecord.parse(asked).reply()
    (answer,) = world.reply(events[0].stream, ReplyCode.SUCCEEDED, frame_datagram(reply.pack()))
    assert str(DNSRecord.parse(bytes(answer[UDP].payload)).q.qname) == "web."


def test_cluster_dns_that_cannot_be_reached_is_servfail() -> None:
    world = World()
    world.program(IP(src=PROGRAM, dst=RESOLVER) / UDP(sport=5, dport=53) / Raw(DNSRecord.question("web").pack()))
    (event, *_) = world.agent()
    assert isinstance(event, StreamOpened)
    (answer,) = world.reply(event.stream, ReplyCode.HOST_UNREACHABLE)
    assert DNSRecord.parse(bytes(answer[UDP].payload)).header.rcode == RCODE.SERVFAIL


def test_other_names_are_the_machines_business() -> None:
    world = World()
    question = DNSRecord.question("example.com")
    world.program(IP(src=PROGRAM, dst=RESOLVER) / UDP(sport=5, dport=53) / Raw(question.pack()))
    event = world.relay.next_event()
    assert isinstance(event, MachineQuestion)
    world.relay.receive_outcome(event.ask, DNSRecord.parse(event.data).reply().pack(), now=world.pair.now)
    (answer,) = world.turn()
    assert DNSRecord.parse(bytes(answer[UDP].payload)).header.id == question.header.id


def test_an_answer_for_somebody_who_is_not_on_the_device() -> None:
    world, answers = World(), list[Answer]()
    query = question("web.default.svc.cluster.local", "A", 7)
    world.relay.use_cluster_dns(())
    world.resolver.receive_query(query, client=answers.append, transport=Transport.TCP, now=world.pair.now)
    world.turn()
    assert [asked.outcome for asked in answers[0].trail] == ["no answer"]


def test_the_resolvers_address_serves_names_only() -> None:
    world = World()
    (answer,) = world.program(IP(src=PROGRAM, dst=RESOLVER) / TCP(sport=1, dport=80, flags="S"))
    assert answer[TCP].flags == "RA"
    (answer,) = world.program(IP(src=PROGRAM, dst=RESOLVER) / UDP(sport=1, dport=80) / Raw(b"x"))
    assert answer[ICMP].code == 3
    (answer,) = world.program(IP(src=PROGRAM, dst=RESOLVER) / ICMP(id=1, seq=1))
    assert answer[ICMP].type == 0


def test_streams_from_the_agent_are_turned_down() -> None:
    world = World()
    stream = world.pair.agent.open_stream(now=world.pair.now)
    world.pair.carry()
    world.turn()
    world.pair.carry()
    assert StreamReset(stream) in world.agent()

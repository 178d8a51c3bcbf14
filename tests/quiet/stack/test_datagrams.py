"""UDP, echo, fragments and ICMP errors, judged by scapy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Packet, Raw

from kt_net.stack import (
    DatagramReceived,
    EchoRequested,
    FlowRequested,
    Stack,
    StackConfig,
    StackEvent,
    UdpFlowExpired,
    Unreachable,
)

PROGRAM4, FAR4, PROGRAM6, FAR6 = "10.0.0.2", "10.96.0.10", "fd00::2", "fd00::10"


def ip(*, v6: bool) -> Packet:
    return IPv6(src=PROGRAM6, dst=FAR6) if v6 else IP(src=PROGRAM4, dst=FAR4)


def judged(data: bytes, *, v6: bool) -> Packet:
    """What scapy reads; its own checksums have to be the ones that are there."""
    packet: Packet = IPv6(data) if v6 else IP(data)
    again = packet.copy()
    layer = again
    while layer:
        for field in ("chksum", "cksum", "len", "plen"):
            if field in layer.fields:
                del layer.fields[field]
        layer = layer.payload
    if (
        not packet.haslayer("IPv6ExtHdrFragment")
        and not getattr(packet, "frag", 0)
        and not (not v6 and packet.flags.MF)
    ):
        assert bytes(again) == data
    return packet


class Machine:
    """A stack and what comes out of it."""

    def __init__(self, config: StackConfig | None = None) -> None:
        self.now = 0.0
        self.stack = Stack(entropy=lambda n: bytes(n), mtu=1500, offload=False, config=config or StackConfig())

    def give(self, packet: Packet) -> list[StackEvent]:
        self.stack.receive_packet(bytes(packet), now=self.now)
        events = []
        while (event := self.stack.next_event()) is not None:
            events.append(event)
        return events

    def out(self) -> list[bytes]:
        return [b"".join(buffers) for buffers in self.stack.packets_to_send(now=self.now)]


BOTH = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])


@BOTH
def test_udp_there_and_back(v6: bool) -> None:
    machine = Machine()
    (event,) = machine.give(ip(v6=v6) / UDP(sport=4000, dport=53) / Raw(b"question"))
    assert isinstance(event, DatagramReceived)
    assert (bytes(event.data), event.new, event.destination.port) == (b"question", True, 53)
    (again,) = machine.give(ip(v6=v6) / UDP(sport=4000, dport=53) / Raw(b"more"))
    assert isinstance(again, DatagramReceived)
    assert (again.flow, again.new) == (event.flow, False)
    machine.stack.send_datagram(event.flow, b"answer", now=0.0)
    (data,) = machine.out()
    packet = judged(data, v6=v6)
    assert (packet[UDP].sport, packet[UDP].dport, bytes(packet[UDP].payload)) == (53, 4000, b"answer")
    assert packet.dst == (PROGRAM6 if v6 else PROGRAM4)


@BOTH
def test_echo_there_and_back(v6: bool) -> None:
    machine = Machine()
    request = ICMPv6EchoRequest(id=7, seq=3, data=b"ping") if v6 else ICMP(id=7, seq=3) / Raw(b"ping")
    (event,) = machine.give(ip(v6=v6) / request)
    assert isinstance(event, EchoRequested)
    assert (event.identifier, event.sequence, bytes(event.data)) == (7, 3, b"ping")
    machine.stack.send_echo_reply(event.flow, 3, b"ping", now=0.0)
    (data,) = machine.out()
    packet = judged(data, v6=v6)
    reply = packet[ICMPv6EchoReply] if v6 else packet[ICMP]
    assert (reply.type, reply.id, reply.seq) == (129 if v6 else 0, 7, 3)


@BOTH
@pytest.mark.parametrize("reason", Unreachable)
def test_unreachable_quotes_the_packet(v6: bool, reason: Unreachable) -> None:
    machine = Machine()
    sent = ip(v6=v6) / TCP(sport=4000, dport=80, flags="S", seq=99)
    (event,) = machine.give(sent)
    assert isinstance(event, FlowRequested)
    machine.stack.unreachable(event.flow, reason, now=0.0)
    (data,) = machine.out()
    packet = judged(data, v6=v6)
    error = packet[ICMPv6DestUnreach] if v6 else packet[ICMP]
    assert (error.type, error.code) == ((1, reason.value[1]) if v6 else (3, reason.value[0]))
    assert bytes(error.payload).startswith(bytes(sent)[:28])


@BOTH
def test_refused_udp_is_port_unreachable(v6: bool) -> None:
    machine = Machine()
    (event,) = machine.give(ip(v6=v6) / UDP(sport=4000, dport=9) / Raw(b"x"))
    assert isinstance(event, DatagramReceived)
    machine.stack.refuse(event.flow, now=0.0)
    (data,) = machine.out()
    packet = judged(data, v6=v6)
    error = packet[ICMPv6DestUnreach] if v6 else packet[ICMP]
    assert error.code == (4 if v6 else 3)


def test_fragments_are_put_together_in_any_order() -> None:
    payload = bytes(range(256)) * 20
    pieces = fragment(ip(v6=False) / UDP(sport=1, dport=2) / Raw(payload), fragsize=1000)
    machine = Machine()
    events = [event for piece in reversed(pieces) for event in machine.give(piece)]
    assert [bytes(event.data) for event in events if isinstance(event, DatagramReceived)] == [payload]


def test_overlapping_fragments_end_the_packet() -> None:
    pieces = fragment(ip(v6=False) / UDP(sport=1, dport=2) / Raw(bytes(3000)), fragsize=1000)
    others = fragment(ip(v6=False) / UDP(sport=1, dport=2) / Raw(bytes(3000)), fragsize=600)
    machine = Machine()
    events = [event for piece in (pieces[0], others[1], *pieces[1:]) for event in machine.give(piece)]
    assert events == []
    # RFC 5722: and nothing that comes later brings it back.
    assert [event for piece in pieces for event in machine.give(piece)] == []


def test_the_same_fragment_twice_is_no_overlap() -> None:
    pieces = fragment(ip(v6=False) / UDP(sport=1, dport=2) / Raw(bytes(3000)), fragsize=1000)
    machine = Machine()
    events = [event for piece in (pieces[0], pieces[0], *pieces[1:]) for event in machine.give(piece)]
    assert [type(event) for event in events] == [DatagramReceived]


def test_reassembly_is_capped_and_expires() -> None:
    machine = Machine(StackConfig(reassemblies=2, reassembly_seconds=10))
    for number in range(5):
        piece = fragment(
            IP(src=PROGRAM4, dst=FAR4, id=number) / UDP(sport=1, dport=2) / Raw(bytes(3000)), fragsize=1000
        )[0]
        machine.give(piece)
    assert machine.stack.next_timer() == 10
    machine.stack.handle_timer(now=10.0)
    assert machine.stack.next_timer() is None


@BOTH
def test_large_datagrams_go_out_in_fragments(v6: bool) -> None:
    machine = Machine()
    (event,) = machine.give(ip(v6=v6) / UDP(sport=4000, dport=53) / Raw(b"x"))
    assert isinstance(event, DatagramReceived)
    payload = bytes(range(256)) * 20
    machine.stack.send_datagram(event.flow, payload, now=0.0)
    packets = machine.out()
    assert len(packets) == 4
    assert max(map(len, packets)) <= 1500
    start = 48 if v6 else 20
    assert b"".join(packet[start:] for packet in packets)[8:] == payload


def test_idle_flows_expire_and_the_idlest_makes_room() -> None:
    machine = Machine(StackConfig(datagram_flows=2, datagram_idle=60))
    flows = []
    for port in (1, 2):
        (event,) = machine.give(ip(v6=False) / UDP(sport=port, dport=9) / Raw(b"x"))
        assert isinstance(event, DatagramReceived)
        flows.append(event.flow)
        machine.now += 1
    events = machine.give(ip(v6=False) / UDP(sport=3, dport=9) / Raw(b"x"))
    assert events[0] == UdpFlowExpired(flows[0])
    assert machine.stack.next_timer() == 61
    machine.stack.handle_timer(now=61.0)
    assert machine.stack.next_event() == UdpFlowExpired(flows[1])


@pytest.mark.parametrize("destination", ["224.0.0.1", "255.255.255.255", "127.0.0.1"])
def test_what_is_for_nobody_in_the_cluster_is_ignored(destination: str) -> None:
    machine = Machine()
    assert machine.give(IP(src=PROGRAM4, dst=destination) / UDP(sport=1, dport=2) / Raw(b"x")) == []
    assert machine.stack.stats(now=0.0).ignored == 1


SAMPLES = [
    bytes(ip(v6=v6) / layer)
    for v6 in (False, True)
    for layer in (TCP(sport=1, dport=2, flags="S"), UDP(sport=1, dport=2) / Raw(b"data"), ICMP() / Raw(b"x"))
]


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=6),
    st.integers(0, 80),
)
def test_mutated_packets_raise_nothing(sample: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    packet = bytearray(sample)
    for at, octet in changes:
        packet[at % len(packet)] = octet
    for offload in (False, True):
        stack = Stack(entropy=lambda n: bytes(n), mtu=1500, offload=offload)
        stack.receive_packet((bytes(10) if offload else b"") + bytes(packet[: max(0, len(packet) - cut)]), now=0.0)
        stack.packets_to_send(now=0.0)
        assert stack.stats(now=0.0).received == 1

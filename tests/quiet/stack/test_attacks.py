"""What a hostile or broken kernel side can do, and the cap that holds. RFC 5961, RFC 4987, RFC 5722, RFC 1858."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from kt_net.stack import FlowRequested, Stack, StackConfig
from kt_net.wire.tcp import ACK, FIN, PSH, RST, SYN
from tests.quiet.stack.script import KERNEL_SEQ, MSS, Script


def give(stack: Stack, packet: Packet, now: float = 0.0) -> None:
    stack.receive_packet(bytes(packet), now=now)


def plain(config: StackConfig) -> Stack:
    return Stack(entropy=lambda count: bytes(count), mtu=1500, offload=False, config=config)


def test_syn_flood() -> None:
    """RFC 4987: what is half open is capped, costs little, and goes by itself; who is established does not notice."""
    script = Script(config=StackConfig(pending_flows=50))
    script.established()
    for port in range(1, 1000):
        script.send(SYN, port=port)
    asked = [event for event in script.events() if isinstance(event, FlowRequested)]
    assert len(asked) == 50
    for event in asked:
        script.stack.accept(event.flow, window=1, now=script.now)
    script.take()
    script.send(SYN, port=5000)
    assert script.events() == []  # answered, but not established: still counted
    script.send(ACK | PSH, seq=1, ack=1, data=b"still here")
    assert script.received() == b"still here"
    script.elapse(120)
    assert script.stack.stats(now=script.now).tcp_flows == 1
    script.events()
    script.send(SYN, port=5000)
    assert len(script.events()) == 1


def test_established_flows_do_not_count_as_half_open() -> None:
    script = Script(config=StackConfig(pending_flows=1))
    script.established()
    script.send(SYN, port=77)
    assert len(script.events()) == 1


@pytest.mark.parametrize("seq", [2, 1000, 99_999])
def test_reset_injection_inside_the_window(seq: int) -> None:
    script = Script()
    script.established(window=100_000)
    script.send(RST, seq=seq)
    assert script.events() == []
    script.expect(ACK, seq=1, ack=1)


@pytest.mark.parametrize("seq", [0, -5, 200_000, 0x7FFF0000])
def test_reset_injection_outside_the_window(seq: int) -> None:
    script = Script()
    script.established(window=100_000)
    script.send(RST, seq=seq)
    assert script.events() == []
    script.expect_nothing()


@pytest.mark.parametrize("seq", [1, 500, 200_000])
def test_syn_injection(seq: int) -> None:
    script = Script()
    script.established(window=100_000)
    script.send(SYN, seq=seq, mss=MSS)
    assert script.events() == []
    assert all(segment.header.flags == ACK for segment in script.take())
    script.send(ACK, seq=1, ack=1, data=b"ok")
    assert script.received() == b"ok"


@pytest.mark.parametrize("ack", [50_000, -100_000, 0x7FFFFFFF])
def test_data_injection_with_a_guessed_acknowledgement(ack: int) -> None:
    """RFC 5961 section 5.2: older than the largest window, or never sent."""
    script = Script()
    script.established(kernel_window=100)
    script.send(ACK, seq=1, ack=ack, data=b"forged")
    assert script.received() == b""
    script.expect(ACK, seq=1, ack=1)


def test_challenges_have_a_budget_for_all_flows() -> None:
    script = Script(config=StackConfig(challenge_acks=5))
    script.established()
    for number in range(1000):
        script.send(SYN, seq=500 + number)
    assert len(script.take()) == 5
    script.elapse(1)
    script.send(SYN, seq=500)
    assert len(script.take()) == 1


def test_acknowledgement_storm() -> None:
    """Two ends that each find the other's numbers wrong must not answer each other for ever."""
    script = Script()
    script.established(window=1000)
    for _ in range(1000):
        script.send(ACK, seq=50_000, ack=1)
    assert len(script.take()) == 1
    for _ in range(100):
        script.elapse(0.01)
        script.send(ACK, seq=50_000, ack=1)
    assert len(script.take()) <= 11


def test_duplicate_acknowledgements_in_numbers() -> None:
    """Optimistic or repeated acknowledgements buy no more than their segments."""
    script = Script()
    script.established(kernel_window=0xFFFF)
    script.stack.send(script.flow, bytes(200 * MSS), now=script.now)
    sent = len(script.take())
    for _ in range(500):
        script.send(ACK, seq=1, ack=1)
    again = script.take()
    assert sent + len(again) < 100 + 0xFFFF // MSS * 128
    assert script.stack.flow_stats(now=script.now)[0].congestion_window < 20 * MSS


def test_split_acknowledgements() -> None:
    """An acknowledgement for each octet grows the window by octets (RFC 3465), not by acknowledgements."""
    script = Script()
    script.established(kernel_window=0xFFFF)
    script.stack.send(script.flow, bytes(100 * MSS), now=script.now)
    script.take()
    for octet in range(1, 1001):
        script.send(ACK, seq=1, ack=1 + octet)
    assert script.stack.flow_stats(now=script.now)[0].congestion_window <= 10 * MSS + 1000


def test_tiny_segments() -> None:
    """One octet each, out of order: pieces are capped, memory is not that of the packets."""
    script = Script(config=StackConfig(out_of_order=100))
    script.established(sack_ok=True)
    for place in range(3, 2003, 2):
        script.send(ACK, seq=place, ack=1, data=b"x")
    script.take()
    connection = next(iter(script.stack._connections.connections()))
    assert len(connection.receiving._pieces) == 100
    assert all(len(piece.obj) < 64 for piece in connection.receiving._pieces)  # type: ignore[arg-type]
    for place in range(1, 2003):
        script.send(ACK, seq=place, ack=1, data=b"y" if place % 2 else b"z")
    assert len(script.received()) == 2002


def test_a_window_of_one_octet() -> None:
    """A receiver that advertises next to nothing gets next to nothing, slowly, and holds no more than the cap."""
    script = Script()
    script.established(kernel_window=1, scale=0)
    script.stack.send(script.flow, bytes(1000), now=script.now)
    segments = script.take()
    got = 1 + sum(len(segment.payload) for segment in segments)
    for _ in range(10):
        script.elapse(0.3)
        got += sum(len(segment.payload) for segment in script.take())
        script.send(ACK, seq=1, ack=got, window=1)
        got += sum(len(segment.payload) for segment in script.take())
    assert 1 < got < 30


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_sequence_numbers_wrap(turns: int) -> None:
    """Behind so many turns of 2**32 octets, each way: positions go on, numbers begin anew."""
    script = Script()
    script.established(window=1 << 20)
    connection = next(iter(script.stack._connections.connections()))
    receiving, half = connection.receiving, connection.sender.half
    before = (turns << 32) - 1000
    for name in ("next", "edge", "advertised"):
        setattr(receiving, name, getattr(receiving, name) + before)
    half.unacknowledged = half.next = half.next + before
    half.window_seq, half.window_ack = half.window_seq + before, half.window_ack + before
    connection._last_ack += before
    here = there = (1 + before) & 0xFFFFFFFF
    for _ in range(10):
        script.send(ACK | PSH, seq=here, ack=there, data=bytes(300))
        here = (here + 300) & 0xFFFFFFFF
        script.stack.send(script.flow, bytes(300), now=script.now)
        segments = script.take()
        assert sum(len(segment.payload) for segment in segments) == 300
        assert segments[-1].header.acknowledgement == (KERNEL_SEQ + here) & 0xFFFFFFFF
        there = (there + 300) & 0xFFFFFFFF
        script.send(ACK, seq=here, ack=there)
    assert len(script.received()) == 3000
    assert connection.waiting == 0
    script.send(ACK | FIN, seq=here, ack=there)
    script.expect(ACK, ack=(here + 1) & 0xFFFFFFFF)


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_fragment_bomb(v6: bool) -> None:
    """First fragments of packets that never end: so many are kept, for so long."""
    stack = plain(StackConfig(reassemblies=16, reassembly_seconds=5))
    for number in range(1000):
        if v6:
            head: Packet = IPv6(src="fd00::2", dst="fd00::10") / IPv6ExtHdrFragment(nh=17, id=number, m=1)
        else:
            head = IP(src="10.0.0.2", dst="10.96.0.1", id=number, flags="MF", proto=17)
        give(stack, head / Raw(bytes(1400)))
    assert len(stack._ingress._reassembly) == 16
    stack.handle_timer(now=5.0)
    assert len(stack._ingress._reassembly) == 0
    assert len(stack.packets_to_send(now=5.0)) == 16  # time exceeded, each


def test_many_small_fragments() -> None:
    """Fragments of eight octets: 128 of one packet, then the packet is spoilt."""
    stack = plain(StackConfig())
    pieces = fragment(IP(src="10.0.0.2", dst="10.96.0.1") / UDP(sport=1, dport=2) / Raw(bytes(2000)), fragsize=8)
    for piece in pieces:
        give(stack, piece)
    assert stack.next_event() is None


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_teardrop(v6: bool) -> None:
    """An overlapping second fragment (RFC 5722, RFC 1858) ends the packet."""
    stack = plain(StackConfig())
    for offset, more in ((0, 1), (2, 0)):
        if v6:
            head: Packet = IPv6(src="fd00::2", dst="fd00::10") / IPv6ExtHdrFragment(nh=17, id=1, m=more, offset=offset)
        else:
            head = IP(src="10.0.0.2", dst="10.96.0.1", id=1, flags="MF" if more else 0, frag=offset, proto=17)
        give(stack, head / Raw(bytes(24)))
    assert stack.next_event() is None


def test_ping_of_death() -> None:
    """Fragments that end behind 65535."""
    stack = plain(StackConfig())
    give(stack, IP(src="10.0.0.2", dst="10.96.0.1", id=1, flags="MF", proto=1) / Raw(bytes(1480)))
    give(stack, IP(src="10.0.0.2", dst="10.96.0.1", id=1, frag=8189, proto=1) / Raw(bytes(1000)))
    assert stack.next_event() is None


def test_icmp_errors_have_a_budget() -> None:
    stack = plain(StackConfig(icmp_errors=10))
    for _ in range(100):
        give(stack, IP(src="10.0.0.2", dst="10.96.0.1", ttl=1) / UDP(sport=1, dport=33434))
    assert len(stack.packets_to_send(now=0.0)) == 10
    give(stack, IP(src="10.0.0.2", dst="10.96.0.1", ttl=1) / UDP(sport=1, dport=33434), now=1.0)
    assert len(stack.packets_to_send(now=1.0)) == 1


def test_flows_without_end() -> None:
    """Tables are capped, and timers of flows that are gone do not pile up."""
    stack = plain(StackConfig(tcp_flows=20, pending_flows=20, datagram_flows=20))
    for number in range(5000):
        give(stack, IP(src="10.0.0.2", dst="10.96.0.1") / UDP(sport=number % 65535, dport=9))
        give(stack, IP(src="10.0.0.2", dst="10.96.0.1") / TCP(sport=number + 1, dport=9, flags="S"))
        while (event := stack.next_event()) is not None:
            if isinstance(event, FlowRequested):
                stack.accept(event.flow, window=1, now=0.0)
        stack.packets_to_send(now=0.0)
        give(stack, IP(src="10.0.0.2", dst="10.96.0.1") / TCP(sport=number + 1, dport=9, flags="R", seq=1))
    assert stack.stats(now=0.0).datagram_flows == 20
    assert stack.stats(now=0.0).tcp_flows == 0
    assert len(stack._connections._timers) < 1100

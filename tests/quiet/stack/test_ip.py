"""IPv4 and IPv6 as far as a host and the one hop before it go, judged by scapy: RFC 791, 792, 1122, 1812, 4443, 5722, 6946, 8200."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, fragment
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet, Raw

from kt_net.addr import address_text
from kt_net.errors import StreamClosed
from kt_net.stack import DatagramReceived, EchoRequested, FlowRequested, StackConfig, UdpFlowExpired
from tests.quiet.stack.test_datagrams import FAR4, FAR6, PROGRAM4, PROGRAM6, Machine, judged

V4 = IP(src=PROGRAM4, dst=FAR4)
V6 = IPv6(src=PROGRAM6, dst=FAR6)
DATA = UDP(sport=5, dport=6) / Raw(b"data")


def error(machine: Machine, *, v6: bool) -> Packet:
    (data,) = machine.out()
    return judged(data, v6=v6)


# -- hop limits: traceroute gets something true


@pytest.mark.parametrize("layer", [DATA, TCP(dport=80, flags="S"), ICMP()])
def test_time_exceeded(layer: Packet) -> None:
    machine = Machine()
    sent = IP(src=PROGRAM4, dst=FAR4, ttl=1) / layer
    assert machine.give(sent) == []
    packet = error(machine, v6=False)
    assert (packet[ICMP].type, packet[ICMP].code) == (11, 0)
    assert (packet[IP].src, packet[IP].dst) == (address_text(StackConfig().hop_v4), PROGRAM4)
    assert bytes(packet[ICMP].payload)[:28] == bytes(sent)[:28]


@pytest.mark.parametrize("layer", [DATA, TCP(dport=80, flags="S"), ICMPv6EchoRequest()])
def test_time_exceeded_v6(layer: Packet) -> None:
    machine = Machine()
    assert machine.give(IPv6(src=PROGRAM6, dst=FAR6, hlim=1) / layer) == []
    packet = error(machine, v6=True)
    assert packet[ICMPv6TimeExceeded].code == 0
    assert packet[IPv6].src == address_text(StackConfig().hop_v6)


def test_the_second_hop_is_the_destination() -> None:
    machine = Machine()
    (event,) = machine.give(IP(src=PROGRAM4, dst=FAR4, ttl=2) / DATA)
    assert isinstance(event, DatagramReceived)
    machine.stack.refuse(event.flow, now=0.0)
    packet = error(machine, v6=False)
    assert (packet[ICMP].type, packet[ICMP].code, packet[IP].src) == (3, 3, FAR4)


def test_no_error_about_an_error() -> None:
    machine = Machine()
    machine.give(IP(src=PROGRAM4, dst=FAR4, ttl=1) / ICMP(type=11) / V4 / DATA)
    machine.give(IPv6(src=PROGRAM6, dst=FAR6, hlim=1) / ICMPv6DestUnreach() / V6 / DATA)
    assert machine.out() == []


# -- protocols that nobody speaks


def test_unknown_protocol() -> None:
    machine = Machine()
    assert machine.give(IP(src=PROGRAM4, dst=FAR4, proto=132) / Raw(b"sctp")) == []
    packet = error(machine, v6=False)
    assert (packet[ICMP].type, packet[ICMP].code, packet[IP].src) == (3, 2, FAR4)


def test_unknown_next_header() -> None:
    machine = Machine()
    machine.give(IPv6(src=PROGRAM6, dst=FAR6, nh=132) / Raw(b"sctp"))
    problem = error(machine, v6=True)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (1, 6)


def test_unknown_next_header_behind_an_extension() -> None:
    machine = Machine()
    machine.give(V6 / IPv6ExtHdrDestOpt(nh=132) / Raw(b"sctp"))
    assert error(machine, v6=True)[ICMPv6ParamProblem].ptr == 40


def test_no_next_header_is_silence() -> None:
    machine = Machine()
    assert machine.give(IPv6(src=PROGRAM6, dst=FAR6, nh=59)) == []
    assert machine.out() == []


# -- IPv4 options


def test_options_are_passed_over() -> None:
    machine = Machine()
    packet = IP(src=PROGRAM4, dst=FAR4, options=[IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"] * 3)])
    (event,) = machine.give(packet / DATA)
    assert isinstance(event, DatagramReceived)
    assert bytes(event.data) == b"data"


def test_fragments_with_options() -> None:
    machine = Machine()
    packet = IP(src=PROGRAM4, dst=FAR4, options=[IPOption_NOP()] * 4) / UDP(sport=5, dport=6) / Raw(bytes(2000))
    events = [event for piece in fragment(packet, fragsize=800) for event in machine.give(piece)]
    assert [type(event) for event in events] == [DatagramReceived]


# -- IPv6 extension headers: RFC 8200 section 4


@pytest.mark.parametrize("kind", [0x1E, 0x3E])
def test_options_that_may_be_skipped(kind: int) -> None:
    machine = Machine()
    events = machine.give(V6 / IPv6ExtHdrHopByHop(options=[HBHOptUnknown(otype=kind, optdata=b"abcd")]) / DATA)
    assert [type(event) for event in events] == [DatagramReceived]


def test_option_that_drops_the_packet() -> None:
    machine = Machine()
    assert machine.give(V6 / IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x5E, optdata=b"")]) / DATA) == []
    assert machine.out() == []


@pytest.mark.parametrize("kind", [0x9E, 0xDE])
def test_option_that_is_to_be_told_of(kind: int) -> None:
    machine = Machine()
    assert machine.give(V6 / IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=kind, optdata=b"")]) / DATA) == []
    problem = error(machine, v6=True)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (2, 42)


def test_option_that_is_cut_off() -> None:
    machine = Machine()
    packet = bytearray(bytes(V6 / IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=b"ab")]) / DATA))
    packet[43] = 200
    assert machine.give(IPv6(bytes(packet))) == []
    assert machine.stack.stats(now=0.0).malformed == 1


def test_routing_header() -> None:
    machine = Machine()
    assert len(machine.give(V6 / IPv6ExtHdrRouting(segleft=0) / DATA)) == 1
    machine.give(V6 / IPv6ExtHdrRouting(addresses=["fd00::99"], segleft=1) / DATA)
    problem = error(machine, v6=True)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (0, 42)


def test_hop_by_hop_anywhere_but_first() -> None:
    machine = Machine()
    machine.give(V6 / IPv6ExtHdrDestOpt(nh=0) / IPv6ExtHdrHopByHop() / DATA)
    assert error(machine, v6=True)[ICMPv6ParamProblem].code == 1


def test_problems_of_multicast_are_nobodys() -> None:
    machine = Machine()
    machine.give(IPv6(src=PROGRAM6, dst="ff02::1") / IPv6ExtHdrRouting(addresses=["fd00::99"], segleft=1) / DATA)
    assert machine.out() == []


@pytest.mark.parametrize(("source", "destination"), [("::", "ff02::2"), ("fe80::1", "fe80::2"), ("::", FAR6)])
def test_neighbours_are_not_looked_for(source: str, destination: str) -> None:
    machine = Machine()
    assert machine.give(IPv6(src=source, dst=destination) / DATA) == []
    assert machine.out() == []


# -- fragments


def v6_fragments(payload: bytes, *edges: int, number: int = 7) -> list[Packet]:
    whole = bytes((V6 / UDP(sport=5, dport=6) / Raw(payload))[UDP])
    ends = [*edges[1:], len(whole)]
    return [
        V6 / IPv6ExtHdrFragment(nh=17, id=number, offset=start // 8, m=int(end < len(whole))) / Raw(whole[start:end])
        for start, end in zip(edges, ends, strict=True)
    ]


def test_v6_fragments_are_put_together() -> None:
    machine = Machine()
    pieces = v6_fragments(bytes(range(256)) * 8, 0, 800, 1600)
    events = [event for piece in (pieces[2], pieces[0], pieces[1]) for event in machine.give(piece)]
    assert [bytes(event.data) for event in events if isinstance(event, DatagramReceived)] == [bytes(range(256)) * 8]


def test_atomic_fragments_are_whole_packets() -> None:
    """RFC 6946: also while fragments with the same identification wait."""
    machine = Machine()
    machine.give(v6_fragments(bytes(2000), 0, 800, 1600)[0])
    (atomic,) = v6_fragments(b"whole", 0)
    (event,) = machine.give(atomic)
    assert isinstance(event, DatagramReceived)
    assert bytes(event.data) == b"whole"


def test_a_hole_is_told_of_when_its_time_is_over() -> None:
    machine = Machine(StackConfig(reassembly_seconds=10))
    machine.give(v6_fragments(bytes(2000), 0, 800, 1600)[0])
    machine.give(v6_fragments(bytes(2000), 0, 800, 1600, number=8)[1])
    machine.give(fragment(V4 / UDP(sport=5, dport=6) / Raw(bytes(3000)), fragsize=800)[0])
    machine.now = 10.0
    machine.stack.handle_timer(now=10.0)
    first, second = machine.out()
    assert judged(first, v6=True)[ICMPv6TimeExceeded].code == 1
    assert (judged(second, v6=False)[ICMP].type, judged(second, v6=False)[ICMP].code) == (11, 1)


def test_time_exceeded_of_a_hole_quotes_the_first_fragment() -> None:
    machine = Machine(StackConfig(reassembly_seconds=10))
    piece = fragment(V4 / UDP(sport=5, dport=6) / Raw(bytes(3000)), fragsize=800)[0]
    machine.give(piece)
    machine.stack.handle_timer(now=10.0)
    packet = error(machine, v6=False)
    assert bytes(packet[ICMP].payload)[:28] == bytes(piece)[:28]


def test_tcp_in_fragments() -> None:
    machine = Machine()
    pieces = fragment(V4 / TCP(sport=1, dport=2, flags="S") / Raw(bytes(200)), fragsize=104)
    events = [event for piece in pieces for event in machine.give(piece)]
    assert [type(event) for event in events] == [FlowRequested]


def test_fragments_of_more_than_a_packet() -> None:
    machine = Machine()
    for offset in range(0, 65536 - 1480, 1480):
        machine.give(IP(src=PROGRAM4, dst=FAR4, proto=17, flags="MF", frag=offset // 8, id=3) / Raw(bytes(1480)))
    last = 65536 - 65536 % 1480
    machine.give(IP(src=PROGRAM4, dst=FAR4, proto=17, frag=last // 8, id=3) / Raw(bytes(65535 - last)))
    assert machine.stack.stats(now=0.0).malformed == 1


# -- sockets that are gone: RFC 1122 section 4.1.3.3


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_port_unreachable_ends_the_flow(v6: bool) -> None:
    machine = Machine()
    (event,) = machine.give((V6 if v6 else V4) / DATA)
    assert isinstance(event, DatagramReceived)
    machine.stack.send_datagram(event.flow, b"answer", now=0.0)
    (answer,) = machine.out()
    if v6:
        back: Packet = V6 / ICMPv6DestUnreach(code=4) / Raw(answer)
    else:
        back = V4 / ICMP(type=3, code=3) / Raw(answer)
    assert machine.give(back) == [UdpFlowExpired(event.flow)]
    assert machine.give(back) == []


@pytest.mark.parametrize("quoted", [b"", b"\x45" + bytes(10), b"\x60" + bytes(50), bytes(V4 / TCP())])
def test_port_unreachable_about_nothing_of_ours(quoted: bytes) -> None:
    machine = Machine()
    machine.give(V4 / DATA)
    assert machine.give(V4 / ICMP(type=3, code=3) / Raw(quoted)) == []
    assert machine.stack.stats(now=0.0).ignored == 1


def test_echo_replies_and_others_are_ignored() -> None:
    machine = Machine()
    for kind in (0, 5, 13, 30):
        assert machine.give(V4 / ICMP(type=kind)) == []
    assert machine.stack.stats(now=0.0).ignored == 4


def test_largest_echo() -> None:
    machine = Machine()
    pieces = fragment(V4 / ICMP(id=9, seq=1) / Raw(bytes(65535 - 28)), fragsize=1480)
    (event,) = (event for piece in pieces for event in machine.give(piece))
    assert isinstance(event, EchoRequested)
    machine.stack.send_echo_reply(event.flow, event.sequence, event.data, now=0.0)
    assert sum(len(packet) - 20 for packet in machine.out()) == 65535 - 20


def test_datagrams_that_no_packet_carries() -> None:
    machine = Machine()
    (event,) = machine.give(V4 / DATA)
    assert isinstance(event, DatagramReceived)
    machine.stack.send_datagram(event.flow, bytes(65508), now=0.0)
    assert machine.out() == []
    assert machine.stack.stats(now=0.0).overflow == 1


@pytest.mark.parametrize("data", [b"", b"\x00" * 20, b"\x50" * 40, b"\x45", b"\x60" + bytes(20)])
def test_what_is_no_packet(data: bytes) -> None:
    machine = Machine()
    machine.stack.receive_packet(data, now=0.0)
    assert machine.stack.stats(now=0.0).malformed == 1


def test_udp_over_ipv6_needs_its_checksum() -> None:
    """RFC 8200 section 8.1; over IPv4 a zero means none (RFC 768)."""
    machine = Machine()
    assert machine.give(V6 / UDP(sport=1, dport=2, chksum=0) / Raw(b"data")) == []
    assert machine.give(V6 / UDP(sport=1, dport=2, chksum=0x1234) / Raw(b"data")) == []
    assert machine.give(V4 / UDP(sport=1, dport=2, chksum=0x1234) / Raw(b"data")) == []
    assert machine.stack.stats(now=0.0).malformed == 3
    assert len(machine.give(V4 / UDP(sport=1, dport=2, chksum=0) / Raw(b"data"))) == 1


def test_flows_that_are_gone() -> None:
    """Whoever still speaks of them hears so; who only ends them does not."""
    stack = Machine().stack
    for call in (
        lambda: stack.send(9, b"x", now=0.0),
        lambda: stack.grant(9, 1, now=0.0),
        lambda: stack.accept(9, window=1, now=0.0),
        lambda: stack.refuse(9, now=0.0),
        lambda: stack.send_datagram(9, b"x", now=0.0),
        lambda: stack.send_echo_reply(9, 1, b"x", now=0.0),
    ):
        with pytest.raises(StreamClosed):
            call()
    stack.finish(9, now=0.0)
    stack.reset(9, now=0.0)
    stack.close_flow(9, now=0.0)


def test_statistics_of_datagram_flows() -> None:
    machine = Machine()
    machine.give(V4 / UDP(sport=4000, dport=53) / Raw(b"question"))
    machine.give(V6 / ICMPv6EchoRequest(id=1, data=b"ping"))
    found = [
        (flow.protocol, flow.source, flow.destination, flow.octets_up) for flow in machine.stack.flow_stats(now=1.0)
    ]
    assert found == [("udp", "10.0.0.2:4000", "10.96.0.10:53", 8), ("icmp", "fd00::2", "fd00::10", 4)]


def test_v6_fragments_with_extension_headers_behind_the_fragment_header() -> None:
    """RFC 8200 section 4.5: what follows the fragment header is a part of the whole, and one key has no protocol in it."""
    payload = bytes(range(200))
    whole = bytes(
        V6
        / IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=b"abcd")])
        / UDP(sport=5, dport=6)
        / Raw(payload)
    )
    inner = whole[40:]
    machine = Machine()
    events = []
    for offset in (0, 64, 128):
        piece = inner[offset : offset + 64] if offset < 128 else inner[offset:]
        events += machine.give(V6 / IPv6ExtHdrFragment(nh=60, id=7, m=offset < 128, offset=offset // 8) / Raw(piece))
    (event,) = events
    assert isinstance(event, DatagramReceived)
    assert bytes(event.data) == payload


def test_fragments_in_a_fragment() -> None:
    machine = Machine()
    inner = bytes((17, 0, 0, 1, 0, 0, 0, 9)) + bytes(56)
    for offset, piece in ((0, inner[:32]), (32, inner[32:])):
        machine.give(V6 / IPv6ExtHdrFragment(nh=44, id=7, m=not offset, offset=offset // 8) / Raw(piece))
    assert machine.stack.stats(now=0.0).malformed == 1


def test_a_problem_of_a_reassembled_packet_is_told() -> None:
    machine = Machine()
    inner = bytes((17, 0, 0xDE, 4)) + bytes(60)
    for offset, piece in ((0, inner[:32]), (32, inner[32:])):
        machine.give(V6 / IPv6ExtHdrFragment(nh=60, id=7, m=not offset, offset=offset // 8) / Raw(piece))
    assert error(machine, v6=True)[ICMPv6ParamProblem].code == 2


def test_later_fragments_cause_no_error() -> None:
    """RFC 1122 section 3.2.2."""
    machine = Machine()
    machine.give(IP(src=PROGRAM4, dst=FAR4, ttl=1, frag=8, proto=17) / Raw(bytes(64)))
    assert machine.out() == []


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1"])
def test_sources_that_are_nobodys(source: str) -> None:
    machine = Machine()
    assert machine.give(IP(src=source, dst=FAR4, ttl=1) / DATA) == []
    assert machine.out() == []


def test_echo_replies_that_no_packet_carries() -> None:
    machine = Machine()
    (event,) = machine.give(V4 / ICMP(id=7, seq=3) / Raw(b"ping"))
    assert isinstance(event, EchoRequested)
    machine.stack.send_echo_reply(event.flow, 1, bytes(70_000), now=0.0)
    assert machine.out() == []
    assert machine.stack.stats(now=0.0).overflow == 1


def test_an_unknown_next_header_of_a_reassembled_packet() -> None:
    """The pointer is into what is quoted: the packet as it was put together, not its last fragment."""
    machine = Machine()
    for offset, piece in ((0, bytes((201, 0, 1, 4)) + bytes(28)), (32, bytes(32))):
        machine.give(V6 / IPv6ExtHdrFragment(nh=60, id=7, m=not offset, offset=offset // 8) / Raw(piece))
    problem = error(machine, v6=True)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (1, 40)
    assert bytes(problem.payload)[40] == 201

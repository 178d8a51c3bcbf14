"""Every kind of packet that the stack emits, read by scapy: an independent judge of lengths, checksums, options and fragments."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, defragment6
from scapy.packet import Packet, Raw

from kt_net.stack import DatagramReceived, EchoRequested, FlowAddress, FlowRequested, Stack, StackConfig
from kt_net.wire import vnet
from tests.quiet.stack.test_datagrams import BOTH, FAR4, FAR6, PROGRAM4, PROGRAM6, ip, judged

OFFLOAD = pytest.mark.parametrize("offload", [False, True], ids=["plain", "offload"])
ISN = 0xFFFFFFF0


class Conversation:
    """A stack whose every packet goes past the judge."""

    def __init__(self, *, v6: bool, offload: bool) -> None:
        self.v6 = v6
        self.offload = offload
        self.now = 100.0
        self.stack = Stack(
            entropy=lambda count: ISN.to_bytes(4, "big") + bytes(count - 4),
            mtu=1500,
            offload=offload,
            config=StackConfig(),
        )

    def give(self, layer: Packet) -> list[object]:
        packet = bytes(ip(v6=self.v6) / layer)
        self.stack.receive_packet((vnet.PLAIN if self.offload else b"") + packet, now=self.now)
        events: list[object] = []
        while (event := self.stack.next_event()) is not None:
            events.append(event)
        return events

    def out(self) -> list[Packet]:
        return [self._judged(b"".join(buffers)) for buffers in self.stack.packets_to_send(now=self.now)]

    def tcp(self) -> list[Packet]:
        packets = self.out()
        assert all(packet.src == (FAR6 if self.v6 else FAR4) for packet in packets)
        assert all(packet.dst == (PROGRAM6 if self.v6 else PROGRAM4) for packet in packets)
        return [packet[TCP] for packet in packets]

    def _judged(self, data: bytes) -> Packet:
        if not self.offload:
            return judged(data, v6=self.v6)
        meta = vnet.parse_vnet(data)
        packet = bytearray(data[vnet.HEADER_OCTETS :])
        if meta.flags & vnet.F_NEEDS_CSUM:
            # What the kernel does: the sum from csum_start on, with the pseudo header's already in the field.
            start, at = meta.csum_start, meta.csum_start + meta.csum_offset
            total = int.from_bytes(packet[start:] + bytes((len(packet) - start) % 2), "big")
            packet[at : at + 2] = (0xFFFF - (total % 0xFFFF or 0xFFFF)).to_bytes(2, "big")
        if meta.gso_type:
            head = judged(bytes(packet), v6=self.v6)
            assert meta.gso_type == (vnet.GSO_TCPV6 if self.v6 else vnet.GSO_TCPV4)
            assert meta.hdr_len == len(packet) - len(bytes(head[TCP].payload))
            assert meta.hdr_len + meta.gso_size <= 1500
        return judged(bytes(packet), v6=self.v6)

    def established(self) -> int:
        """With every option; the flow."""
        options = [("MSS", 1440), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)]
        (event,) = self.give(TCP(sport=4000, dport=80, flags="S", seq=99, options=options, window=65535))
        assert isinstance(event, FlowRequested)
        self.stack.accept(event.flow, window=1 << 20, now=self.now)
        (answer,) = self.tcp()
        assert (answer.flags, answer.seq, answer.ack) == ("SA", ISN, 100)
        said = dict(answer.options)
        assert said["MSS"] == (1440 if self.v6 else 1460)
        assert (said["SAckOK"], said["WScale"], said["Timestamp"][1]) == (b"", 7, 7)
        self.give(self.segment("A"))
        return event.flow

    def segment(self, flags: str, seq: int = 100, data: bytes = b"") -> Packet:
        head = TCP(sport=4000, dport=80, flags=flags, seq=seq, ack=(ISN + 1) & 0xFFFFFFFF, window=65535)
        head.options = [("NOP", None), ("NOP", None), ("Timestamp", (8, 100_000))]
        return head / Raw(data) if data else head


@BOTH
@OFFLOAD
def test_segments(v6: bool, offload: bool) -> None:
    """SYN-ACK, acknowledgement, blocks, payload (odd and even, one packet and many), FIN, RST."""
    talk = Conversation(v6=v6, offload=offload)
    flow = talk.established()
    talk.give(talk.segment("PA", data=b"odd"))
    (ack,) = talk.tcp()
    assert (ack.flags, ack.ack, dict(ack.options)["Timestamp"][1]) == ("A", 103, 8)
    talk.give(talk.segment("A", seq=203, data=b"beyond"))
    (ack,) = talk.tcp()
    assert dict(ack.options)["SAck"] == (203, 209)
    for data in (b"1", b"22", bytes(range(256)) * 40):
        talk.stack.send(flow, data, now=talk.now)
        assert b"".join(bytes(segment.payload) for segment in talk.tcp()) == data
    talk.stack.finish(flow, now=talk.now)
    (fin,) = talk.tcp()
    assert "F" in fin.flags
    talk.stack.reset(flow, now=talk.now)
    (reset,) = talk.tcp()
    assert "R" in reset.flags


@BOTH
@OFFLOAD
def test_resets_of_nobody(v6: bool, offload: bool) -> None:
    """RFC 9293 section 3.10.7.1: with and without an acknowledgement to go by; and a refused SYN."""
    talk = Conversation(v6=v6, offload=offload)
    talk.give(TCP(sport=4000, dport=80, flags="A", seq=5, ack=77))
    talk.give(TCP(sport=4000, dport=80, flags="F", seq=5))
    (event,) = talk.give(TCP(sport=4001, dport=80, flags="S", seq=9))
    assert isinstance(event, FlowRequested)
    talk.stack.refuse(event.flow, now=talk.now)
    by_ack, by_seq, refused = talk.tcp()
    assert (by_ack.flags, by_ack.seq) == ("R", 77)
    assert (by_seq.flags, by_seq.ack) == ("RA", 6)
    assert (refused.flags, refused.ack) == ("RA", 10)


@BOTH
@OFFLOAD
def test_a_syn_of_our_own(v6: bool, offload: bool) -> None:
    talk = Conversation(v6=v6, offload=offload)
    far, program = (FAR6, PROGRAM6) if v6 else (FAR4, PROGRAM4)
    ends = [FlowAddress(bytes.fromhex(_packed(text)), port) for text, port in ((far, 80), (program, 4000))]
    talk.stack.open(ends[0], ends[1], window=5000, now=talk.now)
    (syn,) = talk.tcp()
    assert (syn.flags, syn.sport, syn.dport) == ("S", 80, 4000)
    assert {"MSS", "SAckOK", "Timestamp", "WScale"} <= set(dict(syn.options))


def _packed(text: str) -> str:
    import ipaddress

    return ipaddress.ip_address(text).packed.hex()


@BOTH
@OFFLOAD
@pytest.mark.parametrize("octets", [0, 1, 1472, 1473, 9000, 65_000])
def test_datagrams_and_their_fragments(v6: bool, offload: bool, octets: int) -> None:
    talk = Conversation(v6=v6, offload=offload)
    (event,) = talk.give(UDP(sport=4000, dport=53) / Raw(b"x"))
    assert isinstance(event, DatagramReceived)
    payload = bytes(number % 251 for number in range(octets))
    talk.stack.send_datagram(event.flow, payload, now=talk.now)
    packets = talk.out()
    assert max(len(packet) for packet in packets) <= 1500
    whole = _whole(packets, v6)
    assert (whole[UDP].sport, whole[UDP].dport, whole[UDP].len) == (53, 4000, 8 + octets)
    assert bytes(whole[UDP].payload)[:octets] == payload
    assert _checked(whole, UDP)


@BOTH
@OFFLOAD
@pytest.mark.parametrize("octets", [0, 56, 3000])
def test_echo_replies(v6: bool, offload: bool, octets: int) -> None:
    talk = Conversation(v6=v6, offload=offload)
    request = ICMPv6EchoRequest(id=7, seq=3, data=b"ping") if v6 else ICMP(id=7, seq=3) / Raw(b"ping")
    (event,) = talk.give(request)
    assert isinstance(event, EchoRequested)
    talk.stack.send_echo_reply(event.flow, 3, bytes(octets), now=talk.now)
    whole = _whole(talk.out(), v6)
    reply = whole[ICMPv6EchoReply] if v6 else whole[ICMP]
    assert (reply.type, reply.id, reply.seq) == (129 if v6 else 0, 7, 3)
    assert _checked(whole, ICMPv6EchoReply if v6 else ICMP)


def _whole(packets: list[Packet], v6: bool) -> Packet:
    if len(packets) == 1:
        return packets[0]
    (whole,) = [defragment6(packets)] if v6 else defragment(packets)
    assert isinstance(whole, Packet)
    return whole


def _checked(packet: Packet, layer: type[Packet]) -> bool:
    """Whether the layer's checksum is what scapy would have written."""
    field = "cksum" if layer is ICMPv6EchoReply else "chksum"
    raw = IPv6(bytes(packet)) if packet.name == "IPv6" else IP(bytes(packet))
    there = raw[layer].getfieldval(field)
    del raw[layer].fields[field]
    again = IPv6(bytes(raw)) if packet.name == "IPv6" else IP(bytes(raw))
    return bool(again[layer].getfieldval(field) == there)

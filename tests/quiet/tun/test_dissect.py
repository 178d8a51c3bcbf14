"""A packet in words and in fields."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dnslib import QTYPE, RR, A, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6ND_RS, IPv6
from scapy.packet import Packet, Raw

from kt_net.dns.messages import question
from kt_net.tun.dissect import in_fields, in_line
from kt_net.wire.vnet import GSO_TCPV4, VnetHeader

V4, V6 = IP(src="10.0.0.2", dst="10.96.0.1"), IPv6(src="fd00::2", dst="fd00::10")
QUERY = question("web.default", "AAAA", 7)
ANSWER = bytes(
    DNSRecord(
        DNSHeader(id=7, qr=1, rcode=0), q=DNSQuestion("web.default"), a=RR("web.default", rdata=A("10.96.0.7"))
    ).pack()
)
NOT_THERE = bytes(DNSRecord(DNSHeader(id=7, qr=1, rcode=3)).pack())


def test_icmp_by_its_names() -> None:
    quoted = IPerror(src="10.96.0.1", dst="10.0.0.2") / UDPerror(sport=53, dport=5)
    lines = [
        in_line(bytes(packet), offload=False)
        for packet in (
            V4 / ICMP(type=3, code=3) / quoted,
            V4 / ICMP(type=0, id=1, seq=2),
            V4 / ICMP(type=13),
            V6 / ICMPv6DestUnreach(code=4),
            V6 / ICMPv6ND_RS(),
        )
    ]
    assert lines == [
        "10.0.0.2 > 10.96.0.1 ICMP unreachable type=3 code=3 len=28",
        "10.0.0.2 > 10.96.0.1 ICMP echo reply type=0 code=0 id=1 seq=2 len=0",
        "10.0.0.2 > 10.96.0.1 ICMP type=13 code=0 len=12",
        "fd00::2 > fd00::10 ICMPv6 unreachable type=1 code=4 len=0",
        "fd00::2 > fd00::10 ICMPv6 type=133 code=0 len=0",
    ]


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (V4 / UDP(sport=5, dport=53) / Raw(QUERY), "DNS query AAAA web.default."),
        (V6 / UDP(sport=53, dport=5) / Raw(ANSWER), "DNS answer A web.default. NOERROR, 1 records"),
        (V6 / UDP(sport=53, dport=5) / Raw(NOT_THERE), "DNS answer NXDOMAIN, 0 records"),
        (
            V4 / TCP(sport=5, dport=53, flags="PA") / Raw(len(QUERY).to_bytes(2, "big") + QUERY),
            "DNS query AAAA web.default.",
        ),
        (V4 / TCP(sport=5, dport=53, flags="PA") / Raw(QUERY[:9]), ""),
        (V4 / UDP(sport=5, dport=53) / Raw(b"nonsense"), ""),
        (V4 / UDP(sport=5, dport=5353) / Raw(QUERY), ""),
    ],
)
def test_names_of_questions(packet: Packet, said: str) -> None:
    assert in_line(bytes(packet), offload=False).partition("DNS")[2].strip() == said.removeprefix("DNS ")
    assert in_fields(bytes(packet), offload=False).get("dns", "") == said.removeprefix("DNS ")


def test_a_name_cannot_steer_the_terminal() -> None:
    hostile = DNSRecord(DNSHeader(id=7), q=DNSQuestion(DNSLabel([b"\x1b[2J\r\n", "é".encode()]), QTYPE.A)).pack()
    line = in_line(bytes(V4 / UDP(sport=5, dport=53) / Raw(hostile)), offload=False)
    assert "query A" in line
    assert line.isprintable()
    assert line.isascii()


@pytest.mark.parametrize(
    ("packet", "fields"),
    [
        (
            V4 / TCP(sport=1000, dport=80, flags="SA", seq=5, ack=9, window=7) / Raw(b"x"),
            {
                "protocol": "TCP", "source": "10.0.0.2", "destination": "10.96.0.1", "length": 1, "source_port": 1000,
                "destination_port": 80, "flags": "SYN|ACK", "seq": 5, "win": 7, "ack": 9,
            },
        ),
        (
            V6 / UDP(sport=1, dport=2),
            {
                "protocol": "UDP", "source": "fd00::2", "destination": "fd00::10", "length": 0, "source_port": 1,
                "destination_port": 2,
            },
        ),
        (
            V6 / ICMPv6EchoRequest(id=3, seq=4, data=b"abc"),
            {
                "protocol": "ICMPv6", "source": "fd00::2", "destination": "fd00::10", "length": 3, "type": 128, "code": 0,
                "id": 3, "seq": 4,
            },
        ),
        (
            fragment(V4 / UDP() / Raw(bytes(3000)), fragsize=800)[1],
            {
                "protocol": "UDP", "source": "10.0.0.2", "destination": "10.96.0.1", "length": 800, "fragment_id": 1,
                "fragment_offset": 800, "more_fragments": True,
            },
        ),
        (
            IP(src="10.0.0.2", dst="10.96.0.1", proto=132) / Raw(b"x"),
            {"protocol": "protocol 132", "source": "10.0.0.2", "destination": "10.96.0.1", "length": 1},
        ),
    ],
)  # fmt: skip
def test_fields(packet: Packet, fields: dict[str, Any]) -> None:
    assert in_fields(bytes(packet), offload=False) == fields
    meta = VnetHeader(gso_type=GSO_TCPV4, gso_size=1460).emit()
    assert in_fields(meta + bytes(packet), offload=True) == {**fields, "gso_size": 1460}


def test_what_is_no_packet() -> None:
    assert in_fields(bytes(10) + b"\x45", offload=True) == {"malformed": "shorter than an IPv4 header", "octets": 1}
    assert in_line(bytes(10) + b"\x45", offload=True) == "malformed, 1 octets: shorter than an IPv4 header"
    assert in_line(b"", offload=False) == "malformed, 0 octets: empty"


@given(st.binary(max_size=200), st.booleans(), st.sampled_from([b"", bytes(V4 / UDP(sport=5, dport=53))[:28]]))
def test_foreign_octets_raise_nothing(data: bytes, offload: bool, head: bytes) -> None:
    assert in_line(head + data, offload=offload).isprintable()
    assert json.dumps(in_fields(head + data, offload=offload))

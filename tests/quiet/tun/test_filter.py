"""Which packets are wanted: a table, as pcap-filter(7) has it; and octets that are no packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.packet import Packet, Raw

from kt_net.errors import UsageFault
from kt_net.tun.filter import PacketFilter, parse_filter

V4, V6 = IP(src="10.0.0.2", dst="10.96.0.1"), IPv6(src="fd00::2", dst="fd00:96::1")
V4_FIRST, V4_LATER = fragment(V4 / UDP(sport=5000, dport=53) / Raw(bytes(2000)), fragsize=800)[:2]
V6_FIRST, V6_LATER = fragment6(V6 / IPv6ExtHdrFragment() / UDP(sport=5000, dport=53) / Raw(bytes(2000)), 1000)[:2]

PACKETS: dict[str, Packet] = {
    "tcp4": V4 / TCP(sport=40000, dport=80),
    "udp4": V4 / UDP(sport=5000, dport=53),
    "icmp4": V4 / ICMP(),
    "sctp4": IP(src="10.0.0.2", dst="10.96.0.1", proto=132) / Raw(b"\x00\x50\x00\x50"),
    "first4": V4_FIRST,
    "later4": V4_LATER,
    "tcp6": V6 / TCP(sport=40000, dport=80),
    "options6": V6 / IPv6ExtHdrDestOpt() / UDP(sport=5000, dport=53),
    "icmp6": V6 / ICMPv6EchoRequest(),
    "first6": V6_FIRST,
    "later6": V6_LATER,
}
_FOUR = {"tcp4", "udp4", "icmp4", "sctp4", "first4", "later4"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({}, set(PACKETS)),
        ({"protocol": "tcp"}, {"tcp4", "tcp6"}),
        ({"protocol": "udp"}, {"udp4", "first4", "later4", "options6", "first6", "later6"}),
        ({"protocol": "icmp"}, {"icmp4", "icmp6"}),
        ({"port": "80"}, {"tcp4", "tcp6"}),
        ({"port": "40000"}, {"tcp4", "tcp6"}),
        # Later fragments have no ports.
        ({"port": "53"}, {"udp4", "first4", "options6", "first6"}),
        ({"port": "0"}, set()),
        ({"host": "10.0.0.2"}, _FOUR),
        ({"host": "10.96.0.1"}, _FOUR),
        ({"host": "10.96.0.0/16"}, _FOUR),
        ({"host": "10.97.0.0/16"}, set()),
        ({"host": "0.0.0.0/0"}, _FOUR),
        ({"host": "fd00:96::1"}, set(PACKETS) - _FOUR),
        ({"host": "fd00:96::/32"}, set(PACKETS) - _FOUR),
        ({"host": "::/0"}, set(PACKETS) - _FOUR),
        ({"host": "10.96.0.1", "port": "53", "protocol": "udp"}, {"udp4", "first4"}),
        ({"host": "10.96.0.1", "port": "53", "protocol": "tcp"}, set()),
        ({"port": "80", "protocol": "icmp"}, set()),
    ],
    ids=str,
)
def test_what_is_wanted(words: dict[str, str], wanted: set[str]) -> None:
    asked = parse_filter(**words)
    assert {name for name, packet in PACKETS.items() if asked.matches(memoryview(bytes(packet)))} == wanted


@pytest.mark.parametrize("octets", [0, 1, 19, 20, 22, 23])
def test_cut_packets_are_wanted_only_when_nothing_is_asked_for(octets: int) -> None:
    cut = bytes(PACKETS["tcp4"])[:octets]
    assert parse_filter().matches(cut)
    for words in ({"port": "80"}, {"host": "10.0.0.2"}, {"protocol": "tcp"}):
        assert not parse_filter(**words).matches(cut)


def test_a_whole_packet_that_is_too_short_for_ports_has_none() -> None:
    assert not parse_filter(port="80").matches(
        bytes(IP(proto=6, src="10.0.0.2", dst="10.96.0.1") / Raw(b"\x00\x50\x00"))
    )


@given(st.binary(max_size=120))
def test_foreign_octets_raise_nothing(data: bytes) -> None:
    assert parse_filter().matches(data)
    for words in ({"port": "80"}, {"host": "::/0"}, {"protocol": "udp"}):
        assert parse_filter(**words).matches(data) in (True, False)


@pytest.mark.parametrize(
    "words",
    [
        {"host": "web"},
        {"host": "10.0.0.256"},
        {"host": "10.0.0.0/33"},
        {"port": "http"},
        {"port": "65536"},
        {"port": "-1"},
        {"port": "٣"},
        {"port": "9" * 5000},
        {"protocol": "sctp"},
    ],
    ids=lambda words: str(words)[:30],
)
def test_words_that_make_no_sense(words: dict[str, str]) -> None:
    with pytest.raises(UsageFault) as caught:
        parse_filter(**words)
    assert caught.value.what.startswith(f"--{next(iter(words))}: ")
    assert caught.value.next_step


def test_nothing_asked_for() -> None:
    assert parse_filter() == PacketFilter()

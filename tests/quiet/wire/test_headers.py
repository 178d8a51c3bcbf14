"""Every header: what is emitted parses to the same; foreign octets raise MalformedPacket and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.errors import MalformedPacket
from kt_net.wire.icmp import IcmpMessage, parse_icmp
from kt_net.wire.ipv4 import IPv4Header, parse_ipv4
from kt_net.wire.ipv6 import IPv6Header, parse_ipv6
from kt_net.wire.tcp import SYN, TcpHeader, parse_tcp
from kt_net.wire.udp import UdpHeader, parse_udp
from kt_net.wire.vnet import VnetHeader, parse_vnet

short = st.integers(0, 0xFFFF)
word = st.integers(0, 0xFFFFFFFF)
four = st.binary(min_size=4, max_size=4)
sixteen = st.binary(min_size=16, max_size=16)


@given(
    four,
    four,
    st.integers(0, 255),
    st.binary(max_size=100),
    st.integers(0, 255),
    short,
    st.booleans(),
    st.booleans(),
    st.integers(0, 8191),
)
def test_ipv4(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    ttl: int,
    number: int,
    dont: bool,
    more: bool,
    offset: int,
) -> None:
    header = IPv4Header(source, destination, protocol, 20, 20 + len(payload), ttl, number, dont, more, offset * 8)
    assert parse_ipv4(header.emit() + payload) == header


@given(
    sixteen,
    sixteen,
    st.integers(61, 255),
    st.binary(max_size=100),
    st.booleans(),
    word,
    st.booleans(),
    st.integers(0, 8191),
)
def test_ipv6(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    fragmented: bool,
    number: int,
    more: bool,
    offset: int,
) -> None:
    octets = 48 if fragmented else 40
    header = IPv6Header(source, destination, protocol, octets, octets + len(payload), fragmented=fragmented)
    if fragmented:
        header.identification, header.more_fragments, header.fragment_offset = number, more, offset * 8
        header.protocol_at = 40
    assert parse_ipv6(header.emit() + payload) == header


@given(short, short, word, word, short, st.none() | short, st.none() | st.integers(0, 14))
def test_tcp(
    source: int, destination: int, seq: int, ack: int, window: int, mss: int | None, scale: int | None
) -> None:
    header = TcpHeader(source, destination, seq, ack, SYN, window, mss=mss, window_scale=scale)
    parsed = parse_tcp(header.emit())
    header.header_octets = 20 + (4 if mss is not None else 0) + (4 if scale is not None else 0)
    assert parsed == header


@given(short, short, st.binary(max_size=50))
def test_udp(source: int, destination: int, payload: bytes) -> None:
    header = UdpHeader(source, destination, 8 + len(payload), 77)
    assert parse_udp(header.emit() + payload) == header


@given(st.integers(0, 255), st.integers(0, 255), short, short, st.binary(max_size=50))
def test_icmp(kind: int, code: int, identifier: int, sequence: int, data: bytes) -> None:
    message = IcmpMessage(kind, code, identifier, sequence, data)
    assert parse_icmp(message.emit()) == message


@given(st.integers(0, 255), st.integers(0, 255), short, short, short, short)
def test_vnet(flags: int, kind: int, length: int, size: int, start: int, offset: int) -> None:
    header = VnetHeader(flags, kind, length, size, start, offset)
    assert parse_vnet(header.emit()) == header


@pytest.mark.parametrize("parse", [parse_ipv4, parse_ipv6, parse_tcp, parse_udp, parse_icmp, parse_vnet])
@given(data=st.binary(max_size=120))
def test_foreign_octets(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(data)
    except MalformedPacket:
        pass


def test_ipv6_extension_headers_are_passed_over() -> None:
    fixed = IPv6Header(b"\x01" * 16, b"\x02" * 16, 0, 40, 40 + 8 + 16 + 3).emit()
    hop_by_hop = bytes([60, 0]) + bytes(6)
    destination_options = bytes([17, 1]) + bytes(14)
    header = parse_ipv6(fixed + hop_by_hop + destination_options + b"udp")
    assert (header.protocol, header.header_octets) == (17, 64)


def test_ipv6_extension_headers_without_end() -> None:
    fixed = IPv6Header(b"\x01" * 16, b"\x02" * 16, 0, 40, 40 + 80).emit()
    with pytest.raises(MalformedPacket):
        parse_ipv6(fixed + (bytes([0, 0]) + bytes(6)) * 10)


def test_wrong_ipv4_checksum() -> None:
    packet = bytearray(IPv4Header(b"\x0a\0\0\x01", b"\x0a\0\0\x02", 6, 20, 20).emit())
    packet[8] ^= 1
    with pytest.raises(MalformedPacket):
        parse_ipv4(bytes(packet))


def test_broken_tcp_option_ends_the_list() -> None:
    data = TcpHeader(1, 2, 3, 4, SYN, 5, mss=1460).emit()
    broken = bytearray(data + bytes([3, 0, 0, 0]))
    broken[12] = 7 << 4
    assert parse_tcp(bytes(broken)).mss == 1460

"""Every header: what is emitted parses to the same; foreign octets raise MalformedPacket and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from kt_net.errors import MalformedPacket
from kt_net.wire.checksum import ones_complement_sum, pseudo_header_sum
from kt_net.wire.icmp import IcmpMessage, parse_icmp
from kt_net.wire.ipv4 import IPv4Header, parse_ipv4
from kt_net.wire.ipv6 import IPv6Header, parse_ipv6
from kt_net.wire.tcp import ACK, SYN, TcpHeader, parse_tcp
from kt_net.wire.udp import UdpHeader, parse_udp
from kt_net.wire.vnet import F_NEEDS_CSUM, PLAIN, VnetHeader, completed, parse_vnet

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


def test_a_checksum_that_was_left_to_the_device_is_filled_in() -> None:
    packet = bytes(IP(src="10.0.0.2", dst="10.96.0.1") / UDP(sport=5, dport=53) / Raw(b"odd"))
    pseudo = ones_complement_sum(b"", pseudo_header_sum(packet[12:16], packet[16:20], 17, 11))
    left = packet[:26] + pseudo.to_bytes(2, "big") + packet[28:]
    meta = VnetHeader(F_NEEDS_CSUM, csum_start=20, csum_offset=6)
    assert completed(meta.emit() + left) == packet
    assert completed(PLAIN + left) == left
    # All ones instead of zero, which would mean that there is none (RFC 768).
    assert completed(VnetHeader(F_NEEDS_CSUM).emit() + b"\xff\xff") == b"\xff\xff"
    # What does not fit stays as it is.
    assert completed(VnetHeader(F_NEEDS_CSUM, csum_start=20, csum_offset=len(left) - 21).emit() + left) == left
    assert completed(b"short") == b""


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
    fixed = IPv6Header(b"\x01" * 16, b"\x02" * 16, 60, 40, 40 + 80).emit()
    with pytest.raises(MalformedPacket, match="without end"):
        parse_ipv6(fixed + (bytes([60, 0]) + bytes(6)) * 10)


@pytest.mark.parametrize(
    ("following", "rest"),
    [
        (60, b""),  # no room for a header
        (44, bytes(7)),
        (60, bytes([17, 1]) + bytes(6)),  # longer than the packet
        (60, bytes([17, 0, 5, 9, 0, 0, 0, 0])),  # an option that ends behind its header
        (60, bytes([17, 0, 0, 0, 0, 0, 0, 5])),  # an option without a length
    ],
)
def test_ipv6_extension_headers_that_are_cut_off(following: int, rest: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse_ipv6(IPv6Header(b"\x01" * 16, b"\x02" * 16, following, 40, 40 + len(rest)).emit() + rest)


@pytest.mark.parametrize("data", [IPv6Header(b"\x01" * 16, b"\x02" * 16, 17, 40, 48).emit(), b"\x45" + bytes(60)])
def test_ipv6_lengths_and_version(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse_ipv6(data)


def test_ipv6_middle_of_something() -> None:
    """What follows a fragment header of a later fragment is no header."""
    head = IPv6Header(b"\x01" * 16, b"\x02" * 16, 60, 48, 56, fragmented=True, fragment_offset=64).emit()
    assert parse_ipv6(head + bytes(8)).header_octets == 48


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


def options(flags: int, octets: bytes) -> TcpHeader:
    """Of a segment with these octets for options."""
    octets += bytes(-len(octets) % 4)
    data = bytearray(TcpHeader(1, 2, 3, 4, flags, 5).emit() + octets)
    data[12] = (20 + len(octets)) // 4 << 4
    return parse_tcp(bytes(data))


@pytest.mark.parametrize(
    "octets",
    [
        b"\x02\x03\x05",  # an MSS of one octet
        b"\x03\x04\x07\x07",  # a scale of two
        b"\x04\x03\x00",  # SACK permitted, and more
        b"\x08\x09" + bytes(7),  # timestamps that are too short
        b"\x05\x09" + bytes(7),  # blocks that are none
        b"\xfe\x04ab",  # nobody's
        b"\x01\x01\x01\x02",  # ends with a kind
        b"\x02\x01\x05\xb4",  # a length below two
        b"\x02\x28\x05\xb4",  # behind the header
        b"\x00\x02\x04\x05\xb4",  # behind the end of the list
    ],
)
def test_tcp_options_that_mean_nothing(octets: bytes) -> None:
    head = options(SYN, octets)
    assert (head.mss, head.window_scale, head.sack_permitted, head.timestamp, head.sacks) == (
        None,
        None,
        False,
        None,
        (),
    )


def test_tcp_options_of_syns_only() -> None:
    """RFC 9293 section 3.7.1, RFC 7323 section 2.2, RFC 2018 section 2."""
    octets = b"\x02\x04\x05\xb4\x04\x02\x03\x03\x07"
    assert (options(SYN, octets).mss, options(SYN, octets).sack_permitted, options(SYN, octets).window_scale) == (
        1460,
        True,
        7,
    )
    assert (options(ACK, octets).mss, options(ACK, octets).sack_permitted, options(ACK, octets).window_scale) == (
        None,
        False,
        None,
    )
    assert options(SYN, b"\x03\x03\x20").window_scale == 14  # RFC 7323 section 2.3


@pytest.mark.parametrize("octets", [b"\x01\x01\x08\x0a\0\0\0\x07\0\0\0\x09", b"\x08\x0a\0\0\0\x07\0\0\0\x09\x01\x01"])
def test_tcp_timestamps_aligned_or_not(octets: bytes) -> None:
    head = options(ACK, octets)
    assert (head.timestamp, head.timestamp_echo) == (7, 9)


@given(st.lists(st.tuples(word, word), max_size=4))
def test_tcp_blocks(blocks: list[tuple[int, int]]) -> None:
    head = TcpHeader(1, 2, 3, 4, ACK, 5, sacks=tuple(blocks))
    assert parse_tcp(head.emit()).sacks == tuple(blocks)


@pytest.mark.parametrize("octet", [0x10, 0x40, 0xF0])
def test_tcp_header_lengths(octet: int) -> None:
    data = bytearray(TcpHeader(1, 2, 3, 4, ACK, 5).emit())
    data[12] = octet
    with pytest.raises(MalformedPacket):
        parse_tcp(bytes(data))


@pytest.mark.parametrize("count", [8, 9])
def test_ipv6_extension_headers_up_to_eight(count: int) -> None:
    chain = (bytes([60, 0]) + bytes(6)) * (count - 1) + bytes([17, 0]) + bytes(6)
    packet = IPv6Header(b"\x01" * 16, b"\x02" * 16, 60, 40, 40 + len(chain)).emit() + chain
    if count <= 8:
        assert parse_ipv6(packet).protocol == 17
    else:
        with pytest.raises(MalformedPacket):
            parse_ipv6(packet)

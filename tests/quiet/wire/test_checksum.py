"""The Internet checksum against the loop of RFC 1071 section 4.1."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.wire.checksum import internet_checksum, ones_complement_sum, pseudo_header_sum


def reference(data: bytes, initial: int = 0) -> int:
    """As the RFC has it."""
    total = initial
    for at in range(0, len(data) - 1, 2):
        total += data[at] << 8 | data[at + 1]
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=3000), st.integers(0, 0x1FFFE))
def test_equals_the_reference(data: bytes, initial: int) -> None:
    assert ones_complement_sum(data, initial) == reference(data, initial)


@pytest.mark.parametrize("octets", [255, 256, 257, 258, 735, 1460, 1461, 1480, 9000, 65535])
@pytest.mark.parametrize("kind", ["random", "zeros", "ones", "one bit"])
def test_long_data_is_folded_rightly(octets: int, kind: str) -> None:
    data = {
        "random": random.Random(octets).randbytes(octets),
        "zeros": bytes(octets),
        "ones": b"\xff" * octets,
        "one bit": bytes(octets - 1) + b"\x01",
    }[kind]
    assert ones_complement_sum(data, 0x1234) == reference(data, 0x1234)
    assert ones_complement_sum(data) == reference(data)


def test_all_zero_and_all_one() -> None:
    assert internet_checksum(bytes(20)) == 0xFFFF
    assert internet_checksum(b"\xff" * 20) == 0


@given(st.binary(min_size=2, max_size=200))
def test_a_packet_with_its_checksum_sums_to_zero(data: bytes) -> None:
    data = data[: len(data) & ~1]
    whole = internet_checksum(data).to_bytes(2, "big") + data
    assert internet_checksum(whole) == 0


def test_pseudo_header_of_both_families() -> None:
    v4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    assert ones_complement_sum(b"", pseudo_header_sum(*v4, 6, 20)) == reference(b"".join(v4) + bytes([0, 6, 0, 20]))
    v6 = b"\x01" * 16, b"\x02" * 16
    assert ones_complement_sum(b"", pseudo_header_sum(*v6, 17, 8)) == reference(b"".join(v6) + bytes([0, 17, 0, 8]))

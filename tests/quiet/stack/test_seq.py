"""Numbers and positions: one is the other modulo 2**32."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kt_net.stack.tcp.seq import MASK, MODULUS, add, distance, position

number = st.integers(0, MASK)
place = st.integers(0, 1 << 40)


@given(number, st.integers(-(1 << 31), (1 << 31) - 1))
def test_distance_undoes_add(start: int, octets: int) -> None:
    assert distance(start, add(start, octets)) == octets


@given(number, place, st.integers(-(1 << 31), (1 << 31) - 1))
def test_a_number_is_the_nearest_position(initial: int, near: int, away: int) -> None:
    there = near + away
    assert position((initial + there) % MODULUS, initial, near) == there

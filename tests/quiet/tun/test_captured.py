"""Records of packets between two processes: in pieces of any size, and nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.errors import MalformedPacket
from kt_net.tun.captured import MAX_DROPPED, MAX_PACKET, Captured, CapturedParser, CaptureEnd
from kt_net.tun.tap import Direction

PACKETS = st.builds(
    Captured,
    st.binary(max_size=60),
    st.floats(0, 4e9),
    st.sampled_from(Direction),
    st.booleans(),
    st.booleans(),
    st.integers(0, MAX_DROPPED),
)


@given(st.lists(PACKETS, max_size=5), st.integers(1, 50))
def test_what_is_sent_comes_in_whatever_pieces(packets: list[Captured], size: int) -> None:
    records: list[Captured | CaptureEnd] = [*packets, CaptureEnd(7)]
    data = b"".join(record.emit() for record in records)
    parser = CapturedParser()
    found = [record for at in range(0, len(data), size) for record in parser.receive(data[at : at + size])]
    assert found == records


def test_the_largest_packet_and_the_largest_number() -> None:
    packet = Captured(bytes(MAX_PACKET), 1.5, Direction.IN, dropped=1 << 40)
    (found,) = CapturedParser().receive(packet.emit())
    assert isinstance(found, Captured)
    assert (len(found.data), found.dropped) == (MAX_PACKET, MAX_DROPPED)


@pytest.mark.parametrize(
    "data", [bytes(18), b"\x03" + bytes(17), Captured(bytes(MAX_PACKET + 1), 0, Direction.IN).emit()[:18]]
)
def test_nonsense(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        CapturedParser().receive(data)


@given(st.binary(max_size=100))
def test_foreign_octets_raise_our_error_only(data: bytes) -> None:
    try:
        CapturedParser().receive(data)
    except MalformedPacket:
        pass

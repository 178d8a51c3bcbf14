"""Frames and channels of a port-forward, in whatever pieces they come."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.errors import CarrierProtocolError
from kt_net.wire.portforward import ChannelForward
from kt_net.wire.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    FrameParser,
    Piece,
    frame_header,
    masked,
    masked_in_python,
)


def server_frame(payload: bytes, opcode: int = BINARY, *, fin: bool = True) -> bytes:
    """As a server sends it: unmasked."""
    first = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return first + bytes([126]) + len(payload).to_bytes(2, "big") + payload
    return first + bytes([127]) + len(payload).to_bytes(8, "big") + payload


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` cut up, sizes taken again and again."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


@pytest.mark.parametrize("mask", [masked, masked_in_python])
@given(data=st.binary(max_size=500), key=st.binary(min_size=4, max_size=4))
def test_mask_is_its_own_inverse_and_the_rfcs(mask: Callable[[bytes, bytes], bytes], data: bytes, key: bytes) -> None:
    assert mask(data, key) == bytes(octet ^ key[at % 4] for at, octet in enumerate(data))
    assert mask(mask(data, key), key) == data


def test_fast_mask_is_there() -> None:
    """Where its wheel has no C routine ours does the work, a hundred times slower; where tests run it has."""
    assert masked is not masked_in_python


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
def test_header_lengths(length: int) -> None:
    header = frame_header(length, b"abcd")
    assert header.endswith(b"abcd")
    assert header[1] & 0x80
    assert len(header) == (6 if length < 126 else 8 if length < 65536 else 14)


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_messages_in_any_pieces(messages: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(server_frame(message) for message in messages)
    parser, got = FrameParser(), list[bytes]()
    for data in in_pieces(stream, sizes):
        for piece in parser.receive(data):
            got += [b""] if piece.start else []
            got[-1] += bytes(piece.data)
    assert got == [message for message in messages if message]


def test_fragmented_message_with_a_ping_between() -> None:
    stream = server_frame(b"one ", fin=False) + server_frame(b"?", PING) + server_frame(b"two", CONTINUATION)
    pieces = FrameParser().receive(stream)
    assert [(piece.opcode, bytes(piece.data), piece.start) for piece in pieces] == [
        (BINARY, b"one ", True),
        (PING, b"?", True),
        (BINARY, b"two", False),
    ]


def test_control_frame_in_pieces() -> None:
    parser = FrameParser()
    frame = server_frame(b"ping?", PING)
    assert parser.receive(frame[:4]) == []
    (piece,) = parser.receive(frame[4:])
    assert (piece.opcode, bytes(piece.data)) == (PING, b"ping?")


@pytest.mark.parametrize(
    "stream",
    [
        b"\x82\x81abcdx",  # masked
        b"\xf2\x00",  # reserved bits
        server_frame(b"x", CONTINUATION),  # nothing to continue
        server_frame(b"a", fin=False) + server_frame(b"b"),  # a message within a message
        server_frame(b"x" * 126, PING),
        server_frame(b"", CLOSE, fin=False),
        b"\x82\x7f" + (1 << 40).to_bytes(8, "big"),
        b"\x83\x00",
    ],
)
def test_what_no_server_may_send(stream: bytes) -> None:
    with pytest.raises(CarrierProtocolError):
        FrameParser().receive(stream)


@given(st.binary(max_size=200))
def test_foreign_octets(data: bytes) -> None:
    parser, channels = FrameParser(), ChannelForward(7777)
    try:
        for piece in parser.receive(data):
            if piece.opcode < CLOSE:
                channels.receive(piece, [])
    except CarrierProtocolError:
        pass


PREAMBLE = server_frame(b"\x00\x61\x1e") + server_frame(b"\x01\x61\x1e")  # channels 0 and 1, port 7777 little endian


def channel_data(stream: bytes, sizes: list[int]) -> tuple[bytes, ChannelForward]:
    parser, channels, got = FrameParser(), ChannelForward(7777), b""
    for data in in_pieces(stream, sizes):
        for piece in parser.receive(data):
            out: list[memoryview] = []
            channels.receive(piece, out)
            got += b"".join(out)
    return got, channels


@given(st.lists(st.binary(max_size=100), max_size=5), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_channel_data_in_any_pieces(messages: list[bytes], sizes: list[int]) -> None:
    stream = PREAMBLE + b"".join(server_frame(b"\x00" + message) for message in messages)
    got, channels = channel_data(stream, sizes)
    assert got == b"".join(messages)
    assert not channels.error


def test_channels_open_and_answer_nothing() -> None:
    form = ChannelForward(7777)
    assert form.opening() == form.answers() == []
    assert form.message([b"ab", b"c"], 3) == b"\x00abc"


def test_error_channel() -> None:
    _, channels = channel_data(PREAMBLE + server_frame(b"\x01connection refused"), [1000])
    assert channels.error == "connection refused"


@pytest.mark.parametrize("stream", [server_frame(b"\x00\x62\x1e"), server_frame(b"\x02x"), server_frame(b"text", TEXT)])
def test_what_is_no_port_forward_of_ours(stream: bytes) -> None:
    with pytest.raises(CarrierProtocolError):
        channel_data(stream, [1000])


def test_piece_without_octets() -> None:
    out: list[memoryview] = []
    ChannelForward(1).receive(Piece(BINARY, memoryview(b""), True), out)
    assert out == []

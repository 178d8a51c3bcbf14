"""A port-forward in SPDY: what we say, and what a node says, in whatever pieces."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.errors import CarrierProtocolError
from kt_net.wire.spdy import DATA, DICTIONARY, ERRORS, FRAME_OCTETS, SpdyForward
from kt_net.wire.websocket import BINARY, TEXT, Piece


def data_frame(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack("!II", stream, flags << 24 | len(payload)) + payload


def control_frame(kind: int, body: bytes, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack("!HHI", 0x8000 | version, kind, flags << 24 | len(body)) + body


def receive(form: SpdyForward, *messages: bytes) -> bytes:
    out: list[memoryview] = []
    for message in messages:
        form.receive(Piece(BINARY, memoryview(message), True), out)
    return b"".join(out)


def test_dictionary_is_the_drafts() -> None:
    """Its checksum is what a compressed header block names (RFC 1950 DICTID)."""
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_opening() -> None:
    (message,) = SpdyForward(7777).opening()
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    found = {}
    while message:
        control, kind, length = struct.unpack("!HHI", message[:8])
        assert (control, kind) == (0x8003, 1)
        body = message[8 : 8 + (length & 0xFFFFFF)]
        message = message[8 + len(body) :]
        block = inflate.decompress(body[10:])
        texts, at = [], 4
        while at < len(block):
            (size,) = struct.unpack_from("!I", block, at)
            texts.append(block[at + 4 : at + 4 + size].decode())
            at += 4 + size
        found[struct.unpack("!I", body[:4])[0]] = (length >> 24, dict(zip(texts[::2], texts[1::2], strict=True)))
    assert found == {
        ERRORS: (1, {"streamtype": "error", "port": "7777", "requestid": "0"}),
        DATA: (0, {"streamtype": "data", "port": "7777", "requestid": "0"}),
    }


@pytest.mark.parametrize("octets", [1, FRAME_OCTETS, FRAME_OCTETS + 1, 3 * FRAME_OCTETS])
def test_what_goes_out_comes_in(octets: int) -> None:
    payload = bytes(range(256)) * (octets // 256 + 1)
    payload = payload[:octets]
    assert receive(SpdyForward(1), SpdyForward(1).message([payload[:1], payload[1:]], octets)) == payload


@given(st.lists(st.binary(max_size=200), max_size=6), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_data_in_any_pieces(payloads: list[bytes], sizes: list[int]) -> None:
    stream = control_frame(2, struct.pack("!I", DATA) + b"headers") + b"".join(
        data_frame(DATA, one) for one in payloads
    )
    form, got, turn = SpdyForward(1), b"", 0
    while stream:
        size = sizes[turn % len(sizes)]
        got, stream, turn = got + receive(form, stream[:size]), stream[size:], turn + 1
    assert got == b"".join(payloads)
    assert not form.ended
    assert not form.error


def test_errors_are_told() -> None:
    form = SpdyForward(1)
    last = data_frame(ERRORS, b"refused", 1)
    assert receive(form, data_frame(ERRORS, b"connection "), last[:10], last[10:]) == b""
    assert form.error == "connection refused"


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (data_frame(DATA, b"", 1), "closed"),
        (data_frame(DATA, b"last", 1), "closed"),
        (control_frame(2, struct.pack("!I", DATA) + bytes(4), 1), "closed"),
        (control_frame(3, struct.pack("!II", DATA, 5)), "code 5"),
        (control_frame(7, bytes(8)), "ends"),
    ],
)
def test_the_end(frame: bytes, word: str) -> None:
    form = SpdyForward(1)
    receive(form, frame)
    assert word in form.ended


def test_what_says_nothing_to_us() -> None:
    form = SpdyForward(1)
    frames = control_frame(4, bytes(4)) + control_frame(9, bytes(8)) + control_frame(3, struct.pack("!II", ERRORS, 1))
    assert receive(form, frames + control_frame(99, b"") + data_frame(ERRORS, b"")) == b""
    assert not form.ended


def test_ping_is_answered() -> None:
    form = SpdyForward(1)
    receive(form, control_frame(6, struct.pack("!I", 2)), control_frame(6, struct.pack("!I", 1)))
    assert form.answers() == [control_frame(6, struct.pack("!I", 2))]
    assert form.answers() == []


@pytest.mark.parametrize(
    "frame",
    [
        control_frame(6, b"x"),
        control_frame(3, b"x"),
        control_frame(1, bytes(10)),
        control_frame(4, b"", version=2),
        control_frame(4, bytes(20_000)),
        data_frame(2, b"x"),
    ],
)
def test_what_no_node_may_send(frame: bytes) -> None:
    with pytest.raises(CarrierProtocolError):
        receive(SpdyForward(1), frame)


def test_text_is_none() -> None:
    with pytest.raises(CarrierProtocolError):
        SpdyForward(1).receive(Piece(TEXT, memoryview(b"x"), True), [])


@given(st.binary(max_size=300))
def test_foreign_octets(data: bytes) -> None:
    try:
        receive(SpdyForward(1), data)
    except CarrierProtocolError:
        pass

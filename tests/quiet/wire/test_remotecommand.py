"""The channels of an exec, in whatever pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.errors import CarrierProtocolError
from kt_net.wire.remotecommand import ExecBridge
from kt_net.wire.websocket import BINARY, TEXT, Piece


def receive(form: ExecBridge, *messages: bytes, cut: int = 0) -> bytes:
    """Each message whole, or in two pieces."""
    out: list[memoryview] = []
    for message in messages:
        form.receive(Piece(BINARY, memoryview(message)[: cut or None], True), out)
        if cut and len(message) > cut:
            form.receive(Piece(BINARY, memoryview(message)[cut:], False), out)
    return b"".join(out)


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_output_is_data(cut: int) -> None:
    form = ExecBridge()
    assert receive(form, b"\1", b"\1one ", b"\1two", cut=cut) == b"one two"
    assert not form.error
    assert not form.ended


def test_nothing_to_open_or_to_answer() -> None:
    form = ExecBridge()
    assert form.opening() == form.answers() == []
    assert form.message([b"ab", b"c"], 3) == b"\0abc"


def test_what_the_program_complains_of() -> None:
    form = ExecBridge()
    assert receive(form, b"\2Connection refused") == b""
    assert form.error == "Connection refused"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (b'{"status":"Success"}', ""),
        (
            b'{"status":"Failure","message":"command terminated with exit code 1"}',
            "command terminated with exit code 1",
        ),
        (b'{"status":"Fail', '{"status":"Fail'),
        (b"[]", ""),
    ],
)
def test_the_end(status: bytes, error: str) -> None:
    form = ExecBridge()
    receive(form, b"\3" + status, b"\xff\1")
    assert form.ended
    assert form.error == error


def test_what_is_no_exec() -> None:
    with pytest.raises(CarrierProtocolError):
        receive(ExecBridge(), b"\7data")
    with pytest.raises(CarrierProtocolError):
        ExecBridge().receive(Piece(TEXT, memoryview(b"x"), True), [])


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6))
def test_foreign_messages(messages: list[bytes]) -> None:
    form = ExecBridge()
    try:
        receive(form, *messages)
    except CarrierProtocolError:
        pass
    assert isinstance(form.error, str)

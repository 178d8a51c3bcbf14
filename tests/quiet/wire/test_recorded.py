"""What a real API server said (tests/cluster/record.py), through the parsers, in the pieces in which it came and in others."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kt_net.kube.carrier import Form
from kt_net.wire.portforward import ChannelForward
from kt_net.wire.remotecommand import ExecBridge
from kt_net.wire.spdy import SpdyForward
from kt_net.wire.websocket import CLOSE, FrameParser

FOLDER = Path(__file__).with_name("recorded")
FORMS: dict[str, Any] = {
    "spdy": SpdyForward,
    "websocket": ChannelForward,
    "exec": lambda port: ExecBridge(),
}
#: What each says of a port on which nobody listens, or of a program that fails.
COMPLAINTS = {
    "spdy": "connection refused",
    "websocket": "connection refused",
    "exec": "command terminated with non-zero exit code",
}
#: Octets a piece; 0: as it came.
CUTS = [0, 1, 2, 3, 7, 1000, 1 << 20]


def replayed(form: str, way: str, cut: int) -> tuple[bytes, Form]:
    """The payload, and the form as it is at the end."""
    found = json.loads((FOLDER / f"{form}.json").read_text())[way]
    pieces = [base64.b64decode(piece) for piece in found["received"]]
    if cut:
        whole = b"".join(pieces)
        pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]
    parser, channels, out = FrameParser(), FORMS[form](found["port"]), list[memoryview]()
    channels.opening()
    for piece in pieces:
        for frame in parser.receive(piece):
            if frame.opcode < CLOSE:
                channels.receive(frame, out)
    return b"".join(out), channels


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("form", FORMS)
def test_echo(form: str, cut: int) -> None:
    payload = base64.b64decode(json.loads((FOLDER / f"{form}.json").read_text())["echo"]["payload"])
    received, channels = replayed(form, "echo", cut)
    assert received == payload
    assert not channels.error
    assert not channels.ended


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("form", FORMS)
def test_complaint(form: str, cut: int) -> None:
    received, channels = replayed(form, "refused", cut)
    assert received == b""
    assert COMPLAINTS[form] in channels.error

"""The control socket answers whatever it is asked, and whoever is silent keeps nobody else waiting for long."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kt_net.session.control import REQUEST_SECONDS, ControlServer, ask
from kt_net.session.home import control_socket


def broken(request: Any) -> dict[str, Any]:
    raise KeyError("broken")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlServer]:
    monkeypatch.setenv("KT_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    made = ControlServer({"echo": lambda request: {"said": request.get("word")}, "broken": broken})
    yield made
    made.close()


def said(data: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        connected.settimeout(10)
        connected.connect(str(control_socket()))
        connected.sendall(data)
        answer: dict[str, Any] = json.loads(connected.recv(65536))
    return answer


def test_requests(server: ControlServer) -> None:
    assert ask("echo", word="x") == {"said": "x"}
    for nonsense in (b"{}\n", b"[]\n", b"nonsense\n", b"[" * 100_000 + b"\n", b"\xff\n"):
        assert "error" in said(nonsense)
    assert "KeyError" in ask("broken")["error"]
    assert ask("echo", word="y") == {"said": "y"}


def test_silence(server: ControlServer) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(control_socket()))
        started = time.monotonic()
        assert ask("echo", word="x") == {"said": "x"}
        assert time.monotonic() - started < REQUEST_SECONDS + 1

"""Packets of a running connection's TUN device for another process of the same user, over the control socket: both ends.

The question names what is wanted in words (kt_net.tun.filter); behind the answer come records (kt_net.tun.captured) until the asker ends
its side of the socket, which is answered with how many it missed, or goes.

Not here: the tap itself (kt_net.drivers.tap), lines and files.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from kt_net.drivers.loop import Loop
from kt_net.drivers.tap import MAX_TAPS, Taps
from kt_net.errors import LimitExceeded, NotConnected, UsageFault
from kt_net.session.control import Answer, Stream, open_stream
from kt_net.session.home import DEFAULT_NAME
from kt_net.tun.captured import Captured, CapturedParser, CaptureEnd
from kt_net.tun.filter import parse_filter

VERB: Final = "capture"
READ_OCTETS: Final = 256 * 1024


class Captures:
    """The connection's end."""

    def __init__(self, loop: Loop, taps: Taps) -> None:
        self._loop = loop
        self._taps = taps

    def ask(self, request: Mapping[str, Any]) -> Answer | Stream:
        """What is answered to a request. Not on the loop's thread."""
        words = {name: str(request.get(name) or "") for name in ("host", "port", "protocol")}
        try:
            wanted = parse_filter(**words)
        except UsageFault as error:
            return {"refused": error.what}
        if len(self._taps) >= MAX_TAPS:
            return {"full": len(self._taps)}
        return Stream({"capturing": True}, lambda sock: self._loop.call_soon(partial(self._taps.add, sock, wanted)))

    def close(self) -> None:
        """End them all."""
        self._loop.call_soon(self._taps.close)


class Capture:
    """The asker's end: packets as they pass the device of the connection that runs.

    Raises:
        UsageFault: a word makes no sense.
        NotConnected: there is no connection, or not yet.
        LimitExceeded: as many look on already as may.
    """

    def __init__(self, name: str = DEFAULT_NAME, *, host: str = "", port: str = "", protocol: str = "") -> None:
        parse_filter(host=host, port=port, protocol=protocol)
        answer, behind, self._socket = open_stream(VERB, name, host=host, port=port, protocol=protocol)
        self._parser = CapturedParser()
        self._behind = behind
        if answer.get("capturing") is True:
            return
        self._socket.close()
        if "full" in answer:
            raise LimitExceeded(
                f"{answer['full']} captures of this connection run already", next_step="end one of them"
            )
        if answer.get("state") == "starting":
            raise NotConnected("the connection is only being brought up", next_step="run it again when it is there")
        raise NotConnected(
            "the running connection captures nothing",
            why=str(answer.get("refused") or answer.get("error") or ""),
            next_step="it may be of another version: ktctl disconnect, then connect again",
        )

    def receive(self, seconds: float) -> list[Captured | CaptureEnd] | None:
        """What has come within `seconds`, perhaps nothing; None when nothing will come any more.

        Raises:
            MalformedPacket: the connection speaks nonsense.
        """
        if self._behind:
            behind, self._behind = self._behind, b""
            return self._parser.receive(behind)
        readable, _, _ = select.select([self._socket], [], [], seconds)
        if not readable:
            return []
        try:
            data = self._socket.recv(READ_OCTETS)
        except OSError:
            return None  # it was killed
        return self._parser.receive(data) if data else None

    def finish(self) -> None:
        """It is enough; a `CaptureEnd` follows what is on its way."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other end has gone: `receive` says so

    def close(self) -> None:
        """Give it up."""
        self._socket.close()

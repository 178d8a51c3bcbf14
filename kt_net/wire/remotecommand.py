"""The messages of an exec websocket, subprotocols v5.channel.k8s.io and v4.channel.k8s.io (Kubernetes doc, "remotecommand").

Every message begins with one octet for the channel: 0 standard input, 1 standard output, 2 standard error, 3 a Status object when the
program has ended; 255 closes a channel (version 5).

Not here: frames (websocket.py), the program (shadow_image.bridge).
"""

from __future__ import annotations

import json
from typing import Final

from kt_net.errors import CarrierProtocolError
from kt_net.wire.portforward import MAX_ERROR
from kt_net.wire.websocket import BINARY, Piece

SUBPROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
STATUS: Final = 3
CLOSE: Final = 255
_STDIN: Final = bytes((STDIN,))


class ExecBridge:
    """The octets of a program's standard input and output."""

    def __init__(self) -> None:
        self._channel: int | None = None
        self._text = {STDERR: "", STATUS: ""}

    # -- out

    def opening(self) -> list[bytes]:
        """Messages that go first: none."""
        return []

    def message(self, buffers: list[bytes | memoryview], octets: int) -> bytes:
        """`octets` of the stream, as one message."""
        return b"".join((_STDIN, *buffers))

    def answers(self) -> list[bytes]:
        """Messages that what was received asks for: never any."""
        return []

    # -- in

    @property
    def error(self) -> str:
        """What the program, or whoever should have run it, said went wrong."""
        return self._text[STDERR] or self._status()

    @property
    def ended(self) -> str:
        """That the program has ended, when it has."""
        return "the bridge in the pod has ended" if self._text[STATUS] else ""

    def _status(self) -> str:
        if not self._text[STATUS]:
            return ""  # asked once a piece: as nearly always, it has not ended
        try:
            status = json.loads(self._text[STATUS])
        except (ValueError, RecursionError):
            return self._text[STATUS]  # not whole yet, or no Status
        if not isinstance(status, dict) or status.get("status") == "Success":
            return ""
        return str(status.get("message", ""))[:MAX_ERROR]

    def receive(self, piece: Piece, out: list[memoryview]) -> None:
        """Appends the data in a piece of a message to `out`.

        Raises:
            CarrierProtocolError: this is no exec.
        """
        if piece.opcode != BINARY:
            raise CarrierProtocolError("the API server sent text on an exec")
        view = piece.data
        if piece.start:
            self._channel = view[0]  # pieces are not empty
            view = view[1:]
        if not len(view):
            return
        if self._channel == STDOUT:
            out.append(view)
        elif self._channel in self._text:
            self._text[self._channel] = (self._text[self._channel] + bytes(view).decode("utf-8", "replace"))[:MAX_ERROR]
        elif self._channel != CLOSE:
            raise CarrierProtocolError(f"the API server sent data on channel {self._channel}")

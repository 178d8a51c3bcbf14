"""The messages of a port-forward websocket, subprotocol v4.channel.k8s.io (kubelet's and the API server's "portforward" streams).

Every message begins with one octet for the channel: for the first port 0 is data and 1 errors. The first message of each channel has
the port, two octets little endian, and nothing else.

Not here: frames (websocket.py).
"""

from __future__ import annotations

from typing import Final

from kt_net.errors import CarrierProtocolError
from kt_net.wire.websocket import BINARY, Piece

SUBPROTOCOL: Final = "v4.channel.k8s.io"
DATA: Final = 0
ERROR: Final = 1
_CHANNEL: Final = bytes((DATA,))
_PORT_OCTETS: Final = 2
#: What is kept of an error text.
MAX_ERROR: Final = 4096


class ChannelForward:
    """The octets of one port-forward in channels.

    Args:
        port: that was asked for; both channels must name it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._channel: int | None = None
        self._preamble = {DATA: bytearray(), ERROR: bytearray()}
        #: What the error channel said.
        self.error = ""
        #: Channels do not end by themselves.
        self.ended = ""

    # -- out

    def opening(self) -> list[bytes]:
        """Messages that go first: none."""
        return []

    def message(self, buffers: list[bytes | memoryview], octets: int) -> bytes:
        """`octets` of the stream, as one message."""
        return b"".join((_CHANNEL, *buffers))

    def answers(self) -> list[bytes]:
        """Messages that what was received asks for: never any."""
        return []

    # -- in

    def receive(self, piece: Piece, out: list[memoryview]) -> None:
        """Appends the data in a piece of a message to `out`.

        Raises:
            CarrierProtocolError: this is no port-forward, or not of our port.
        """
        if piece.opcode != BINARY:
            raise CarrierProtocolError("the API server sent text on a port-forward")
        view = piece.data
        if piece.start:
            self._channel = None
        if self._channel is None:
            if not len(view):
                return
            self._channel = view[0]
            view = view[1:]
        channel = self._channel
        preamble = self._preamble.get(channel)
        if preamble is None:
            raise CarrierProtocolError(f"the API server sent data on channel {channel}")
        if len(preamble) < _PORT_OCTETS:
            missing = _PORT_OCTETS - len(preamble)
            preamble += view[:missing]
            view = view[missing:]
            if len(preamble) == _PORT_OCTETS and int.from_bytes(preamble, "little") != self._port:
                raise CarrierProtocolError(f"the API server forwards port {int.from_bytes(preamble, 'little')}")
        if not len(view):
            return
        if channel == ERROR:
            self.error = (self.error + bytes(view).decode("utf-8", "replace"))[:MAX_ERROR]
        else:
            out.append(view)

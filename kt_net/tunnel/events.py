"""What a tunnel says to whoever stands on it. One class per event; nothing else crosses the floor.

Not here: what the payload means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from kt_net.tunnel.hello import Hello


@dataclass(slots=True)
class HelloReceived:
    """The other end has introduced itself."""

    hello: Hello


@dataclass(slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream: int


@dataclass(slots=True)
class StreamData:
    """Payload of a stream, in order. The receiver calls `Tunnel.consume` when it has disposed of it."""

    stream: int
    data: bytes | memoryview


@dataclass(slots=True)
class StreamFinished:
    """The peer will send nothing more on this stream."""

    stream: int


@dataclass(slots=True)
class StreamReset:
    """The stream is gone in both directions."""

    stream: int


@dataclass(slots=True)
class RoomGranted:
    """`send_room` of the stream grew by `octets`."""

    stream: int
    octets: int


@dataclass(slots=True)
class GoneAway:
    """The peer opens no more streams and wants none. Codes: 0 normal, 1 protocol error, 2 internal error (yamux)."""

    code: int


@dataclass(slots=True)
class PeerSilent:
    """Nothing came from the peer for too long: the carrier counts as dead. Said once."""


@dataclass(slots=True)
class GoneOn:
    """The lane works, over another carrier than before."""


@dataclass(slots=True)
class Forgotten:
    """The agent knows nothing of this session any more: its streams are over."""


TunnelEvent: TypeAlias = (
    Forgotten
    | GoneOn
    | HelloReceived
    | StreamOpened
    | StreamData
    | StreamFinished
    | StreamReset
    | RoomGranted
    | GoneAway
    | PeerSilent
)

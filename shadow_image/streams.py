"""What a connection of the pod may ask of the session that it belongs to.

Not here: the session itself (session.py), which knows every kind of connection; the connections know only this.
"""

from __future__ import annotations

from typing import Protocol


class Streams(Protocol):
    """The session, as its connections see it. Calls about a stream that is gone do nothing."""

    #: Octets that pod-side sockets have not taken.
    unwritten: int

    def send(self, stream: int, data: bytes) -> None:
        """Payload for the client."""

    def room(self, stream: int) -> int:
        """Octets that the stream takes now."""

    def may_read(self, stream: int) -> bool:
        """Whether a connection should read its socket."""

    def consume(self, stream: int, octets: int) -> None:
        """The client may send as many octets again."""

    def finish(self, stream: int) -> None:
        """Nothing more comes from the pod's side."""

    def reset(self, stream: int) -> None:
        """The pod's side is gone."""

    def forget(self, stream: int, unwritten: int) -> None:
        """The connection has ended."""

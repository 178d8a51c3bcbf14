"""One attempt to reach something through the tunnel, from the agent: does it answer?

Not here: what is to be tried, and how long is waited (kt_net.session.probes).
"""

from __future__ import annotations

from collections.abc import Callable

from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.relay.streams import Stream, Switchboard
from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request

#: Told once: SUCCEEDED and what was answered (nothing for a dial), or why there was no answer; and when.
Outcome = Callable[[ReplyCode, bytes, float], None]


class Probe:
    """Owner of the attempt's stream. TCP has answered when it is connected, UDP when the first datagram comes back.

    Args:
        question: a datagram, for UDP.
    """

    def __init__(self, request: Request, outcome: Outcome, *, question: bytes = b"") -> None:
        self._request = request
        self._question = question
        self._outcome: Outcome | None = outcome
        self._stream: Stream | None = None
        self._parser = DatagramParser()

    def start(self, switchboard: Switchboard, *, now: float) -> None:
        """Try."""
        try:
            self._stream = switchboard.open(self._request, self, now=now)
        except (LimitExceeded, StreamClosed):
            self._end(ReplyCode.GENERAL_FAILURE, b"", now=now)
            return
        self.repeat(now=now)

    def repeat(self, *, now: float) -> None:
        """Ask over UDP once more: one datagram that is lost says nothing. Nothing for TCP, and once the outcome is there."""
        if self._stream is not None and self._outcome is not None and self._request.network is Network.UDP:
            self._stream.send(frame_datagram(self._question), now=now)

    def give_up(self, *, now: float) -> None:
        """Nobody waits for it any more; the outcome is told nobody."""
        self._outcome = None
        if self._stream is not None:
            self._stream.reset(now=now)

    def _end(self, code: ReplyCode, answer: bytes, *, now: float) -> None:
        outcome, self._outcome = self._outcome, None
        if self._stream is not None:
            self._stream.reset(now=now)
        if outcome is not None:
            outcome(code, answer, now)

    # -- from the switchboard

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        """See `StreamOwner`. A UDP socket is open before anybody has said anything."""
        if self._request.network is Network.TCP:
            self._end(ReplyCode.SUCCEEDED, b"", now=now)

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        """See `StreamOwner`."""
        self._end(code, b"", now=now)

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        """See `StreamOwner`."""
        for message in self._parser.receive(data)[:1]:
            self._end(ReplyCode.SUCCEEDED, message, now=now)

    def stream_room(self, *, now: float) -> None:
        """See `StreamOwner`."""

    def stream_finished(self, *, now: float) -> None:
        """See `StreamOwner`."""
        self._end(ReplyCode.GENERAL_FAILURE, b"", now=now)

    def stream_reset(self, *, now: float) -> None:
        """See `StreamOwner`. The agent resets a UDP stream whose socket was told that nobody is there."""
        self._end(ReplyCode.CONNECTION_REFUSED, b"", now=now)

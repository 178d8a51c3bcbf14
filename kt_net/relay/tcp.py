"""One TCP flow of a program joined to one tunnel stream.

Back-pressure, upwards: the receive window that the program's kernel sees is the credit that the stream has left, so nothing ever
waits here. Downwards: the agent gets its credit back when the program's kernel has acknowledged the octets.

Not here: sequence numbers (kt_net.stack), frames (kt_net.tunnel).
"""

from __future__ import annotations

from collections.abc import Callable

from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.relay.streams import Stream
from kt_net.stack import Stack, Unreachable
from kt_net.tunnel.requests import Reply, ReplyCode

#: How a reply code of the agent looks to a program. Everything else is a reset: a connect that fails at once.
UNREACHABLE = {
    ReplyCode.NETWORK_UNREACHABLE: Unreachable.NET,
    ReplyCode.HOST_UNREACHABLE: Unreachable.HOST,
    ReplyCode.TTL_EXPIRED: Unreachable.HOST,
    ReplyCode.NOT_ALLOWED: Unreachable.ADMIN,
}


class TcpJoint:
    """Owner of the stream of one TCP flow. `closed` is called once, when the flow is gone."""

    __slots__ = ("_closed", "_stack", "_window", "flow", "stream")

    def __init__(self, flow: int, stack: Stack, closed: Callable[[int], None]) -> None:
        self.flow = flow
        self.stream: Stream | None = None
        self._stack = stack
        self._closed = closed
        self._window = 0  # octets that the program may still send: granted and not yet received

    # -- from the stack

    def flow_data(self, data: bytes | memoryview, *, now: float) -> None:
        """The program sent payload."""
        self._window -= len(data)
        if self.stream is not None:
            self.stream.send(data, now=now)

    def flow_acknowledged(self, octets: int, *, now: float) -> None:
        """The program's kernel has taken that much of what was sent to it."""
        if self.stream is not None:
            self.stream.consume(octets, now=now)

    def flow_ended(self, *, now: float) -> None:
        """The program will send nothing more."""
        if self.stream is not None:
            self.stream.finish(now=now)

    def flow_reset(self, *, now: float) -> None:
        """The program reset the flow, or stopped answering."""
        if self.stream is not None:
            self.stream.reset(now=now)

    def flow_closed(self) -> None:
        """Both sides have finished and everything is delivered."""
        if self.stream is not None:
            self.stream.forget()

    # -- from the switchboard

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        """The far side has connected: now the SYN is answered."""
        if self.stream is not None:
            self._window = self.stream.room
        try:
            self._stack.accept(self.flow, window=self._window, now=now)
        except StreamClosed:
            pass  # the program has given up; its FlowReset is on the way

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        """The far side could not be reached: the program is told so, as the network would."""
        self._closed(self.flow)
        reason = UNREACHABLE.get(code)
        try:
            if reason is None:
                self._stack.refuse(self.flow, now=now)
            else:
                self._stack.unreachable(self.flow, reason, now=now)
        except StreamClosed:
            pass  # nobody waits for the answer any more

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        """Payload for the program."""
        try:
            self._stack.send(self.flow, data, now=now)
        except StreamClosed:
            pass  # the program has reset the flow; its FlowReset is on the way
        except LimitExceeded:
            # More than any credit allows: the far side is not to be believed.
            self.flow_reset(now=now)
            self.stream_reset(now=now)

    def stream_room(self, *, now: float) -> None:
        """The stream may carry more: let the program send as much more."""
        if self.stream is None:
            return
        # Counted against what was granted, not against the event: credit that came before the accept is in it already.
        extra = self.stream.room - self._window
        if extra > 0:
            self._window += extra
            try:
                self._stack.grant(self.flow, extra, now=now)
            except StreamClosed:
                pass  # its FlowReset is on the way

    def stream_finished(self, *, now: float) -> None:
        """The far side will send nothing more."""
        self._stack.finish(self.flow, now=now)

    def stream_reset(self, *, now: float) -> None:
        """The far side reset the connection: so does the stack."""
        self._closed(self.flow)
        self._stack.reset(self.flow, now=now)

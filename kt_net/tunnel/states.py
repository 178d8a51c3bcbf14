"""States of a stream and what moves it between them: a table, total over states; nobody else assigns a stream's state.

Not here: credit, data.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from kt_net.errors import StreamClosed


class StreamState(Enum):
    """Who may still send. "Local" is the side whose mux this is."""

    OPEN = "open"  # both
    LOCAL_FINISHED = "local finished"  # the peer only
    PEER_FINISHED = "peer finished"  # we only
    CLOSED = "closed"  # nobody; forgotten once said


class StreamInput(Enum):
    """What can happen to a stream."""

    SEND_FIN = "send fin"
    RECEIVE_FIN = "receive fin"
    SEND_RST = "send rst"
    RECEIVE_RST = "receive rst"


#: state -> input -> next state. A missing input is illegal in that state; a closed stream takes none.
TRANSITIONS: Final[dict[StreamState, dict[StreamInput, StreamState]]] = {
    StreamState.OPEN: {
        StreamInput.SEND_FIN: StreamState.LOCAL_FINISHED,
        StreamInput.RECEIVE_FIN: StreamState.PEER_FINISHED,
        StreamInput.SEND_RST: StreamState.CLOSED,
        StreamInput.RECEIVE_RST: StreamState.CLOSED,
    },
    StreamState.LOCAL_FINISHED: {
        StreamInput.RECEIVE_FIN: StreamState.CLOSED,
        StreamInput.SEND_RST: StreamState.CLOSED,
        StreamInput.RECEIVE_RST: StreamState.CLOSED,
    },
    StreamState.PEER_FINISHED: {
        StreamInput.SEND_FIN: StreamState.CLOSED,
        StreamInput.SEND_RST: StreamState.CLOSED,
        StreamInput.RECEIVE_RST: StreamState.CLOSED,
    },
    StreamState.CLOSED: {},
}


class StateHolder:
    """A stream's state; `move` is the only way to change it."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = StreamState.OPEN

    @property
    def closed(self) -> bool:
        """Whether the stream is gone."""
        return self.state is StreamState.CLOSED

    def allows(self, happened: StreamInput) -> bool:
        """Whether the table has a move for `happened`."""
        return happened in TRANSITIONS[self.state]

    def move(self, happened: StreamInput) -> None:
        """Follow the table.

        Raises:
            StreamClosed: illegal in this state.
        """
        following = TRANSITIONS[self.state].get(happened)
        if following is None:
            raise StreamClosed(f"{happened.value} on a stream that is {self.state.value}")
        self.state = following

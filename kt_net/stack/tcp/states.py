"""States of a connection and what moves it between them: a table, total over states; nobody else assigns a state.

The states of RFC 9293 section 3.3.2, without LISTEN (every address listens), and one before them: PENDING, in which a SYN waits for the
far side, or the connection for its own `open`.

Not here: segments.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from kt_net.errors import StreamClosed


class State(Enum):
    """Where a connection stands."""

    PENDING = "PENDING"
    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSING = "CLOSING"
    TIME_WAIT = "TIME-WAIT"
    CLOSE_WAIT = "CLOSE-WAIT"
    LAST_ACK = "LAST-ACK"
    CLOSED = "CLOSED"


class Input(Enum):
    """What moves a connection."""

    ACCEPT = "accept"
    OPEN = "open"
    SYN_RECEIVED = "SYN received"
    SYN_ACKED = "our SYN acknowledged"
    FIN_SENT = "FIN sent"
    FIN_RECEIVED = "FIN received"
    FIN_ACKED = "our FIN acknowledged"
    ABORT = "reset, refused or given up"
    EXPIRED = "2MSL over"


#: state -> input -> next state. A missing input is illegal in that state; CLOSED is the end.
TRANSITIONS: Final[dict[State, dict[Input, State]]] = {
    State.PENDING: {
        Input.ACCEPT: State.SYN_RECEIVED,
        Input.OPEN: State.SYN_SENT,
        Input.ABORT: State.CLOSED,
    },
    State.SYN_SENT: {
        Input.SYN_ACKED: State.ESTABLISHED,
        Input.SYN_RECEIVED: State.SYN_RECEIVED,
        Input.ABORT: State.CLOSED,
    },
    State.SYN_RECEIVED: {Input.SYN_ACKED: State.ESTABLISHED, Input.ABORT: State.CLOSED},
    State.ESTABLISHED: {
        Input.FIN_SENT: State.FIN_WAIT_1,
        Input.FIN_RECEIVED: State.CLOSE_WAIT,
        Input.ABORT: State.CLOSED,
    },
    State.FIN_WAIT_1: {
        Input.FIN_ACKED: State.FIN_WAIT_2,
        Input.FIN_RECEIVED: State.CLOSING,
        Input.ABORT: State.CLOSED,
    },
    State.FIN_WAIT_2: {Input.FIN_RECEIVED: State.TIME_WAIT, Input.ABORT: State.CLOSED},
    State.CLOSING: {Input.FIN_ACKED: State.TIME_WAIT, Input.ABORT: State.CLOSED},
    State.TIME_WAIT: {Input.EXPIRED: State.CLOSED, Input.ABORT: State.CLOSED},
    State.CLOSE_WAIT: {Input.FIN_SENT: State.LAST_ACK, Input.ABORT: State.CLOSED},
    State.LAST_ACK: {Input.FIN_ACKED: State.CLOSED, Input.ABORT: State.CLOSED},
    State.CLOSED: {},
}


class StateHolder:
    """A connection's state; `move` is the only way to change it."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.PENDING

    def is_in(self, *states: State) -> bool:
        """Whether the connection is in one of `states`."""
        return self.state in states

    def move(self, happened: Input) -> None:
        """Follow the table.

        Raises:
            StreamClosed: illegal in this state.
        """
        following = TRANSITIONS[self.state].get(happened)
        if following is None:
            raise StreamClosed(f"{happened.value} on a connection in {self.state.value}")
        self.state = following

"""What the stack says to the relay. One class per event; nothing else crosses the floor. A flow is a number.

Not here: what the relay answers (methods of `Stack`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias


class FlowAddress(NamedTuple):
    """One end of a flow: a packed address (4 or 16 octets) and a port (0 for echo)."""

    address: bytes
    port: int


class Unreachable(Enum):
    """Why a destination cannot be reached: ICMP (v4 code, v6 code)."""

    NET = (0, 0)
    HOST = (1, 3)
    PORT = (3, 4)
    ADMIN = (13, 1)


@dataclass(slots=True)
class FlowRequested:
    """A program wants to connect; its SYN is unanswered until `accept`, `refuse` or `unreachable`."""

    flow: int
    protocol: int
    source: FlowAddress
    destination: FlowAddress


@dataclass(slots=True)
class FlowEstablished:
    """The program has answered a flow that was opened towards it."""

    flow: int


@dataclass(slots=True)
class DataReceived:
    """Payload of a TCP flow, in order, within what was granted."""

    flow: int
    data: bytes | memoryview


@dataclass(slots=True)
class EndReceived:
    """The program will send nothing more (FIN)."""

    flow: int


@dataclass(slots=True)
class FlowReset:
    """The program reset the flow, or its kernel stopped answering; the flow is forgotten."""

    flow: int


@dataclass(slots=True)
class FlowClosed:
    """Both sides have finished and all is acknowledged; the flow is forgotten."""

    flow: int


@dataclass(slots=True)
class DataAcknowledged:
    """The program's kernel has taken `octets` more of what was sent."""

    flow: int
    octets: int


@dataclass(slots=True)
class DatagramReceived:
    """A UDP datagram; `new` on the first of a flow (same source, destination and ports)."""

    flow: int
    source: FlowAddress
    destination: FlowAddress
    data: bytes | memoryview
    new: bool


@dataclass(slots=True)
class UdpFlowExpired:
    """A UDP or echo flow was idle for long, or had to make room; it is forgotten."""

    flow: int


@dataclass(slots=True)
class EchoRequested:
    """An ICMP echo request; a flow has one source, destination and identifier."""

    flow: int
    source: FlowAddress
    destination: FlowAddress
    identifier: int
    sequence: int
    data: bytes | memoryview
    new: bool


StackEvent: TypeAlias = (
    FlowRequested
    | FlowEstablished
    | DataReceived
    | EndReceived
    | FlowReset
    | FlowClosed
    | DataAcknowledged
    | DatagramReceived
    | UdpFlowExpired
    | EchoRequested
)

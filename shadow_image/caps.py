"""The agent's caps and times, each with a name. Octets, seconds.

Not here: what one tunnel allows (kt_net.tunnel.limits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Where carriers arrive. Port-forward dials the pod's loopback, so nothing else has to be able to.
LISTEN_HOST: Final = "127.0.0.1"
LISTEN_PORT: Final = 7777


@dataclass(frozen=True, slots=True)
class Caps:
    """What one agent takes upon itself.

    Attributes:
        sessions: lanes of clients at once, and carriers that have not said yet whose they are. A client has three to six.
        connecting: connects in progress at once, of one session; more are refused at once.
        unwritten: octets received for pod-side sockets that have not taken them, of one session; beyond it the stream with most is reset.
        backlog: octets read from pod-side sockets and not yet on the carrier, of one session; beyond it no socket is read.
        listeners: ports on which one session lets us listen.
        arrived: TCP connections of callers by those, at once; more are reset.
        arriving: of those, how many the client has not answered yet.
        flows: callers of one UDP port at once; beyond, the one that was idle longest is forgotten.
        flow_idle: without a datagram in either direction a caller of a UDP port is forgotten.
        absent_seconds: so long after its last carrier was lost callers wait for the client; then they are reset.
        near_seconds: so long after that callers of a program whose port is redirected are kept for the client; then they reach the program.
        connect_seconds: for a TCP connect, all addresses of a name together.
        hello_seconds: for a carrier to say hello.
        keep_seconds: a session without a carrier is kept.
    """

    sessions: int = 256
    connecting: int = 1024
    unwritten: int = 64 * 1024 * 1024
    backlog: int = 4 * 1024 * 1024
    listeners: int = 64
    arrived: int = 4096
    arriving: int = 1024
    flows: int = 1024
    flow_idle: float = 60.0
    absent_seconds: float = 10.0
    near_seconds: float = 1.0
    connect_seconds: float = 10.0
    hello_seconds: float = 10.0
    keep_seconds: float = 300.0

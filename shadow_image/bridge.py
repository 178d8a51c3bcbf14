"""`agent.pyz --bridge`: joins standard input and output to the agent's listener, for clusters that allow exec and not port-forward.

A process of its own beside the agent, one for each carrier.

Not here: what the octets mean.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Final

from shadow_image.caps import LISTEN_HOST

PIECE_OCTETS: Final = 256 * 1024
CONNECT_SECONDS: Final = 10.0


def bridge(port: int, *, given: int = 0, taken: int = 1) -> int:
    """Until either side ends; the exit code.

    Args:
        port: of the agent, on loopback.
        given, taken: descriptors of standard input and output.
    """
    agent = socket.create_connection((LISTEN_HOST, port), timeout=CONNECT_SECONDS)
    agent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    agent.setblocking(False)
    for descriptor in (given, taken):
        os.set_blocking(descriptor, False)
    # (from, to): what waits for `to`. Nothing is read while something waits.
    ways = {given: agent.fileno(), agent.fileno(): taken}
    waiting = dict.fromkeys(ways, memoryview(b""))
    while True:
        readable, writable, _ = select.select(
            [source for source in ways if not waiting[source]], [ways[source] for source in ways if waiting[source]], []
        )
        for source, sink in ways.items():
            try:
                if source in readable:
                    data = os.read(source, PIECE_OCTETS)
                    if not data:
                        return 0
                    waiting[source] = memoryview(data)
                if waiting[source] and (sink in writable or source in readable):
                    waiting[source] = waiting[source][os.write(sink, waiting[source]) :]
            except BlockingIOError:
                pass
            except OSError:
                return 0  # one end is gone

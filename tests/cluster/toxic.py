"""A bad link: relays TCP with delay, jitter and a rate that all its connections share.

A program: `toxic.py LISTEN_HOST LISTEN_PORT TARGET_HOST TARGET_PORT [SEED]`; says "listening" and runs until it is killed. Standard
library only. Each direction is one queue: a packet's worth of octets is read from a connection only when the queue has room, leaves it
at the link's rate, and arrives after delay and jitter in the order in which it left. Nothing is lost: a full queue pushes back, so the
kernels' buffers on the relay's sockets are small. Every second with traffic goes to standard error: how much each direction carried, and
the longest time that a packet of it took.

Not here: what goes over it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

#: Each way, seconds: a round trip of 100 ms.
DELAY = 0.05
JITTER = 0.03
#: Octets a second each way: 2 Mbit/s.
RATE = 2_000_000 / 8
#: Octets of one packet, and packets in the queue of one direction: 64 KiB, a quarter of a second.
PACKET = 1400
PACKETS = 64 * 1024 // PACKET
#: Of the relay's sockets; the kernel doubles it. Segments are to be smaller than that, or loopback's (64 KiB) wait for timers.
KERNEL_BUFFER = 16 * 1024


@dataclass(slots=True, eq=False)
class Half:
    """One direction of one connection."""

    reader: socket.socket
    writer: socket.socket
    arriving: asyncio.Queue[tuple[float, bytes]] = field(default_factory=asyncio.Queue)


class Direction:
    """One direction of the link."""

    def __init__(self, name: str, seed: str) -> None:
        self._name = name
        self._random = random.Random(f"{seed} {name}")
        self._queue: asyncio.Queue[tuple[float, Half, bytes]] = asyncio.Queue(PACKETS)
        self._carried, self._longest = 0, 0.0

    async def enter(self, half: Half) -> None:
        """Read one direction of a connection, until its end."""
        loop = asyncio.get_running_loop()
        data = b"?"
        while data:
            data = await loop.sock_recv(half.reader, PACKET)
            await self._queue.put((loop.time(), half, data))

    async def run(self) -> None:
        """The link itself: one packet after the other."""
        loop = asyncio.get_running_loop()
        free = arrival = loop.time()
        while True:
            waited = self._queue.empty()
            entered, half, data = await self._queue.get()
            # While packets wait, what a sleep was too long is made up for.
            free = (max(free, loop.time()) if waited else free) + len(data) / RATE
            await asyncio.sleep(free - loop.time())
            arrival = max(arrival, free + DELAY + self._random.uniform(0, JITTER))
            half.arriving.put_nowait((arrival, data))
            self._carried += len(data)
            self._longest = max(self._longest, arrival - entered)

    async def leave(self, half: Half) -> None:
        """Write one direction of a connection when it arrives."""
        loop = asyncio.get_running_loop()
        data = b"?"
        while data:
            arrival, data = await half.arriving.get()
            await asyncio.sleep(arrival - loop.time())
            if data:
                await loop.sock_sendall(half.writer, data)
        half.writer.shutdown(socket.SHUT_WR)

    def report(self) -> str:
        """Since the last one; "" when nothing was carried."""
        carried, longest = self._carried, self._longest
        self._carried, self._longest = 0, 0.0
        return f"{self._name} {carried / 1e3:.0f} kB, {longest * 1e3:.0f} ms" if carried else ""


def small(sock: socket.socket) -> socket.socket:
    """With little room in the kernel."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, PACKET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


class Relay:
    """All connections."""

    def __init__(self, target: tuple[str, int], seed: str) -> None:
        self._target = target
        self._up, self._down = Direction("up", seed), Direction("down", seed)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, host: str, port: int) -> None:
        """For ever."""
        with small(socket.socket()) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(64)
            print("listening", flush=True)
            for forever in (self._up.run(), self._down.run(), self._report()):
                self._start(forever)
            while True:
                near, _ = await asyncio.get_running_loop().sock_accept(listener)
                self._start(self._connection(near))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, near: socket.socket) -> None:
        with small(near), small(socket.socket()) as far:
            up, down = Half(near, far), Half(far, near)
            try:
                await asyncio.get_running_loop().sock_connect(far, self._target)
                async with asyncio.TaskGroup() as group:
                    for direction, half in ((self._up, up), (self._down, down)):
                        group.create_task(direction.enter(half))
                        group.create_task(direction.leave(half))
            except (OSError, ExceptionGroup):
                pass  # one end has reset it: both are closed

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(1)
            if reports := [report for direction in (self._up, self._down) if (report := direction.report())]:
                print("; ".join(reports), file=sys.stderr, flush=True)


if __name__ == "__main__":
    listen_host, listen_port, target_host, target_port, *rest = sys.argv[1:]
    relay = Relay((target_host, int(target_port)), rest[0] if rest else "1")
    asyncio.run(relay.serve(listen_host, int(listen_port)))

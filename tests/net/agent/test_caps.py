"""The agent's caps, with small numbers: who has to give way, and who not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from kt_net.tunnel.events import StreamData, StreamReset
from kt_net.tunnel.hello import Hello
from kt_net.tunnel.mux import Role
from kt_net.tunnel.requests import Network, Request
from kt_net.tunnel.session import Tunnel
from shadow_image.caps import Caps
from shadow_image.policy import Policy
from shadow_image.server import Agent
from tests.net.namespaces import run_inside

ADDRESS, PORT = "10.198.0.1", 7777
STUCK = 3


def agent(listening: threading.Event) -> None:
    """One that keeps 300 kB for sockets that do not take them."""

    async def run() -> None:
        policy = Policy(listen_port=PORT)
        report = {"pod_ips": [], "resolv_conf": ""}
        running = Agent(report=report, policy=policy, idle_exit=60, caps=Caps(unwritten=300_000))
        await running.start(PORT)
        listening.set()
        await running.wait_ended()

    asyncio.run(run())


def echo(listener: socket.socket) -> None:
    """For one connection."""
    connection, _ = listener.accept()
    while data := connection.recv(1000):
        connection.sendall(data)


def too_much_unwritten() -> Any:
    """Which streams were reset, and whether the one that behaves still works."""
    subprocess.run(f"ip addr add {ADDRESS}/24 dev lo".split(), check=True)
    deaf, kind = socket.create_server((ADDRESS, 9)), socket.create_server((ADDRESS, 7))
    threading.Thread(target=echo, args=(kind,), daemon=True).start()
    listening = threading.Event()
    threading.Thread(target=agent, args=(listening,), daemon=True).start()
    listening.wait()
    carrier = socket.create_connection(("127.0.0.1", PORT))
    carrier.settimeout(0.02)
    tunnel = Tunnel(role=Role.CLIENT, hello=Hello(session=b"s" * 16))
    answers, resets, limit = b"", list[int](), time.monotonic() + 30

    def turn() -> None:
        nonlocal answers
        while buffers := tunnel.data_to_send(now=time.monotonic()):
            carrier.settimeout(10)
            carrier.sendall(b"".join(buffers))
            carrier.settimeout(0.02)
        try:
            tunnel.receive_data(carrier.recv(1 << 18), now=time.monotonic())
        except TimeoutError:
            pass
        while (event := tunnel.next_event()) is not None:
            if isinstance(event, StreamData) and event.stream == kept:
                answers += bytes(event.data)
            elif isinstance(event, StreamReset):
                resets.append(event.stream)

    def open_stream(port: int) -> int:
        stream = tunnel.open_stream(now=time.monotonic())
        tunnel.send(stream, Request(Network.TCP, ADDRESS, port).emit(), now=time.monotonic())
        return stream

    kept = open_stream(7)
    stuck = [open_stream(9) for _ in range(STUCK)]
    sent = 0
    while not resets:
        assert time.monotonic() < limit
        for stream in stuck:
            room = tunnel.send_room(stream)
            if room:
                tunnel.send(stream, bytes(room), now=time.monotonic())
        if tunnel.send_room(kept):
            tunnel.send(kept, b"?", now=time.monotonic())
            sent += 1
        turn()
    tunnel.send(kept, b"!", now=time.monotonic())
    while not answers.endswith(b"!"):
        assert time.monotonic() < limit
        turn()
    deaf.close()
    return {"wrong": [stream for stream in resets if stream not in stuck], "reset": len(resets) > 0, "sent": sent > 0}


def test_the_stream_with_most_unwritten_gives_way(tmp_path: Path) -> None:
    """And not whoever sends next."""
    assert run_inside(too_much_unwritten, tmp_path) == {"wrong": [], "reset": True, "sent": True}

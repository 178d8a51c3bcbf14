"""The agent's caps, with small numbers: who has to give way, and who not."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kt_net.tunnel.events import StreamData, StreamOpened, StreamReset
from kt_net.tunnel.hello import Hello
from kt_net.tunnel.mux import Role
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request
from kt_net.tunnel.session import Tunnel
from shadow_image.caps import Caps
from shadow_image.policy import Policy
from shadow_image.server import Agent
from tests.net.namespaces import run_inside

ADDRESS, PORT = "10.198.0.1", 7777
STUCK = 3


def agent(listening: threading.Event, caps: Caps) -> None:
    """One with these caps."""

    async def run() -> None:
        policy = Policy(listen_port=PORT)
        report = {"pod_ips": [], "resolv_conf": ""}
        running = Agent(report=report, policy=policy, idle_exit=60, caps=caps)
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
    threading.Thread(target=agent, args=(listening, Caps(unwritten=300_000)), daemon=True).start()
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


# -- callers

LISTEN_CAPS = Caps(arrived=3, arriving=2, flows=2, flow_idle=0.5, absent_seconds=0.3)


class Listening:
    """An agent of this process with small caps, a client of it, and callers."""

    def __init__(self, port: int, network: Network = Network.LISTEN_TCP) -> None:
        subprocess.run(f"ip addr add {ADDRESS}/24 dev lo".split(), check=True)
        listening = threading.Event()
        threading.Thread(target=agent, args=(listening, LISTEN_CAPS), daemon=True).start()
        listening.wait()
        self.tunnel = Tunnel(role=Role.CLIENT, hello=Hello(session=b"s" * 16))
        self.opened: list[int] = []
        self.ended: list[int] = []
        self.got: dict[int, bytes] = {}
        self.carrier = socket.create_connection(("127.0.0.1", PORT))
        stream = self.tunnel.open_stream(now=time.monotonic())
        self.tunnel.send(stream, Request(network, "::", port).emit(), now=time.monotonic())
        self.wait(lambda: stream in self.got)

    def turn(self) -> None:
        self.carrier.settimeout(10)
        while buffers := self.tunnel.data_to_send(now=time.monotonic()):
            self.carrier.sendall(b"".join(buffers))
        self.carrier.settimeout(0.02)
        try:
            data = self.carrier.recv(1 << 18)
        except TimeoutError:
            data = b""
        else:
            if not data:
                raise ConnectionResetError("the agent has hung up")
        if data:
            self.tunnel.receive_data(data, now=time.monotonic())
        while (event := self.tunnel.next_event()) is not None:
            if isinstance(event, StreamOpened):
                self.opened.append(event.stream)
            elif isinstance(event, StreamReset):
                self.ended.append(event.stream)
            elif isinstance(event, StreamData):
                self.got[event.stream] = self.got.get(event.stream, b"") + bytes(event.data)

    def wait(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < limit, (self.opened, self.ended)
            self.turn()

    def wait_opened(self, count: int) -> None:
        self.wait(lambda: len(self.opened) == count)

    def say(self, stream: int, data: bytes) -> None:
        self.tunnel.send(stream, data, now=time.monotonic())


def end_of(connection: socket.socket) -> str:
    """How it ended, or that it lives."""
    connection.settimeout(0.2)
    try:
        return repr(connection.recv(10))
    except OSError as error:
        return type(error).__name__


def too_many_callers() -> Any:
    client = Listening(8080)
    waiting = [socket.create_connection((ADDRESS, 8080)) for _ in range(2)]
    client.wait_opened(2)
    unanswered = end_of(socket.create_connection((ADDRESS, 8080)))
    for stream in client.opened:
        client.say(stream, Reply(ReplyCode.SUCCEEDED).emit())
    client.turn()
    time.sleep(0.1)
    third = socket.create_connection((ADDRESS, 8080))
    client.wait_opened(3)
    fourth = end_of(socket.create_connection((ADDRESS, 8080)))
    waiting[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    waiting[0].close()
    client.wait(lambda: client.opened[0] in client.ended)
    again = socket.create_connection((ADDRESS, 8080))
    client.wait_opened(4)
    return [unanswered, fourth, end_of(third), end_of(again)]


def test_callers_beyond_the_caps_are_reset(tmp_path: Path) -> None:
    """Two that nobody has answered, three in all; a place that is free again is given."""
    assert run_inside(too_many_callers, tmp_path) == ["ConnectionResetError"] * 2 + ["TimeoutError"] * 2


def too_many_flows() -> Any:
    client = Listening(5353, Network.LISTEN_UDP)
    callers = []
    for number in range(3):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((ADDRESS, 5353))
        sock.send(b"%d" % number)
        callers.append(sock)
        client.wait_opened(number + 1)
    client.wait(lambda: client.opened[0] in client.ended)
    first = list(client.ended) == client.opened[:1]
    client.wait(lambda: set(client.opened) == set(client.ended))  # idle
    callers[1].send(b"again")
    client.wait_opened(4)
    return first


def test_flows_beyond_the_cap_end_the_idlest_and_idle_ones_end(tmp_path: Path) -> None:
    assert run_inside(too_many_flows, tmp_path)


def client_away() -> Any:
    client = Listening(8080)
    client.carrier.close()
    time.sleep(LISTEN_CAPS.absent_seconds + 0.2)
    return end_of(socket.create_connection((ADDRESS, 8080)))


def test_callers_of_a_client_that_is_away_are_reset(tmp_path: Path) -> None:
    assert run_inside(client_away, tmp_path) == "ConnectionResetError"


def no_reply() -> Any:
    client = Listening(8080)
    caller = socket.create_connection((ADDRESS, 8080))
    client.wait_opened(1)
    client.say(client.opened[0], b"\x04 this is no reply")
    try:
        client.wait(lambda: False)
    except ConnectionResetError:
        pass
    with socket.create_connection(("127.0.0.1", PORT)) as other:
        return [end_of(caller), other.recv(4).decode()]


def test_what_is_no_reply_ends_its_session_only(tmp_path: Path) -> None:
    assert run_inside(no_reply, tmp_path) == ["ConnectionResetError", "KTNT"]

"""The agent over real sockets: in a network namespace with an address that is not loopback's, as a pod has."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.events import Forgotten, HelloReceived, StreamData, StreamFinished, StreamReset
from kt_net.tunnel.hello import Hello
from kt_net.tunnel.limits import INITIAL_WINDOW
from kt_net.tunnel.mux import Role
from kt_net.tunnel.requests import Network, Reply, Request, parse_reply
from kt_net.tunnel.session import Tunnel
from shadow_image.bundle import build_zipapp
from tests.net.namespaces import run_inside

ADDRESS, ADDRESS6, PORT = "10.198.0.1", "fd98::1", 7777


class Client:
    """A tunnel over a plain connection to an agent that runs from its bundle."""

    def __init__(self, folder: Path, idle: float = 30, flags: tuple[str, ...] = ()) -> None:
        bundle = folder / "agent.pyz"
        bundle.write_bytes(build_zipapp())
        for command in (
            f"ip addr add {ADDRESS}/24 dev lo",
            f"ip -6 addr add {ADDRESS6}/64 dev lo nodad",
            "sysctl -qw net.ipv4.ping_group_range=0\t2147483647",
        ):
            subprocess.run(command.split(" ", 2) if command.startswith("sysctl") else command.split(), check=True)
        program = [sys.executable, "-I", str(bundle), "--port", str(PORT), "--idle-exit", str(idle), *flags]
        self.process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
        self.tunnel = Tunnel(role=Role.CLIENT, hello=Hello(session=os.urandom(16)))
        self.socket = self._connect()
        self.events: list[Any] = []

    @staticmethod
    def _connect() -> socket.socket:
        for _ in range(100):
            try:
                return socket.create_connection(("127.0.0.1", PORT), timeout=10)
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise AssertionError("the agent does not listen")

    def turn(self, seconds: float = 0.05) -> None:
        now = time.monotonic()
        data = b"".join(self.tunnel.data_to_send(now=now))
        if data:
            self.socket.sendall(data)
        if select.select([self.socket], [], [], seconds)[0]:
            received = self.socket.recv(1 << 18)
            assert received, "the agent has hung up"
            self.tunnel.receive_data(received, now=time.monotonic())
        while (event := self.tunnel.next_event()) is not None:
            self.events.append(event)

    def open(self, request: Request, payload: bytes = b"") -> int:
        stream = self.tunnel.open_stream(now=time.monotonic())
        self.tunnel.send(stream, request.emit() + payload, now=time.monotonic())
        return stream

    def data(self, stream: int) -> bytes:
        return b"".join(
            bytes(event.data) for event in self.events if isinstance(event, StreamData) and event.stream == stream
        )

    def wait(self, condition: Any, seconds: float = 15) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < limit, self.events
            self.turn()

    def reply(self, stream: int) -> tuple[Reply, bytes]:
        self.wait(lambda: parse_reply(self.data(stream)) is not None)
        parsed = parse_reply(self.data(stream))
        assert parsed is not None
        return parsed[0], self.data(stream)[parsed[1] :]

    def cut(self) -> None:
        """The carrier breaks; another one goes on."""
        self.lose()
        self.come_again()

    def lose(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.tunnel.carrier_lost()

    def come_again(self) -> None:
        self.socket = self._connect()
        self.tunnel.go_on()

    def end(self) -> int:
        self.socket.close()
        self.process.terminate()
        return self.process.wait(10)


def listener(handle: Any, *, host: str = ADDRESS, port: int = 8000) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, port), family=family)

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()


def tcp(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    listener(echo)
    listener(echo, host=ADDRESS6, port=8001)
    sent = os.urandom(1 << 20)
    found: dict[str, Any] = {}
    for host, port in ((ADDRESS, 8000), (ADDRESS6, 8001)):
        stream = client.open(Request(Network.TCP, host, port))
        code = client.reply(stream)[0].code.name
        at, consumed = 0, 0

        def pushed(stream: int = stream) -> bool:
            nonlocal at, consumed
            room = min(client.tunnel.send_room(stream), len(sent) - at)
            if room:
                client.tunnel.send(stream, sent[at : at + room], now=time.monotonic())
                at += room
                if at == len(sent):
                    client.tunnel.finish(stream, now=time.monotonic())
            got = len(client.data(stream))
            if got > consumed and not any(event == StreamFinished(stream) for event in client.events):
                client.tunnel.consume(stream, got - consumed, now=time.monotonic())
                consumed = got
            return StreamFinished(stream) in client.events

        client.wait(pushed, 30)
        found[host] = [code, client.reply(stream)[1] == sent]
    found["exit"] = client.end()
    return found


def test_tcp_with_half_close(tmp_path: Path) -> None:
    assert run_inside(tcp, tmp_path, str(tmp_path)) == {
        ADDRESS: ["SUCCEEDED", True],
        ADDRESS6: ["SUCCEEDED", True],
        "exit": 0,
    }


def codes(folder: str) -> list[str]:
    client = Client(Path(folder))
    requests = [
        Request(Network.TCP, ADDRESS, 9),
        Request(Network.TCP, "127.0.0.1", PORT),
        Request(Network.TCP, ADDRESS, PORT),
        Request(Network.TCP, "169.254.169.254", 80),
        Request(Network.TCP, "192.0.2.1", 80),
        Request(Network.TCP, "no.such.name.invalid", 80),
        Request(Network.TCP, "localhost", 80),
        Request(Network.UDP, "127.0.0.1", 53),
    ]
    found = [client.reply(client.open(request))[0].code.name for request in requests]
    client.end()
    return found


def test_honest_codes(tmp_path: Path) -> None:
    assert run_inside(codes, tmp_path, str(tmp_path)) == [
        "CONNECTION_REFUSED",
        "NOT_ALLOWED",
        "NOT_ALLOWED",
        "NOT_ALLOWED",
        "NETWORK_UNREACHABLE",
        "HOST_UNREACHABLE",
        "NOT_ALLOWED",
        "NOT_ALLOWED",
    ]


def resets(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    seen: list[str] = []

    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def watch(connection: socket.socket) -> None:
        try:
            connection.recv(10)
            connection.recv(10)
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    listener(reset)
    listener(watch, port=8002)
    first = client.open(Request(Network.TCP, ADDRESS, 8000), b"x")
    client.wait(lambda: StreamReset(first) in client.events)
    second = client.open(Request(Network.TCP, ADDRESS, 8002), b"x")
    client.reply(second)
    client.turn(0.2)
    client.tunnel.reset(second, now=time.monotonic())
    client.wait(lambda: bool(seen))
    client.end()
    return {"seen": seen}


def test_resets_pass_both_ways(tmp_path: Path) -> None:
    assert run_inside(resets, tmp_path, str(tmp_path)) == {"seen": ["reset"]}


def opened_and_reset_at_once(folder: str) -> dict[str, bool]:
    client = Client(Path(folder))
    listener(echo)
    kept = client.open(Request(Network.TCP, ADDRESS, 8000), b"one")
    client.wait(lambda: client.data(kept).endswith(b"one"))
    pieces: list[bytes | memoryview] = []
    for _ in range(20):  # in one piece: the agent's mux knows of the reset before anybody has looked at the request
        stream = client.open(Request(Network.TCP, ADDRESS, 8000), b"x")
        pieces += client.tunnel.data_to_send(now=time.monotonic())
        client.tunnel.reset(stream, now=time.monotonic())
        pieces += client.tunnel.data_to_send(now=time.monotonic())
    client.socket.sendall(b"".join(pieces))
    client.tunnel.send(kept, b"two", now=time.monotonic())
    client.wait(lambda: client.data(kept).endswith(b"two"))
    stream = client.open(Request(Network.TCP, ADDRESS, 8000), b"three")
    client.wait(lambda: client.data(stream).endswith(b"three"))
    client.end()
    return {"works": True}


def test_streams_that_are_reset_before_they_are_looked_at(tmp_path: Path) -> None:
    assert run_inside(opened_and_reset_at_once, tmp_path, str(tmp_path)) == {"works": True}


STALLED = 60


def stalled(folder: str) -> dict[str, bool]:
    """Streams that the client gives no credit, with far more waiting in the pod than they have room for."""
    client = Client(Path(folder))

    def flood(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(bytes(1 << 20))

    listener(flood, port=8002)
    listener(echo)
    kept = client.open(Request(Network.TCP, ADDRESS, 8000), b"one")
    client.wait(lambda: client.data(kept).endswith(b"one"))
    streams = [client.open(Request(Network.TCP, ADDRESS, 8002)) for _ in range(STALLED)]
    client.wait(lambda: all(len(client.data(stream)) > INITIAL_WINDOW // 2 for stream in streams), 30)
    for number in range(3):
        word = b"%d!" % number
        client.tunnel.send(kept, word, now=time.monotonic())
        client.wait(lambda word=word: client.data(kept).endswith(word), 2)
    for stream in streams:
        client.tunnel.reset(stream, now=time.monotonic())
    client.tunnel.send(kept, b"last", now=time.monotonic())
    client.wait(lambda: client.data(kept).endswith(b"last"), 2)
    client.end()
    return {"works": True}


def test_streams_without_credit_hold_up_nobody_else(tmp_path: Path) -> None:
    assert run_inside(stalled, tmp_path, str(tmp_path)) == {"works": True}


def datagrams(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((ADDRESS, 8000))

    def serve() -> None:
        while True:
            data, sender = server.recvfrom(65536)
            server.sendto(data.upper(), sender)

    threading.Thread(target=serve, daemon=True).start()
    found: dict[str, Any] = {}
    udp = client.open(Request(Network.UDP, ADDRESS, 8000), frame_datagram(b"hello"))
    client.wait(lambda: len(client.reply(udp)[1]) >= 7)
    found["udp"] = DatagramParser().receive(client.reply(udp)[1])[0].decode()
    closed = client.open(Request(Network.UDP, ADDRESS, 9), frame_datagram(b"hello"))
    client.wait(lambda: StreamReset(closed) in client.events)
    for host in (ADDRESS, ADDRESS6):
        ping = client.open(Request(Network.ECHO, host, 77), frame_datagram(b"\x00\x05data"))
        client.wait(lambda ping=ping: len(client.reply(ping)[1]) >= 8)
        found[host] = DatagramParser().receive(client.reply(ping)[1])[0].hex()
    client.end()
    return found


def test_udp_and_echo(tmp_path: Path) -> None:
    echoed = b"\x00\x05data".hex()
    assert run_inside(datagrams, tmp_path, str(tmp_path)) == {"udp": "HELLO", ADDRESS: echoed, ADDRESS6: echoed}


def idle(folder: str) -> list[int]:
    client = Client(Path(folder), idle=1)
    client.turn(0.3)
    started = time.monotonic()
    while time.monotonic() - started < 2:
        client.turn()
    alive = client.process.poll() is None
    client.socket.close()
    return [int(alive), client.process.wait(10)]


def test_ends_only_when_no_client_is_there(tmp_path: Path) -> None:
    assert run_inside(idle, tmp_path, str(tmp_path)) == [1, 0]


def reader_that_never_reads(folder: str) -> dict[str, Any]:
    """A pod that takes nothing must not hold up the carrier: another stream goes on."""
    client = Client(Path(folder))
    listener(lambda connection: time.sleep(60), port=8003)
    listener(echo)
    stuck = client.open(Request(Network.TCP, ADDRESS, 8003))
    client.reply(stuck)
    limit = time.monotonic() + 10
    while client.tunnel.send_room(stuck) and time.monotonic() < limit:
        client.tunnel.send(stuck, bytes(min(65536, client.tunnel.send_room(stuck))), now=time.monotonic())
        client.turn()
    for _ in range(100):
        client.turn(0.02)
        if room := client.tunnel.send_room(stuck):
            client.tunnel.send(stuck, bytes(min(65536, room)), now=time.monotonic())
    live = client.open(Request(Network.TCP, ADDRESS, 8000), b"alive")
    client.wait(lambda: client.reply(live)[1] == b"alive")
    client.end()
    return {"room": client.tunnel.send_room(stuck)}


def test_a_reader_that_never_reads_holds_up_nobody_else(tmp_path: Path) -> None:
    assert run_inside(reader_that_never_reads, tmp_path, str(tmp_path)) == {"room": 0}


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"KTNT\x09" + bytes(40), os.urandom(64)])
def test_nonsense_ends_its_session_only(tmp_path: Path, data: bytes) -> None:
    assert run_inside(nonsense, tmp_path, str(tmp_path), data.hex()) == ["closed", "SUCCEEDED"]


def nonsense(folder: str, data: str) -> list[str]:
    client = Client(Path(folder))
    listener(echo)
    with socket.create_connection(("127.0.0.1", PORT), timeout=10) as other:
        other.sendall(bytes.fromhex(data))
        try:
            while other.recv(65536):
                pass
            closed = "closed"
        except ConnectionResetError:
            closed = "closed"
        except TimeoutError:
            closed = "open"
    code = client.reply(client.open(Request(Network.TCP, ADDRESS, 8000)))[0].code.name
    client.end()
    return [closed, code]


def goes_on(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    listener(echo)
    stream = client.open(Request(Network.TCP, ADDRESS, 8000))
    client.reply(stream)
    sent = os.urandom(3 << 20)
    client.tunnel.send(stream, sent, now=time.monotonic())
    after_reply = len(client.data(stream))
    cuts = 0
    taken = 0

    def whole() -> bool:
        nonlocal cuts, taken
        got = len(client.data(stream)) - after_reply
        client.tunnel.consume(stream, got - taken, now=time.monotonic())
        taken = got
        if cuts < 6 and got > cuts * 400_000:
            cuts += 1
            client.cut()
        return got >= len(sent)

    client.wait(whole, 60)
    equal = client.data(stream)[after_reply:] == sent
    client.tunnel.finish(stream, now=time.monotonic())
    client.wait(lambda: StreamFinished(stream) in client.events)
    return {"equal": equal, "cuts": cuts, "code": client.end()}


def test_a_session_goes_on_over_other_carriers(tmp_path: Path) -> None:
    assert run_inside(goes_on, tmp_path, str(tmp_path)) == {"equal": True, "cuts": 6, "code": 0}


def forgets(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    client.wait(lambda: any(isinstance(event, HelloReceived) for event in client.events))
    client.process.terminate()
    client.process.wait(10)
    client.process = subprocess.Popen(client.process.args, stderr=subprocess.DEVNULL)
    client.cut()
    client.wait(lambda: Forgotten() in client.events)
    return {"code": client.end()}


def test_an_agent_that_began_anew_says_so(tmp_path: Path) -> None:
    assert run_inside(forgets, tmp_path, str(tmp_path)) == {"code": 0}


def lies(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    listener(echo)
    client.reply(client.open(Request(Network.TCP, ADDRESS, 8000)))
    client.tunnel._lane.octets_received += 1_000_000
    client.cut()
    said = ""
    try:
        client.wait(lambda: False, 10)
    except (AssertionError, ConnectionResetError) as error:
        said = "hung up" if "hung up" in str(error) or isinstance(error, ConnectionResetError) else str(error)
    return {"said": said, "alive": client.process.poll() is None, "code": client.end()}


def test_an_offset_that_cannot_be_ends_the_session_and_not_the_agent(tmp_path: Path) -> None:
    assert run_inside(lies, tmp_path, str(tmp_path)) == {"said": "hung up", "alive": True, "code": 0}

"""Ports on which the agent listens for a client: callers become streams, over real sockets."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.events import HelloReceived, StreamFinished, StreamOpened, StreamReset
from kt_net.tunnel.requests import Arrival, Network, Reply, ReplyCode, Request, parse_arrival
from shadow_image.caps import Caps
from tests.net.agent.test_agent import ADDRESS, ADDRESS6, PORT, Client
from tests.net.namespaces import run_inside

ANY = "::"


def listening(client: Client, port: int, network: Network = Network.LISTEN_TCP) -> int:
    """The stream of a listener that is there."""
    stream = client.open(Request(network, ANY, port))
    assert client.reply(stream)[0].code is ReplyCode.SUCCEEDED
    return stream


def opened(client: Client) -> list[int]:
    return [event.stream for event in client.events if isinstance(event, StreamOpened)]


def arrival(client: Client, number: int = 0) -> tuple[int, Arrival]:
    """A stream that the agent has opened, and who comes."""
    client.wait(lambda: len(opened(client)) > number)
    stream = opened(client)[number]
    client.wait(lambda: parse_arrival(client.data(stream)) is not None)
    parsed = parse_arrival(client.data(stream))
    assert parsed is not None
    return stream, parsed[0]


def behind(client: Client, stream: int) -> bytes:
    """Payload of the caller."""
    data = client.data(stream)
    parsed = parse_arrival(data)
    return b"" if parsed is None else data[parsed[1] :]


def say(client: Client, stream: int, data: bytes) -> None:
    client.tunnel.send(stream, data, now=time.monotonic())


def answer(client: Client, stream: int, code: ReplyCode = ReplyCode.SUCCEEDED) -> None:
    say(client, stream, Reply(code).emit())


class Caller:
    """Somebody in the cluster: connects, sends, half-closes, reads to the end; on a thread."""

    def __init__(self, host: str, port: int, send: bytes = b"") -> None:
        self.got, self.end, self.address = b"", "", ("", 0)
        self._where, self._send = (host, port), send
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with socket.create_connection(self._where, timeout=30) as connection:
                self.address = connection.getsockname()[:2]
                connection.sendall(self._send)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    self.got += piece
                self.end = "end"
        except OSError as error:
            self.end = type(error).__name__

    def done(self) -> bool:
        return bool(self.end)


def both_families(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    listening(client, 8080)
    found: dict[str, Any] = {}
    for number, host in enumerate((ADDRESS, ADDRESS6)):
        caller = Caller(host, 8080, b"question")
        stream, who = arrival(client, number)
        client.wait(lambda stream=stream: StreamFinished(stream) in client.events)  # before it is answered
        answer(client, stream)
        say(client, stream, b"answer")
        client.tunnel.finish(stream, now=time.monotonic())
        client.wait(caller.done)
        found[host] = [
            who.network.name,
            str(who.address),
            who.port,
            (str(who.caller), who.caller_port) == caller.address,
            behind(client, stream).decode(),
            caller.got.decode(),
            caller.end,
        ]
    found["listens"] = next(e for e in client.events if isinstance(e, HelloReceived)).hello.report["listen"]
    client.end()
    return found


def test_callers_of_both_families_half_close_both_ways(tmp_path: Path) -> None:
    assert run_inside(both_families, tmp_path, str(tmp_path)) == {
        ADDRESS: ["TCP", ADDRESS, 8080, True, "question", "answer", "end"],
        ADDRESS6: ["TCP", ADDRESS6, 8080, True, "question", "answer", "end"],
        "listens": ["tcp", "udp"],
    }


def turned_away(folder: str) -> list[str]:
    client = Client(Path(folder))
    listening(client, 8080)
    found = []
    for number, refuse in enumerate((True, False, False)):
        caller = Caller(ADDRESS, 8080, b"x")
        stream, _ = arrival(client, number)
        if refuse:
            answer(client, stream, ReplyCode.CONNECTION_REFUSED)
        elif number == 1:
            answer(client, stream)
            client.turn()
            client.tunnel.reset(stream, now=time.monotonic())
        if number == 2:
            client.tunnel.finish(stream, now=time.monotonic())
        client.wait(caller.done)
        found.append(caller.end)
    client.end()
    return found


def test_who_is_not_taken_is_reset(tmp_path: Path) -> None:
    """Refused; reset while open; and a client that ends a stream without an answer."""
    assert run_inside(turned_away, tmp_path, str(tmp_path)) == ["ConnectionResetError"] * 3


def caller_resets(folder: str) -> bool:
    client = Client(Path(folder))
    listening(client, 8080)
    connection = socket.create_connection((ADDRESS, 8080))
    stream, _ = arrival(client)
    answer(client, stream)
    client.turn()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    client.wait(lambda: StreamReset(stream) in client.events)
    client.end()
    return True


def test_callers_reset_arrives(tmp_path: Path) -> None:
    assert run_inside(caller_resets, tmp_path, str(tmp_path))


def unanswered(folder: str) -> dict[str, Any]:
    """A caller who sends much before anybody answers, over a carrier that is cut three times."""
    client = Client(Path(folder))
    listening(client, 8080)
    sent = os.urandom(3 << 20)
    caller = Caller(ADDRESS, 8080, sent)
    stream, _ = arrival(client)
    client.turn(0.3)
    waiting = len(behind(client, stream))
    answer(client, stream)
    cuts = taken = 0

    def whole() -> bool:
        nonlocal cuts, taken
        got = len(client.data(stream))
        if StreamFinished(stream) not in client.events:
            client.tunnel.consume(stream, got - taken, now=time.monotonic())
            taken = got
        if cuts < 3 and got > (cuts + 1) * 500_000:
            cuts += 1
            client.cut()
        return StreamFinished(stream) in client.events

    client.wait(whole, 60)
    client.tunnel.finish(stream, now=time.monotonic())
    client.wait(caller.done)
    equal = behind(client, stream) == sent
    client.end()
    return {"waiting": waiting <= 256 * 1024, "equal": equal, "cuts": cuts, "end": caller.end}


def test_caller_waits_by_credit_and_survives_carriers(tmp_path: Path) -> None:
    assert run_inside(unanswered, tmp_path, str(tmp_path)) == {"waiting": True, "equal": True, "cuts": 3, "end": "end"}


def codes(folder: str) -> list[str]:
    client = Client(Path(folder))
    listening(client, 8080)
    taken = client.open(Request(Network.LISTEN_TCP, ANY, 8080))
    own = client.open(Request(Network.LISTEN_TCP, ANY, PORT))
    udp = client.open(Request(Network.LISTEN_UDP, ANY, 8080))
    found = [client.reply(stream)[0].code.name for stream in (taken, own, udp)]
    numbers = [client.open(Request(Network.LISTEN_TCP, ANY, 9000 + number)) for number in range(Caps().listeners)]
    found += sorted({client.reply(stream)[0].code.name for stream in numbers})
    found.append(str(sum(client.reply(stream)[0].code is ReplyCode.SUCCEEDED for stream in numbers)))
    client.end()
    return found


def test_ports_that_cannot_be_had_and_no_more_than_so_many(tmp_path: Path) -> None:
    assert run_inside(codes, tmp_path, str(tmp_path)) == [
        "CONNECTION_REFUSED",
        "CONNECTION_REFUSED",
        "SUCCEEDED",
        "GENERAL_FAILURE",
        "SUCCEEDED",
        str(Caps().listeners - 2),
    ]


def ended(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    listener = listening(client, 8080)
    caller = Caller(ADDRESS, 8080, b"x")
    stream, _ = arrival(client)
    answer(client, stream)
    client.turn()
    client.tunnel.finish(listener, now=time.monotonic())
    client.wait(lambda: StreamFinished(listener) in client.events)
    late = Caller(ADDRESS, 8080)
    client.wait(late.done)
    say(client, stream, b"still there")
    client.tunnel.finish(stream, now=time.monotonic())
    client.wait(caller.done)
    again = client.open(Request(Network.LISTEN_TCP, ANY, 8080))
    code = client.reply(again)[0].code.name
    client.end()
    return {"late": late.end, "got": caller.got.decode(), "again": code}


def test_who_is_there_stays_when_the_listener_ends(tmp_path: Path) -> None:
    """And the port can be listened on at once, although connections of it are still there."""
    assert run_inside(ended, tmp_path, str(tmp_path)) == {
        "late": "ConnectionRefusedError",
        "got": "still there",
        "again": "SUCCEEDED",
    }


def datagrams(folder: str) -> dict[str, Any]:
    client = Client(Path(folder))
    listening(client, 5353, Network.LISTEN_UDP)
    found: dict[str, Any] = {}
    callers = []
    for number, host in enumerate((ADDRESS, ADDRESS, ADDRESS6)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.connect((host, 5353))
        sock.settimeout(5)
        callers.append(sock)
        for word in (b"one", b"", b"three" * 1000):
            sock.send(word)
        stream, who = arrival(client, number)
        client.wait(lambda stream=stream: len(DatagramParser().receive(behind(client, stream))) == 3)
        got = DatagramParser().receive(behind(client, stream))
        answer(client, stream)
        for word in got:
            say(client, stream, frame_datagram(word[::-1]))
        client.turn()
        back = [sock.recv(65535) for _ in got]
        found[str(number)] = [
            who.network.name,
            (str(who.caller), who.caller_port) == sock.getsockname()[:2],
            back == [b"eno", b"", b"eerht" * 1000],
        ]
    stream = opened(client)[0]
    answer_again = len(opened(client))
    client.tunnel.reset(
        stream, now=time.monotonic()
    )  # nothing listens here: a flow ends, the next datagram begins another
    client.turn()
    callers[0].send(b"again")
    _, who = arrival(client, answer_again)
    found["again"] = who.caller_port == callers[0].getsockname()[1]
    client.end()
    return found


def test_datagrams_are_flows_by_caller(tmp_path: Path) -> None:
    assert run_inside(datagrams, tmp_path, str(tmp_path)) == {
        **{str(number): ["UDP", True, True] for number in range(3)},
        "again": True,
    }

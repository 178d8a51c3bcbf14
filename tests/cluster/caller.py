"""Runs in a pod: what somebody in the cluster does with a Service. Standard library only; given on standard input to python3.

A program: `- KIND HOST PORT [NUMBER]`; prints one JSON value.

Not here: tests.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import time
import urllib.request

SECONDS = 60.0
BLOCK = 1 << 16
#: In the samples' image.
LIBRARIES = "/samples/libraries.zip"


def http(host: str, port: int, number: int) -> object:
    """The answer's body."""
    name = f"[{host}]" if ":" in host else host
    with urllib.request.urlopen(f"http://{name}:{port}/", timeout=5) as answer:
        return answer.read().decode()


def changed(host: str, port: int, number: int) -> object:
    """When an HTTP server's answer was another than at first, as time.monotonic() of the whole machine has it."""
    first = http(host, port, number)
    while True:
        try:
            if http(host, port, number) != first:
                return time.monotonic()
        except OSError:
            pass
        time.sleep(0.05)


def echo(host: str, port: int, number: int) -> object:
    """`number` octets there and back, half-closed: whether the digests are equal."""
    sent, got = hashlib.sha256(), hashlib.sha256()
    with socket.create_connection((host, port), timeout=SECONDS) as connection:

        def send() -> None:
            for turn in range(number // BLOCK):
                block = hashlib.sha256(b"%d" % turn).digest() * (BLOCK // 32)
                sent.update(block)
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        octets = 0
        while piece := connection.recv(1 << 18):
            got.update(piece)
            octets += len(piece)
        sender.join()
    return [octets, sent.hexdigest() == got.hexdigest()]


def crowd(host: str, port: int, number: int) -> object:
    """`number` connections that are all there before the first one is used; how many were answered."""
    everybody = threading.Barrier(number)
    answered: list[bool] = []

    def one(mine: int) -> None:
        word = b"%d " % mine * 100
        with socket.create_connection((host, port), timeout=SECONDS) as connection:
            everybody.wait(SECONDS)
            connection.sendall(word)
            connection.shutdown(socket.SHUT_WR)
            got = b""
            while piece := connection.recv(10_000):
                got += piece
            answered.append(got == word)

    threads = [threading.Thread(target=one, args=(mine,)) for mine in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [len(answered), all(answered)]


def grpc(host: str, port: int, number: int) -> object:
    """`number` calls at once on one connection, each of three messages, one after the other: who answered, and how the calls ended."""
    sys.path.insert(0, LIBRARIES)
    import h2.config
    import h2.connection
    import h2.events

    messages = 3
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    got: dict[int, bytes] = {}
    said: dict[int, int] = {}
    statuses: list[str] = []
    answers: set[str] = set()

    def say(stream: int) -> None:
        word = b"%d of %d" % (said[stream], stream)
        client.send_data(stream, b"\0" + len(word).to_bytes(4, "big") + word, end_stream=said[stream] == messages)

    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        for stream in range(1, 2 * number, 2):
            headers = [(":method", "POST"), (":scheme", "http"), (":path", "/lab.Words/Say"), (":authority", host)]
            client.send_headers(stream, [*headers, ("te", "trailers"), ("content-type", "application/grpc")])
            got[stream], said[stream] = b"", 1
            say(stream)
        while len(statuses) < number:
            connection.sendall(client.data_to_send())
            data = connection.recv(65536)
            if not data:
                break
            for event in client.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    stream = event.stream_id
                    got[stream] += event.data
                    while len(got[stream]) >= 5:
                        end = 5 + int.from_bytes(got[stream][1:5], "big")
                        if len(got[stream]) < end:
                            break
                        who, _, word = got[stream][5:end].decode().rpartition(": ")
                        got[stream] = got[stream][end:]
                        answers.add(who if word == f"{said[stream]} of {stream}" else f"{who} said {word}")
                        said[stream] += 1
                        if said[stream] <= messages:
                            say(stream)
                elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    statuses += [str(value) for name, value in event.headers if str(name) == "grpc-status"]
    return [sorted(answers), len(statuses), sorted(set(statuses))]


def chat(host: str, port: int, number: int) -> object:
    """Texts and octets (`number` of them) there and back on one WebSocket: who answered, whether all was right, how it was closed."""
    sys.path.insert(0, LIBRARIES)
    from websockets.sync.client import connect

    answers: set[str] = set()
    block = hashlib.sha256(b"block").digest() * (number // 32)
    with connect(f"ws://{host}:{port}/", open_timeout=SECONDS, proxy=None) as connection:
        for turn in range(10):
            connection.send(f"word {turn}")
            who, _, word = str(connection.recv(SECONDS)).rpartition(": ")
            answers.add(who if word == f"word {turn}" else f"{who} said {word}")
        connection.send(block)
        right = connection.recv(SECONDS) == block
        right = connection.ping().wait(SECONDS) and right
    return [sorted(answers), right, connection.close_code]


def udp(host: str, port: int, number: int) -> object:
    """Datagrams of several lengths, each answered by itself; once any is: what comes too early is lost, and nobody says so."""
    info = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    found = []
    with socket.socket(info[0], socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        sock.connect(info[4])
        for _ in range(100):
            try:
                sock.send(b"?")
                sock.recv(10)
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                time.sleep(0.2)
                continue
            break
        sock.settimeout(5)
        for length in (1, 100, 1200):
            sock.send(b"d" * length)
            while (answer := sock.recv(65535)) == b"?":
                pass  # of an earlier one
            found.append(len(answer))
    return found


def ends(host: str, port: int, number: int) -> object:
    """How each of `number` connections ends."""
    found = []
    for _ in range(number):
        try:
            with socket.create_connection((host, port), timeout=5) as connection:
                connection.settimeout(5)
                found.append(repr(connection.recv(10)))
        except OSError as error:
            found.append(type(error).__name__)
    return found


def half(host: str, port: int, number: int) -> object:
    """One request; how many octets come to the end."""
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        connection.sendall(b"?")
        octets = 0
        while piece := connection.recv(10_000):
            octets += len(piece)
    return octets


def leads(host: str, port: int, number: int) -> object:
    """Whether anybody accepts there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def names(host: str, port: int, number: int) -> object:
    """The addresses of a name, by family."""
    return sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})


if __name__ == "__main__":
    kind, where, service_port, *rest = sys.argv[1:]
    print(json.dumps(globals()[kind](where, int(service_port), int(*rest or ["0"]))))

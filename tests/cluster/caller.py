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

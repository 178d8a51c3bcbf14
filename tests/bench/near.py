"""Runs where users' programs run: measures one thing against far.py. A program: `near.py WHAT JSON`, arguments by name; prints JSON.

Not here: what is measured when (tunnel.py).
"""

from __future__ import annotations

import json
import random
import resource
import selectors
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from dnslib import DNSRecord

Result = dict[str, Any]

#: Nothing at all for so long: it will not come.
SILENCE_SECONDS = 30


def dial(host: str, port: int) -> socket.socket:
    """A connection without delays of its own."""
    connection = socket.create_connection((host, port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(None)  # with one, Python polls before each call
    return connection


def get(connection: socket.socket, octets: int) -> None:
    """Receive so many."""
    connection.sendall(b"GET %d\n" % octets)
    room = bytearray(1 << 20)
    while octets:
        taken = connection.recv_into(room, min(octets, len(room)))
        if not taken:
            raise ConnectionError("the transfer ended early")
        octets -= taken


def put(connection: socket.socket, octets: int) -> None:
    """Send so many, and see them arrive."""
    connection.sendall(b"PUT %d\n" % octets)
    block = memoryview(bytes(1 << 20))
    while octets:
        octets -= connection.send(block[: min(octets, len(block))])
    if connection.recv(1) != b"!":
        raise ConnectionError("the transfer ended early")


WAYS: dict[str, Callable[[socket.socket, int], None]] = {"down": get, "up": put}


def bulk(host: str, port: int, way: str, flows: int, octets: int) -> Result:
    """MB/s of `flows` transfers at once, `octets` together, from the first request to the last octet."""
    connections = [dial(host, port) for _ in range(flows)]
    threads = [threading.Thread(target=WAYS[way], args=(one, octets // flows)) for one in connections]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    for connection in connections:
        connection.close()
    return {"mb_s": octets / seconds / 1e6}


def exchanges(connection: socket.socket, enough: Callable[[int], bool]) -> Result:
    """Milliseconds of exchanges of 64 octets, one after the other."""
    taken: list[float] = []
    message = bytes(64)
    while not enough(len(taken)):
        started = time.perf_counter()
        connection.sendall(message)
        left = len(message)
        while left:
            left -= len(connection.recv(left)) or left
        taken.append((time.perf_counter() - started) * 1000)
    return percentiles(taken)


def percentiles(taken: list[float]) -> Result:
    """p50 and p99."""
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "max": max(taken), "count": len(taken)}


def rtt(host: str, port: int, count: int) -> Result:
    """Of a connection that is alone."""
    with dial(host, port) as connection:
        return exchanges(connection, lambda done: done == count)


def rtt_under_bulk(host: str, port: int, bulk_port: int, way: str, octets: int) -> Result:
    """While one transfer runs; `bulk_port` and `port` may be ports of one host."""
    with dial(host, port) as connection, dial(host, bulk_port) as moving:
        thread = threading.Thread(target=WAYS[way], args=(moving, octets))
        thread.start()
        time.sleep(0.3)
        found = exchanges(connection, lambda done: not thread.is_alive() and done > 1)
        thread.join()
    return found


def connects(host: str, port: int, count: int, at_once: int) -> Result:
    """Connections a second: opened, one octet there and back, closed; `at_once` at a time. A connect alone would prove nothing: a local
    listener takes it whatever the far side does."""
    selector = selectors.DefaultSelector()
    opened = done = failed = 0

    def begin() -> None:
        nonlocal opened
        opened += 1
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.connect_ex((host, port))
        selector.register(connection, selectors.EVENT_WRITE)

    started = time.monotonic()
    for _ in range(at_once):
        begin()
    while done < count:
        ready = selector.select(SILENCE_SECONDS)
        if not ready:
            # Whoever forwards has lost them: kubectl does after some thousand connections.
            return {"per_s": done / (time.monotonic() - started), "failed": failed + count - done}
        for key, mask in ready:
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                if mask & selectors.EVENT_WRITE:
                    connection.send(b"x")
                    selector.modify(connection, selectors.EVENT_READ)
                    continue
                failed += connection.recv(1) != b"x"
            except OSError:
                failed += 1
            selector.unregister(connection)
            connection.close()
            done += 1
            if opened < count:
                begin()
    return {"per_s": count / (time.monotonic() - started), "failed": failed}


def idle(host: str, port: int, count: int) -> Result:
    """Hold so many connections, each used once; the parent says when it has looked."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 1000, count + 1000))
    held: list[socket.socket] = []
    for _ in range(count):
        connection = dial(host, port)
        connection.sendall(b"x")
        held.append(connection)
    answered = sum(connection.recv(1) == b"x" for connection in held)
    print(json.dumps({"held": answered}), flush=True)
    sys.stdin.readline()
    for connection in held:
        connection.close()
    return {"held": answered}


def names(server: str, name: str, count: int, fresh: bool) -> Result:
    """Milliseconds of an answer over UDP; `fresh`: to a question that nobody has asked before (other letters are another question)."""
    taken: list[float] = []
    chance = random.Random(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((server, 53))
        for _ in range(count):
            letters = [chance.choice((letter, letter.upper())) if fresh else letter for letter in name]
            query = DNSRecord.question("".join(letters)).pack()
            started = time.perf_counter()
            sock.send(query)
            answer = DNSRecord.parse(sock.recv(4096))
            taken.append((time.perf_counter() - started) * 1000)
            assert answer.rr, "no answer"
    return percentiles(taken)


def answers(server: str, name: str, count: int, at_once: int) -> Result:
    """Answers a second to one question, `at_once` on their way."""
    query = DNSRecord.question(name).pack()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SILENCE_SECONDS)
        sock.connect((server, 53))
        sock.send(query)
        sock.recv(4096)  # now it is kept
        started = time.monotonic()
        for _ in range(at_once):
            sock.send(query)
        for number in range(count):
            sock.recv(4096)
            if number + at_once < count:
                sock.send(query)
        return {"per_s": count / (time.monotonic() - started)}


def first_answer(host: str, port: int) -> Result:
    """When an exchange has worked, by the machine's monotonic clock."""
    with dial(host, port) as connection:
        connection.sendall(b"x")
        connection.recv(1)
    return {"at": time.monotonic()}


MEASURES: dict[str, Callable[..., Result]] = {
    function.__name__: function
    for function in (bulk, rtt, rtt_under_bulk, connects, idle, names, answers, first_answer)
}


if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]](**json.loads(sys.argv[2]))))

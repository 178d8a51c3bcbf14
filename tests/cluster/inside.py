"""Runs where the programs under test run (in the laptop's namespaces): probes as a user's programs would do them.

A program: `inside.py JSON`, a list of probes; prints a list of {"title", "ok", "detail", "seconds"}. Standard library only.

Not here: which probes there are (probes.py).
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request

SECONDS = 5.0


def http(target: str, port: int) -> str:
    """The first line of an answer over HTTP."""
    host = f"[{target}]" if ":" in target else target
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{host}:{port}/", timeout=SECONDS) as answer:
        return str(answer.read().decode().splitlines()[0])


def redis(target: str, port: int) -> str:
    """Redis' PONG."""
    with socket.create_connection((target, port), timeout=SECONDS) as connection:
        connection.sendall(b"PING\r\n")
        answer = connection.recv(100)
    if answer != b"+PONG\r\n":
        raise ValueError(repr(answer))
    return answer.decode().strip()


def udp(target: str, port: int) -> str:
    """A datagram and back."""
    info = socket.getaddrinfo(target, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(info[0], socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect(info[4])
        sock.send(b"datagram")
        answer = sock.recv(100)
    if answer != b"datagram":
        raise ValueError(repr(answer))
    return f"echoed by {info[4][0]}"


def tcp(target: str, port: int) -> str:
    """Echo over TCP with a half-close."""
    with socket.create_connection((target, port), timeout=SECONDS) as connection:
        connection.sendall(b"half-closed")
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(100):
            answer += piece
    if answer != b"half-closed":
        raise ValueError(repr(answer))
    return "echoed after half-close"


def refused(target: str, port: int) -> str:
    """A connect that is refused, at once."""
    started = time.monotonic()
    try:
        socket.create_connection((target, port), timeout=SECONDS).close()
    except ConnectionRefusedError:
        return f"refused after {(time.monotonic() - started) * 1000:.0f} ms"
    raise ValueError("accepted")


def ping(target: str, port: int) -> str:
    """An echo reply."""
    result = subprocess.run(["ping", "-n", "-c1", "-W3", target], capture_output=True, text=True, check=False)
    if result.returncode:
        raise ValueError(result.stdout)
    return next(line for line in result.stdout.splitlines() if "time=" in line).partition(": ")[2]


def no_ping(target: str, port: int) -> str:
    """No echo reply."""
    result = subprocess.run(["ping", "-n", "-c1", "-W1", target], capture_output=True, text=True, check=False)
    if result.returncode == 0 or "time=" in result.stdout:
        raise ValueError(result.stdout)
    return "no answer"


def name(target: str, port: int) -> str:
    """An address for a name."""
    return ", ".join(sorted({str(info[4][0]) for info in socket.getaddrinfo(target, None)}))


def no_name(target: str, port: int) -> str:
    """No address for a name."""
    try:
        socket.getaddrinfo(target, None)
    except socket.gaierror as error:
        if error.errno != socket.EAI_NONAME:
            raise
        return "no such name"
    raise ValueError("found")


PROBES = {function.__name__: function for function in (http, redis, udp, tcp, refused, ping, no_ping, name, no_name)}


def main(text: str) -> None:
    """Run them in order."""
    results = []
    for probe in json.loads(text):
        started = time.monotonic()
        try:
            detail, ok = PROBES[probe["kind"]](probe["target"], probe["port"]), True
        except (OSError, ValueError) as error:
            detail, ok = f"{type(error).__name__}: {error}", False
        results.append({"title": probe["title"], "ok": ok, "detail": detail, "seconds": time.monotonic() - started})
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])

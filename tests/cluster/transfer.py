"""A transfer of many octets with a digest at both ends, while other connections exchange small messages.

A program: `transfer.py down|up OCTETS OTHERS`; prints {"equal", "seconds", "others_exchanges", "others_failed", "others_again"}: the
last is when (by the machine's monotonic clock) the last of the others had the answer that it waited for longest.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "lab" / "samples"))

from source import BLOCK, block, digest  # type: ignore[import-not-found]

SEED = 7


def down(octets: int) -> bool:
    """GET."""
    with socket.create_connection(("bytes", 9000), timeout=60) as connection:
        connection.sendall(b"GET %d %d\n" % (octets, SEED))
        hashed, left = hashlib.sha256(), octets
        while left:
            data = connection.recv(1 << 18)
            if not data:
                return False
            hashed.update(data)
            left -= len(data)
    return bool(hashed.hexdigest() == digest(octets, SEED))


def up(octets: int) -> bool:
    """PUT."""
    with socket.create_connection(("bytes", 9000), timeout=60) as connection:
        connection.sendall(b"PUT %d\n" % octets)
        data = block(SEED)
        for _ in range(octets // BLOCK):
            connection.sendall(data)
        return bool(connection.makefile().readline().strip() == digest(octets, SEED))


def exchange(connection: socket.socket) -> None:
    """64 octets there and back; ConnectionResetError when the other end is gone."""
    connection.sendall(bytes(64))
    left = 64
    while left:
        piece = connection.recv(left)
        if not piece:
            raise ConnectionResetError("closed")
        left -= len(piece)


def other(stop: threading.Event, exchanges: list[int], failed: list[str], again: list[float]) -> None:
    """Small messages to the echo service, until told to stop; at least one."""
    longest, ended = 0.0, 0.0
    try:
        with socket.create_connection(("echo", 7), timeout=120) as connection:
            while True:
                started = time.monotonic()
                exchange(connection)
                exchanges.append(1)
                if time.monotonic() - started > longest:
                    longest, ended = time.monotonic() - started, time.monotonic()
                if stop.wait(0.05):
                    break
    except OSError as error:
        failed.append(f"{type(error).__name__}: {error}")
    again.append(ended)


def main(direction: str, octets: int, others: int) -> None:
    """Run."""
    stop, exchanges, failed, again = threading.Event(), [], [], []  # type: ignore[var-annotated]
    threads = [threading.Thread(target=other, args=(stop, exchanges, failed, again)) for _ in range(others)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    equal = {"down": down, "up": up}[direction](octets)
    seconds = time.monotonic() - started
    stop.set()
    for thread in threads:
        thread.join()
    found = {"equal": equal, "seconds": seconds, "others_exchanges": len(exchanges), "others_failed": failed}
    print(json.dumps({**found, "others_again": max(again, default=0.0)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

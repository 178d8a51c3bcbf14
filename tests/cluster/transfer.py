"""A transfer of many octets with a digest at both ends, while other connections exchange small messages.

A program: `transfer.py down|up OCTETS OTHERS [held]`; prints {"equal", "seconds", "others_exchanges", "others_failed", "others_again"}: the
last is when (by the machine's monotonic clock) the last of the others had the answer that it waited for longest. With "held" it says
"begun", and goes slowly until a line on standard input tells it to go on, so that it is never over before that, however fast the way is.
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
#: Between two pieces until it is told to go on: some 15 MiB/s.
SLOWLY = 0.016
PIECE = 1 << 18


class Pace:
    """How fast the transfer goes: held back until it is told, or as fast as it can."""

    def __init__(self, held: bool) -> None:
        self._held = held
        self._told = threading.Event()
        if held:
            threading.Thread(target=self._listen, daemon=True).start()
        else:
            self._told.set()

    def begun(self) -> None:
        """The first octets have passed."""
        if self._held:
            print("begun", flush=True)

    def _listen(self) -> None:
        sys.stdin.readline()
        self._told.set()

    def piece(self, left: int) -> None:
        """Before a piece; the last ones wait for as long as it takes."""
        if not self._told.is_set():
            self._told.wait(None if left <= 2 * PIECE else SLOWLY)


def down(octets: int, pace: Pace | None = None) -> bool:
    """GET."""
    pace = pace or Pace(held=False)
    with socket.create_connection(("bytes", 9000), timeout=60) as connection:
        connection.sendall(b"GET %d %d\n" % (octets, SEED))
        hashed, left = hashlib.sha256(), octets
        while left:
            data = connection.recv(PIECE)
            if not data:
                return False
            if left == octets:
                pace.begun()
            pace.piece(left)
            hashed.update(data)
            left -= len(data)
    return bool(hashed.hexdigest() == digest(octets, SEED))


def up(octets: int, pace: Pace) -> bool:
    """PUT."""
    with socket.create_connection(("bytes", 9000), timeout=60) as connection:
        connection.sendall(b"PUT %d\n" % octets)
        pace.begun()
        data = memoryview(block(SEED))
        for sent in range(0, octets, PIECE):
            pace.piece(octets - sent)
            connection.sendall(data[sent % BLOCK :][:PIECE])
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


def main(direction: str, octets: int, others: int, *, held: bool) -> None:
    """Run."""
    stop, exchanges, failed, again = threading.Event(), [], [], []  # type: ignore[var-annotated]
    threads = [threading.Thread(target=other, args=(stop, exchanges, failed, again)) for _ in range(others)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    equal = {"down": down, "up": up}[direction](octets, Pace(held))
    seconds = time.monotonic() - started
    stop.set()
    for thread in threads:
        thread.join()
    found = {"equal": equal, "seconds": seconds, "others_exchanges": len(exchanges), "others_failed": failed}
    print(json.dumps({**found, "others_again": max(again, default=0.0)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), held=sys.argv[4:] == ["held"])

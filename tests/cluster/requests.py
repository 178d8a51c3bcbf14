"""Programs that ask a Redis through a local port, pipelined, and count per request what was lost.

Not here: what happens to the Redis meanwhile.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from dataclasses import dataclass, field

#: Requests that one connection has out at once.
PIPELINE = 8
#: A local connection answers in this time or counts as hanging.
SECONDS = 20.0


@dataclass(frozen=True)
class Loss:
    """One connection that was cut: which server's, and how many requests had no answer."""

    run_id: str
    unanswered: int


@dataclass
class Asker:
    """One connection after the other, as fast as it goes."""

    port: int
    answered: int = 0
    losses: list[Loss] = field(default_factory=list)
    #: What must not happen: hanging, wrong answers.
    wrong: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.is_set() and not self.wrong:
            run_id, out = "", 0
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
                    out = 1
                    run_id = _run_id(connection)
                    while not stop.is_set():
                        out = PIPELINE
                        self._batch(connection)
            except TimeoutError as error:
                self.wrong.append(f"no answer: {error!r}")
            except (OSError, EOFError):
                self.losses.append(Loss(run_id, out))

    def _batch(self, connection: socket.socket) -> None:
        words = [f"{id(self)}-{self.answered + number}" for number in range(PIPELINE)]
        connection.sendall(b"".join(b"ECHO %s\r\n" % word.encode() for word in words))
        wanted = b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
        got = b""
        while len(got) < len(wanted):
            got += _received(connection)
        if got != wanted:
            self.wrong.append(f"{got!r} instead of {wanted!r}")
        self.answered += PIPELINE


def _run_id(connection: socket.socket) -> str:
    """Of the server at the other end: each start has another."""
    connection.sendall(b"INFO server\r\n")
    got = b""
    while not got.endswith(b"\r\n") or b"run_id:" not in got:
        got += _received(connection)
    head, _, rest = got.partition(b"\r\n")
    while len(rest) < int(head[1:]) + 2:
        rest += _received(connection)
    return rest.split(b"run_id:")[1].split(b"\r\n")[0].decode()


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise EOFError
    return data


@dataclass
class Benchmarks:
    """redis-benchmark, again and again. It gives up at its first connection that is cut, so a run either lost none or one at least."""

    port: int
    runs: int = 0
    failed: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.is_set():
            self.once()

    def once(self) -> bool:
        """One run; whether it lost nothing."""
        done = subprocess.run(
            ["redis-benchmark", "-p", str(self.port), "-c", "12", "-n", "2000", "-P", "4", "-t", "set,get", "-q"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.runs += 1
        if done.returncode:
            self.failed.append(done.stderr.strip()[-200:] or done.stdout[-200:])
        return done.returncode == 0

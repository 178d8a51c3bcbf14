"""Long-lived conversations, exchanged in each mode: gRPC over HTTP/2 without TLS, and WebSockets. They come here, and then go back."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.cluster.backend import LabBackend
from tests.cluster.local import call
from tests.cluster.test_exchange import BACK_SECONDS, COMES_SECONDS, exchange, restored
from tests.lab.errors import LabError

CALLS = 50
OCTETS = 1 << 20
HERE = {"grpc": [["from the laptop"], CALLS, ["0"]], "chat": [["from the laptop"], True, 1000]}


@contextlib.contextmanager
def words() -> Iterator[int]:
    """A gRPC server; its port."""
    command = [sys.executable, "-m", "tests.cluster.words", str(CALLS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.stdin.close()


@contextlib.contextmanager
def chat() -> Iterator[int]:
    """A WebSocket server; its port."""

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            connection.send("from the laptop: " + message if isinstance(message, str) else message)

    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def talk(lab: LabBackend, name: str) -> Any:
    port, number = {"grpc": (50051, CALLS), "chat": (80, OCTETS)}[name]
    return call(lab, name, name, port, number)


def wait_talks(lab: LabBackend, name: str, who: str, seconds: float) -> Any:
    """What a caller says of the first conversation with `who`."""
    limit = time.monotonic() + seconds
    while True:
        with contextlib.suppress(LabError):
            if (found := talk(lab, name)) and found[0] and all(one.startswith(who) for one in found[0]):
                return found
        assert time.monotonic() < limit, f"{name}: not {who}"


@pytest.mark.parametrize("mode", ["selector", "scale", "ephemeral"])
def test_conversations(lab: LabBackend, mode: str) -> None:
    with contextlib.ExitStack() as stack:
        ports = {"grpc": (stack.enter_context(words()), 50051), "chat": (stack.enter_context(chat()), 80)}
        running = []
        for name, (local, remote) in ports.items():
            stack.enter_context(restored(lab, name))
            mine = exchange(lab, name, "--expose", f"{local}:{remote}", "--mode", mode, "--drain", "1")
            running.append(stack.enter_context(mine))
        for one in running:
            one.wait_ready()
        for name in ports:
            assert wait_talks(lab, name, "from the laptop", COMES_SECONDS) == HERE[name]
        for one in running:
            one.signal(signal.SIGINT)
        for one in running:
            assert one.wait_ended() == 0
        for name in ports:
            found = wait_talks(lab, name, "hello from", BACK_SECONDS)
            assert found[1:] == HERE[name][1:]
    if mode == "ephemeral":
        for name in ports:  # guests stay in the list of a pod's containers
            lab.kubectl("rollout", "restart", f"deploy/{name}")
            lab.kubectl("rollout", "status", f"deploy/{name}", "--timeout=90s")

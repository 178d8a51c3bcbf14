"""Programs of this machine, which the cluster is to reach; and callers in a pod, who try to.

Not here: what leads there.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.backend import LabBackend

CALLER = Path(__file__).with_name("caller.py").read_text()
#: kube-proxy learns of a Service a moment after it is there.
LEADS_SECONDS = 15.0


class Echo(socketserver.BaseRequestHandler):
    """Octets as they come, half-closed at the end."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(1 << 18):
                self.request.sendall(data)


class Hello(http.server.BaseHTTPRequestHandler):
    """One line."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the laptop")

    def log_message(self, *words: Any) -> None:
        pass


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512


@contextlib.contextmanager
def program(handler: type[socketserver.BaseRequestHandler], port: int = 0) -> Iterator[int]:
    """On this machine; its port."""
    with _Server(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def datagrams() -> Iterator[int]:
    """A program that answers every datagram with itself; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def run() -> None:
            while True:
                data, sender = sock.recvfrom(65535)
                if data == b"end":
                    return
                sock.sendto(data, sender)

        thread = threading.Thread(target=run)
        thread.start()
        port = sock.getsockname()[1]
        try:
            yield port
        finally:
            sock.sendto(b"end", ("127.0.0.1", port))
            thread.join()


def call(lab: LabBackend, kind: str, host: str, port: int, number: int = 0, inside: str = "deploy/web") -> Any:
    """As a pod does it."""
    words = ("exec", "-i", inside, "--", "python3", "-", kind, host, str(port), str(number))
    return json.loads(lab.kubectl(*words, given=CALLER))


def wait_leads(lab: LabBackend, host: str, port: int) -> None:
    """Until somebody accepts there."""
    limit = time.monotonic() + LEADS_SECONDS
    while not call(lab, "leads", host, port):
        assert time.monotonic() < limit
        time.sleep(0.1)

"""A carrier over TLS that reads and writes at full speed at once. A program: `duplex.py FOLDER SECONDS`, the folder with a certificate
(tls.crt, tls.key); prints {"up", "down"} in octets, "stall": the longest time in which nothing came, and the interpreter.

Every octet is compared. Runs with any interpreter that has this repository on its path: the standard library and our own modules only.

Not here: which interpreters (test_duplex.py).
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

from kt_net.kube.carrier import MESSAGE_OCTETS, WebsocketCarrier
from kt_net.kube.tls import TlsConnection
from kt_net.wire.portforward import ChannelForward
from kt_net.wire.websocket import BINARY, masked

PORT = 7777
PATTERN = bytes(range(256)) * 4096
#: A message of the server and one of ours, without its channel.
DOWN = 124 * 256
UP = MESSAGE_OCTETS


def frame(payload: bytes) -> bytes:
    """As a server sends it."""
    return bytes([0x80 | BINARY, 126]) + len(payload).to_bytes(2, "big") + payload


async def receive(reader: asyncio.StreamReader, wrong: list[str]) -> None:
    """Our messages, each compared."""
    while True:
        head = await reader.readexactly(14)
        payload = await reader.readexactly(int.from_bytes(head[2:10], "big"))
        if masked(payload, head[10:]) != b"\0" + PATTERN[:UP]:
            wrong.append("other octets arrived at the server")
            return


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wrong: list[str]) -> None:
    """Send for ever, and read as well."""
    task = asyncio.create_task(receive(reader, wrong))
    writer.write(frame(b"\0" + PORT.to_bytes(2, "little")) + frame(b"\1" + PORT.to_bytes(2, "little")))
    message = frame(b"\0" + PATTERN[:DOWN])
    try:
        while not wrong:
            writer.write(message)
            await writer.drain()
            await asyncio.sleep(0)  # drain alone lets nobody else run
    except OSError:
        pass  # the client is done
    finally:
        task.cancel()


def server(folder: Path, listening: threading.Event, ports: list[int], wrong: list[str]) -> None:
    """On a thread of its own."""

    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        started = await asyncio.start_server(
            lambda reader, writer: serve(reader, writer, wrong), "127.0.0.1", 0, ssl=context
        )
        ports.append(started.sockets[0].getsockname()[1])
        listening.set()
        await asyncio.Event().wait()

    asyncio.run(run())


def main(folder: Path, seconds: float) -> None:
    """See above."""
    listening, ports, wrong = threading.Event(), list[int](), list[str]()
    threading.Thread(target=server, args=(folder, listening, ports, wrong), daemon=True).start()
    listening.wait()
    context = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    connected = socket.create_connection(("127.0.0.1", ports[0]), timeout=10)
    carrier = WebsocketCarrier(TlsConnection(connected, context, "localhost"), ChannelForward(PORT))
    up = down = 0
    stall, last, ends = 0.0, time.monotonic(), time.monotonic() + seconds
    block = PATTERN[:UP]
    while (now := time.monotonic()) < ends and not wrong:
        if carrier.queued < 2 * UP:
            carrier.send([block])
            up += UP
        carrier.flush()
        if not carrier.pending:
            select.select([carrier.fileno()], [carrier.fileno()] if carrier.wants_write else [], [], 5)
        for piece in carrier.receive():
            at = down % 256  # messages are whole patterns
            assert piece == PATTERN[at : at + len(piece)], "other octets arrived at the client"
            down += len(piece)
            stall, last = max(stall, now - last), now
    assert not wrong, wrong
    carrier.close()
    print(json.dumps({"up": up, "down": down, "stall": stall, "python": sys.version.split()[0]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))

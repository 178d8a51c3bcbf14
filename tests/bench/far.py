"""Runs in a pod: what the tunnel's benchmark moves octets to and from. Standard library only.

Port 9000: `GET COUNT\\n` is answered with COUNT octets, `PUT COUNT\\n` and as many octets with one octet; a thread per connection and no
digests, so that the network decides. Port 7000: echo, for many connections.

Not here: measuring (near.py).
"""

import asyncio
import socketserver
import threading

BLOCK = bytes(1 << 20)


class Bulk(socketserver.StreamRequestHandler):
    """One connection of port 9000."""

    rbufsize = 0

    def handle(self) -> None:
        """One request after the other."""
        while line := self.rfile.readline(100):
            word, _, digits = line.partition(b" ")
            left = int(digits)
            if word == b"GET":
                while left:
                    left -= self.connection.send(memoryview(BLOCK)[: min(left, len(BLOCK))])
                continue
            room = bytearray(1 << 18)
            while left:
                taken = self.connection.recv_into(room, min(left, len(room)))
                if not taken:
                    return
                left -= taken
            self.connection.sendall(b"!")


class BulkServer(socketserver.ThreadingTCPServer):
    """Any number of connections."""

    daemon_threads = True
    request_queue_size = 512


class Echo(asyncio.Protocol):
    """One connection of port 7000."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Back."""
        self.transport.write(data)  # type: ignore[attr-defined]


async def echo() -> None:
    """Serve for ever."""
    await asyncio.get_running_loop().create_server(Echo, "0.0.0.0", 7000, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    threading.Thread(target=BulkServer(("0.0.0.0", 9000), Bulk).serve_forever, daemon=True).start()
    asyncio.run(echo())

"""Sample: a source and sink of octets, TCP port 9000, IPv4 and IPv6.

`GET <count> <seed>\\n` is answered with `count` octets made from `seed`; `PUT <count>\\n` and as many octets are answered with their
SHA-256 in hex and a newline. The connection stays for further requests.
"""

import hashlib
import socket
import socketserver

BLOCK = 1 << 20


def block(seed: int) -> bytes:
    """One MiB that repeats; 16 octets of digest, again and again."""
    return hashlib.sha256(str(seed).encode()).digest() * (BLOCK // 32)


def digest(count: int, seed: int) -> str:
    """SHA-256 of what GET answers."""
    hashed, data = hashlib.sha256(), block(seed)
    while count:
        hashed.update(data[: min(count, BLOCK)])
        count -= min(count, BLOCK)
    return hashed.hexdigest()


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline(100):
            words = line.split()
            if words and words[0] == b"GET":
                self._get(int(words[1]), int(words[2]))
            elif words and words[0] == b"PUT":
                self._put(int(words[1]))
            else:
                return

    def _get(self, count: int, seed: int) -> None:
        data = memoryview(block(seed))
        while count:
            self.connection.sendall(data[: min(count, BLOCK)])
            count -= min(count, BLOCK)

    def _put(self, count: int) -> None:
        hashed = hashlib.sha256()
        while count:
            data = self.rfile.read1(min(count, 262144))
            if not data:
                return
            hashed.update(data)
            count -= len(data)
        self.wfile.write(hashed.hexdigest().encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """Both families on one socket."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


if __name__ == "__main__":
    Server(("::", 9000), Handler).serve_forever()

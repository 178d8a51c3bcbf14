"""Sample: an HTTP server that says who answered. IPv4 and IPv6, port 8080."""

import http.server
import os
import socket


class Handler(http.server.BaseHTTPRequestHandler):
    """GET: the pod's name; POST: how many octets came."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(f"hello from {os.environ.get('HOSTNAME', '?')} to {self.client_address[0]}\n".encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(f"{len(body)} octets\n".encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Server(http.server.ThreadingHTTPServer):
    """Both families on one socket."""

    address_family = socket.AF_INET6
    request_queue_size = 512

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


if __name__ == "__main__":
    Server(("::", 8080), Handler).serve_forever()

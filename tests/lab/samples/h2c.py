"""Sample: gRPC over HTTP/2 without TLS, port 50051, IPv4 and IPv6. Every message of a call is answered at once, by a word before it.

Messages are octets, not Protocol Buffers. Source: gRPC's "gRPC over HTTP2".
"""

import contextlib
import os
import socket
import socketserver
import sys

sys.path.insert(0, "/samples/libraries.zip")

import h2.config
import h2.connection
import h2.events

CONFIGURATION = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")


class Handler(socketserver.BaseRequestHandler):
    """One connection, any number of calls at once."""

    def handle(self) -> None:
        self.calls: dict[int, bytes] = {}  # what has come of the next message, by stream
        self.connection = h2.connection.H2Connection(CONFIGURATION)
        self.connection.initiate_connection()
        with contextlib.suppress(OSError):
            while True:
                self.request.sendall(self.connection.data_to_send())
                data = self.request.recv(65536)
                if not data:
                    return
                for event in self.connection.receive_data(data):
                    self._happened(event)

    def _happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.calls[event.stream_id] = b""
            headers = [(":status", "200"), ("content-type", "application/grpc")]
            self.connection.send_headers(event.stream_id, headers)
        elif isinstance(event, h2.events.DataReceived):
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._came(event.stream_id, event.data)
        elif isinstance(event, h2.events.StreamEnded):
            self.connection.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            del self.calls[event.stream_id]
        elif isinstance(event, h2.events.StreamReset):
            self.calls.pop(event.stream_id, None)

    def _came(self, stream: int, data: bytes) -> None:
        buffered = self.calls[stream] + data
        while len(buffered) >= 5 and len(buffered) >= 5 + (length := int.from_bytes(buffered[1:5], "big")):
            answer = f"hello from {os.environ.get('HOSTNAME', '?')}: ".encode() + buffered[5 : 5 + length]
            self.connection.send_data(stream, b"\0" + len(answer).to_bytes(4, "big") + answer)
            buffered = buffered[5 + length :]
        self.calls[stream] = buffered


class Server(socketserver.ThreadingTCPServer):
    """Both families on one socket."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


if __name__ == "__main__":
    Server(("::", 50051), Handler).serve_forever()

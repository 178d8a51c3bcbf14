"""Sample: a WebSocket server, port 8081, IPv4 and IPv6. Every text is answered by a word and itself, every binary message by itself."""

import os
import socket
import sys

sys.path.insert(0, "/samples/libraries.zip")

from websockets.sync.server import ServerConnection, serve


def answer(connection: ServerConnection) -> None:
    """Until the client says goodbye."""
    for message in connection:
        word = f"hello from {os.environ.get('HOSTNAME', '?')}: "
        connection.send(word + message if isinstance(message, str) else message)


if __name__ == "__main__":
    sock = socket.create_server(("::", 8081), family=socket.AF_INET6, dualstack_ipv6=True)
    with serve(answer, sock=sock) as server:
        server.serve_forever()

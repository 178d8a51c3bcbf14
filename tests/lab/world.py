"""The rest of the world: an HTTP server and a DNS server outside the cluster. A program: `world.py ADDRESS`.

DNS (UDP and TCP) knows www.world.test and the zone world.test; everything else does not exist.

Not here: anything of the cluster.
"""

from __future__ import annotations

import http.server
import socketserver
import sys
import threading

from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSServer

ZONE = "world.test"
BODY = b"the rest of the world\n"


class Names(BaseResolver):  # type: ignore[misc]
    """One zone."""

    def __init__(self, address: str) -> None:
        self._address = address

    def resolve(self, request: DNSRecord, handler: object) -> DNSRecord:
        """An answer."""
        reply = request.reply()
        name = str(request.q.qname).rstrip(".").lower()
        if name in (ZONE, f"www.{ZONE}"):
            if request.q.qtype in (QTYPE.A, QTYPE.ANY):
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(self._address), ttl=30))
        else:
            reply.header.rcode = RCODE.NXDOMAIN
        return reply


class Web(http.server.BaseHTTPRequestHandler):
    """Says where one is."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def main(address: str) -> None:
    """Serve for ever."""
    for tcp in (False, True):
        DNSServer(Names(address), address="0.0.0.0", port=53, tcp=tcp).start_thread()
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    web = http.server.ThreadingHTTPServer(("0.0.0.0", 80), Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])

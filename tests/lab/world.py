"""The rest of the world: an HTTP server and a DNS server outside the cluster. A program: `world.py ADDRESS`.

DNS (UDP and TCP) knows world.test and its www, and www of site.dev and site.io, domains that a namespace may be called like;
refused.world.test is refused, broken.world.test fails, long.world.test has more TXT than 512 octets hold. Everything else does not exist.

Not here: anything of the cluster.
"""

from __future__ import annotations

import http.server
import socketserver
import sys
import threading

from dnslib import QTYPE, RCODE, RR, TXT, A, DNSRecord
from dnslib.server import BaseResolver, DNSServer

ZONE = "world.test"
HOSTS = frozenset({ZONE, f"www.{ZONE}", "www.site.dev", "www.site.io"})
CODES = {f"refused.{ZONE}": RCODE.REFUSED, f"broken.{ZONE}": RCODE.SERVFAIL}
LONG = f"long.{ZONE}"
BODY = b"the rest of the world\n"


class Names(BaseResolver):  # type: ignore[misc]
    """A few names."""

    def __init__(self, address: str) -> None:
        self._address = address

    def resolve(self, request: DNSRecord, handler: object) -> DNSRecord:
        """An answer."""
        reply = request.reply()
        name = str(request.q.qname).rstrip(".").lower()
        if name in HOSTS:
            if request.q.qtype in (QTYPE.A, QTYPE.ANY):
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(self._address), ttl=30))
        elif name == LONG:
            if request.q.qtype == QTYPE.TXT:
                for number in range(10):
                    reply.add_answer(RR(request.q.qname, QTYPE.TXT, rdata=TXT(f"{number}" * 100), ttl=30))
        else:
            reply.header.rcode = CODES.get(name, RCODE.NXDOMAIN)
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

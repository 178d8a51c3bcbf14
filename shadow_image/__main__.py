"""`python3 -I agent.pyz`: the agent as a program. Flags only, no environment: what it does stands in the pod's spec."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time

from kt_net.errors import UsageFault
from shadow_image.bridge import bridge
from shadow_image.caps import LISTEN_PORT
from shadow_image.cluster import OwnCluster
from shadow_image.report import VERSION, report
from shadow_image.restorer import Restorer, parse_charge
from shadow_image.server import serve


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when it ended as it should."""
    parser = argparse.ArgumentParser(prog="agent", description="The agent of ktctl in a shadow pod.")
    parser.add_argument("--port", type=int, default=LISTEN_PORT, help="on 127.0.0.1")
    parser.add_argument("--idle-exit", type=float, default=600.0, help="seconds without a client, then exit 0")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="CIDR", help="dial nothing outside (repeatable)"
    )
    parser.add_argument(
        "--redirect", action="store_true", help="be a guest: take callers of the pod's own program (NET_ADMIN)"
    )
    parser.add_argument(
        "--untouched", action="append", default=[], metavar="IP", help="but not those from there (repeatable)"
    )
    parser.add_argument(
        "--restore", metavar="JSON", default="", help="give this back when the client's Lease has run out"
    )
    parser.add_argument("--bridge", action="store_true", help="join standard input and output to a running agent")
    parser.add_argument("--version", action="version", version=VERSION)
    options = parser.parse_args(arguments)
    if options.bridge:
        return bridge(options.port)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    try:
        restorer = Restorer(parse_charge(options.restore), OwnCluster(), time.monotonic) if options.restore else None
    except UsageFault as error:
        parser.error(f"{error} ({error.why})")
    asyncio.run(
        serve(
            report=report(),
            port=options.port,
            idle_exit=options.idle_exit,
            allowed=options.allow,
            redirect=options.redirect,
            untouched=options.untouched,
            restorer=restorer,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

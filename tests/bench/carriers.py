"""One plain carrier without a tunnel in it, straight to far.py: what a form of port-forward can carry. A program, run on the laptop:
`python -m tests.bench.carriers KIND NAMESPACE POD WAY OCTETS`; prints JSON.

Not here: what is measured when (tunnel.py).
"""

from __future__ import annotations

import json
import select
import sys
import time

from kt_net.kube.carrier import Carrier
from kt_net.kube.config import load_cluster
from kt_net.kube.dial import open_carrier

PORT = 9000
#: Handed to the carrier at once, as the tunnel does.
BATCH = 256 * 1024


def wait(carrier: Carrier) -> list[memoryview]:
    """Until something comes, or what is queued has gone."""
    if not carrier.pending:
        select.select([carrier.fileno()], [carrier.fileno()] if carrier.wants_write else [], [], 30)
    carrier.flush()
    return carrier.receive()


def down(carrier: Carrier, octets: int) -> None:
    """Receive so many."""
    carrier.send([b"GET %d\n" % octets])
    carrier.flush()
    while octets > 0:
        octets -= sum(map(len, wait(carrier)))


def up(carrier: Carrier, octets: int) -> None:
    """Send so many, and see them arrive."""
    carrier.send([b"PUT %d\n" % octets])
    block = memoryview(bytes(65536))
    while octets:
        while octets and carrier.queued < BATCH:
            piece = block[: min(octets, len(block))]
            carrier.send([piece])
            octets -= len(piece)
        if carrier.flush():
            continue
        wait(carrier)
    while not any(len(piece) for piece in wait(carrier)):
        pass


def main(kind: str, namespace: str, pod: str, way: str, octets: int) -> None:
    """Measure."""
    carrier = open_carrier(load_cluster(), namespace, pod, PORT, form=kind)
    started, worked = time.monotonic(), time.process_time()
    {"down": down, "up": up}[way](carrier, octets)
    seconds, cpu = time.monotonic() - started, time.process_time() - worked
    carrier.close()
    print(json.dumps({"mb_s": octets / seconds / 1e6, "cpu_s_gb": cpu / octets * 1e9}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))

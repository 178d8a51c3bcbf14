"""`make demo`: a cluster, a connection, and everything that answers through it, in a table.

`CLUSTER=kubeconfig` takes a cluster of one's own instead of the lab.

Not here: the rows (tests/cluster/probes.py).
"""

from __future__ import annotations

import os
import sys
import time

from tests.cluster.backend import Backend, chosen
from tests.cluster.ktctl import Ktctl
from tests.cluster.probes import Probe, probes, run_probes
from tests.lab.errors import LabError


def main() -> int:
    """0 when every row is as it should be."""
    try:
        backend = chosen(os.environ.get("CLUSTER", "lab"))
        backend.up()
        return demo(backend)
    except (LabError, RuntimeError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def demo(backend: Backend) -> int:
    """Connect, ask, print."""
    rows = probes(backend)
    print(f"\n$ sudo ktctl connect --image {backend.python_image}", flush=True)
    with Ktctl(backend, "connect", "--image", backend.python_image) as running:
        running.wait_ready()
        first = _first_answer(backend, rows[0], running)
        for line in ("cluster", "namespace", "pod", "device", "resolver"):
            print(f"  {line}: {running.ready[line]}")
        print(f"  routes: {', '.join(running.ready['routes'])}\n")
        results = run_probes(backend, rows)
    width = max(len(result["title"]) for result in results)
    for result in results:
        mark = "ok    " if result["ok"] else "FAILED"
        print(f"  {mark} {result['title']:<{width}}  {result['seconds'] * 1000:7.1f} ms  {result['detail']}")
    failed = sum(not result["ok"] for result in results)
    print(
        f"\n{len(results) - failed} of {len(results)} as they should be; first answer {first:.1f} s after the command"
    )
    return 1 if failed else 0


def _first_answer(backend: Backend, row: Probe, running: Ktctl) -> float:
    """Seconds from the command to the first answer through the device (includes starting Python for the probe)."""
    while time.monotonic() - running.started < 60:
        if run_probes(backend, [row])[0]["ok"]:
            return time.monotonic() - running.started
    raise RuntimeError("nothing answers")


if __name__ == "__main__":
    sys.exit(main())

"""`make bench-loss`: 64 MiB each way through a broken path, kernel to kernel and kernel to stack (root, no cluster).

Figures go to build/bench-loss.json: several runs each, median and spread, and our goodput as a part of the kernels'. Ours are transfers to
their end; those of the kernels end after twice the time that ours took, when they have not before (at 10 % they would take half an hour).

Not here: the path (tests/net/stack/lossy.py).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tests.bench.stack import Figure, spread
from tests.net.stack.lossy import Moved, kernel_pair, ours, transfer

RUNS = 5
OCTETS = 64 << 20
#: Seconds: ours have to be at their end; what a kernel gets at least.
LONGEST = 1800.0
LEAST = 20.0
PERCENTS = (1, 3, 10)
OUTPUT = Path("build/bench-loss.json")


def main() -> None:
    """See above."""
    if len(sys.argv) > 1:
        one_run(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
        return
    load = os.getloadavg()
    results: dict[str, Figure] = {}
    for percent in PERCENTS:
        for run in range(RUNS):
            taken = LONGEST
            for who in ("ours", "kernel"):
                found = apart(who, percent, run, taken)
                taken = max(LEAST, *(2 * moved.seconds for moved in found.values()))
                for way, moved in found.items():
                    print(
                        f"{percent} % run {run + 1} {who} {way}: {moved.octets} octets, {moved.goodput / 1e6:.2f} MB/s",
                        flush=True,
                    )
                    assert moved.equal, f"{who} {percent} % {way}: other octets arrived"
                    assert who == "kernel" or moved.octets == OCTETS, (
                        f"{percent} % {way}: not at its end after {LONGEST} s"
                    )
                    results.setdefault(f"{percent}_{way}", {}).setdefault(who, []).append(moved.goodput / 1e6)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(report(results, load), indent=1) + "\n")
    print(OUTPUT.read_text())


def apart(who: str, percent: float, run: int, seconds: float) -> dict[str, Moved]:
    """Both ways, in a network namespace that nobody else has."""
    command = [sys.executable, "-m", "tests.bench.loss", who, str(percent), str(run), str(seconds)]
    out = subprocess.run(["unshare", "--net", *command], stdout=subprocess.PIPE, check=True).stdout
    return {way: Moved(*values) for way, values in json.loads(out).items()}


def one_run(who: str, percent: float, run: int, seconds: float) -> None:
    """In that namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with (kernel_pair if who == "kernel" else ours)(percent, seed=run):
        print(json.dumps({"up": transfer(True, OCTETS, seconds), "down": transfer(False, OCTETS, seconds)}))


def report(results: dict[str, Figure], load: tuple[float, float, float]) -> Figure:
    """What is written: MB/s."""
    return {
        "ratios": {
            name: round(statistics.median(found["ours"]) / statistics.median(found["kernel"]), 3)
            for name, found in results.items()
        },
        "megabytes_s": {
            name: {who: spread(values) for who, values in found.items()} for name, found in results.items()
        },
        "octets": OCTETS,
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "load": {"before": load, "processors": os.cpu_count(), "python": sys.version.split()[0]},
        "baseline": "two kernels with the same faulty device between them (tests/net/stack/lossy.py)",
    }


if __name__ == "__main__":
    main()

"""`make bench-loss`: 64 MiB each way through a broken path, kernel to kernel and kernel to stack (root, no cluster).

Figures go to build/bench-loss.json: three runs each, median and spread, and our goodput as a part of the kernels'.

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
from tests.net.stack.lossy import kernel_pair, ours, transfer

RUNS = 3
OCTETS = 64 << 20
PERCENTS = (1, 3, 10)
OUTPUT = Path("build/bench-loss.json")


def main() -> None:
    """See above."""
    if len(sys.argv) < 2:
        results: dict[str, Figure] = {}
        for percent in PERCENTS:
            for run in range(RUNS):
                for who in ("kernel", "ours"):
                    command = [
                        "unshare",
                        "--net",
                        sys.executable,
                        "-m",
                        "tests.bench.loss",
                        who,
                        str(percent),
                        str(run),
                    ]
                    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
                    print(f"{percent} % run {run + 1} {who}: {found}", flush=True)
                    for way, (equal, speed) in found.items():
                        assert equal, f"{who} {percent} % {way}: other octets arrived"
                        results.setdefault(f"{percent}_{way}", {}).setdefault(who, []).append(speed / 1e6)
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(json.dumps(report(results), indent=1) + "\n")
        print(OUTPUT.read_text())
        return
    who, percent, run = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with (kernel_pair if who == "kernel" else ours)(percent, seed=run):
        print(json.dumps({"up": transfer(True, OCTETS), "down": transfer(False, OCTETS)}))


def report(results: dict[str, Figure]) -> Figure:
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
        "load": {"after": os.getloadavg(), "processors": os.cpu_count(), "python": sys.version.split()[0]},
        "baseline": "two kernels with the same faulty device between them (tests/net/stack/lossy.py)",
    }


if __name__ == "__main__":
    main()

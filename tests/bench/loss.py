"""`make bench-loss`: 64 MiB each way through a broken path, kernel to kernel and kernel to stack (root, no cluster).

Figures go to build/bench-loss.json: three runs each, median and spread, and our goodput as a part of the kernels'. Ours are transfers to
their end; those of the kernels stop after the time that ours took, when they are not done before (at 10 % they would take half an hour).
The path takes a millisecond each way; without that, in the rows "at once", the processor decides and not the losses.
`python -m tests.bench.loss profile up|down PERCENT` says where the stack's time goes in those.

Not here: the path (tests/net/stack/lossy.py).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.stack import Figure, spread
from tests.net.stack.lossy import Moved, path, transfer

RUNS = 3
OCTETS = 64 << 20
#: Seconds: ours have to be at their end; what a kernel gets at least.
LONGEST = 1800.0
LEAST = 20.0
#: Name, percent, one-way delay in seconds, and whether all runs go side by side: a few hundred packets a second disturb nobody.
ROWS = (
    ("1 %", 1, 0.001, False),
    ("3 %", 3, 0.001, False),
    ("10 %", 10, 0.001, True),
    ("0 %, at once", 0, 0.0, False),
    ("1 %, at once", 1, 0.0, False),
    ("3 %, at once", 3, 0.0, False),
)
OUTPUT = Path("build/bench-loss.json")


def main() -> None:
    """See above."""
    if sys.argv[1:2] == ["profile"]:
        way, percent = sys.argv[2], float(sys.argv[3])
        print(f"{apart('profiled', percent, 0.0, 0, way, LONGEST).goodput / 1e6:.2f} MB/s, while it was watched")
        return
    if len(sys.argv) > 1:
        print(json.dumps(inside(*json.loads(sys.argv[1]))))
        return
    load = os.getloadavg()
    results: dict[str, Figure] = {}
    for name, percent, delay, together in ROWS:
        tasks = [(name, percent, delay, run, way) for run in range(RUNS) for way in ("up", "down")]
        with ThreadPoolExecutor(len(tasks) if together else 1) as pool:
            for task, found in zip(tasks, pool.map(compare, tasks), strict=True):
                for who, moved in found.items():
                    results.setdefault(f"{name}, {task[-1]}", {}).setdefault(who, []).append(moved.goodput / 1e6)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(report(results, load), indent=1) + "\n")
    print(OUTPUT.read_text())


def compare(task: tuple[str, float, float, int, str]) -> dict[str, Moved]:
    """Ours, then the kernel's."""
    name, percent, delay, run, way = task
    found: dict[str, Moved] = {}
    taken = LONGEST
    for who in ("ours", "kernel"):
        found[who] = moved = apart(who, percent, delay, run, way, taken)
        taken = max(LEAST, moved.seconds)
        print(f"{name} run {run + 1} {who} {way}: {moved.octets} octets, {moved.goodput / 1e6:.2f} MB/s", flush=True)
        assert moved.equal, f"{who} {name} {way}: other octets arrived"
        assert who == "kernel" or moved.octets == OCTETS, f"{name} {way}: not at its end after {LONGEST} s"
    return found


def apart(who: str, percent: float, delay: float, run: int, way: str, seconds: float) -> Moved:
    """One transfer, in a network namespace that nobody else has."""
    command = [sys.executable, "-m", "tests.bench.loss", json.dumps([who, percent, delay, run, way, seconds])]
    return Moved(*json.loads(subprocess.run(["unshare", "--net", *command], stdout=subprocess.PIPE, check=True).stdout))


def inside(who: str, percent: float, delay: float, run: int, way: str, seconds: float) -> Moved:
    """In that namespace."""
    with path(who, percent, delay, seed=run):
        return transfer(way == "up", OCTETS, seconds)


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

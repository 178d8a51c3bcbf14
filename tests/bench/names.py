"""`make bench-names`: names outside the cluster before and while connected, on machines of every layout; and the steps of a start (root;
the lab; 3 minutes; build/names.json).

A name is looked up as programs do it (getaddrinfo, a full name, IPv4), one after the other; medians of all look-ups of a run, three runs.
The steps' times are those that `ktctl connect` says, in seconds since the command; what runs side by side is said when it is waited for.

Not here: names of the cluster, and how many a second (tests/bench/tunnel.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.stack import spread
from tests.cluster.backend import LabBackend
from tests.cluster.ktctl import Ktctl
from tests.cluster.layouts import layout

RUNS = 3
LOOK_UPS = 300
LAYOUTS = ("bind mount", "plain", "resolved", "hosts")
NAMES = ("www.world.test.", "www.site.dev.", "absent.site.io.")
OUTPUT = Path("build/names.json")

#: Runs on the machine under test: the milliseconds of each look-up.
LOOK_UP = """
import json, socket, sys, time
took = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    try:
        socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        pass
    took.append((time.perf_counter() - began) * 1000)
print(json.dumps(took))
"""
#: Words of a step's line that are the same in every run.
STEP = re.compile(r"[a-z]+( [a-zA-Z]+)?")

Figures = dict[str, Any]


def look_ups(machine: LabBackend) -> dict[str, float]:
    """The median for each name, in milliseconds."""
    found = {}
    for name in NAMES:
        command = machine.laptop_argv([sys.executable, "-c", LOOK_UP, name, str(LOOK_UPS)])
        took = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout)
        found[name] = statistics.median(took)
    return found


@contextlib.contextmanager
def machine_of(lab: LabBackend, kind: str) -> Iterator[LabBackend]:
    """A machine of that layout; the laptop itself has a bind mount."""
    with tempfile.TemporaryDirectory() as folder, layout(lab, kind, Path(folder) / "etc") as other:
        yield lab if kind == "bind mount" else other


def measure(lab: LabBackend, kind: str) -> Figures:
    """One run on one machine."""
    flags = ("--dns-mode", "hosts") if kind == "hosts" else ()
    with machine_of(lab, kind) as machine:
        before = look_ups(machine)
        with Ktctl(machine, "connect", "--image", lab.python_image, *flags) as running:
            ready = running.wait_ready()
            while_connected = look_ups(machine)
            running.process.terminate()
            _, said = running.process.communicate(timeout=30)
    steps: dict[str, float] = {}
    for line in said.splitlines():
        step = json.loads(line)
        words = STEP.match(step["text"])
        if step["seconds"] <= ready["seconds"] and words:
            steps.setdefault(words.group().strip(), step["seconds"])
    return {
        "before": before,
        "connected": while_connected,
        "steps": {**steps, "connected": ready["seconds"]},
    }


def report(runs: dict[str, list[Figures]], load: tuple[float, float, float]) -> Figures:
    """What is written."""

    def names(of: list[Figures]) -> Figures:
        return {
            name: {
                "before_ms": spread([run["before"][name] for run in of]),
                "connected_ms": spread([run["connected"][name] for run in of]),
                "more_ms": spread([run["connected"][name] - run["before"][name] for run in of]),
            }
            for name in NAMES
        }

    plain = runs["plain"]
    return {
        "names": {kind: names(of) for kind, of in runs.items()},
        "steps": {
            step: spread([run["steps"][step] for run in plain if step in run["steps"]]) for step in plain[0]["steps"]
        },
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "load": {
            "before": load,
            "after": os.getloadavg(),
            "processors": os.cpu_count(),
            "python": sys.version.split()[0],
        },
    }


def main() -> None:
    """See above."""
    lab = LabBackend()
    lab.up()
    load, runs = os.getloadavg(), {kind: list[Figures]() for kind in LAYOUTS}
    for number in range(RUNS):
        print(f"run {number + 1} of {RUNS}", flush=True)
        for kind in LAYOUTS:
            runs[kind].append(measure(lab, kind))
            last = runs[kind][-1]
            for name in NAMES:
                print(
                    f"  {kind}: {name} {last['before'][name]:.2f} ms before, {last['connected'][name]:.2f} connected",
                    flush=True,
                )
            print(f"  {kind}: connected after {last['steps']['connected']:.2f} s", flush=True)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(report(runs, load), indent=1) + "\n")
    for step, took in json.loads(OUTPUT.read_text())["steps"].items():
        print(f"{took['median']:6.2f} s  {step}")
    print(OUTPUT)


if __name__ == "__main__":
    main()

"""`make bench-stack`: the stack against the raw loop of the same device, in network namespaces of its own (root, no cluster).

The kernel's side is this process: plain sockets. Figures go to build/bench-stack.json: three runs of everything, median and spread.
`python -m tests.bench.stack profile sink|source FLOWS` says where the time goes.

Not here: the device's side (device.py, toy.py).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RUNS = 3
SECONDS = 2.0
IDLE_FLOWS = 10_000
ROUND_TRIPS = 3000
CONNECTS = 6000
AT_ONCE = 32
OUTPUT = Path("build/bench-stack.json")

Figure = dict[str, Any]


@contextlib.contextmanager
def device(what: str, how: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The other process, with its device reachable."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.device", what, how, *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "ready\n"
        for words in (
            "addr add 10.0.0.2/32 dev kt0",
            "route add 10.96.0.0/16 dev kt0 src 10.0.0.2",
            "-6 addr add fd00::2/128 dev kt0 nodad",
            "-6 route add fd96::/16 dev kt0 src fd00::2",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def far(v6: bool, port: int = 80) -> tuple[str, int]:
    """An address behind the device."""
    return ("fd96::10" if v6 else "10.96.0.10", port)


def stream(sending: bool, flows: int, v6: bool, port: int = 80) -> float:
    """Gbit/s of `flows` flows over `SECONDS`, as the kernel's side counts them."""
    totals = [0] * flows
    stop = threading.Event()
    block = bytes(1 << 20)
    sockets = [socket.create_connection(far(v6, port), timeout=10) for _ in range(flows)]
    for connection in sockets:
        connection.settimeout(None)  # with one, Python polls before each call

    def move(index: int) -> None:
        connection, room = sockets[index], bytearray(1 << 20)
        with contextlib.suppress(OSError):  # that of the end
            while not stop.is_set():
                totals[index] += connection.send(block) if sending else connection.recv_into(room)

    threads = [threading.Thread(target=move, args=(index,)) for index in range(flows)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)  # the first windows are not what is measured
    before, start = sum(totals), time.monotonic()
    time.sleep(SECONDS)
    moved, seconds = sum(totals) - before, time.monotonic() - start
    stop.set()
    for connection in sockets:
        connection.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for connection in sockets:
        connection.close()
    return moved * 8 / seconds / 1e9


def both_ways(v6: bool) -> float:
    """Gbit/s of a flow each way at once, together."""
    results: list[float] = []
    threads = [
        threading.Thread(target=lambda sending=sending, port=port: results.append(stream(sending, 1, v6, port)))
        for sending, port in ((True, 81), (False, 80))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(results)


def round_trips(v6: bool = False) -> tuple[float, float, float]:
    """Microseconds at p50 and p99 of a one-octet exchange, and exchanges per second."""
    connection = socket.create_connection(far(v6), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    taken = []
    started = time.monotonic()
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        connection.send(b"x")
        connection.recv(1)
        taken.append(time.perf_counter() - start)
    seconds = time.monotonic() - started
    connection.close()
    taken.sort()
    return taken[len(taken) // 2] * 1e6, taken[len(taken) * 99 // 100] * 1e6, ROUND_TRIPS / seconds


def connects() -> float:
    """Connections per second, opened and closed, `AT_ONCE` at a time."""
    selector = selectors.DefaultSelector()
    started, opened, done = time.monotonic(), 0, 0

    def begin() -> None:
        nonlocal opened
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # Many destinations: a local port that waits in TIME-WAIT is free for others.
        connection.connect_ex((f"10.96.{opened % 200}.{opened % 250 + 1}", 80))
        opened += 1
        selector.register(connection, selectors.EVENT_WRITE)

    for _ in range(AT_ONCE):
        begin()
    while done < CONNECTS:
        for key, _ in selector.select(10):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            selector.unregister(connection)
            connection.close()
            done += 1
            if opened < CONNECTS:
                begin()
    return CONNECTS / (time.monotonic() - started)


def idle_memory(process: subprocess.Popen[str]) -> float:
    """Octets of resident memory per idle flow."""

    def resident() -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("memory\n")
        process.stdin.flush()
        return int(json.loads(process.stdout.readline())["rss"])

    resource.setrlimit(resource.RLIMIT_NOFILE, (IDLE_FLOWS + 1000, IDLE_FLOWS + 1000))
    socket.create_connection(far(False), timeout=10).close()
    before = resident()
    held = [socket.create_connection((f"10.96.1.{index % 250}", 80), timeout=10) for index in range(IDLE_FLOWS)]
    after = resident()
    for connection in held:
        connection.close()
    return (after - before) / IDLE_FLOWS


def measure(name: str, what: str, how: str, run: Callable[[], Any]) -> Any:
    """One figure, said."""
    with device(what, how):
        value = run()
    said = ", ".join(f"{part:.1f}" for part in value) if isinstance(value, tuple) else f"{value:.2f}"
    print(f"  {name:<12} {said}", flush=True)
    return value


def one_run() -> Figure:
    """Everything once."""
    found: Figure = {}
    for v6, suffix in ((False, ""), (True, "_v6")):
        for flows in (1, 16) if not v6 else (1,):
            for how in ("sink", "source"):
                name = f"{how}_{flows}{suffix}"
                moving = functools.partial(stream, how == "sink", flows, v6)
                found[f"raw.{name}"] = measure(f"raw {name}", "raw", how, moving)
                found[name] = measure(name, "stack", how, moving)
    found["both"] = measure("both", "stack", "both", lambda: both_ways(False))
    found["raw.rtt"] = measure("raw rtt", "raw", "echo", round_trips)
    found["rtt"] = measure("rtt", "stack", "echo", round_trips)
    found["connects"] = measure("connects/s", "stack", "close", connects)
    with device("stack", "close") as process:
        found["idle_octets"] = idle_memory(process)
    print(f"  {'idle flow':<12} {found['idle_octets']:.0f} octets", flush=True)
    return found


def spread(values: list[float]) -> Figure:
    """Median and range."""
    return {"median": round(statistics.median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def report(runs: list[Figure], load: tuple[float, float, float]) -> Figure:
    """What is written."""

    def of(name: str) -> list[float]:
        return [run[name] for run in runs]

    names = ("sink_1", "source_1", "sink_16", "source_16", "sink_1_v6", "source_1_v6")
    return {
        "ratios": {name: round(statistics.median(run[name] / run[f"raw.{name}"] for run in runs), 3) for name in names},
        "raw": {name: spread(of(f"raw.{name}")) for name in names},
        "gbit_s": {**{name: spread(of(name)) for name in names}, "both": spread(of("both"))},
        "round_trip_us": {
            "raw_p50": spread([run["raw.rtt"][0] for run in runs]),
            "p50": spread([run["rtt"][0] for run in runs]),
            "p99": spread([run["rtt"][1] for run in runs]),
            "added_p50": spread([run["rtt"][0] - run["raw.rtt"][0] for run in runs]),
            "exchanges_s": spread([run["rtt"][2] for run in runs]),
        },
        "connects_s": spread(of("connects")),
        "idle_flow_octets": spread(of("idle_octets")),
        "idle_flows": IDLE_FLOWS,
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "load": {"before": load, "processors": os.cpu_count(), "python": sys.version.split()[0]},
        "baseline": "the same device, packets and kernel; templates instead of TCP (tests/bench/toy.py)",
    }


def main() -> None:
    """See above."""
    if sys.argv[1:2] != ["inside"]:
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "tests.bench.stack", "inside", *sys.argv[1:]])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if sys.argv[2:3] == ["profile"]:
        how, flows = sys.argv[3], int(sys.argv[4])
        with device("stack", how, str(0.3 + SECONDS / 2)):
            print(f"{stream(how == 'sink', flows, False):.2f} Gbit/s, while it was watched")
        return
    load = os.getloadavg()
    runs = []
    for number in range(RUNS):
        print(f"run {number + 1} of {RUNS} (Gbit/s, microseconds)", flush=True)
        runs.append(one_run())
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(report(runs, load), indent=1) + "\n")
    print(OUTPUT.read_text())


if __name__ == "__main__":
    main()

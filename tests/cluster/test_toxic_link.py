"""A toxic link to the API server carries interactive and bulk traffic, and nobody waits longer than a second."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.cluster.backend import LabBackend
from tests.cluster.ktctl import Ktctl
from tests.cluster.toxic import RATE

TOXIC = Path(__file__).with_name("toxic.py")
PORT = 16443
OCTETS = 1536 << 10
INTERACTIVE = 5
#: The longest that an interactive exchange may take, seconds.
STALL = 1.0
#: A transfer at the link's rate takes 6.3 s; this one shares it.
PATIENCE = 60

#: In the laptop: exchanges of 64 octets on each connection for as long as the transfer takes; prints JSON.
PROGRAM = r"""
import json, socket, sys, threading, time
sys.path.insert(0, sys.argv[1])
from transfer import BLOCK, SEED, block, digest, down, exchange

def up(octets):
    with socket.create_connection(("bytes", 9000), timeout=60) as connection:
        connection.sendall(b"PUT %d\n" % octets)
        for start in range(0, octets, BLOCK):
            connection.sendall(block(SEED)[: octets - start])
        return connection.makefile().readline().strip() == digest(octets, SEED)

def interactive(connection):
    try:
        while not stop.is_set():
            at = time.monotonic()
            exchange(connection)
            took.append((at - began, time.monotonic() - at))
            stop.wait(0.05)
    except OSError as error:
        failed.append(repr(error))

stop, took, failed = threading.Event(), [], []
connections = [socket.create_connection(("echo", 7), timeout=60) for _ in range(int(sys.argv[4]))]
for connection in connections:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    exchange(connection)
began = time.monotonic()
threads = [threading.Thread(target=interactive, args=(connection,)) for connection in connections]
for thread in threads: thread.start()
time.sleep(1)
at = time.monotonic()
equal = {"down": down, "up": up}[sys.argv[2]](int(sys.argv[3]))
seconds = time.monotonic() - at
stop.set()
for thread in threads: thread.join()
print(json.dumps({"equal": equal, "seconds": seconds, "took": took, "failed": failed}))
"""


@pytest.fixture
def through_the_link(lab: LabBackend, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The relay runs in the laptop; the environment of a `ktctl` whose API server is at its near end."""
    config = yaml.safe_load(lab.kubeconfig.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{PORT}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    words = [sys.executable, str(TOXIC), "127.0.0.1", str(PORT), str(server.hostname), str(server.port)]
    with (
        open(tmp_path / "relay", "w") as said,
        subprocess.Popen(lab.laptop_argv(words), stdout=subprocess.PIPE, stderr=said, text=True) as relay,
    ):
        try:
            assert relay.stdout is not None
            assert relay.stdout.readline() == "listening\n"
            yield {"KUBECONFIG": str(kubeconfig), "KT_HOME": str(tmp_path / "home")}
        finally:
            relay.kill()
    print((tmp_path / "relay").read_text())


def transfer_beside_interactive(lab: LabBackend, direction: str) -> None:
    """One transfer, and what the others saw of it."""
    program = [sys.executable, "-c", PROGRAM, str(TOXIC.parent), direction, str(OCTETS), str(INTERACTIVE)]
    done = subprocess.run(
        lab.laptop_argv(program),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE,
        cwd="/",
        env=os.environ,
    )
    found = json.loads(done.stdout)
    took = [seconds for _, seconds in found["took"]]
    at, longest = max(found["took"], key=lambda pair: pair[1])
    print(
        f"{direction}: {OCTETS / found['seconds'] / RATE:.0%} of the link's rate for {found['seconds']:.1f} s; {len(took)} exchanges, "
        f"p50 {statistics.median(took) * 1e3:.0f} ms, max {longest * 1e3:.0f} ms ({at - 1:.1f} s after the transfer began)"
    )
    assert found["equal"]
    assert found["failed"] == []
    assert longest < STALL


@pytest.mark.parametrize("direction", ["down", "up"])
def test_toxic_link(lab: LabBackend, through_the_link: dict[str, str], direction: str) -> None:
    """100 ms of round trip, 2 Mbit/s, jitter."""
    with Ktctl(lab, "connect", "--image", lab.python_image, env=through_the_link) as running:
        running.wait_ready()
        transfer_beside_interactive(lab, direction)
        assert running.process.poll() is None

"""What cuts the way to the cluster cuts no flow: programs' connections go on where they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.backend import LabBackend
from tests.cluster.ktctl import Ktctl
from tests.lab.cluster import Lab

TRANSFER = Path(__file__).with_name("transfer.py")
INTERACTIVE = 20
#: From the way being open to the last interactive connection's answer.
AGAIN_SECONDS = 5.0
#: Seconds from the way being open again to the transfer's end, at the most.
PATIENCE = 120


@pytest.fixture
def running(lab: LabBackend) -> Iterator[Ktctl]:
    with Ktctl(lab, "connect", "--image", lab.python_image) as running:
        running.wait_ready()
        yield running


def transfer_across(lab: LabBackend, direction: str, octets: int, cut: Callable[[], None]) -> None:
    """Begin a transfer and small exchanges beside it, cut the way in the middle, and see it whole."""
    program = [sys.executable, str(TRANSFER), direction, str(octets), str(INTERACTIVE), "held"]
    with subprocess.Popen(
        lab.laptop_argv(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", env=os.environ
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.3)
            cut()
            opened = time.monotonic()
            out, _ = process.communicate("on\n", timeout=PATIENCE)
        finally:
            process.kill()
    result = json.loads(out)
    assert result["equal"]
    assert result["others_failed"] == []
    assert result["others_exchanges"] > INTERACTIVE
    assert result["others_again"] - opened < AGAIN_SECONDS
    print(f"answered again {result['others_again'] - opened:.2f} s after the way was open")


def size(long: bool) -> int:
    return (512 if long else 64) << 20


@pytest.mark.parametrize("direction", ["down", "up"])
def test_api_server_killed_and_started(
    lab: LabBackend, restarts: Lab, running: Ktctl, long: bool, direction: str
) -> None:
    def cut() -> None:
        restarts.kill_apiserver()
        time.sleep(1)
        restarts.start_apiserver()

    transfer_across(lab, direction, size(long), cut)
    assert running.process.poll() is None


def firewall(lab: LabBackend, change: str, rule: str) -> None:
    """Of the laptop, towards the API server: `change` is -I or -D."""
    for chain, port in (("OUTPUT", "--dport"), ("INPUT", "--sport")):
        words = ["iptables", "-w", change, chain, "-p", "tcp", port, "6443", "-j", *rule.split()]
        subprocess.run(lab.laptop_argv(words), check=True, cwd="/", env=os.environ)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_every_websocket_cut_repeatedly(lab: LabBackend, running: Ktctl, long: bool, direction: str) -> None:
    def cut() -> None:
        for _ in range(10 if long else 3):
            firewall(lab, "-I", "REJECT --reject-with tcp-reset")
            time.sleep(0.2)
            firewall(lab, "-D", "REJECT --reject-with tcp-reset")
            time.sleep(1.0)

    transfer_across(lab, direction, size(long), cut)
    assert running.process.poll() is None


@pytest.mark.parametrize("direction", ["down", "up"])
def test_black_hole_of_twenty_seconds(lab: LabBackend, running: Ktctl, long: bool, direction: str) -> None:
    def cut() -> None:
        firewall(lab, "-I", "DROP")
        try:
            time.sleep(20)
        finally:
            firewall(lab, "-D", "DROP")

    transfer_across(lab, direction, size(long), cut)
    assert running.process.poll() is None


@pytest.mark.parametrize("direction", ["down", "up"])
def test_client_stopped_and_continued(lab: LabBackend, running: Ktctl, long: bool, direction: str) -> None:
    """Longer than the agent waits for a sign of life (15 s): it closes the carrier, and the client comes again."""

    def cut() -> None:
        running.signal(signal.SIGSTOP)
        time.sleep(60 if long else 20)
        running.signal(signal.SIGCONT)

    transfer_across(lab, direction, size(long), cut)
    assert running.process.poll() is None


def held_flow(lab: LabBackend) -> subprocess.Popen[str]:
    """A program with an open connection; ends with what became of it."""
    code = (
        "import socket; s = socket.create_connection(('echo', 7), timeout=60); s.sendall(b'x'); s.recv(1); print('open', flush=True)\n"
        "try: print('got', s.recv(1))\n"
        "except ConnectionResetError: print('reset')"
    )
    held = subprocess.Popen(
        lab.laptop_argv([sys.executable, "-c", code]), stdout=subprocess.PIPE, text=True, cwd="/", env=os.environ
    )
    assert held.stdout is not None
    assert held.stdout.readline() == "open\n"
    return held


@pytest.mark.parametrize("how", ["pod deleted", "process killed"])
def test_agent_gone(lab: LabBackend, running: Ktctl, how: str) -> None:
    """Old connections are reset, new ones work within ten seconds, and nothing of the old shadow stays."""
    pod = running.ready["pod"]
    with held_flow(lab) as held:
        if how == "pod deleted":
            lab.kubectl("delete", "pod", pod, "--wait=false")
        else:
            found = [
                entry.name
                for entry in Path("/proc").iterdir()
                if entry.name.isdigit() and b"agent.pyz" in (entry / "cmdline").read_bytes()
            ]
            assert found
            for pid in found:
                os.kill(int(pid), signal.SIGKILL)
        gone = time.monotonic()
        try:
            out, _ = held.communicate(timeout=30)
        finally:
            held.kill()
        assert out == "reset\n"
    code = "import socket; s = socket.create_connection(('web', 80), timeout=30); print('connected')"
    again = subprocess.run(
        lab.laptop_argv([sys.executable, "-c", code]),
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ,
        check=False,
    )
    assert again.stdout == "connected\n", again.stderr
    print(f"{how}: connected again {time.monotonic() - gone:.1f} s after")
    assert time.monotonic() - gone < 10
    assert running.process.poll() is None
    jobs = lab.kubectl("get", "jobs", "-l", "control-by=kt", "-o", "name").split()
    assert len(jobs) == 1

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

TRANSFER = Path(__file__).with_name("transfer.py")
INTERACTIVE = 20
#: Seconds from the way being open again to the transfer's end, at the most.
PATIENCE = 120


@pytest.fixture
def running(lab: LabBackend) -> Iterator[Ktctl]:
    with Ktctl(lab, "connect", "--image", lab.python_image) as running:
        running.wait_ready()
        yield running


def transfer_across(lab: LabBackend, direction: str, octets: int, cut: Callable[[], None]) -> None:
    """Begin a transfer and small exchanges beside it, cut the way in the middle, and see it whole."""
    program = [sys.executable, str(TRANSFER), direction, str(octets), str(INTERACTIVE)]
    with subprocess.Popen(
        lab.laptop_argv(program), stdout=subprocess.PIPE, text=True, cwd="/", env=os.environ
    ) as process:
        time.sleep(0.6)
        assert process.poll() is None, "the transfer was over before anything was cut"
        cut()
        assert process.stdout is not None
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    result = json.loads(out)
    assert result["equal"]
    assert result["others_failed"] == []
    assert result["others_exchanges"] > INTERACTIVE


def size(long: bool) -> int:
    return (512 if long else 64) << 20


@pytest.mark.parametrize("direction", ["down", "up"])
def test_api_server_killed_and_started(lab: LabBackend, running: Ktctl, long: bool, direction: str) -> None:
    def cut() -> None:
        lab.lab.kill_apiserver()
        time.sleep(1)
        lab.lab.start_apiserver()

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

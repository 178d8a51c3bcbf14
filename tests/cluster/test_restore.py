"""However the client ends: the laptop's network is byte for byte what it was, and the cluster's objects go."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.cluster.backend import LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl, ktctl

#: Seconds within which this machine is as it was.
LAPTOP_SECONDS = 1.0
#: Seconds within which names outside the cluster work while the client is stopped, and the cluster's when it goes on.
STOPPED_SECONDS = 5.0
#: The agent's idle time in these tests, and what the garbage collector may take after it.
IDLE = 3
COLLECTOR_SECONDS = 30


def picture(laptop: Callable[..., subprocess.CompletedProcess[str]], lab: LabBackend) -> list[str]:
    """Routes, rules, interfaces and the two files."""
    commands = (
        ("ip", "-4", "route", "show", "table", "all"),
        ("ip", "-6", "route", "show", "table", "all"),
        ("ip", "rule"),
        ("ip", "-6", "rule"),
        ("ip", "-o", "link"),
        ("sh", "-c", "sha256sum /etc/resolv.conf /etc/hosts; stat -c '%i %a %u' /etc/resolv.conf /etc/hosts"),
    )
    return [laptop(*command).stdout for command in commands]


def wait_same(before: list[str], look: Callable[[], list[str]], seconds: float) -> float:
    """Until it looks as before; how long that took."""
    started = time.monotonic()
    while look() != before:
        assert time.monotonic() - started < seconds, "the laptop's network is not what it was"
    return time.monotonic() - started


def wait_cluster_empty(lab: LabBackend) -> None:
    wait_nothing_of_ours(lab, IDLE + COLLECTOR_SECONDS)


@pytest.fixture
def look(lab: LabBackend, laptop: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[], list[str]]:
    return lambda: picture(laptop, lab)


def connected(lab: LabBackend) -> Ktctl:
    running = Ktctl(lab, "connect", "--image", lab.python_image, "--idle-exit", str(IDLE))
    running.wait_ready()
    return running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_client_ends(lab: LabBackend, look: Callable[[], list[str]], number: signal.Signals) -> None:
    before = look()
    with connected(lab) as running:
        assert look() != before
        running.signal(number)
        if number is signal.SIGKILL:
            wait_same(before, look, LAPTOP_SECONDS)
        code = running.wait_ended()
    wait_same(before, look, LAPTOP_SECONDS)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    wait_cluster_empty(lab)


def test_client_and_helper_killed(lab: LabBackend, look: Callable[[], list[str]]) -> None:
    """The guard is still there."""
    before = look()
    with connected(lab) as running:
        os.kill(running.helper_pid(), signal.SIGKILL)
        running.signal(signal.SIGKILL)
        running.wait_ended()
        wait_same(before, look, LAPTOP_SECONDS)
    wait_cluster_empty(lab)


@pytest.mark.parametrize("by", ["disconnect", "connect"])
def test_client_helper_and_guard_killed(lab: LabBackend, look: Callable[[], list[str]], by: str) -> None:
    before = look()
    with connected(lab) as running:
        os.kill(running.guard_pid(), signal.SIGKILL)
        os.kill(running.helper_pid(), signal.SIGKILL)
        running.signal(signal.SIGKILL)
        running.wait_ended()
    assert look() != before, "nothing was left to restore: this test shows nothing"
    if by == "disconnect":
        code, answer = ktctl(lab, "disconnect")
        assert code == 0
        assert any("resolv.conf restored" in line for line in answer["restored"])
    else:
        with connected(lab):
            pass
    wait_same(before, look, LAPTOP_SECONDS)
    wait_cluster_empty(lab)


def test_stopped_client_leaves_this_machine_its_names(
    lab: LabBackend, laptop: Callable[..., subprocess.CompletedProcess[str]], long: bool
) -> None:
    """Names outside the cluster work within five seconds while it is stopped; the cluster's again when it goes on."""

    def resolves(name: str) -> bool:
        # A question that is on its way when the client stops waits in libc for long; what counts is the next program's.
        return laptop("timeout", "1", "getent", "ahosts", name, check=False).returncode == 0

    with connected(lab) as running:
        assert resolves("echo.default")
        running.signal(signal.SIGSTOP)
        started = time.monotonic()
        while not resolves("www.world.test"):
            assert time.monotonic() - started < STOPPED_SECONDS
        print(f"  names outside the cluster after {time.monotonic() - started:.1f} s")
        time.sleep(60 if long else 5)
        assert resolves("www.world.test")
        assert not resolves("echo.default"), "nobody is there to know it"
        running.signal(signal.SIGCONT)
        started = time.monotonic()
        while not resolves("echo.default"):
            assert time.monotonic() - started < STOPPED_SECONDS
    wait_cluster_empty(lab)


def test_helper_killed_ends_the_connection(lab: LabBackend, look: Callable[[], list[str]]) -> None:
    """Without the helper nobody would undo: the client notices, and undoes from the journal."""
    before = look()
    with connected(lab) as running:
        os.kill(running.helper_pid(), signal.SIGKILL)
        assert running.wait_ended() == 33
    wait_same(before, look, LAPTOP_SECONDS)
    wait_cluster_empty(lab)


def test_output_that_nobody_reads(lab: LabBackend, look: Callable[[], list[str]]) -> None:
    """As `ktctl connect | head -1` does."""
    before = look()
    with Ktctl(lab, "connect", "--image", lab.python_image, "--idle-exit", str(IDLE)) as running:
        assert running.process.stdout is not None
        assert running.process.stderr is not None
        running.process.stdout.close()
        running.process.stderr.close()
        running.process.wait(20)
    wait_same(before, look, LAPTOP_SECONDS)
    wait_cluster_empty(lab)


def test_disconnect_from_another_terminal(lab: LabBackend, look: Callable[[], list[str]]) -> None:
    before = look()
    with connected(lab) as running:
        code, answer = ktctl(lab, "disconnect")
        assert (code, answer["ended"]) == (0, True)
        assert running.wait_ended() == 0
    assert look() == before
    wait_cluster_empty(lab)


def test_nothing_to_disconnect(lab: LabBackend) -> None:
    code, answer = ktctl(lab, "disconnect")
    assert (code, answer["error"]["class"]) == (36, "NotConnected")


@pytest.mark.parametrize("delay", [0.1, 0.4, 0.7, 1.0, 1.3])
def test_interrupted_while_connecting(lab: LabBackend, look: Callable[[], list[str]], delay: float) -> None:
    before = look()
    with Ktctl(lab, "connect", "--image", lab.python_image, "--idle-exit", str(IDLE)) as running:
        time.sleep(delay)
        running.signal(signal.SIGINT)
        running.wait_ended()
    wait_same(before, look, LAPTOP_SECONDS)
    wait_cluster_empty(lab)

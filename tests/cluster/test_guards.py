"""Whoever dies, the Service is given back: by the watchdog within seconds, by the agent when the Lease has run out."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from tests.cluster.backend import LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl
from tests.cluster.local import Hello, program
from tests.cluster.test_exchange import as_it_was, exchange, wait_says
from tests.lab.cluster import Lab

#: A killed client's watchdog.
WATCHDOG_SECONDS = 3.0
#: A Lease is renewed every 10 s, holds for 30 s, and is looked at every 2 s.
AGENT_SECONDS = 30.0 + 5.0
#: An ended Job stays for 20 s, and then it is the garbage collector's.
COLLECTOR_SECONDS = 60.0


def watchdog_pid(running: Ktctl) -> int:
    """Of the exchange's watchdog: a child of ktctl."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    (found,) = (child for child in children if b"watchdog" in Path(f"/proc/{child}/cmdline").read_bytes())
    return int(found)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or "Z (" in Path(f"/proc/{pid}/stat").read_text().replace(") Z", "Z (")


def wait_given_back(lab: LabBackend, before: object, seconds: float) -> float:
    """Until the Service is what it was; how long that took."""
    started = time.monotonic()
    while as_it_was(lab, "web") != before:
        assert time.monotonic() - started < seconds, as_it_was(lab, "web")
        time.sleep(0.05)
    return time.monotonic() - started


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_killed_the_watchdog_gives_back(lab: LabBackend) -> None:
    before = as_it_was(lab, "web")
    with program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80") as running:
        running.wait_ready()
        wait_says(lab, "from the laptop", "web")
        guard = watchdog_pid(running)
        kill(running.process.pid)
        print(f"given back {wait_given_back(lab, before, WATCHDOG_SECONDS):.2f} s after the client was killed")
        wait_says(lab, "hello from web", "web")
        wait_nothing_of_ours(lab, COLLECTOR_SECONDS)
        limit = time.monotonic() + 10
        while not gone(guard):
            assert time.monotonic() < limit
            time.sleep(0.1)


def test_killed_with_its_watchdog_the_agent_gives_back(lab: LabBackend) -> None:
    before = as_it_was(lab, "web")
    with exchange(lab, "web", "--expose", "8080:80") as running:
        assert running.wait_ready()["services"][0]["nets"] == ["client", "watchdog", "agent"]
        kill(watchdog_pid(running), running.process.pid)
        print(f"given back {wait_given_back(lab, before, AGENT_SECONDS):.1f} s after both were killed")
        wait_nothing_of_ours(lab, COLLECTOR_SECONDS)


def test_away_for_long_it_finds_the_service_given_back(lab: LabBackend, long: bool) -> None:
    """A client that is only stopped, as a laptop that sleeps: its watchdog waits, its Lease does not."""
    before = as_it_was(lab, "web")
    with exchange(lab, "web", "--expose", "8080:80") as running:
        running.wait_ready()
        running.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        print(f"given back {wait_given_back(lab, before, AGENT_SECONDS):.1f} s after the client was stopped")
        time.sleep(max(0.0, (60 if long else 36) - (time.monotonic() - stopped)))
        running.signal(signal.SIGCONT)
        assert running.process.stdout is not None
        answer = json.loads(running.process.stdout.readline())
        assert (answer["error"]["class"], answer["exit"]) == ("GivenBack", 42)
        running.wait_ended()
    assert as_it_was(lab, "web") == before
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)


def test_an_api_server_that_is_away_is_nobodys_death(lab: LabBackend, restarts: Lab) -> None:
    """Longer than the Lease, too: nobody can renew it then, and the agent knows."""
    before = as_it_was(lab, "web")
    with program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80") as running:
        running.wait_ready()
        restarts.kill_apiserver()
        time.sleep(40)
        restarts.start_apiserver()
        restarts.wait_controllers()  # a node that was silent for so long is not ready, and its pods are nobody's ends
        time.sleep(5)
        assert running.process.poll() is None
        wait_says(lab, "from the laptop", "web", seconds=30)
    assert as_it_was(lab, "web") == before
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)


def test_killed_while_the_api_server_is_away(lab: LabBackend, restarts: Lab) -> None:
    """The watchdog waits for it."""
    before = as_it_was(lab, "web")
    with exchange(lab, "web", "--expose", "8080:80") as running:
        running.wait_ready()
        restarts.kill_apiserver()
        kill(running.process.pid)
        time.sleep(5)
        restarts.start_apiserver()
        wait_given_back(lab, before, 20)
    restarts.wait_controllers()
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)

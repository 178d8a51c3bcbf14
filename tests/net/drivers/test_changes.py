"""Links, routes, sleep and being stopped are noticed."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

from kt_net.drivers.changes import LATE_SECONDS, LOOK_SECONDS, Changes
from kt_net.drivers.loop import Loop
from tests.net.namespaces import run_inside


def links_and_routes() -> list[list[str]]:
    """What is told after each change."""
    loop, told, happened = Loop(), list[str](), threading.Event()

    def changed(why: str) -> None:
        told.append(why)
        happened.set()

    changes = Changes(loop, changed)
    loop.start("changes")
    found = []
    for command in ("ip link add d0 type veth peer name d1", "ip link set d0 up", "ip route add 192.0.2.0/24 dev d0"):
        subprocess.run(command.split(), check=True)
        assert happened.wait(5), command
        time.sleep(0.3)
        found.append(list(told))
        told.clear()
        happened.clear()
    loop.stop()
    changes.close()
    return found


def test_links_and_routes(tmp_path: Path) -> None:
    for told in run_inside(links_and_routes, tmp_path):
        assert set(told) == {"links or routes of this machine have changed"}


def test_sleep_and_stop() -> None:
    """By clocks that the test moves; the loop never runs."""
    now, asleep, told = 1000.0, 50.0, list[str]()
    loop = Loop(clock=lambda: now)
    changes = Changes(loop, told.append, asleep=lambda: asleep)
    changes.handle_timer(now=now + LOOK_SECONDS + 0.1)
    assert told == []
    now += LOOK_SECONDS + 0.1
    changes.handle_timer(now=now + LOOK_SECONDS + LATE_SECONDS + 0.1)
    assert told == ["this process was stopped"]
    now += LOOK_SECONDS + LATE_SECONDS + 0.1
    asleep += 3600
    changes.handle_timer(now=now + LOOK_SECONDS)
    assert told[1:] == ["this machine has slept"]
    changes.close()
    loop.stop()
    loop.run()  # ends at once, and closes what it has open

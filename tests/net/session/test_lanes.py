"""The lanes of a session with a real agent, over plain sockets instead of websockets, in a network namespace."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kt_net.session.lanes as lanes_module
from kt_net.drivers.loop import Loop
from kt_net.errors import KtError, TunnelLost
from kt_net.relay.streams import Switchboard
from kt_net.session.lanes import KEPT_LANES, Lanes
from kt_net.tunnel.events import Forgotten, GoneOn, HelloReceived, PeerSilent
from shadow_image.bundle import build_zipapp
from tests.net.namespaces import run_inside

PORT = 7777


class PlainCarrier:
    """A carrier that is a TCP connection."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        connected.setblocking(False)
        self._out: deque[memoryview] = deque()

    pending = False

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    @property
    def queued(self) -> int:
        return sum(map(len, self._out))

    def receive(self) -> list[memoryview]:
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return []
        except OSError as error:
            raise TunnelLost("broken") from error
        if not data:
            raise TunnelLost("ended")
        return [memoryview(data)]

    def send(self, buffers: list[bytes | memoryview]) -> None:
        self._out.extend(map(memoryview, buffers))

    def flush(self) -> bool:
        try:
            while self._out:
                sent = self.socket.send(self._out[0])
                if sent == len(self._out[0]):
                    self._out.popleft()
                else:
                    self._out[0] = self._out[0][sent:]
        except BlockingIOError:
            return False
        except OSError as error:
            raise TunnelLost("broken") from error
        return True

    def close(self) -> None:
        self.socket.close()


class Session:
    """Lanes, and what an engine does with their events."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.switchboard = Switchboard()
        self.carriers: list[PlainCarrier] = []
        self.said: list[str] = []
        self.failures: list[KtError] = []
        self.refuse = threading.Event()
        self.lanes = Lanes(
            self.loop,
            self.switchboard,
            dial=self.dial,
            look=lambda: None,
            report={},
            failed=self.failures.append,
            progress=self.said.append,
        )

    def dial(self, seconds: float) -> PlainCarrier:
        if self.refuse.is_set():
            raise TunnelLost("refused")
        try:
            carrier = PlainCarrier(socket.create_connection(("127.0.0.1", PORT), timeout=seconds))
        except OSError as error:
            raise TunnelLost("refused", why=str(error)) from error
        self.carriers.append(carrier)
        return carrier

    def move(self, now: float) -> None:
        self.switchboard.pump(now=now)
        while (happened := self.switchboard.next_event()) is not None:
            event = happened.event
            if isinstance(event, HelloReceived):
                self.lanes.greeted(happened.lane)
            elif isinstance(event, GoneOn):
                self.lanes.gone_on(happened.lane)
            elif isinstance(event, Forgotten):
                self.lanes.forgotten(happened.lane)
            elif isinstance(event, PeerSilent):
                self.lanes.silent(happened.lane)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < limit, (what, self.said, self.failures)
            assert self.loop.running, self.loop.failure
            time.sleep(0.02)


def agent(folder: Path) -> subprocess.Popen[bytes]:
    """Running from its bundle."""
    bundle = folder / "agent.pyz"
    bundle.write_bytes(build_zipapp())
    return subprocess.Popen([sys.executable, "-I", str(bundle), "--port", str(PORT)], stderr=subprocess.DEVNULL)


@contextmanager
def session(folder: str) -> Iterator[tuple[Session, list[subprocess.Popen[bytes]]]]:
    """Both, up to the end."""
    running, agents = Session(), [agent(Path(folder))]
    running.loop.add_mover(running.move)
    running.lanes.start()
    running.loop.start("session")
    try:
        yield running, agents
    finally:
        running.lanes.close()
        running.loop.stop()
        running.lanes.close_carriers()
        for one in agents:
            one.kill()
            one.wait()


def whole(running: Session, count: int = KEPT_LANES) -> Callable[[], bool]:
    return lambda: [lane.attached for lane in list(running.lanes._lanes.values())] == [True] * count


def opened_and_closed(folder: str) -> Any:
    lanes_module.IDLE_SECONDS = 1.0  # type: ignore[misc]
    with session(folder) as (running, _):
        running.wait(whole(running), "three lanes")
        for count in (4, 5, 6, 6):
            running.switchboard.crowded = True
            running.loop.call_soon(lambda: None)
            time.sleep(0.3)
            running.wait(whole(running, count), f"{count} lanes")
        running.wait(whole(running), "three lanes again")
        return {"said": running.said, "failures": len(running.failures)}


def test_lanes_open_when_crowded_and_close_when_idle(tmp_path: Path) -> None:
    """Never more than six, and the first three stay."""
    assert run_inside(opened_and_closed, tmp_path, str(tmp_path)) == {"said": [], "failures": 0}


def cut(folder: str) -> Any:
    with session(folder) as (running, _):
        running.wait(whole(running), "three lanes")
        for number in range(3):
            before = len(running.carriers)
            running.refuse.set()
            for carrier in running.carriers:
                if carrier.fileno() >= 0:
                    carrier.socket.shutdown(socket.SHUT_RDWR)
            running.wait(lambda: not any(lane.attached for lane in running.lanes._lanes.values()), "noticed")
            running.refuse.clear()
            running.wait(whole(running), f"whole again, {number}")
            assert len(running.carriers) == before + KEPT_LANES
        return {"said": running.said, "failures": len(running.failures)}


def test_every_carrier_cut(tmp_path: Path) -> None:
    """A cut and its end are said once each, however many lanes there are."""
    found = run_inside(cut, tmp_path, str(tmp_path))
    # Whether an end is an end or a reset depends on what was on its way.
    assert [line.partition("; ")[2] or line for line in found["said"]] == ["reconnecting", "connected again"] * 3
    assert found["failures"] == 0


def restarted(folder: str) -> Any:
    with session(folder) as (running, agents):
        running.wait(whole(running), "three lanes")
        agents[-1].kill()
        agents[-1].wait()
        agents.append(agent(Path(folder)))
        running.wait(lambda: "connected again" in running.said, "connected again")
        running.wait(whole(running), "three lanes again")
        return {"said": running.said, "failures": len(running.failures)}


def test_agent_that_began_anew(tmp_path: Path) -> None:
    found = run_inside(restarted, tmp_path, str(tmp_path))
    assert found["failures"] == 0
    assert found["said"][0].endswith("; reconnecting")
    assert found["said"][1:] == ["the agent has begun anew; reconnecting", "connected again"]


def nobody(folder: str) -> Any:
    running = Session()
    running.refuse.set()
    lanes_module.LISTEN_SECONDS = 1.0  # type: ignore[misc]
    running.loop.add_mover(running.move)
    running.lanes.start()
    running.loop.start("session")
    running.wait(lambda: bool(running.failures), "a failure")
    running.lanes.close()
    running.loop.stop()
    running.lanes.close_carriers()
    return [str(failure) for failure in running.failures]


def test_nobody_there(tmp_path: Path) -> None:
    """An agent that never answers ends the attempt."""
    assert run_inside(nobody, tmp_path, str(tmp_path)) == ["refused"]

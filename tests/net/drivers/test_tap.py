"""Others look on at a real TUN: who does not read, who is killed and who speaks nonsense is nobody else's trouble."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kt_net.drivers.device import DeviceDriver
from kt_net.drivers.loop import Loop
from kt_net.drivers.tap import MAX_TAPS, QUEUE_OCTETS, Taps
from kt_net.stack import Stack
from kt_net.tun.captured import Captured, CapturedParser, CaptureEnd
from kt_net.tun.filter import parse_filter
from kt_net.tun.linux import open_tun
from tests.net.namespaces import run_inside

FAR, FLOOD, MARK = "10.199.0.2", 7, 9
SECONDS = 20.0


class World:
    """A device with a stack behind it on a loop, in a network namespace of its own, and what looks on."""

    def __init__(self) -> None:
        device = open_tun("kt9", mtu=1500, offload=True)
        subprocess.run(["ip", "addr", "add", "10.199.0.1/24", "dev", "kt9"], check=True)
        self.device = device
        self.loop = Loop()
        self.driver = DeviceDriver(self.loop, device, Stack(entropy=os.urandom, mtu=1500, offload=True))
        self.taps = Taps(self.loop, self.driver, time.time)
        self.programs = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.loop.start("loop")

    def on_loop(self, call: Callable[[], object]) -> None:
        """Call and wait for it."""
        done = threading.Event()

        def both() -> None:
            call()
            done.set()

        self.loop.call_soon(both)
        assert done.wait(SECONDS), self.loop.failure

    def look_on(self, **words: str) -> socket.socket:
        """The reader's end."""
        ours, theirs = socket.socketpair()
        self.on_loop(lambda: self.taps.add(ours, parse_filter(**words)))
        theirs.settimeout(SECONDS)
        return theirs

    def send(self, port: int, octets: int = 1400) -> None:
        """A program's datagram."""
        self.programs.sendto(bytes(octets), (FAR, port))

    def wait_passed(self, marks: socket.socket) -> None:
        """Until all that was sent has passed: a mark behind it has. The device's queue may be full, and marks are lost like others."""
        limit = time.monotonic() + SECONDS
        while not select.select([marks], [], [], 0.05)[0]:
            assert time.monotonic() < limit
            self.send(MARK)

    def wait_looked_on(self) -> None:
        """Until somebody looks on."""
        limit = time.monotonic() + SECONDS
        while not len(self.taps):
            assert time.monotonic() < limit
            time.sleep(0.01)

    def wait_alone(self) -> None:
        """Until nobody looks on."""
        limit = time.monotonic() + SECONDS
        while len(self.taps):
            assert time.monotonic() < limit
            time.sleep(0.01)

    def untouched(self) -> bool:
        """Whether the loop runs and the driver has the very device again."""
        self.on_loop(lambda: None)  # a reader sees its end before the loop has taken the tap off
        return self.loop.running and self.driver.device is self.device


class Reader:
    """All records of a socket, read on a thread."""

    def __init__(self, connected: socket.socket) -> None:
        self.packets = 0
        self.dropped = -1
        self._socket = connected
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        parser = CapturedParser()
        while data := self._socket.recv(1 << 20):
            for record in parser.receive(data):
                self.packets += isinstance(record, Captured)
                if isinstance(record, CaptureEnd):
                    self.dropped = record.dropped

    def finish(self) -> None:
        """It is enough."""
        self._socket.shutdown(socket.SHUT_WR)
        self._thread.join(SECONDS)


def stops_reading() -> dict[str, Any]:
    world = World()
    marks, quick, stopped = (
        world.look_on(port=str(MARK)),
        world.look_on(port=str(FLOOD)),
        world.look_on(port=str(FLOOD)),
    )
    reader = Reader(quick)
    for number in range(3 * QUEUE_OCTETS // 1400):
        world.send(FLOOD)
        if not number % 64:
            time.sleep(0.002)  # the device's own queue has 500 packets
    world.wait_passed(marks)
    late = Reader(stopped)
    late.finish()
    reader.finish()
    marks.close()
    world.wait_alone()
    return {
        "passed": reader.packets + reader.dropped,
        "late": late.packets + late.dropped,
        "dropped": late.dropped,
        "untouched": world.untouched(),
    }


def test_who_stops_reading_loses_packets_and_is_told_how_many(tmp_path: Path) -> None:
    came = run_inside(stops_reading, tmp_path)
    assert came["late"] == came["passed"] > 0
    assert came["dropped"] > 0
    assert came["untouched"]


def is_killed() -> dict[str, Any]:
    world = World()
    theirs = world.look_on()
    watching = world.look_on(port=str(FLOOD))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[theirs.fileno()]) as child:
        theirs.close()
        for _ in range(300):
            world.send(FLOOD)  # much of it waits for the child
        two = len(world.taps)
        child.send_signal(signal.SIGKILL)
    limit = time.monotonic() + SECONDS
    while len(world.taps) > 1:
        assert time.monotonic() < limit
        time.sleep(0.01)
    goes_on = bool(watching.recv(4096))
    watching.close()
    world.wait_alone()
    return {"two": two, "goes_on": goes_on, "untouched": world.untouched()}


def test_who_is_killed_is_forgotten(tmp_path: Path) -> None:
    assert run_inside(is_killed, tmp_path) == {"two": 2, "goes_on": True, "untouched": True}


def speaks() -> dict[str, Any]:
    world = World()
    theirs = world.look_on()
    inserted = world.driver.device is not world.device
    theirs.sendall(b"GET / HTTP/1.1\r\n")
    ended = None
    try:
        while ended != b"":
            ended = theirs.recv(65536)
    except ConnectionResetError:
        ended = b""  # what we said was not read
    world.wait_alone()
    return {"inserted": inserted, "ended": ended == b"", "untouched": world.untouched()}


def test_who_speaks_is_cut_off(tmp_path: Path) -> None:
    assert run_inside(speaks, tmp_path) == {"inserted": True, "ended": True, "untouched": True}


def too_many() -> dict[str, Any]:
    world = World()
    readers = [world.look_on(port="1") for _ in range(MAX_TAPS)]
    late = world.look_on(port="1").recv(1)
    world.on_loop(world.taps.close)
    ends = [reader.recv(1) for reader in readers]
    return {
        "late": len(late),
        "ends": ends == [b""] * MAX_TAPS,
        "left": len(world.taps),
        "untouched": world.untouched(),
    }


def test_one_more_than_may_and_the_end_of_all(tmp_path: Path) -> None:
    assert run_inside(too_many, tmp_path) == {"late": 0, "ends": True, "left": 0, "untouched": True}

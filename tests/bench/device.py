"""The device's side of `tests.bench.stack`, a process of its own: `python -m tests.bench.device raw|stack sink|source|both|echo|close`.

Says "ready" when the device is up, ends when standard input does, and then says what it cost. With a number of seconds behind (for the
stack) it ends after those and says where the time went.

Not here: the kernel's side.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import resource
import sys
import threading
import time

from kt_net.drivers.device import DeviceDriver
from kt_net.drivers.loop import Loop
from kt_net.errors import StreamClosed
from kt_net.stack import (
    DataAcknowledged,
    DataReceived,
    EndReceived,
    FlowRequested,
    Stack,
    StackConfig,
)
from kt_net.tun.linux import open_tun
from tests.bench.toy import Toy

DEVICE = "kt0"
MTU = 1500
#: As much as the stack is asked to keep towards one program, and lets it send.
WINDOW = 1 << 20
BLOCK = bytes(1 << 16)


class App:
    """What stands behind the flows, in place of the relay."""

    def __init__(self, stack: Stack, how: str) -> None:
        self._stack = stack
        self._how = how
        self._room: dict[int, int] = {}  # octets that a flow may have waiting, and has not

    def pump(self, now: float) -> None:
        """Move events."""
        stack = self._stack
        while (event := stack.next_event()) is not None:
            try:
                self._event(event, now)
            except StreamClosed:
                pass  # reset meanwhile

    def _event(self, event: object, now: float) -> None:
        stack, how = self._stack, self._how
        if isinstance(event, DataReceived):
            if how == "echo":
                stack.send(event.flow, event.data, now=now)
            stack.grant(event.flow, len(event.data), now=now)
        elif isinstance(event, DataAcknowledged):
            if event.flow in self._room:
                self._fill(event.flow, event.octets, now)
        elif isinstance(event, FlowRequested):
            stack.accept(event.flow, window=WINDOW, now=now)
            # Port 81 only reads: `both` has one flow of each kind.
            if how == "source" or (how == "both" and event.destination.port != 81):
                self._room[event.flow] = 0
                self._fill(event.flow, WINDOW, now)
        elif isinstance(event, EndReceived):
            stack.finish(event.flow, now=now)

    def _fill(self, flow: int, octets: int, now: float) -> None:
        room = self._room[flow] + octets
        while room >= len(BLOCK):
            self._stack.send(flow, BLOCK, now=now)
            room -= len(BLOCK)
        self._room[flow] = room


def main() -> None:
    """See above."""
    what, how, *seconds = sys.argv[1:]
    device = open_tun(DEVICE, mtu=MTU, offload=True)
    if what == "raw":
        run = Toy(device, how).run
    else:
        loop = Loop()
        stack = Stack(entropy=os.urandom, mtu=MTU, offload=True, config=StackConfig(pending_flows=8192))
        DeviceDriver(loop, device, stack)
        loop.add_mover(App(stack, how).pump)
        run = loop.run
        if seconds:
            threading.Timer(float(seconds[0]), loop.stop).start()
    threading.Thread(target=_until_told, daemon=True).start()
    print("ready", flush=True)
    if not seconds:
        run()
        return
    profile = cProfile.Profile()
    profile.runcall(run)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)


def _until_told() -> None:
    while line := sys.stdin.readline():
        if line.strip() == "memory":
            print(json.dumps({"rss": _resident()}), flush=True)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "at": time.monotonic()}), flush=True)
    os._exit(0)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()

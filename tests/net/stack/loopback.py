"""A relay to this very namespace: flows to any address behind the device go to the same port of 127.0.0.1.

So that programs (iperf3, curl, redis-benchmark) and their servers can be put on both ends of the stack on one machine.

Not here: what is tested with it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kt_net.drivers.device import DeviceDriver
from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.errors import StreamClosed
from kt_net.stack import (
    DataAcknowledged,
    DataReceived,
    EndReceived,
    FlowClosed,
    FlowRequested,
    FlowReset,
    Stack,
    StackEvent,
)
from kt_net.tun.linux import open_tun

DEVICE = "kt9"
WINDOW = 1 << 20
BLOCK = 1 << 16
#: Buffers of one sendmsg (IOV_MAX).
_PIECES = 1024


class _Joint:
    """One flow and its socket."""

    def __init__(self, relay: LoopbackRelay, flow: int, port: int) -> None:
        self._relay = relay
        self.flow = flow
        self._connected = False
        self._out: list[memoryview] = []
        self._ended = False
        self._room = WINDOW  # octets that may still go to the stack
        self._reading = True
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", port))
        self.watch()

    def watch(self) -> None:
        """Wait for what can be done."""
        interest = 0
        if not self._connected or self._out:
            interest |= WRITE
        if self._connected and self._reading and self._room > 0:
            interest |= READ
        self._relay.loop.watch(self.socket.fileno(), interest, self._ready)

    def _ready(self, mask: int) -> None:
        stack, now = self._relay.stack, self._relay.loop.now()
        try:
            if not self._connected:
                if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    stack.refuse(self.flow, now=now)
                    self._relay.forget(self.flow)
                    return
                self._connected = True
                stack.accept(self.flow, window=WINDOW, now=now)
            else:
                if mask & WRITE:
                    self._flush()
                if mask & READ:
                    self._read()
            self.watch()
        except StreamClosed:
            pass  # its event is on the way
        except (ConnectionResetError, BrokenPipeError):
            stack.reset(self.flow, now=now)
            self._relay.forget(self.flow)

    def _read(self) -> None:
        data = self.socket.recv(min(self._room, BLOCK))
        now = self._relay.loop.now()
        if not data:
            self._reading = False
            self._relay.stack.finish(self.flow, now=now)
            return
        self._room -= len(data)
        self._relay.stack.send(self.flow, data, now=now)

    def _flush(self) -> None:
        sent = 0
        try:
            while self._out:
                taken = self.socket.sendmsg(self._out[:_PIECES])
                sent += taken
                while self._out and taken >= len(self._out[0]):
                    taken -= len(self._out.pop(0))
                if taken:
                    self._out[0] = self._out[0][taken:]
        except BlockingIOError:
            pass
        if sent:
            self._relay.stack.grant(self.flow, sent, now=self._relay.loop.now())
        if self._ended and not self._out:
            self.socket.shutdown(socket.SHUT_WR)
            self._ended = False

    def data(self, data: bytes | memoryview) -> None:
        """From the program; goes on with the next `flush`."""
        self._out.append(memoryview(data))

    def flush(self) -> None:
        """Everything that has come goes to the socket, at once."""
        self._flush()
        self.watch()

    def acknowledged(self, octets: int) -> None:
        """The program's kernel has taken so much."""
        self._room += octets
        self.watch()

    def ended(self) -> None:
        """The program will send nothing more."""
        self._ended = True
        self._flush()


class LoopbackRelay:
    """Stands between a stack and sockets."""

    def __init__(self, loop: Loop, stack: Stack) -> None:
        self.loop = loop
        self.stack = stack
        self._joints: dict[int, _Joint] = {}
        #: Flows that were reset by the program's side or given up.
        self.resets = 0

    def pump(self, now: float) -> None:
        """Move events."""
        touched: set[_Joint] = set()
        joints = self._joints
        while (event := self.stack.next_event()) is not None:
            if not isinstance(event, DataReceived):
                self._try(partial(self._event, event), event.flow, now)
            elif event.flow in joints:
                joints[event.flow].data(event.data)
                touched.add(joints[event.flow])
        for joint in touched:
            if joint.flow in joints:
                self._try(joint.flush, joint.flow, now)

    def _try(self, call: Callable[[], None], flow: int, now: float) -> None:
        try:
            call()
        except StreamClosed:
            pass
        except OSError:
            self.stack.reset(flow, now=now)
            self.forget(flow)

    def _event(self, event: StackEvent) -> None:
        if isinstance(event, FlowRequested):
            self._joints[event.flow] = _Joint(self, event.flow, event.destination.port)
            return
        joint = self._joints.get(event.flow)
        if joint is None:
            return
        if isinstance(event, DataAcknowledged):
            joint.acknowledged(event.octets)
        elif isinstance(event, EndReceived):
            joint.ended()
        elif isinstance(event, FlowReset | FlowClosed):
            self.resets += isinstance(event, FlowReset)
            self.forget(event.flow)

    def forget(self, flow: int) -> None:
        """The flow is over."""
        joint = self._joints.pop(flow, None)
        if joint is not None:
            self.loop.watch(joint.socket.fileno(), 0, joint._ready)
            joint.socket.close()


class Running:
    """A device, a stack and a relay on a thread of their own; a context manager."""

    def __init__(self, *, offload: bool = True, mtu: int = 1500, address: str = "10.199.0.1") -> None:
        self.loop = Loop()
        device = open_tun(DEVICE, mtu=mtu, offload=offload)
        for words in (
            f"addr add {address}/32 dev {DEVICE}",
            f"route add 10.96.0.0/16 dev {DEVICE} src {address}",
            f"-6 addr add fd99::1/128 dev {DEVICE} nodad",
            f"-6 route add fd96::/16 dev {DEVICE} src fd99::1",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        self.stack = Stack(entropy=os.urandom, mtu=mtu, offload=offload)
        self.relay = LoopbackRelay(self.loop, self.stack)
        self._driver = DeviceDriver(self.loop, device, self.stack)
        self.loop.add_mover(self.relay.pump)

    def __enter__(self) -> Running:
        self.loop.start("stack")
        return self

    def __exit__(self, *what: object) -> None:
        self.loop.stop()
        if self.loop.failure is not None:
            raise self.loop.failure


def in_thread(run: object) -> threading.Thread:
    """A daemon thread that runs `run`."""
    assert callable(run)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def wait_listening(port: int, seconds: float = 10.0) -> None:
    """Until somebody of this namespace listens on `port`.

    Raises:
        TimeoutError: nobody does.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for file in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
            for line in Path(file).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on port {port}")

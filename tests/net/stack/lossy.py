"""A broken path, and two ends that speak TCP through it: a kernel and another kernel, or a kernel and the stack.

    client - kernel - kt8 - forwarder, with faults - kt7 - kernel - server
                                                         - kernel - kt9 - stack - relay - server

Packets of 1,500 octets, no offload, each lost or late on its own. The forwarder, the client and the server are processes of their own
and the same either way; the second namespace's kernel only passes on what the stack's device gets.

Not here: what is measured or asserted.
"""

from __future__ import annotations

import contextlib
import cProfile
import hashlib
import json
import os
import pstats
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kt_net.tun.device import Device
from kt_net.tun.faults import Faults, FaultyDevice
from kt_net.tun.linux import TunDevice, open_tun
from tests.net.stack.loopback import Running, in_thread, wait_listening

NEAR, FAR = "10.199.0.1", "10.96.0.10"
PORT = 7000
MTU = 1500
#: Of the kernels: the stack's own, and Linux's default, whatever this machine has been set to.
ALGORITHM = b"cubic"


class Moved(NamedTuple):
    """What a transfer came to: octets that arrived, seconds until the last of them, and whether they were the right ones."""

    octets: int
    seconds: float
    equal: bool

    @property
    def goodput(self) -> float:
        """Octets per second."""
        return self.octets / self.seconds


def broken(percent: float) -> Faults:
    """So many of a hundred packets are lost, and as many are late."""
    return Faults(loss=percent / 100, reorder=percent / 100)


# -- a server: "U" or "D", octets, seconds after which it is enough


def serve(host: str) -> None:
    """Take connections for ever."""
    listener = socket.create_server((host, PORT))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, ALGORITHM)  # connections inherit it
    while True:
        connection, _ = listener.accept()
        in_thread(lambda connection=connection: _answer(connection))


def _answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(ConnectionError):
        kind, octets, seconds = _line(connection).split()
        if kind == b"D":
            connection.sendall(_payload(int(octets)))
            connection.recv(1)
        else:
            moved = _receive(connection, int(octets), float(seconds))
            connection.sendall(json.dumps(moved).encode() + b"\n")
            while connection.recv(1 << 18):  # of a client that had not finished
                pass


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(1)
    return line


def _receive(connection: socket.socket, octets: int, seconds: float) -> Moved:
    hashed, got, start = hashlib.sha256(), 0, time.monotonic()
    last = start
    connection.settimeout(1.0)
    while got < octets and time.monotonic() - start < seconds:
        try:
            piece = connection.recv(min(octets - got, 1 << 18))
        except TimeoutError:
            continue
        if not piece:
            break
        hashed.update(piece)
        got += len(piece)
        last = time.monotonic()
    connection.settimeout(None)
    # Silence at the end counts when it was not for want of octets.
    end = last if got == octets else time.monotonic()
    return Moved(got, end - start, hashed.digest() == hashlib.sha256(_payload(got)).digest())


def _payload(octets: int) -> bytes:
    """What is sent; the same each time."""
    block = random.Random(1).randbytes(1 << 20)
    return (block * (octets // len(block) + 1))[:octets]


def _client(upload: bool, octets: int, seconds: float) -> Moved:
    with socket.create_connection((FAR, PORT), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, ALGORITHM)
        connection.settimeout(None)
        connection.sendall(f"{'U' if upload else 'D'} {octets} {seconds}\n".encode())
        if not upload:
            return _receive(connection, octets, seconds)
        data = memoryview(_payload(octets))
        while data:
            readable, _, _ = select.select([connection], [connection], [])
            if readable:
                break  # the server has said that it is enough
            data = data[connection.send(data[: 1 << 18]) :]
        return Moved(*json.loads(_line(connection)))


def transfer(upload: bool, octets: int, seconds: float = 3600.0) -> Moved:
    """One transfer through the path that is there, by a process of its own."""
    command = [sys.executable, "-m", "tests.net.stack.lossy", "client", json.dumps([upload, octets, seconds])]
    return Moved(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


# -- paths


@contextlib.contextmanager
def path(end: str, percent: float, delay: float, seed: int = 1) -> Iterator[None]:
    """From this namespace to `FAR` in another one, through the forwarder.

    Args:
        end: "kernel" or "ours", whose TCP is there; "profiled": ours, and where its time went.
        percent: of packets that are lost, and as many that are late.
        delay: one way, seconds.
    """
    command = [sys.executable, "-m", "tests.net.stack.lossy", "forward", json.dumps([end, percent, delay, seed])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _forwarder(end: str, percent: float, delay: float, seed: int) -> None:
    """Between this namespace and a new one, until standard input ends."""
    near = open_tun("kt8", mtu=MTU, offload=False)
    _ip(f"addr add {NEAR}/32 dev kt8", f"route add 10.96.0.0/16 dev kt8 src {NEAR}")
    here, there = socket.socketpair()
    with there:
        other = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-m", "tests.net.stack.lossy", end, str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.PIPE,
        )
    assert other.stdin is not None
    _, descriptors, _, _ = socket.recv_fds(here, 16, 1)
    far = TunDevice(descriptors[0], name="kt7", mtu=MTU, offload=False)
    faulty = FaultyDevice(near, broken(percent), random.Random(seed), time.monotonic)
    print("ready", flush=True)
    try:
        _forward(faulty, far, delay)
    finally:
        other.stdin.close()
        other.wait()


def _forward(near: FaultyDevice, far: Device, delay: float) -> None:
    """Packets from either device to the other, `delay` seconds later."""
    under_way: deque[tuple[float, Device, bytes]] = deque()
    while True:
        times = [at for at in (near.next_timer(), under_way[0][0] if under_way else None) if at is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        ready, _, _ = select.select([near.fileno(), far.fileno(), 0], [], [], timeout)
        if 0 in ready:
            return
        now = time.monotonic()
        near.handle_timer(now=now)
        while under_way and under_way[0][0] <= now:
            _, target, packet = under_way.popleft()
            target.write_packet([packet])
        late = near.next_timer() is not None
        for source, target in ((near, far), (far, near)):
            if source.fileno() in ready or (late and source is near):
                for packet in source.read_packets(64):
                    if delay:
                        under_way.append((now + delay, target, packet))
                    else:
                        target.write_packet([packet])


def _far_end(end: str, descriptor: int) -> None:
    """The other namespace: its device goes to the forwarder; its kernel serves, or passes everything on to the stack's device."""
    device = open_tun("kt7", mtu=MTU, offload=False)
    _ip("link set lo up")
    with contextlib.ExitStack() as until:
        if end == "kernel":
            _ip(f"addr add {FAR}/32 dev kt7", "route add default dev kt7")
        else:
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            running = until.enter_context(Running(offload=False, mtu=MTU, address="10.199.9.1"))
            if end == "profiled":
                until.enter_context(_profiled(running))
            _ip(f"route add {NEAR} dev kt7")
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.net.stack.lossy", "server", FAR if end == "kernel" else "127.0.0.1"]
        )
        until.callback(server.wait)
        until.callback(server.kill)
        wait_listening(PORT)
        with socket.socket(fileno=descriptor) as forwarder:
            socket.send_fds(forwarder, [b"device"], [device.fileno()])
        os.read(0, 1)


@contextlib.contextmanager
def _profiled(running: Running) -> Iterator[None]:
    """Says on standard error where the time of the stack's thread went."""
    profile, done = cProfile.Profile(), threading.Event()
    running.loop.call_soon(profile.enable)  # a profiler watches the thread that enabled it
    yield
    running.loop.call_soon(profile.disable)
    running.loop.call_soon(done.set)
    done.wait(5)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)


def _ip(*commands: str) -> None:
    for words in commands:
        subprocess.run(["ip", *words.split()], check=True)


def main(what: str, how: str) -> None:
    """One of the processes."""
    if what == "client":
        print(json.dumps(_client(*json.loads(how))))
    elif what == "server":
        serve(how)
    elif what == "forward":
        _forwarder(*json.loads(how))
    else:
        _far_end(what, int(how))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The same broken path for two kernels and for a kernel and the stack: packets of 1,500 octets, no offload, each lost or late on its own.

`kernel_pair` puts a forwarder between this namespace and another one; `ours` puts the stack in the forwarder's place.

Not here: what is measured or asserted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from kt_net.tun.device import Device
from kt_net.tun.faults import Faults, FaultyDevice
from kt_net.tun.linux import TunDevice, open_tun
from tests.net.stack.loopback import Running, in_thread

FAR = "10.96.0.10"
PORT = 7000
MTU = 1500


def broken(percent: float) -> Faults:
    """So many of a hundred packets are lost, and as many are late."""
    return Faults(loss=percent / 100, reorder=percent / 100)


# -- a server: "U" and octets to it, or "D": octets from it; the digest last


def serve(host: str) -> None:
    """Take connections for ever."""
    listener = socket.create_server((host, PORT))
    while True:
        connection, _ = listener.accept()
        in_thread(lambda connection=connection: _answer(connection))


def _answer(connection: socket.socket) -> None:
    with connection:
        head = _line(connection)
        kind, octets = head[:1], int(head[1:])
        if kind == b"D":
            connection.sendall(payload(octets))
        else:
            connection.sendall(_receive(connection, octets).encode())


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(1)
    return line


def _receive(connection: socket.socket, octets: int) -> str:
    hashed, left = hashlib.sha256(), octets
    while left:
        piece = connection.recv(min(left, 1 << 18))
        if not piece:
            break
        hashed.update(piece)
        left -= len(piece)
    return hashed.hexdigest()


def payload(octets: int) -> bytes:
    """What is sent; the same each time."""
    return random.Random(1).randbytes(1 << 20) * (octets >> 20)


def transfer(upload: bool, octets: int) -> tuple[bool, float]:
    """Whether the digests are equal, and octets per second."""
    data = payload(octets)
    wanted = hashlib.sha256(data).hexdigest()
    with socket.create_connection((FAR, PORT), timeout=30) as connection:
        connection.settimeout(300)
        start = time.monotonic()
        connection.sendall((b"U" if upload else b"D") + str(octets).encode() + b"\n")
        if upload:
            connection.sendall(data)
            got = b""
            while piece := connection.recv(64):
                got += piece
            digest = got.decode()
        else:
            digest = _receive(connection, octets)
        return digest == wanted, octets / (time.monotonic() - start)


# -- paths


@contextlib.contextmanager
def ours(percent: float, seed: int = 1) -> Iterator[None]:
    """The stack behind a faulty device, relayed to a server of this namespace."""
    in_thread(lambda: serve("127.0.0.1"))
    with Running(offload=False, mtu=MTU, faults=broken(percent), seed=seed):
        time.sleep(0.2)
        yield


@contextlib.contextmanager
def kernel_pair(percent: float, seed: int = 1) -> Iterator[None]:
    """Another namespace with a server, behind a forwarder with the same faulty device."""
    near = open_tun("kt8", mtu=MTU, offload=False)
    subprocess.run(["ip", "addr", "add", "10.199.0.1/32", "dev", "kt8"], check=True)
    subprocess.run(["ip", "route", "add", "10.96.0.0/16", "dev", "kt8", "src", "10.199.0.1"], check=True)
    ours_end, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-m", "tests.net.stack.lossy", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
        )
    _, descriptors, _, _ = socket.recv_fds(ours_end, 16, 1)
    far = TunDevice(descriptors[0], name="kt7", mtu=MTU, offload=False)
    stop = threading.Event()
    forwarder = in_thread(lambda: _forward(FaultyDevice(near, broken(percent), random.Random(seed)), far, stop))
    time.sleep(0.2)
    try:
        yield
    finally:
        stop.set()
        forwarder.join()
        process.kill()
        process.wait()
        near.close()
        far.close()


def _forward(near: Device, far: Device, stop: threading.Event) -> None:
    while not stop.is_set():
        ready, _, _ = select.select([near.fileno(), far.fileno()], [], [], 0.1)
        for source, target in ((near, far), (far, near)):
            if source.fileno() in ready:
                for packet in source.read_packets(64):
                    target.write_packet([packet])


def _other_end(descriptor: int) -> None:
    """The other namespace: its device goes to the forwarder, its kernel serves."""
    device = open_tun("kt7", mtu=MTU, offload=False)
    subprocess.run(["ip", "addr", "add", f"{FAR}/32", "dev", "kt7"], check=True)
    subprocess.run(["ip", "route", "add", "default", "dev", "kt7"], check=True)
    in_thread(lambda: serve(FAR))
    with socket.socket(fileno=descriptor) as path:
        socket.send_fds(path, [b"device"], [device.fileno()])
    os.read(0, 1)


if __name__ == "__main__":
    _other_end(int(sys.argv[1]))

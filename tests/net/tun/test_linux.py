"""A real TUN: the device's conformance, super-packets, and our TCP against the kernel's."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kt_net.stack import DataReceived, EndReceived, FlowRequested, Stack
from kt_net.tun.linux import open_tun
from kt_net.wire.vnet import HEADER_OCTETS, parse_vnet
from tests.conformance.device import CHECKS, PACKET, Subject
from tests.net.namespaces import run_inside

OCTETS = 8 << 20


def conformance(name: str, offload: bool) -> bool:
    device = open_tun("kt9", mtu=1500, offload=offload)
    subprocess.run(["sysctl", "-qw", "net.ipv6.conf.kt9.disable_ipv6=1"], check=False)
    subprocess.run(["ip", "addr", "add", "10.199.0.1/24", "dev", "kt9"], check=True)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def give(packet: bytes) -> None:
        raw.sendto(packet, ("10.199.0.2", 0))

    time.sleep(0.05)
    device.read_packets(100)  # the kernel's own first words
    next(check for check in CHECKS if check.__name__ == name)(Subject(device, give))
    assert len(PACKET) == 24
    return True


@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
@pytest.mark.parametrize("offload", [False, True])
def test_conformance(tmp_path: Path, name: str, offload: bool) -> None:
    assert run_inside(conformance, tmp_path, name, offload)


def transfer(offload: bool, v6: bool) -> dict[str, Any]:
    """The kernel's TCP sends to our stack, which sends everything back and closes after it."""
    device = open_tun("kt9", mtu=1500, offload=offload)
    mine, far = ("fd99::1", "fd99::2") if v6 else ("10.199.0.1", "10.199.0.2")
    length = 64 if v6 else 24
    subprocess.run(["ip", "addr", "add", f"{mine}/{length}", "dev", "kt9", *(["nodad"] if v6 else [])], check=True)
    stack = Stack(entropy=os.urandom, mtu=1500, offload=offload)
    largest, stop = 0, threading.Event()

    def serve() -> None:
        nonlocal largest
        while not stop.is_set():
            timer, now = stack.next_timer(), time.monotonic()
            wait = 0.05 if timer is None else min(0.05, max(0.0, timer - now))
            select.select([device.fileno()], [], [], wait)
            now = time.monotonic()
            for packet in device.read_packets(32):
                largest = max(largest, len(packet))
                stack.receive_packet(packet, now=now)
            if timer is not None and timer <= now:
                stack.handle_timer(now=now)
            while (event := stack.next_event()) is not None:
                if isinstance(event, FlowRequested):
                    if event.destination.port == 9:
                        stack.refuse(event.flow, now=now)
                    else:
                        stack.accept(event.flow, window=1 << 20, now=now)
                elif isinstance(event, DataReceived):
                    stack.send(event.flow, event.data, now=now)
                    stack.grant(event.flow, len(event.data), now=now)
                elif isinstance(event, EndReceived):
                    stack.finish(event.flow, now=now)
            for buffers in stack.packets_to_send(now=now):
                device.write_packet(buffers)

    server = threading.Thread(target=serve)
    server.start()
    try:
        refused = _refused(far)
        data = os.urandom(1 << 20) * (OCTETS >> 20)
        connection = socket.create_connection((far, 80), timeout=20)

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        hashed, octets = hashlib.sha256(), 0
        while piece := connection.recv(1 << 18):
            hashed.update(piece)
            octets += len(piece)
        sender.join()
        connection.close()
    finally:
        stop.set()
        server.join()
    equal = octets == OCTETS and hashed.digest() == hashlib.sha256(data).digest()
    return {"equal": equal, "refused": refused, "largest": largest}


def _refused(far: str) -> bool:
    try:
        socket.create_connection((far, 9), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("offload", [False, True], ids=["plain", "offload"])
def test_our_tcp_against_the_kernels(tmp_path: Path, offload: bool, v6: bool) -> None:
    result = run_inside(transfer, tmp_path, offload, v6)
    assert result["equal"]
    assert result["refused"]
    if offload:
        assert result["largest"] > 10_000 + HEADER_OCTETS
        assert parse_vnet(bytes(HEADER_OCTETS)).gso_type == 0

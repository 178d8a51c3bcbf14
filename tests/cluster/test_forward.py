"""`ktctl forward`: one local port for one port of a pod, without root."""

from __future__ import annotations

import socket

import pytest

from tests.cluster.backend import HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl, ktctl


def test_forwards_with_half_close(lab: LabBackend, echo_pod: str) -> None:
    # On this machine, not in the laptop: the test itself is the program that connects.
    arguments = ("--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)
    direct = HereBackend(lab)
    with Ktctl(direct, "forward", echo_pod, "0:7000", *arguments) as running:
        port = running.wait_ready()["port"]
        for size in (1, 100_000, 3_000_000):
            assert exchange(port, b"x" * size) == b"x" * size
    wait_nothing_of_ours(lab)


def test_closed_port_resets(lab: LabBackend, echo_pod: str) -> None:
    arguments = ("--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)
    with Ktctl(HereBackend(lab), "forward", echo_pod, "0:9", *arguments) as running:
        port = running.wait_ready()["port"]
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        ):
            connection.recv(1)


def test_taken_port_and_missing_pod(lab: LabBackend, echo_pod: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, answer = ktctl(HereBackend(lab), "forward", echo_pod, f"{port}:7000", "--kubeconfig", str(lab.kubeconfig))
    assert (code, answer["error"]["class"]) == (34, "AddressInUse")
    code, answer = ktctl(HereBackend(lab), "forward", "no-such-pod", "0:7000", "--kubeconfig", str(lab.kubeconfig))
    assert (code, answer["error"]["class"]) == (20, "ObjectMissing")
    code, answer = ktctl(HereBackend(lab), "forward", echo_pod, "http", "--kubeconfig", str(lab.kubeconfig))
    assert (code, answer["error"]["class"]) == (2, "UsageFault")


def exchange(port: int, data: bytes) -> bytes:
    """Send all, half-close, read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.settimeout(30)
        received = bytearray()
        connection.setblocking(True)
        import threading

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while piece := connection.recv(1 << 16):
            received += piece
        sender.join()
    return bytes(received)

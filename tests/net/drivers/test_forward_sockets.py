"""Local ports: both families where there are both; what is taken or root's is said with another spelling."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from kt_net.drivers.forward_sockets import take_port
from kt_net.errors import KtError
from tests.net.namespaces import run_inside


def take(addresses: list[str], port: int, kind: str = "SOCK_STREAM") -> list[str]:
    """Addresses that were taken, all with one port; or the error's class and next step."""
    try:
        taken = take_port(socket.SocketKind[kind], addresses, port, f"another:{port}")
    except KtError as error:
        return [type(error).__name__, error.next_step]
    ports = {one.getsockname()[1] for one in taken}
    assert len(ports) == 1
    assert port in (0, *ports)
    found = [one.getsockname()[0] for one in taken]
    for one in taken:
        one.close()
    return found


def both_families() -> list[list[str]]:
    return [take([], 0), take([], 8080), take([], 5353, "SOCK_DGRAM"), take(["0.0.0.0", "::"], 8080), take(["::1"], 0)]


def without_ipv6() -> list[list[str]]:
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    return [take([], 0), take(["::1"], 8080), take(["192.0.2.1"], 8080)]


def taken_on_one() -> list[list[str]]:
    found = []
    for address in ("127.0.0.1", "::1"):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as other:
            other.bind((address, 8080))
            other.listen()
            found.append(take([], 8080))
    return [*found, take([], 8080)]


def as_nobody() -> list[list[str]]:
    os.setuid(65534)
    return [take([], 80), take([], 1024)]


def test_both_families(tmp_path: Path) -> None:
    both = ["127.0.0.1", "::1"]
    assert run_inside(both_families, tmp_path) == [both, both, both, ["0.0.0.0", "::"], ["::1"]]


def test_without_ipv6(tmp_path: Path) -> None:
    absent = ["AddressInUse", "give an address of this machine: --address ADDRESS"]
    assert run_inside(without_ipv6, tmp_path) == [["127.0.0.1"], absent, absent]


def test_taken_on_one_address_is_taken(tmp_path: Path) -> None:
    refused = ["AddressInUse", "choose another local port: another:8080"]
    assert run_inside(taken_on_one, tmp_path) == [refused, refused, ["127.0.0.1", "::1"]]


def test_a_port_of_roots(tmp_path: Path) -> None:
    refused = ["PrivilegeMissing", "choose another local port: another:80"]
    assert run_inside(as_nobody, tmp_path) == [refused, ["127.0.0.1", "::1"]]

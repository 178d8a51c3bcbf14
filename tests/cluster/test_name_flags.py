"""The flags of `connect` about names and ranges, each with a connection of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.asking import asked, found
from tests.cluster.backend import Backend, LabBackend
from tests.cluster.ktctl import Ktctl, ktctl


@contextlib.contextmanager
def connected(backend: Backend, *flags: str) -> Iterator[dict[str, Any]]:
    """What a connection with `flags` says when it is there."""
    with Ktctl(backend, "connect", "--image", backend.python_image, *flags) as running:
        yield running.wait_ready()


def test_dns_without_a_connection(backend: Backend) -> None:
    code, answer = ktctl(backend, "dns", "echo")
    assert (code, answer["error"]["class"]) == (36, "NotConnected")


def test_excluded_and_included_ranges(backend: Backend) -> None:
    """An address inside a range is left out, and only it; others are taken in; pods may be left out altogether."""
    address = json.loads(backend.kubectl("get", "svc", "echo", "-o", "json"))["spec"]["clusterIP"]
    flags = ("--exclude-ips", address, "--include-ips", "198.51.100.0/24,203.0.113.9", "--disable-pod-ip")
    with connected(backend, *flags) as ready:
        routes = [ipaddress.ip_network(route) for route in ready["routes"]]
        known = json.loads(backend.kubectl("get", "svc", "kubernetes", "-o", "json"))["spec"]["clusterIP"]
        pod = json.loads(backend.kubectl("get", "pods", "-l", "app=echo", "-o", "json"))["items"][0]["status"]["podIP"]

    def routed(text: str) -> bool:
        return any(ipaddress.ip_address(text) in route for route in routes)

    assert not routed(address)
    assert routed(known)
    assert not routed(pod)
    assert routed("198.51.100.200")
    assert routed("203.0.113.9")
    assert not routed("203.0.113.8")


def test_no_routes_but_the_resolvers(backend: Backend) -> None:
    with connected(backend, "--disable-tun-route") as ready:
        assert ready["routes"] == [f"{ready['resolver']}/32"]
        assert found(backend, "echo.default.")


@pytest.mark.parametrize(
    ("flags", "name", "expected"),
    [
        (("--dns-mode", "podDNS"), "www.world.test.", "cluster"),
        (("--dns-mode", "localDNS:upstream,cluster"), "echo.default.", "machine cluster"),
        (("--include-domains", "world.test"), "www.world.test.", "cluster"),
    ],
)
def test_order(backend: Backend, lab: LabBackend, flags: tuple[str, ...], name: str, expected: str) -> None:
    with connected(backend, *flags):
        assert " ".join(who for who, _ in asked(backend, name)) == expected


def test_answers_are_kept_as_long_as_asked(backend: Backend) -> None:
    for seconds, expected in (("0", False), ("60", True)):
        with connected(backend, "--dns-cache-ttl", seconds):
            ktctl(backend, "dns", "echo.default.")
            _, answer = ktctl(backend, "dns", "echo.default.")
            assert answer["steps"][0]["kept"] == expected

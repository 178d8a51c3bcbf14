"""What happens around a connection while it lasts: the cluster gets ranges, and this machine's network changes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.backend import LabBackend
from tests.cluster.ktctl import Ktctl

#: As a user would wait before trying once more.
SECONDS = 20.0
MORE_SERVICES = "10.98.0.0/24"
ADDRESS = "10.98.0.77"
OUTSIDE = "10.99.0.0/16"
ROLE = Path(__file__).parents[2] / "deploy" / "developer-role.yaml"

Laptop = Callable[..., subprocess.CompletedProcess[str]]


class Heard:
    """A connection, and what it says meanwhile."""

    def __init__(self, backend: LabBackend, *flags: str) -> None:
        self.running = Ktctl(backend, "connect", "--image", backend.python_image, *flags)
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        assert self.running.process.stderr is not None
        for line in self.running.process.stderr:
            self._lines.append(str(json.loads(line)["text"]) if line.startswith("{") else line)

    def begin(self) -> None:
        self._thread.start()
        self.running.wait_ready()

    def end(self) -> None:
        self.running.process.terminate()
        self.running.process.wait(20)
        self._thread.join(5)
        for stream in (self.running.process.stdout, self.running.process.stderr):
            if stream is not None:
                stream.close()

    def lines(self, part: str) -> list[str]:
        return [line for line in self._lines if part in line]

    def wait(self, part: str, seconds: float = SECONDS) -> str:
        """The line that has `part` in it."""
        limit = time.monotonic() + seconds
        while not (found := self.lines(part)):
            assert time.monotonic() < limit, (part, self._lines)
            time.sleep(0.05)
        return found[0]


@contextlib.contextmanager
def heard(backend: LabBackend, *flags: str) -> Iterator[Heard]:
    made = Heard(backend, *flags)
    try:
        made.begin()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def connected(backend: LabBackend) -> Iterator[Heard]:
    """One connection for those tests that leave it as it was."""
    with heard(backend) as made:
        yield made


@pytest.fixture
def link(laptop: Laptop) -> Iterator[str]:
    """A network of the laptop that comes up later, as a VPN's or Docker's; it goes with all its routes."""
    laptop("ip", "link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
    laptop("ip", "link", "set", "vpn0", "up")
    yield "vpn0"
    laptop("ip", "link", "del", "vpn0")


def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)


def answers(laptop: Laptop, address: str) -> bool:
    """Whether HTTP works there."""
    return laptop("curl", "-sf", "-m2", f"http://{address}/", check=False).returncode == 0


@pytest.fixture
def more_services(lab: LabBackend) -> Iterator[Callable[[], None]]:
    """Makes a second ServiceCIDR, and a Service with an address of it in front of the sample."""
    made = {"metadata": {"name": "ktnet-more"}, "spec": {"cidrs": [MORE_SERVICES]}}
    cidr = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", **made}
    ports = json.loads(lab.kubectl("get", "svc", "web", "-o", "json"))["spec"]["ports"]
    spec = {"clusterIP": ADDRESS, "selector": {"app": "web"}, "ports": ports}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ktnet-more"}, "spec": spec}

    def remove() -> None:
        lab.kubectl("delete", "svc", "ktnet-more", "--ignore-not-found")
        lab.kubectl("delete", "servicecidr", "ktnet-more", "--ignore-not-found", "--wait=true", "--timeout=60s")

    def make() -> None:
        lab.kubectl("create", "-f", "-", given=json.dumps(cidr))
        lab.kubectl("wait", "servicecidr/ktnet-more", "--for=condition=Ready", "--timeout=30s")
        until(lambda: "created" in lab.kubectl("create", "-f", "-", given=json.dumps(service), check=False))

    remove()
    yield make
    remove()


def test_a_service_elsewhere_for_one_who_may_read_no_ranges(
    more_services: Callable[[], None], laptop: Laptop, lab: LabBackend, variant: Callable[..., str]
) -> None:
    """With rights in one namespace only: the Service's address tells. Before the others, with a connection of its own."""
    config = variant(user=lab.credentials("grown"))
    role = next(part for part in yaml.safe_load_all(ROLE.read_text()) if part["kind"] == "Role")
    lab.kubectl("apply", "-n", "default", "-f", "-", given=json.dumps(role))
    lab.kubectl("delete", "rolebinding", "grown", "-n", "default", "--ignore-not-found")
    lab.kubectl("create", "rolebinding", "grown", "-n", "default", "--role=ktctl-developer", "--user=grown")
    try:
        with heard(lab, "--kubeconfig", config, "-n", "default") as connection:
            more_services()
            connection.wait("service CIDR 10.98.0.0/20 is new; routed")
            until(lambda: answers(laptop, ADDRESS))
    finally:
        lab.kubectl("delete", "rolebinding", "grown", "-n", "default")
        lab.kubectl("delete", "role", "ktctl-developer", "-n", "default")


def test_a_second_service_cidr(
    connected: Heard, more_services: Callable[[], None], laptop: Laptop, lab: LabBackend
) -> None:
    assert not answers(laptop, ADDRESS)
    more_services()
    connected.wait(f"service CIDR {MORE_SERVICES} is new; routed")
    until(lambda: answers(laptop, ADDRESS))
    status = laptop("ktctl", "status", "--output", "json").stdout
    assert MORE_SERVICES in json.loads(status)["routes"]


def test_a_network_that_overlaps(connected: Heard, link: str, laptop: Laptop) -> None:
    """More specific than ours, and less."""
    laptop("ip", "route", "add", "10.97.200.0/24", "dev", link)
    said = connected.wait("10.97.200.0/24 is routed to vpn0 now and overlaps service CIDR 10.97.0.0/16")
    assert said.endswith("the more specific route wins, 10.97.200.0/24 goes to vpn0")
    laptop("ip", "route", "add", "10.96.0.0/13", "dev", link)
    assert connected.wait("10.96.0.0/13 is routed").endswith("the cluster keeps its addresses")


def test_a_new_range_that_is_somebody_elses(connected: Heard, link: str, laptop: Laptop, lab: LabBackend) -> None:
    """This machine's own networks stay its own."""
    laptop("ip", "route", "add", OUTSIDE, "dev", link)
    cidr = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "ktnet-theirs"}}
    lab.kubectl("create", "-f", "-", given=json.dumps({**cidr, "spec": {"cidrs": ["10.99.4.0/24"]}}))
    try:
        connected.wait("service CIDR 10.99.4.0/24 is new; not routed: 10.99.0.0/16 is vpn0's already")
        assert "dev vpn0" in laptop("ip", "route", "get", "10.99.4.1").stdout
    finally:
        lab.kubectl("delete", "servicecidr", "ktnet-theirs", "--timeout=60s")


def test_a_gateway_inside_of_our_routes(connected: Heard, link: str, laptop: Laptop) -> None:
    gateway = "10.97.77.1"
    laptop("ip", "addr", "add", "192.0.2.1/32", "dev", link)
    laptop("ip", "route", "add", "203.0.113.0/24", "via", gateway, "dev", link, "onlink")
    connected.wait(f"{gateway} is a gateway or resolver of this machine now: left out of the cluster's routes")
    until(lambda: "dev kt0" not in laptop("ip", "route", "get", gateway).stdout)
    assert "dev kt0" in laptop("ip", "route", "get", "10.97.77.2").stdout
    laptop("ip", "route", "del", "203.0.113.0/24")
    until(lambda: "dev kt0" in laptop("ip", "route", "get", gateway).stdout)


def test_routes_that_somebody_removes(connected: Heard, laptop: Laptop) -> None:
    """They are back at once, and it is said once."""

    def ours() -> list[str]:
        shown = [laptop("ip", f"-{version}", "route", "show", "dev", "kt0").stdout for version in (4, 6)]
        return sorted(line.split()[0] for text in shown for line in text.splitlines() if "proto kernel" not in line)

    resolver = json.loads(laptop("ktctl", "status", "--output", "json").stdout)["resolver"]
    before = ours()
    assert len(before) >= 4
    for _ in range(3):
        laptop("ip", "route", "flush", "dev", "kt0")
        laptop("ip", "-6", "route", "flush", "dev", "kt0")
        until(lambda: ours() == before)
    assert "dev kt0" in laptop("ip", "route", "get", resolver).stdout
    assert answers(laptop, "web.default")
    connected.wait("somebody has removed routes to the cluster, put back: ")

"""Connected: everything of the demo's table answers, and bulk transfers stay whole beside other traffic."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.backend import Backend
from tests.cluster.ktctl import Ktctl, ktctl
from tests.cluster.probes import probes, run_probes

TRANSFER = Path(__file__).with_name("transfer.py")


@pytest.fixture(scope="module")
def results(backend: Backend, connection: Ktctl) -> dict[str, dict[str, Any]]:
    return {result["title"]: result for result in run_probes(backend, probes(backend))}


@pytest.mark.parametrize(
    "title",
    [
        "pod IPv4",
        "pod IPv6",
        "ClusterIP v4",
        "ClusterIP v6",
        "web",
        "web.default",
        "web.default.svc",
        "web.default.svc.cluster.local",
        "StatefulSet pod's name",
        "Redis PING by name",
        "UDP echo by name",
        "TCP echo, half-close",
        "ping of a pod",
        "ping of a pod, IPv6",
        "ping of a pod that is not there",
        "closed port",
        "name that is not there",
        "name outside the cluster",
    ],
)
def test_answers_through_the_device(results: dict[str, dict[str, Any]], title: str) -> None:
    assert results[title]["ok"], results[title]


def test_closed_port_is_refused_at_once(results: dict[str, dict[str, Any]]) -> None:
    assert results["closed port"]["seconds"] < 1.0


@pytest.mark.parametrize("direction", ["down", "up"])
def test_transfer_is_whole_while_others_work(
    laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl, long: bool, direction: str
) -> None:
    octets = (256 if long else 64) << 20
    done = json.loads(laptop(sys.executable, str(TRANSFER), direction, str(octets), "50", seconds=120).stdout)
    assert done["equal"]
    assert done["others_failed"] == []
    assert done["others_exchanges"] >= 50


def test_aborted_transfers_end_only_themselves(
    laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl
) -> None:
    code = (
        "import socket, struct\n"
        "for number in range(60):\n"
        "  s = socket.create_connection(('bytes', 9000), 10)\n"
        "  s.sendall(b'GET 50000000 1\\n' if number % 2 else b'PUT 50000000\\n' + bytes(200000))\n"
        "  if number % 2: s.recv(100000)\n"
        "  s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n"
        "  s.close()\n"
        "s = socket.create_connection(('echo', 7), 10)\ns.sendall(b'alive')\nprint(s.recv(5).decode())\n"
    )
    assert laptop(sys.executable, "-c", code).stdout.strip() == "alive"
    assert connection.process.poll() is None


def test_many_connections_at_once(
    laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl, long: bool
) -> None:
    code = (
        "import socket, sys\n"
        "many = [socket.create_connection(('echo', 7), 20) for _ in range(int(sys.argv[1]))]\n"
        "for number, s in enumerate(many): s.sendall(str(number).encode().zfill(6))\n"
        "print(all(s.recv(6) == str(number).encode().zfill(6) for number, s in enumerate(many)))\n"
    )
    assert laptop(sys.executable, "-c", code, str(900 if long else 300)).stdout.strip() == "True"


def test_dns_over_tcp_and_large_answers(
    laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl
) -> None:
    name = "web.default.svc.cluster.local"
    over_udp = laptop("dig", "+short", name, "AAAA").stdout
    assert over_udp.strip()
    assert laptop("dig", "+short", "+tcp", name, "AAAA").stdout == over_udp
    srv = laptop("dig", "+short", "_redis._tcp.redis.default.svc.cluster.local", "SRV").stdout
    assert "redis-0.redis.default.svc.cluster.local." in srv


def test_reverse_name_of_a_service(
    backend: Backend, laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl
) -> None:
    address = backend.kubectl("get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}")
    assert laptop("dig", "+short", "-x", address).stdout.strip() == "web.default.svc.cluster.local."


def test_name_that_does_not_exist_says_so(
    laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl
) -> None:
    assert "NXDOMAIN" in laptop("dig", "nothing.default.svc.cluster.local").stdout


def test_service_created_while_connected_resolves_at_once(
    backend: Backend, laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl
) -> None:
    backend.kubectl("delete", "svc", "later", "--ignore-not-found")
    backend.kubectl("create", "service", "clusterip", "later", "--tcp=80")
    try:
        found = [laptop("dig", "+short", "later.default.svc.cluster.local").stdout.strip() for _ in range(20)]
        assert found[-1] == backend.kubectl("get", "svc", "later", "-o", "jsonpath={.spec.clusterIP}")
    finally:
        backend.kubectl("delete", "svc", "later")


def test_udp_to_a_closed_port_is_refused(
    backend: Backend, laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl
) -> None:
    pod = json.loads(backend.kubectl("get", "pods", "-l", "app=echo", "-o", "json"))["items"][0]["status"]["podIP"]
    code = (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(5)\n"
        f"s.connect(({pod!r}, 7001))\ns.send(b'x')\n"
        "try:\n  s.recv(1)\nexcept ConnectionRefusedError:\n  print('refused')\n"
    )
    assert laptop(sys.executable, "-c", code).stdout.strip() == "refused"


def test_large_datagram_comes_back(laptop: Callable[..., subprocess.CompletedProcess[str]], connection: Ktctl) -> None:
    code = (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(5)\n"
        "s.connect((socket.getaddrinfo('echo', 7, socket.AF_INET)[0][4][0], 7))\n"
        "data = bytes(range(256)) * 31\ns.send(data)\nprint(s.recv(65535) == data)\n"
    )
    assert laptop(sys.executable, "-c", code).stdout.strip() == "True"


def test_status_says_what_is_connected(backend: Backend, connection: Ktctl) -> None:
    code, answer = ktctl(backend, "status")
    assert code == 0
    assert answer["state"] == "connected"
    assert answer["pid"] == connection.process.pid
    assert answer["pod"] == connection.ready["pod"]
    assert answer["tunnel"]["octets_received"] > 0


def test_second_connect_is_refused(backend: Backend, connection: Ktctl) -> None:
    code, answer = ktctl(backend, "connect", "--image", backend.python_image)
    assert (code, answer["error"]["class"]) == (35, "AlreadyConnected")
    assert "disconnect" in answer["error"]["next"]


def test_lease_is_there_and_owned(backend: Backend, connection: Ktctl) -> None:
    name = connection.ready["pod"].rpartition("-")[0]
    lease = json.loads(backend.kubectl("get", "lease", name, "-o", "json"))
    assert lease["metadata"]["labels"]["control-by"] == "kt"
    assert [owner["kind"] for owner in lease["metadata"]["ownerReferences"]] == ["Job"]

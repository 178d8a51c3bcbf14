"""`ktctl forward`: local ports for those of Services, pods, workloads and hosts, without root."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dnslib
import jsonschema
import pytest

import kt_cli
from tests.cluster.backend import HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl, ktctl

SCHEMA = json.loads((Path(kt_cli.__file__).parent / "output.schema.json").read_text())
#: For the cluster to notice what was asked of it.
SECONDS = 60.0


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


def forward(lab: LabBackend, *arguments: str) -> Ktctl:
    """From this machine, not the laptop: the test itself is the program that connects."""
    return Ktctl(
        HereBackend(lab), "forward", *arguments, "--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image
    )


def refusal(lab: LabBackend, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the error."""
    code, answer = ktctl(HereBackend(lab), "forward", *arguments, "--kubeconfig", str(lab.kubeconfig))
    error: dict[str, Any] = answer["error"]
    assert all(error[part] for part in ("what", "why", "next")), error
    return code, error


def hello(port: int, host: str = "127.0.0.1") -> str:
    """Which pod of the web sample answers a connection of its own."""
    with urllib.request.urlopen(f"http://{f'[{host}]' if ':' in host else host}:{port}/", timeout=10) as answer:
        said: str = answer.read().decode()
    return said.split()[2]


def datagram(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    """What comes back for one datagram; asked again while nothing does."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(2)
        asking.connect((host, port))
        limit = time.monotonic() + 20
        while True:
            asking.send(data)
            try:
                return asking.recv(65535)
            except TimeoutError:
                assert time.monotonic() < limit


def pings(port: int) -> bool:
    """Whether a Redis answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"
    except ConnectionError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_service_by_its_cluster_address_on_both_loopbacks(lab: LabBackend) -> None:
    with forward(lab, "web", "0:http") as running:
        ready = running.wait_ready()
        jsonschema.validate(ready, SCHEMA)
        (one,) = ready["forwards"]
        assert (ready["target"], one["addresses"], one["protocol"]) == ("service/web", ["127.0.0.1", "::1"], "TCP")
        assert hello(ready["port"]).startswith("web-")
        assert hello(ready["port"], "::1").startswith("web-")


@pytest.mark.parametrize("target", [("svc/web", "--balance"), ("deployment/web",)], ids=" ".join)
def test_balance_over_all_ready_pods(lab: LabBackend, target: tuple[str, ...]) -> None:
    pods = lab.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}").split()
    with forward(lab, target[0], "0:http", *target[1:]) as running:
        port = running.wait_ready()["port"]
        answered = [hello(port) for _ in range(5 * len(pods))]
    assert {pod: answered.count(pod) for pod in pods} == dict.fromkeys(pods, 5)


def test_several_ports_tcp_and_udp_with_boundaries(lab: LabBackend) -> None:
    with forward(lab, "svc/echo", "0:7", "0:udp", "0:tcp") as running:
        first, second, third = running.wait_ready()["forwards"]
        assert [one["protocol"] for one in (first, second, third)] == ["TCP", "UDP", "TCP"]
        assert exchange(first["port"], b"one") == b"one"
        assert exchange(third["port"], b"three") == b"three"
        for size in (1, 1400, 9000):
            assert datagram(second["port"], b"u" * size) == b"u" * size
        assert datagram(second["port"], b"six", "::1") == b"six"


def test_all_ports_of_a_target_without_naming_any(lab: LabBackend) -> None:
    with forward(lab, "deploy/echo") as running:
        ports = {(one["port"], one["protocol"]) for one in running.wait_ready()["forwards"]}
        assert ports == {(7000, "TCP"), (7000, "UDP")}
        assert exchange(7000, b"here") == b"here"
        assert datagram(7000, b"here") == b"here"


def test_a_host_by_name_and_the_clusters_dns_by_udp(lab: LabBackend) -> None:
    with forward(lab, "kube-dns.kube-system.svc.cluster.local", "0:53/udp", "0:53") as running:
        udp, _ = running.wait_ready()["forwards"]
        answer = dnslib.DNSRecord.parse(
            datagram(udp["port"], dnslib.DNSRecord.question("web.default.svc.cluster.local").pack())
        )
        address = lab.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
        assert [str(record.rdata) for record in answer.rr] == [address]


@pytest.mark.parametrize("family", [4, 6])
def test_a_host_by_address(lab: LabBackend, family: int) -> None:
    found = lab.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIPs[*].ip}").split()
    (address,) = (one for one in found if (":" in one) == (family == 6))
    with forward(lab, address, "0:8080") as running:
        assert hello(running.wait_ready()["port"]).startswith("web-")


def test_a_headless_service_and_its_pod_that_comes_back(lab: LabBackend) -> None:
    with (
        forward(lab, "svc/redis", "0:6379") as service,
        forward(lab, "pod/redis-0", "0:redis") as pod,
    ):
        ports = [running.wait_ready()["port"] for running in (service, pod)]
        assert all(map(pings, ports))
        with socket.create_connection(("127.0.0.1", ports[1]), timeout=30) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(16) == b"+PONG\r\n"
            lab.kubectl("delete", "pod", "redis-0")
            try:
                assert connection.recv(1) == b""  # its server ended; had it not, a reset
            except ConnectionResetError:
                pass
        for port in ports:
            wait_until(lambda port=port: pings(port))  # type: ignore[misc]
        pod.process.terminate()
        said = [json.loads(line)["text"] for line in pod.process.communicate(timeout=30)[1].splitlines()]
    gone = [line for line in said if line.startswith("pod/redis-0:")]
    assert gone == [
        "pod/redis-0: this one",
        "pod/redis-0: it is gone, or does not run; connections are reset",
        "pod/redis-0: takes connections again",
    ]


def test_no_ready_pod_is_said_once_and_works_again(lab: LabBackend) -> None:
    lab.kubectl("rollout", "status", "statefulset/redis", "--timeout=60s")
    with forward(lab, "sts/redis", "0:redis") as running:
        port = running.wait_ready()["port"]
        assert pings(port)
        try:
            lab.kubectl("scale", "statefulset/redis", "--replicas=0")
            wait_until(lambda: not pings(port))
            assert not any(pings(port) for _ in range(5))
        finally:
            lab.kubectl("scale", "statefulset/redis", "--replicas=1")
        wait_until(lambda: pings(port))
        running.process.terminate()
        said = running.process.communicate(timeout=30)[1]
    assert said.count("no pod of it is ready; connections are reset") == 1
    assert said.count("statefulset/redis: takes connections again") == 1


def test_an_external_name_is_forwarded_to_its_host(lab: LabBackend, namespace: Callable[..., str]) -> None:
    place = namespace()
    lab.kubectl(
        "create", "service", "externalname", "away", "-n", place, "--external-name=web.default.svc.cluster.local"
    )
    with forward(lab, "svc/away", "0:80", "-n", place) as running:
        ready = running.wait_ready()
        assert ready["target"] == "web.default.svc.cluster.local"
        assert hello(ready["port"]).startswith("web-")


def test_what_cannot_be_is_refused_with_another_spelling(lab: LabBackend) -> None:
    code, error = refusal(lab, "svc/nobody", "80")
    assert (code, error["class"]) == (20, "ObjectMissing")
    code, error = refusal(lab, "nobody", "80")
    assert (code, error["class"]) == (20, "ObjectMissing")
    assert "deployment/nobody" in error["next"]
    code, error = refusal(lab, "svc/web", "0:https")
    assert (code, error["class"], error["why"]) == (2, "UsageFault", "it has 80 (http)")
    code, error = refusal(lab, "10.1.2.3")
    assert (code, error["class"]) == (2, "UsageFault")
    code, error = refusal(lab, "pod/redis-0", "0:redis", "--balance")
    assert (code, error["class"]) == (2, "UsageFault")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, error = refusal(lab, "svc/web", f"{port}:80")
    assert (code, error["class"]) == (34, "AddressInUse")
    assert error["next"].endswith(":80")


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

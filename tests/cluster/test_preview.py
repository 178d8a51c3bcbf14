"""`ktctl preview`: programs of this machine as a Service of the cluster, seen from a pod."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import socketserver
import time

import pytest

from tests.cluster.backend import HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.command import Command
from tests.cluster.ktctl import Ktctl, ktctl
from tests.cluster.local import Echo, Hello, call, datagrams, program, wait_leads
from tests.lab.errors import LabError

#: The agent's idle time in tests of a client that is killed, and what the garbage collector may take after it.
IDLE, COLLECTOR_SECONDS = 3, 40


def preview(lab: LabBackend, *arguments: str) -> Ktctl:
    """On this machine, not in the laptop: the programs are the test's own."""
    flags = ("--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)
    return Ktctl(HereBackend(lab), "preview", *arguments, *flags)


def test_http_by_name_and_by_both_addresses(lab: LabBackend) -> None:
    """Port 80 of the Service; the name in every form that a pod uses; the Service is what users of the field expect."""
    with program(Hello) as port, preview(lab, "hello", "--expose", f"{port}:80") as running:
        ready = running.wait_ready()
        assert (ready["service"], ready["ports"][0]["port"]) == ("hello.default", 80)
        assert len(ready["addresses"]) == 2
        # The addresses first: a name that is asked for too early is known not to be there, for some seconds.
        for host in (*ready["addresses"], "hello", "hello.default", "hello.default.svc.cluster.local"):
            wait_leads(lab, host, 80)
            assert call(lab, "http", host, 80) == "from the laptop"
        assert call(lab, "names", "hello", 80) == sorted(ready["addresses"])
        service = json.loads(lab.kubectl("get", "service", "hello", "-o", "json"))
        assert service["metadata"]["labels"]["kt-role"] == "shadow-preview"
        assert service["metadata"]["ownerReferences"][0]["kind"] == "Job"
        running.signal(signal.SIGINT)
        assert running.wait_ended() == 0
    assert "hello" not in lab.kubectl("get", "services", "-o", "name")
    wait_nothing_of_ours(lab)


def test_octets_both_ways_and_two_hundred_at_once(lab: LabBackend, long: bool) -> None:
    size = (256 if long else 32) << 20
    with program(Echo) as port, preview(lab, "echoes", "--expose", f"{port}:8080") as running:
        running.wait_ready()
        wait_leads(lab, "echoes", 8080)
        started = time.monotonic()
        assert call(lab, "echo", "echoes", 8080, size) == [size, True]
        print(f"{size >> 20} MiB there and back in {time.monotonic() - started:.1f} s")
        started = time.monotonic()
        assert call(lab, "crowd", "echoes", 8080, 200) == [200, True]
        print(f"200 at once in {time.monotonic() - started:.1f} s")
    wait_nothing_of_ours(lab)


def test_udp(lab: LabBackend) -> None:
    with datagrams() as port, preview(lab, "datagrams", "--expose", f"{port}:53/udp") as running:
        ready = running.wait_ready()
        for host in (*ready["addresses"], "datagrams"):
            assert call(lab, "udp", host, 53) == [1, 100, 1200]
    wait_nothing_of_ours(lab)


def test_a_closed_port_resets_and_is_said_once(lab: LabBackend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    flags = ("--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)
    with Command(HereBackend(lab), "preview", "nobody", "--expose", f"{port}:8080", *flags) as running:
        running.wait_until(lambda: any("leads here" in line for line in running.lines))
        wait_leads(lab, "nobody", 8080)
        assert call(lab, "ends", "nobody", 8080, 5) == ["ConnectionResetError"] * 5
        with program(Echo, port):
            assert call(lab, "echo", "nobody", 8080, 1 << 16) == [1 << 16, True]
            running.wait_until(lambda: any("answers again" in line for line in running.lines))
        assert running.interrupt() == 0
        assert [line for line in running.lines if f":{port}" in line][1:] == [
            f"127.0.0.1:{port}: nothing listens there; callers are turned away\n",
            f"127.0.0.1:{port} answers again\n",
        ]
    wait_nothing_of_ours(lab)


def test_existing_service_and_what_makes_no_sense_are_refused(lab: LabBackend) -> None:
    here, flags = HereBackend(lab), ("--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)
    before = lab.kubectl("get", "service", "web", "-o", "json")
    code, answer = ktctl(here, "preview", "web", "--expose", "8080", *flags)
    assert (code, answer["error"]["class"]) == (25, "AlreadyThere")
    assert "not a preview" in answer["error"]["why"]
    assert lab.kubectl("get", "service", "web", "-o", "json") == before
    with preview(lab, "mine", "--expose", "8080") as running:
        running.wait_ready()
        code, answer = ktctl(here, "preview", "mine", "--expose", "8080", *flags)
        assert (code, answer["error"]["class"]) == (25, "AlreadyThere")
        assert "previews it since 20" in answer["error"]["why"]
        assert "service/mine" in lab.kubectl("get", "services", "-o", "name")
    for name, expose in (("Mine", "8080"), ("2nd", "8080"), ("mine", "http"), ("mine", "0"), ("mine", "1:70000")):
        code, answer = ktctl(here, "preview", name, "--expose", expose, *flags)
        assert (code, answer["error"]["class"]) == (2, "UsageFault"), (name, expose)
    wait_nothing_of_ours(lab)


@pytest.mark.parametrize("what", ["pod", "job"])
def test_shadow_deleted(lab: LabBackend, what: str) -> None:
    """Another one is there in seconds; with the pod alone the Service keeps its address."""
    with program(Hello) as port, preview(lab, "lasting", "--expose", f"{port}:80") as running:
        before = running.wait_ready()["addresses"]
        wait_leads(lab, "lasting", 80)
        pods = ("get", "pods", "-l", "kt-role=shadow-preview", "-o", "name")
        gone = lab.kubectl(*pods).strip()
        lab.kubectl("delete", what, "-l", "kt-role=shadow-preview", "--wait=false")
        started = time.monotonic()
        while True:
            assert time.monotonic() - started < 40
            with contextlib.suppress(LabError):
                assert call(lab, "http", "lasting", 80) == "from the laptop"
                if gone not in lab.kubectl(*pods):
                    break
        print(f"answers {time.monotonic() - started:.1f} s after the {what} was deleted")
        time.sleep(3)  # whatever the garbage collector takes, it has taken
        assert call(lab, "http", "lasting", 80) == "from the laptop"
        if what == "pod":
            found = json.loads(lab.kubectl("get", "service", "lasting", "-o", "json"))["spec"]["clusterIPs"]
            assert found == before
    assert "lasting" not in lab.kubectl("get", "services", "-o", "name")
    wait_nothing_of_ours(lab)


def test_killed(lab: LabBackend) -> None:
    """Nobody deletes anything: the agent ends, and Kubernetes' garbage collector takes the Service as well."""
    with program(Hello) as port, preview(lab, "killed", "--expose", f"{port}:80", "--idle-exit", str(IDLE)) as running:
        running.wait_ready()
        wait_leads(lab, "killed", 80)
        running.signal(signal.SIGKILL)
        running.wait_ended()
    limit = time.monotonic() + IDLE + COLLECTOR_SECONDS
    while "killed" in lab.kubectl("get", "services", "-o", "name"):
        assert time.monotonic() < limit
        time.sleep(0.5)
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)


@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9, 1.2, 1.5, 2.0])
def test_interrupted_while_starting(lab: LabBackend, delay: float) -> None:
    with preview(lab, "hasty", "--expose", "8080", "--idle-exit", str(IDLE)) as running:
        time.sleep(delay)
        running.signal(signal.SIGINT)
        running.wait_ended()
    assert "hasty" not in lab.kubectl("get", "services", "-o", "name")
    wait_nothing_of_ours(lab)


def test_external_address_is_said_when_one_comes(lab: LabBackend) -> None:
    """The lab has nobody who gives addresses: the test does."""
    flags = ("--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)
    with Command(HereBackend(lab), "preview", "outside", "--expose", "8080", "--external", *flags) as running:
        running.wait_until(lambda: any("leads here" in line for line in running.lines))
        assert lab.kubectl("get", "service", "outside", "-o", "jsonpath={.spec.type}") == "LoadBalancer"
        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.44"}]}}}
        lab.kubectl("patch", "service", "outside", "--subresource=status", "--type=merge", "-p", json.dumps(status))
        running.wait_until(lambda: any("outside at 192.0.2.44" in line for line in running.lines))
        assert running.interrupt() == 0
    wait_nothing_of_ours(lab)


def test_the_callers_address_for_programs_that_want_it(lab: LabBackend) -> None:
    """As the pod sees it: of a pod that calls, its own."""
    seen: list[bytes] = []

    class Header(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                seen.append(self.request.recv(100))

    address = lab.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIPs[*].ip}").split()
    with program(Header) as port, preview(lab, "who", "--expose", f"{port}:80", "--proxy-protocol") as running:
        service = running.wait_ready()["addresses"][0]
        wait_leads(lab, service, 80)
        call(lab, "ends", service, 80, 1)
    assert seen[-1][:13] == b"\r\n\r\n\0\r\nQUIT\n\x21"
    assert socket.inet_ntoa(seen[-1][16:20]) in address
    wait_nothing_of_ours(lab)

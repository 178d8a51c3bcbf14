"""`ktctl exchange --mode scale`: the workload's pods are gone for a while, the shadow pod stands in for them under their labels."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.backend import HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.command import Command
from tests.cluster.ktctl import ktctl
from tests.cluster.local import Echo, Hello, call, datagrams, program
from tests.cluster.test_clean import recover
from tests.cluster.test_exchange import BACK_SECONDS, COMES_SECONDS, Redis, as_it_was, exchange, flags, restored
from tests.cluster.test_guards import AGENT_SECONDS, COLLECTOR_SECONDS, kill, watchdog_pid
from tests.lab.errors import LabError

SCALE = ("--mode", "scale")


@pytest.fixture
def web(lab: LabBackend) -> Iterator[None]:
    """The workload, with all of its pods afterwards."""
    with restored(lab, "web", "deployment"), restored(lab, "web"):
        yield
        assert "kt-record" not in lab.kubectl("get", "replicasets", "-o", "json")
    lab.kubectl("rollout", "status", "deploy/web", "--timeout=60s")


def caller(lab: LabBackend, host: str, port: int) -> str:
    """From a pod that is there whatever happens to web's."""
    code = f"import urllib.request as r; print(r.urlopen('http://{host}:{port}/', timeout=5).read().decode())"
    return lab.kubectl("exec", "deploy/bytes", "--", "python3", "-c", code).strip()


def wait_answers(lab: LabBackend, wanted: str, seconds: float) -> None:
    """Until the Service answers so, seen from another pod."""

    def answers() -> bool:
        with contextlib.suppress(LabError):
            return wanted in caller(lab, "web", 80)
        return False

    _wait(answers, seconds)


def test_http_comes_here_and_goes_back(lab: LabBackend, web: None) -> None:
    with program(Hello) as port:
        with exchange(lab, "deployment/web", "--expose", f"{port}:http", *SCALE) as running:
            ready = running.wait_ready()
            assert ready["services"][0]["service"] == "web.default"
            wait_answers(lab, "from the laptop", COMES_SECONDS)
            assert json.loads(lab.kubectl("get", "deploy", "web", "-o", "json"))["spec"]["replicas"] == 0
            (pod,) = json.loads(lab.kubectl("get", "pods", "-l", "app=web,control-by=kt", "-o", "json"))["items"]
            assert pod["metadata"]["annotations"]["kt-config"] == "app=web,replicas=2"
            running.signal(signal.SIGINT)
            assert running.wait_ended(60) == 0
        wait_answers(lab, "hello from web", BACK_SECONDS)


def test_a_server_side_apply_of_the_replicas_afterwards(lab: LabBackend, web: None) -> None:
    with exchange(lab, "web", "--expose", "8080:80", *SCALE) as running:
        running.wait_ready()
        running.signal(signal.SIGINT)
        assert running.wait_ended(60) == 0
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2}}
    words = ("apply", "--server-side", "--dry-run=server", "--field-manager=another", "-f", "-")
    assert "conflict" not in lab.kubectl(*words, given=json.dumps(body), check=False).lower()


def test_octets_two_hundred_and_datagrams(lab: LabBackend, long: bool) -> None:
    size = (256 if long else 32) << 20
    with restored(lab, "echo", "deployment"), program(Echo) as tcp, datagrams() as udp:
        exposed = ("--expose", f"{tcp}:7", "--expose", f"{udp}:7/udp")
        with exchange(lab, "echo", *exposed, *SCALE) as running:
            running.wait_ready()
            assert call(lab, "echo", "echo", 7, size) == [size, True]
            assert call(lab, "crowd", "echo", 7, 200) == [200, True]
            assert call(lab, "udp", "echo", 7) == [1, 100, 1200]
    lab.kubectl("rollout", "status", "deploy/echo", "--timeout=60s")


def test_a_stateful_set(lab: LabBackend) -> None:
    """Redis, asked from another pod."""
    code = (
        "import socket; s = socket.create_connection(('redis', 6379), 5);"
        "s.sendall(b'*3\\r\\n$3\\r\\nSET\\r\\n$1\\r\\nk\\r\\n$1\\r\\nv\\r\\n'); print(s.recv(9))"
    )
    words = ("statefulset/redis", "--expose")
    with restored(lab, "redis", "statefulset"), program(Redis) as port:
        running = exchange(lab, *words, f"{port}:6379", *SCALE)
        with running:
            running.wait_ready()
            assert "OK" in lab.kubectl("exec", "deploy/bytes", "--", "python3", "-c", code)
            assert Redis.kept[b"k"] == b"v"
            running.signal(signal.SIGINT)
            assert running.wait_ended(90) == 0
    lab.kubectl("rollout", "status", "sts/redis", "--timeout=60s")


def test_who_dies_leaves_it_to_the_others(lab: LabBackend, web: None) -> None:
    """The watchdog, then the agent, then nobody but `recover`."""
    before = as_it_was(lab, "web", "deployment")
    for dead in ("client", "watchdog", "agent"):
        with exchange(lab, "web", "--expose", "8080:80", *SCALE) as running:
            running.wait_ready()
            doomed = [running.process.pid]
            if dead != "client":
                doomed.insert(0, watchdog_pid(running))
            kill(*doomed)
            if dead == "agent":
                lab.kubectl("delete", "job", "-l", "kt-role=shadow-exchange", "--wait=true")
                assert recover(lab, "web")[0] == 0
            _wait(lambda: as_it_was(lab, "web", "deployment") == before, 3 if dead == "client" else AGENT_SECONDS)
        lab.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
        wait_nothing_of_ours(lab, COLLECTOR_SECONDS)


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_scaled_by_somebody_meanwhile(lab: LabBackend) -> None:
    """It is taken again, and what somebody wanted is what it has afterwards."""
    with program(Hello) as port:
        words = ("exchange", "web", "--expose", f"{port}:80", *SCALE, *flags(lab))
        with Command(HereBackend(lab), *words) as running:
            running.wait_until(lambda: any("ends with Ctrl-C" in line for line in running.lines))
            lab.kubectl("scale", "deploy/web", "--replicas=1")
            running.wait_until(lambda: any("with 1 replicas" in line for line in running.lines))
            assert running.interrupt() == 0
    assert as_it_was(lab, "web", "deployment")["spec"]["replicas"] == 1
    lab.kubectl("scale", "deploy/web", "--replicas=2")
    lab.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    wait_nothing_of_ours(lab)


def test_what_cannot_be_scaled(lab: LabBackend) -> None:
    template = {
        "metadata": {"labels": {"app": "odd"}},
        "spec": {"containers": [{"name": "a", "image": "none.invalid/a"}]},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "odd"},
        "spec": {"selector": {"app": "odd"}, "ports": [{"port": 80}]},
    }
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": "odd"}}, "template": template, "serviceName": "odd"}
    spec["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": "Delete"}
    stateful = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "odd"}, "spec": spec}
    lab.kubectl(
        "create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, stateful]})
    )
    try:
        for target in ("odd", "statefulset/odd"):
            code, answer = ktctl(HereBackend(lab), "exchange", target, "--expose", "8080:80", *SCALE, *flags(lab))
            assert (code, answer["error"]["class"]) == (2, "UsageFault")
            assert "whenScaled" in answer["error"]["why"]
        lab.kubectl("delete", "sts", "odd")
        code, answer = ktctl(HereBackend(lab), "exchange", "odd", "--expose", "8080:80", *SCALE, *flags(lab))
        assert (code, answer["error"]["class"]) == (2, "UsageFault")
        assert "no Deployment" in answer["error"]["what"]
    finally:
        lab.kubectl("delete", "service,sts", "odd", "--ignore-not-found")
    wait_nothing_of_ours(lab)


@pytest.mark.parametrize("delay", [1.0, 2.5, 4.0])
def test_interrupted_while_starting(lab: LabBackend, web: None, delay: float) -> None:
    with exchange(lab, "web", "--expose", "8080:80", "--idle-exit", "3", *SCALE) as running:
        time.sleep(delay)
        running.signal(signal.SIGINT)
        running.wait_ended(60)

"""`ktctl exchange --mode ephemeral`: callers of running pods come here, nothing restarts, nothing stays redirected when all is dead."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.backend import Backend, HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import ktctl
from tests.cluster.local import Echo, Hello, call, datagrams, program
from tests.cluster.test_exchange import COMES_SECONDS, Redis, as_it_was, exchange, flags, race, restored
from tests.lab.errors import LabError

EPHEMERAL = ("--mode", "ephemeral")
#: A client that is killed is away at once; the agent waits for it for a second.
GIVEN_BACK = 3.0
#: One that is stopped, when the tunnel's 15 s without a sign of life are over.
FOUND_SILENT = 20.0
#: kube-proxy has nothing to do with it: callers are redirected in the pod.
ANSWERS = 15.0


@contextlib.contextmanager
def pods_as_they_were(lab: LabBackend, app: str) -> Iterator[list[str]]:
    """The same pods afterwards, nothing restarted, ready; the Service and the workload untouched."""

    def pods() -> list[tuple[str, int]]:
        found = json.loads(lab.kubectl("get", "pods", "-l", f"app={app}", "-o", "json"))["items"]
        staying = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted((pod["metadata"]["name"], _restarts(pod)) for pod in staying)

    before = pods()
    with restored(lab, app):
        yield [name for name, _ in before]
        assert pods() == before
    wait_nothing_of_ours(lab)


def _restarts(pod: dict[str, Any]) -> int:
    return sum(int(one["restartCount"]) for one in pod["status"]["containerStatuses"])


def caller(lab: LabBackend, host: str = "web", port: int = 80) -> str:
    code = f"import urllib.request as r; print(r.urlopen('http://{host}:{port}/', timeout=5).read().decode())"
    return lab.kubectl("exec", "deploy/bytes", "--", "python3", "-c", code).strip()


def wait_answers(lab: LabBackend, wanted: str, seconds: float, host: str = "web", port: int = 80) -> float:
    started = time.monotonic()
    while True:
        with contextlib.suppress(LabError):
            if wanted in caller(lab, host, port):
                return time.monotonic() - started
        assert time.monotonic() - started < seconds, wanted


@pytest.fixture(scope="module", autouse=True)
def fresh(backend: Backend) -> Iterator[None]:
    """Containers cannot be taken out of a pod again: afterwards the sample's pods are others."""
    yield
    for what in ("deploy/web", "deploy/echo"):
        backend.kubectl("rollout", "restart", what)
        backend.kubectl("rollout", "status", what, "--timeout=90s")


def test_http_comes_here_from_every_pod_and_goes_back(lab: LabBackend) -> None:
    with pods_as_they_were(lab, "web") as pods:
        with program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80", *EPHEMERAL) as running:
            assert running.wait_ready()["services"][0]["nets"] == ["client", "agent", "kernel"]
            print(f"came here {wait_answers(lab, 'from the laptop', COMES_SECONDS):.1f} s after ready")
            for pod in pods:
                for address in json.loads(lab.kubectl("get", "pod", pod, "-o", "json"))["status"]["podIPs"]:
                    host = f"[{address['ip']}]" if ":" in address["ip"] else address["ip"]
                    assert caller(lab, host, 8080) == "from the laptop"
            running.signal(signal.SIGINT)
            assert running.wait_ended() == 0
        assert "hello from web" in caller(lab)


def test_octets_two_hundred_and_datagrams(lab: LabBackend, long: bool) -> None:
    size = (256 if long else 32) << 20
    with pods_as_they_were(lab, "echo"), program(Echo) as tcp, datagrams() as udp:
        exposed = ("--expose", f"{tcp}:7", "--expose", f"{udp}:7/udp")
        running = exchange(lab, "svc/echo", *exposed, *EPHEMERAL)
        with running:
            running.wait_ready()
            assert call(lab, "echo", "echo", 7, size) == [size, True]
            assert call(lab, "crowd", "echo", 7, 200) == [200, True]
            assert call(lab, "udp", "echo", 7) == [1, 100, 1200]


def test_one_pod_and_a_stateful_sets(lab: LabBackend) -> None:
    with pods_as_they_were(lab, "redis"), program(Redis) as port:
        for target in ("pod/redis-0", "sts/redis"):
            with exchange(lab, target, "--expose", f"{port}:6379", *EPHEMERAL) as running:
                running.wait_ready()
                code = (
                    "import socket; s = socket.create_connection(('redis', 6379), 5);"
                    "s.sendall(b'*2\\r\\n$3\\r\\nGET\\r\\n$4\\r\\nnone\\r\\n'); print(s.recv(9))"
                )
                Redis.kept[b"none"] = b"here"
                assert "here" in lab.kubectl("exec", "deploy/bytes", "--", "python3", "-c", code)
    lab.kubectl("delete", "pod", "redis-0")
    lab.kubectl("wait", "--for=condition=Ready", "pod/redis-0", "--timeout=90s")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_without_its_client_the_program_answers(lab: LabBackend, how: signal.Signals) -> None:
    """Killed: within seconds. Stopped: when the tunnel finds it silent; and it says so when it is back."""
    with pods_as_they_were(lab, "web"), program(Hello) as port:
        with exchange(lab, "web", "--expose", f"{port}:80", *EPHEMERAL) as running:
            running.wait_ready()
            wait_answers(lab, "from the laptop", ANSWERS)
            with ThreadPoolExecutor() as pool:
                changed = pool.submit(call, lab, "changed", "web", 80, inside="deploy/bytes")
                time.sleep(2)  # it has asked once
                assert not changed.done()
                stopped = time.monotonic()
                running.signal(how)
                seconds = changed.result(60) - stopped
            print(f"its own program answers after {seconds:.1f} s")
            assert seconds < (GIVEN_BACK if how is signal.SIGKILL else FOUND_SILENT)
            if how is signal.SIGSTOP:
                time.sleep(30)  # the agents end
                running.signal(signal.SIGCONT)
                assert running.process.stdout is not None
                answer = json.loads(running.process.stdout.readline())
                assert (answer["error"]["class"], answer["exit"]) == ("GivenBack", 42)
        if how is signal.SIGKILL:
            time.sleep(32)  # a Lease holds so long
            code, found = ktctl(HereBackend(lab), "clean", "--kubeconfig", str(lab.kubeconfig))
            assert code == 0, found
            assert [one["object"].partition("/")[0] for one in found["cleaned"]] == ["lease", "lease"]


def test_an_agent_that_is_killed(lab: LabBackend) -> None:
    """The kernel forgets at once; the client says that its program answers again."""
    with pods_as_they_were(lab, "web") as pods, program(Hello) as port:
        with exchange(lab, f"pod/{pods[0]}", "--expose", f"{port}:8080", *EPHEMERAL) as running:
            running.wait_ready()
            found = json.loads(lab.kubectl("get", "pod", pods[0], "-o", "json"))["spec"]["ephemeralContainers"]
            lab.kubectl("exec", pods[0], "-c", found[-1]["name"], "--", "python3", "-c", "import os; os.kill(1, 15)")
            assert running.process.stdout is not None
            answer = json.loads(running.process.stdout.readline())
            assert (answer["error"]["class"], answer["exit"]) == ("GivenBack", 42)
        address = json.loads(lab.kubectl("get", "pod", pods[0], "-o", "json"))["status"]["podIP"]
        assert "hello from web" in caller(lab, address, 8080)


def test_pods_that_come_are_taken_and_those_that_go_are_let_go(lab: LabBackend) -> None:
    with program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80", *EPHEMERAL) as running:
        running.wait_ready()
        pods = lab.kubectl("get", "pods", "-l", "app=web", "-o", "name").split()
        lab.kubectl("delete", *pods[:1])
        lab.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
        wait = time.monotonic() + 30
        while not all(
            _answers_here(lab, pod) for pod in lab.kubectl("get", "pods", "-l", "app=web", "-o", "name").split()
        ):
            assert time.monotonic() < wait
            time.sleep(0.5)
    wait_nothing_of_ours(lab)


def _answers_here(lab: LabBackend, pod: str) -> bool:
    address = lab.kubectl("get", pod, "-o", "jsonpath={.status.podIP}", check=False)
    with contextlib.suppress(LabError):
        return bool(address) and caller(lab, address, 8080) == "from the laptop"
    return False


def test_of_two_who_race_one_wins_in_all_pods(lab: LabBackend, long: bool) -> None:
    for _ in range(20 if long else 3):
        race(lab, "web", *EPHEMERAL)
    wait_nothing_of_ours(lab)


def test_refused(lab: LabBackend, namespace: Callable[..., str]) -> None:
    """Where policy forbids NET_ADMIN, and where somebody is a guest already; the reason is said."""
    here = HereBackend(lab)
    shop = namespace(**{"pod-security.kubernetes.io/enforce": "baseline"})
    container = {"name": "a", "image": lab.python_image, "command": ["sleep", "1000"], "ports": [{"containerPort": 80}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}}
    lab.kubectl("create", "-n", shop, "-f", "-", given=json.dumps(pod))
    lab.kubectl("wait", "-n", shop, "--for=condition=Ready", "pod/a", "--timeout=60s")
    code, answer = ktctl(here, "exchange", "pod/a", "-n", shop, "--expose", "8080:80", *EPHEMERAL, *flags(lab))
    assert (code, answer["error"]["class"]) == (21, "AdmissionRefused")
    assert "NET_ADMIN" in answer["error"]["what"]
    assert "--mode selector" in answer["error"]["next"]
    with exchange(lab, "web", "--expose", "8080:80", *EPHEMERAL) as running:
        running.wait_ready()
        code, answer = ktctl(here, "exchange", "web", "--expose", "8080:80", *EPHEMERAL, *flags(lab))
        assert (code, answer["error"]["class"]) == (26, "Exchanged")
    pod = {
        **pod,
        "metadata": {"name": "wide"},
        "spec": {"hostNetwork": True, "containers": [{**container, "ports": []}]},
    }
    lab.kubectl("create", "-f", "-", given=json.dumps(pod))
    lab.kubectl("wait", "--for=condition=Ready", "pod/wide", "--timeout=60s")
    code, answer = ktctl(here, "exchange", "pod/wide", "--expose", "8080:80", *EPHEMERAL, *flags(lab))
    assert (code, answer["error"]["what"]) == (2, "pod wide is on its node's network")
    assert "ephemeralContainers" not in lab.kubectl("get", "pod", "wide", "-o", "json")
    lab.kubectl("delete", "pod", "wide", "--grace-period=1")
    code, answer = ktctl(here, "exchange", "pod/none", "--expose", "8080:80", *EPHEMERAL, *flags(lab))
    assert (code, answer["error"]["class"]) == (20, "ObjectMissing")
    assert as_it_was(lab, "web")["annotations"] is None or "kt-record" not in as_it_was(lab, "web")["annotations"]
    wait_nothing_of_ours(lab)

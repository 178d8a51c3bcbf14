"""`ktctl exchange`, mode selector: a Service's callers reach a program of this machine, and afterwards the Service is what it was."""

from __future__ import annotations

import contextlib
import json
import signal
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.backend import Backend, HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.command import Command
from tests.cluster.ktctl import Ktctl, ktctl
from tests.cluster.local import Echo, Hello, call, datagrams, program
from tests.lab.errors import LabError

#: From the ready line to the first caller who comes here.
COMES_SECONDS = 3.0
#: kube-proxy writes its rules a moment after the EndpointSlices are right.
BACK_SECONDS = 15.0
IDLE = 3


def flags(lab: LabBackend) -> tuple[str, ...]:
    return ("--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)


def exchange(lab: LabBackend, *arguments: str) -> Ktctl:
    """On this machine, not in the laptop: the programs are the test's own."""
    return Ktctl(HereBackend(lab), "exchange", *arguments, *flags(lab))


def as_it_was(lab: LabBackend, name: str, kind: str = "service") -> dict[str, Any]:
    """What has to be the same afterwards: spec, labels, annotations, and who owns which field since when."""
    found = json.loads(lab.kubectl("get", kind, name, "-o", "json", "--show-managed-fields"))
    metadata = found["metadata"]
    managed = [entry for entry in metadata["managedFields"] if entry.get("subresource") != "status"]
    return {
        "spec": found["spec"],
        "labels": metadata.get("labels"),
        "annotations": metadata.get("annotations"),
        "managed": sorted(json.dumps(entry, sort_keys=True) for entry in managed),
    }


@contextlib.contextmanager
def restored(lab: LabBackend, name: str, kind: str = "service") -> Iterator[None]:
    before = as_it_was(lab, name, kind)
    yield
    assert as_it_was(lab, name, kind) == before
    wait_nothing_of_ours(lab)


@pytest.fixture
def service(lab: LabBackend) -> Iterator[Callable[..., str]]:
    """Makes Services over the web sample's pods, as `somebody` does it; they go after the test."""
    made: list[str] = []

    def make(name: str, **spec: Any) -> str:
        ports = [{"name": "http", "port": 80, "targetPort": "http"}]
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
        whole = {**body, "spec": {"selector": {"app": "web"}, "ports": ports, **spec}}
        lab.kubectl("create", "--field-manager=somebody", "-f", "-", given=json.dumps(whole))
        made.append(name)
        return name

    yield make
    for name in made:
        lab.kubectl("delete", "service", name, "--ignore-not-found")


def wait_says(lab: LabBackend, wanted: str, host: str, port: int = 80, seconds: float = BACK_SECONDS) -> float:
    """Until an HTTP server of that word answers; seconds."""
    started = time.monotonic()
    while True:
        with contextlib.suppress(LabError):
            if wanted in call(lab, "http", host, port):
                return time.monotonic() - started
        assert time.monotonic() - started < seconds, f"no {wanted!r}"
        time.sleep(0.1)


def test_http_comes_here_and_goes_back(lab: LabBackend) -> None:
    with restored(lab, "web"):
        with program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80") as running:
            ready = running.wait_ready()
            assert ready["services"] == [
                {
                    "service": "web.default",
                    "ports": [{"port": 80, "protocol": "TCP", "target": f"127.0.0.1:{port}"}],
                    "nets": ["client", "watchdog", "agent"],
                }
            ]
            print(f"came here {wait_says(lab, 'from the laptop', 'web', seconds=COMES_SECONDS):.1f} s after ready")
            for host in ("web.default.svc.cluster.local", *_addresses(lab, "web")):
                assert call(lab, "http", host, 80) == "from the laptop"
            running.signal(signal.SIGINT)
            assert running.wait_ended() == 0
        wait_says(lab, "hello from web", "web")
    assert "conflict" not in _apply(lab, "web", {"selector": {"app": "web"}})


def _addresses(lab: LabBackend, name: str) -> list[str]:
    found: list[str] = json.loads(lab.kubectl("get", "service", name, "-o", "json"))["spec"]["clusterIPs"]
    return found


def _apply(lab: LabBackend, name: str, spec: dict[str, Any]) -> str:
    """A server-side apply of somebody who has never had the field: what kubectl says of it, without doing it."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    words = ("apply", "--server-side", "--dry-run=server", "--field-manager=another", "-f", "-")
    return lab.kubectl(*words, given=json.dumps(service), check=False).lower()


def test_octets_both_ways_two_hundred_at_once_and_datagrams(lab: LabBackend, long: bool) -> None:
    size = (256 if long else 32) << 20
    with restored(lab, "echo"), program(Echo) as tcp, datagrams() as udp:
        exposed = ("--expose", f"{tcp}:tcp", "--expose", f"{udp}:7/udp")
        with exchange(lab, "svc/echo", *exposed) as running:
            running.wait_ready()
            started = time.monotonic()
            assert call(lab, "echo", "echo", 7, size) == [size, True]
            print(f"{size >> 20} MiB there and back in {time.monotonic() - started:.1f} s")
            assert call(lab, "crowd", "echo", 7, 200) == [200, True]
            assert call(lab, "udp", "echo", 7) == [1, 100, 1200]


class Redis(socketserver.StreamRequestHandler):
    """As much of a Redis as SET and GET need; not the cluster's."""

    kept: dict[bytes, bytes] = {}  # noqa: RUF012 - of the test

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            self._answer()

    def _answer(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2])
            if words[0].upper() == b"SET":
                self.kept[words[1]] = words[2]
                self.wfile.write(b"+OK\r\n")
            elif words[0].upper() == b"GET":
                found = self.kept.get(words[1])
                self.wfile.write(b"$-1\r\n" if found is None else b"$%d\r\n%s\r\n" % (len(found), found))
            else:
                self.wfile.write(b"-ERR unknown command\r\n")


def test_a_stateful_sets_service_by_the_workloads_name(lab: LabBackend) -> None:
    """Redis: what is written reaches the program here; and it is said that callers may have connections of before."""
    pod = ("exec", "redis-0", "--", "redis-cli", "-h", "redis")
    with restored(lab, "redis"), program(Redis) as port:
        with Command(HereBackend(lab), "exchange", "sts/redis", "--expose", f"{port}:6379", *flags(lab)) as running:
            running.wait_until(lambda: any("ends with Ctrl-C" in line for line in running.lines))
            assert lab.kubectl(*pod, "set", "here", "yes").strip() == "OK"
            assert Redis.kept[b"here"] == b"yes"
            assert running.interrupt() == 0
        assert any("do not" in line or "does not move them" in line for line in running.lines), running.lines
    assert lab.kubectl(*pod, "get", "here").strip() == ""


SHAPES: dict[str, dict[str, Any]] = {
    "number": {"ports": [{"port": 80, "targetPort": 8080}]},
    "low-number": {"ports": [{"port": 80, "targetPort": 81}]},
    "agents-number": {"ports": [{"port": 80, "targetPort": 7777}]},
    "affinity": {"sessionAffinity": "ClientIP"},
    "dual": {"ipFamilyPolicy": "RequireDualStack"},
    "local": {"internalTrafficPolicy": "Local"},
    "node-port": {"type": "NodePort", "externalTrafficPolicy": "Local"},
    "headless": {"clusterIP": "None", "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
    "headless-other-number": {"clusterIP": "None"},
}
#: Where callers of a headless Service come: it has no address of its own that would lead to another port.
AT = {"headless": 8080}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_can_be(lab: LabBackend, service: Callable[..., str], shape: str) -> None:
    """docs/exchange.md has a row for each."""
    name = service(f"shape-{shape}", **SHAPES[shape])
    port_of = AT.get(shape, 80)
    with restored(lab, name), program(Hello) as port, exchange(lab, name, "--expose", f"{port}:{port_of}") as running:
        running.wait_ready()
        wait_says(lab, "from the laptop", name, port_of)
        if shape == "dual":
            assert {call(lab, "http", address, 80) for address in _addresses(lab, name)} == {"from the laptop"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "external-name": ({"type": "ExternalName", "externalName": "www.world.test", "selector": None}, "ExternalName"),
    "no-selector": ({"selector": None}, "no selector"),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_shapes_that_cannot_be(lab: LabBackend, service: Callable[..., str], shape: str) -> None:
    spec, why = REFUSED[shape]
    name = service(f"shape-{shape}", **spec)
    with restored(lab, name):
        code, answer = ktctl(HereBackend(lab), "exchange", name, "--expose", "8080:80", *flags(lab))
        assert (code, answer["error"]["class"]) == (2, "UsageFault")
        assert why in answer["error"]["why"]
        assert answer["error"]["next"]


def test_a_policy_that_lets_nobody_come(lab: LabBackend) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "default-deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    with restored(lab, "web"):
        lab.kubectl("create", "-f", "-", given=json.dumps(policy))
        try:
            code, answer = ktctl(HereBackend(lab), "exchange", "web", "--expose", "8080:80", *flags(lab))
        finally:
            lab.kubectl("delete", "networkpolicy", "default-deny")
        assert (code, answer["error"]["class"]) == (2, "UsageFault")
        assert "default-deny" in answer["error"]["why"]


def test_several_services_over_one_workload(lab: LabBackend, service: Callable[..., str]) -> None:
    """The others stay, which is said; by the workload's name it has to be said which is meant."""
    service("other-web")
    with program(Hello) as port:
        with Command(HereBackend(lab), "exchange", "web", "--expose", f"{port}:80", *flags(lab)) as running:
            running.wait_until(lambda: any("ends with Ctrl-C" in line for line in running.lines))
            assert any("behind other-web" in line for line in running.lines)
            wait_says(lab, "hello from web", "other-web")
            assert running.interrupt() == 0
        code, answer = ktctl(HereBackend(lab), "exchange", "deploy/web", "--expose", f"{port}:80", *flags(lab))
    assert code == 2
    assert "svc/other-web, svc/web" in answer["error"]["what"]
    wait_nothing_of_ours(lab)


def test_what_makes_no_sense(lab: LabBackend) -> None:
    for words, wanted in (
        (("web", "--expose", "8080:81"), "80 (http) to http"),
        (("web", "--expose", "0"), "1 to 65535"),
        (("web", "--expose", "8080:80", "--expose", "8081:http"), ""),
        (("pod/web", "--expose", "8080:80"), "Service"),
        (("web", "echo", "--expose", "8080:80"), ""),
        (("web", "--expose", "echo=8080:80"), ""),
    ):
        code, answer = ktctl(HereBackend(lab), "exchange", *words, *flags(lab))
        assert (code, answer["error"]["class"]) == (2, "UsageFault"), words
        assert wanted in answer["error"]["why"]
    code, answer = ktctl(HereBackend(lab), "exchange", "nobody", "--expose", "8080:80", *flags(lab))
    assert (code, answer["error"]["class"]) == (20, "ObjectMissing")
    wait_nothing_of_ours(lab)


def test_two_at_once_by_one_program(lab: LabBackend) -> None:
    with restored(lab, "web"), restored(lab, "bytes"), program(Hello) as port:
        both = ("web", "bytes", "--expose", f"web={port}:80", "--expose", f"bytes={port}:9000")
        running = exchange(lab, *both)
        with running:
            assert [one["service"] for one in running.wait_ready()["services"]] == ["web.default", "bytes.default"]
            wait_says(lab, "from the laptop", "web")
            wait_says(lab, "from the laptop", "bytes", 9000)


def race(lab: LabBackend, *words: str) -> dict[str, Any]:
    """Two at the same moment: one is ready, ended and gone; what the other one was told."""
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(exchange(lab, *words, "--expose", "8080:80", "--drain", "0")) for _ in range(2)]
        answers: list[dict[str, Any]] = []
        for one in both:
            assert one.process.stdout is not None
            answers.append(json.loads(one.process.stdout.readline()))
        assert sorted(answer["ok"] for answer in answers) == [False, True], json.dumps(answers)
        (loser,) = (answer for answer in answers if not answer["ok"])
        for one, answer in zip(both, answers, strict=True):
            if answer["ok"]:
                one.signal(signal.SIGINT)
                assert one.wait_ended() == 0
            else:
                assert one.wait_ended() == 26
        assert loser["error"]["class"] == "Exchanged"
        error: dict[str, Any] = loser["error"]
        return error


def test_who_has_it_and_one_of_two_who_race(lab: LabBackend, long: bool) -> None:
    """Each time exactly one; the other one is told by whom and since when."""
    with restored(lab, "web"):
        for _ in range(100 if long else 10):
            told = race(lab, "web")
            assert "has had it since 20" in told["why"]
            assert "ktctl recover web" in told["next"]


def test_nobody_reads_what_it_says(lab: LabBackend) -> None:
    """`ktctl exchange ... | head -1`: it is undone all the same."""
    with restored(lab, "web"), exchange(lab, "web", "--expose", "8080:80") as running:
        running.wait_ready()
        for stream in (running.process.stdout, running.process.stderr):
            assert stream is not None
            stream.close()
        running.signal(signal.SIGINT)
        running.process.wait(20)


def test_nobody_reads_what_another_thread_says(lab: LabBackend, service: Callable[..., str]) -> None:
    """The same, found out by the thread that looks after the Service: it ends by itself."""
    name = service("unread")
    with exchange(lab, name, "--expose", "8080:80") as running:
        running.wait_ready()
        for stream in (running.process.stdout, running.process.stderr):
            assert stream is not None
            stream.close()
        patch = json.dumps({"spec": {"selector": {"v": "2"}}})
        lab.kubectl("patch", "service", name, "--field-manager=somebody", "--type=merge", "-p", patch)
        assert running.process.wait(20) == 0
    assert as_it_was(lab, name)["spec"]["selector"] == {"v": "2"}
    wait_nothing_of_ours(lab)


def test_ended_while_another_shadow_pod_cannot_run(lab: LabBackend) -> None:
    """A node that is drained: the next pod waits for a place, and goes with the session."""
    node = lab.kubectl("get", "nodes", "-o", "name").strip()
    lines: list[str] = []
    with (
        restored(lab, "web"),
        Command(HereBackend(lab), "exchange", "web", "--expose", "8080:80", *flags(lab)) as running,
    ):
        lines = running.lines
        running.wait_until(lambda: any("ends with Ctrl-C" in line for line in lines))
        lab.kubectl("cordon", node)
        try:
            lab.kubectl("delete", "pod", "-l", "kt-role=shadow-exchange", "--grace-period=1")
            running.wait_until(lambda: any("starting another one" in line for line in lines))
            running.wait_until(lambda: len(_jobs(lab)) == 2)
            started = time.monotonic()
            assert running.interrupt() == 0
            print(f"ended {time.monotonic() - started:.1f} s after Ctrl-C")
            assert time.monotonic() - started < 10
            assert _jobs(lab) == []
        finally:
            lab.kubectl("uncordon", node)


def _jobs(lab: LabBackend) -> list[str]:
    return lab.kubectl("get", "jobs", "-l", "kt-role=shadow-exchange", "-o", "name").split()


def test_deployed_anew_while_exchanged(lab: LabBackend, service: Callable[..., str]) -> None:
    """By apply with another selector, and made anew: it comes here again, and what was deployed is what it is afterwards."""
    name = service("again")
    with (
        program(Hello) as port,
        Command(HereBackend(lab), "exchange", name, "--expose", f"{port}:80", *flags(lab)) as running,
    ):
        running.wait_until(lambda: any("ends with Ctrl-C" in line for line in running.lines))
        patch = json.dumps({"spec": {"selector": {"kt-role": None, "kt-target": None, "app": "web", "v": "2"}}})
        lab.kubectl("patch", "service", name, "--field-manager=somebody", "--type=merge", "-p", patch)
        running.wait_until(lambda: any("deployed anew" in line for line in running.lines))
        wait_says(lab, "from the laptop", name)
        lab.kubectl("delete", "service", name)
        running.wait_until(lambda: any(f"{name} is gone" in line for line in running.lines))
        service(name)
        running.wait_until(lambda: sum("deployed anew" in line for line in running.lines) == 2)
        wait_says(lab, "from the laptop", name)
        patch = json.dumps({"spec": {"selector": {"kt-role": None, "kt-target": None, "app": "web", "v": "3"}}})
        lab.kubectl("patch", "service", name, "--field-manager=somebody", "--type=merge", "-p", patch)
        running.wait_until(lambda: sum("deployed anew" in line for line in running.lines) == 3)
        assert running.interrupt() == 0
    found = as_it_was(lab, name)
    assert found["spec"]["selector"] == {"app": "web", "v": "3"}
    assert found["annotations"] is None
    assert not any('"ktctl"' in entry for entry in found["managed"])
    wait_nothing_of_ours(lab)


@pytest.mark.parametrize("back", ["client", "watchdog"])
@pytest.mark.parametrize("selector", [{"app": "web"}, {"app": "web", "v": "2"}], ids=["the same", "another"])
def test_kubectl_apply_while_exchanged(lab: LabBackend, selector: dict[str, str], back: str) -> None:
    """The way most people deploy: it merges its selector into ours. Taken again, or given back when nobody takes it again."""

    def manifest(selector: dict[str, str]) -> str:
        spec = {"ports": [{"port": 80, "targetPort": 8080}], "selector": selector}
        return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "applied"}, "spec": spec})

    def given_back() -> bool:
        found = as_it_was(lab, "applied")
        return bool(found["spec"]["selector"] == selector and "kt-" not in json.dumps(found))

    lab.kubectl("apply", "-f", "-", given=manifest({"app": "web"}))
    with Command(HereBackend(lab), "exchange", "applied", "--expose", "8080:80", *flags(lab)) as running:
        running.wait_until(lambda: any("ends with Ctrl-C" in line for line in running.lines))
        if back == "watchdog":
            running.process.send_signal(signal.SIGSTOP)
        lab.kubectl("apply", "-f", "-", given=manifest(selector))
        if back == "watchdog":
            assert (
                as_it_was(lab, "applied")["spec"]["selector"].keys() > selector.keys()
            )  # the merge is what this is about
            running.process.kill()
        else:
            running.wait_until(lambda: any("deployed anew" in line for line in running.lines))
            assert running.interrupt() == 0
        running.wait_until(given_back)
    lab.kubectl("delete", "service", "applied")
    wait_nothing_of_ours(lab, 60)


def test_given_back_by_somebody_it_is_not_taken_again(lab: LabBackend, service: Callable[..., str]) -> None:
    """Its selector as it was, and no annotation of ours: that is somebody's wish."""
    name = service("wished")
    with exchange(lab, name, "--expose", "8080:80") as running:
        running.wait_ready()
        selector = {"kt-role": None, "kt-target": None, "app": "web"}
        annotations = {"kt-record": None, "kt-selector": None}
        patch = json.dumps({"metadata": {"annotations": annotations}, "spec": {"selector": selector}})
        lab.kubectl("patch", "service", name, "--type=merge", "--field-manager=somebody", "-p", patch)
        assert running.process.stdout is not None
        answer = json.loads(running.process.stdout.readline())
        assert (answer["error"]["class"], answer["exit"]) == ("GivenBack", 42)
        assert running.wait_ended() == 42
    assert as_it_was(lab, name)["spec"]["selector"] == {"app": "web"}
    wait_nothing_of_ours(lab)


@pytest.mark.parametrize("delay", [0.3, 1.0, 1.5, 2.0, 2.6])
def test_interrupted_while_starting(lab: LabBackend, delay: float) -> None:
    with restored(lab, "web"), exchange(lab, "web", "--expose", "8080:80", "--idle-exit", str(IDLE)) as running:
        time.sleep(delay)
        running.signal(signal.SIGINT)
        running.wait_ended()


def test_callers_who_are_here_may_finish(lab: LabBackend) -> None:
    """At the end: who has been answered half is answered whole; who comes now is the originals'."""
    first, go_on = threading.Event(), threading.Event()

    class Slow(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)
            first.set()
            go_on.wait(30)
            self.request.sendall(b"x" * 1000)

    found: list[Any] = []
    with restored(lab, "web"), program(Slow) as port, exchange(lab, "web", "--expose", f"{port}:80") as running:
        running.wait_ready()
        caller = threading.Thread(target=lambda: found.append(call(lab, "half", "web", 80)))
        caller.start()
        assert first.wait(20)
        running.signal(signal.SIGINT)
        wait_says(lab, "hello from web", "web")
        assert running.process.poll() is None
        go_on.set()
        assert running.wait_ended() == 0
        caller.join()
    assert found == [1000]


@pytest.mark.parametrize("what", ["pod", "job"])
def test_shadow_deleted(lab: LabBackend, what: str) -> None:
    """Another one is there in seconds, and the Service leads there: it selects the session's pods, whichever there are."""
    with restored(lab, "web"), program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80") as running:
        running.wait_ready()
        wait_says(lab, "from the laptop", "web")
        pods = ("get", "pods", "-l", "kt-role=shadow-exchange", "-o", "name")
        gone = lab.kubectl(*pods).strip()
        lab.kubectl("delete", what, "-l", "kt-role=shadow-exchange", "--wait=false")
        limit = time.monotonic() + 40
        while gone in (now := lab.kubectl(*pods)) or not now.strip():
            assert time.monotonic() < limit
            time.sleep(0.2)
        print(f"answers {wait_says(lab, 'from the laptop', 'web', seconds=30):.1f} s after another pod was there")


def test_beside_connect(lab: LabBackend, backend: Backend) -> None:
    """The laptop is connected; the exchange is a program of its own there."""
    with restored(lab, "web"), Ktctl(backend, "connect", "--image", lab.python_image) as connected:
        connected.wait_ready()
        with program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80") as running:
            running.wait_ready()
            wait_says(lab, "from the laptop", "web")

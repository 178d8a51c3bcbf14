"""`ktctl clean` and `ktctl recover`: what is nobody's is put right, what is somebody's is not touched."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kt_net.choreography.edits import TakeReplicas, TakeSelector
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import load_cluster
from kt_net.kube.run import run_edit
from tests.cluster.backend import HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import ktctl
from tests.cluster.local import Hello, program
from tests.cluster.test_exchange import as_it_was, exchange
from tests.cluster.test_guards import COLLECTOR_SECONDS, kill, watchdog_pid

SINCE = "2026-01-02T03:04:05Z"
#: A Deployment is scaled back, and its pods come.
PODS_SECONDS = 60.0
TARGET = "abcdefghijklmnopqrst"


def clean(lab: LabBackend, *flags: str) -> tuple[int, dict[str, Any]]:
    return ktctl(HereBackend(lab), "clean", *flags, "--kubeconfig", str(lab.kubeconfig))


def recover(lab: LabBackend, *flags: str) -> tuple[int, dict[str, Any]]:
    return ktctl(HereBackend(lab), "recover", *flags, "--kubeconfig", str(lab.kubeconfig))


@pytest.fixture
def api(lab: LabBackend) -> Iterator[HttpKubeApi]:
    made = HttpKubeApi(load_cluster(kubeconfig=str(lab.kubeconfig)))
    yield made
    made.close()


@contextlib.contextmanager
def leases_that_nobody_renews(api: HttpKubeApi, session: str) -> Iterator[None]:
    """Of a session, and stale."""
    spec = {"holderIdentity": "x", "leaseDurationSeconds": 30, "renewTime": "2026-01-02T03:04:05.000000Z"}
    metadata = {"name": "ktnet-stale", "labels": {"control-by": "kt", "kt-target": session}}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    api.create("Lease", "default", body)
    try:
        yield
    finally:
        api.delete("Lease", "default", "ktnet-stale")


def everything(lab: LabBackend) -> str:
    """All that a dry run must not change."""
    found = json.loads(lab.kubectl("get", "svc,deploy,sts,jobs,cm", "-o", "json", "--show-managed-fields"))
    return json.dumps([{"metadata": one["metadata"], "spec": one.get("spec")} for one in found["items"]])


@pytest.mark.parametrize("how", ["clean", "recover"])
def test_everybody_is_dead_and_the_shadow_pod_deleted(lab: LabBackend, how: str) -> None:
    """Client, watchdog and agent: what is left is the record on the Service."""
    before = as_it_was(lab, "web")
    with program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80") as running:
        running.wait_ready()
        kill(watchdog_pid(running), running.process.pid)
        lab.kubectl("delete", "job", "-l", "kt-role=shadow-exchange", "--wait=true")
        assert as_it_was(lab, "web") != before
        everything_before = everything(lab)
        code, found = clean(lab, "--dry-run")
        assert code == 0
        (one,) = found["cleaned"]
        assert (one["object"], one["inverse"]) == ("service/web", "selector app=web again")
        assert "exchanged by" in one["why"]
        assert everything(lab) == everything_before
        started = time.monotonic()
        code, found = clean(lab) if how == "clean" else recover(lab, "web")
        assert code == 0, found
        print(f"{how}: {time.monotonic() - started:.1f} s")
    assert as_it_was(lab, "web") == before
    for _ in range(2):
        assert clean(lab)[1]["cleaned"] == []
        assert recover(lab, "svc/web")[1]["recovered"] == []
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)


def test_a_workload_with_a_stale_lease(lab: LabBackend, api: HttpKubeApi) -> None:
    before = as_it_was(lab, "web", "deployment")
    run_edit(api, "Deployment", "default", "web", TakeReplicas(TARGET, "ann", SINCE))
    assert as_it_was(lab, "web", "deployment")["spec"]["replicas"] == 0
    with leases_that_nobody_renews(api, TARGET):
        code, found = clean(lab)
        assert (code, [one["inverse"] for one in found["cleaned"]]) == (0, ["replicas 2 again"])
    assert as_it_was(lab, "web", "deployment") == before
    lab.kubectl("rollout", "status", "deploy/web", f"--timeout={PODS_SECONDS:.0f}s")


def test_recover_takes_it_from_a_living_client(lab: LabBackend) -> None:
    before = as_it_was(lab, "web")
    with exchange(lab, "web", "--expose", "8080:80") as running:
        running.wait_ready()
        code, found = recover(lab, "web")
        assert code == 0, found
        assert running.process.stdout is not None
        answer = json.loads(running.process.stdout.readline())
        assert (answer["error"]["class"], answer["exit"]) == ("GivenBack", 42)
        running.wait_ended()
    assert as_it_was(lab, "web") == before
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)


def test_two_clean_at_once(lab: LabBackend, api: HttpKubeApi) -> None:
    before = as_it_was(lab, "web")
    run_edit(api, "Service", "default", "web", TakeSelector(TARGET, "ann", SINCE))
    answers: list[tuple[int, dict[str, Any]]] = []
    with leases_that_nobody_renews(api, TARGET):
        threads = [threading.Thread(target=lambda: answers.append(clean(lab))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [code for code, _ in answers] == [0, 0], answers
    assert as_it_was(lab, "web") == before


def test_a_forged_record_is_named_and_left_alone(lab: LabBackend) -> None:
    with annotated(lab, "web", {"kt-record": '{"schema":"7"}'}):
        held = as_it_was(lab, "web")
        code, found = clean(lab)
        assert (code, found["error"]["class"]) == (50, "ProblemsFound")
        assert "service/web in namespace default" in found["failed"][0]
        code, found = recover(lab, "web")
        assert (code, found["error"]["class"]) == (27, "RecordRefused")
        code, found = ktctl(
            HereBackend(lab), "exchange", "web", "--expose", "8080:80", "--kubeconfig", str(lab.kubeconfig)
        )
        assert (code, found["error"]["class"]) == (27, "RecordRefused")
        assert as_it_was(lab, "web") == held


@contextlib.contextmanager
def annotated(lab: LabBackend, name: str, annotations: dict[str, str], **spec: Any) -> Iterator[None]:
    """A Service as somebody has left it; as it was afterwards."""
    patch = {"metadata": {"annotations": annotations}, "spec": spec}
    words = ("patch", "service", name, "--type=merge", "--field-manager=ktctl", "-p")
    lab.kubectl(*words, json.dumps(patch))
    try:
        yield
    finally:
        lab.kubectl(*words, json.dumps({"metadata": {"annotations": dict.fromkeys(annotations)}}))


# -- a real KT Connect's


def made(lab: LabBackend, kind: str, name: str, role: str, beat: int, spec: Any = None, **annotations: str) -> None:
    """As a real KT Connect makes it: its labels, and a heart beat so many seconds old."""
    labels = {"control-by": "kt", "kt-role": role, "kt-target": TARGET, "app": "web" if kind == "Pod" else "none"}
    notes = {"kt-last-heart-beat": str(int(time.time()) - beat), "kt-user": "bob", **annotations}
    metadata = {"name": name, "labels": labels, "annotations": notes}
    pod = {"containers": [{"name": "standalone", "image": lab.python_image, "command": ["sleep", "1000"]}]}
    body = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
    if kind == "Pod":
        body["spec"] = {**pod, "terminationGracePeriodSeconds": 0, "nodeSelector": {"no": "where"}}
    elif spec:
        body["spec"] = spec
    lab.kubectl("create", "-f", "-", given=json.dumps(body))


@pytest.fixture
def kts(lab: LabBackend) -> Iterator[Callable[..., None]]:
    """Leaves what a KT Connect would; nothing of it stays after the test."""
    yield lambda *words, **more: made(lab, *words, **more)
    lab.kubectl("delete", "pods,cm,svc", "-l", "control-by=kt", "--wait=false")


def taken_by_kt(lab: LabBackend, role: str = "shadow-exchange") -> None:
    """What it does to a Service."""
    patch = {
        "metadata": {"annotations": {"kt-selector": '{"app":"web"}'}},
        "spec": {"selector": {"app": None, "kt-role": role, "kt-target": TARGET}},
    }
    words = ("patch", "service", "web", "--type=merge", "--field-manager=ktctl", "-p")
    lab.kubectl(*words, json.dumps(patch))


@pytest.mark.parametrize("how", ["clean", "recover"])
@pytest.mark.parametrize("pod", [True, False], ids=["silent", "pod gone"])
def test_a_kt_connects_exchange(lab: LabBackend, kts: Callable[..., None], how: str, pod: bool) -> None:
    before = as_it_was(lab, "web")
    if pod:
        kts("Pod", "web-kt-exchange-abcde", "shadow-exchange", 400)
        kts("ConfigMap", "web-kt-exchange-abcde", "shadow-exchange", 400)
    taken_by_kt(lab)
    code, found = clean(lab) if how == "clean" else recover(lab, "web")
    assert code == 0, found
    after = as_it_was(lab, "web")
    assert (after["spec"], after["annotations"]) == (before["spec"], before["annotations"])
    assert not any('"ktctl"' in entry for entry in after["managed"])
    assert "kt-exchange" not in lab.kubectl("get", "pods", "-o", "name")
    code, found = clean(lab)
    assert code == 0, found


@pytest.mark.parametrize("how", ["clean", "recover"])
def test_a_kt_connects_scale(lab: LabBackend, kts: Callable[..., None], how: str) -> None:
    before = as_it_was(lab, "web", "deployment")["spec"]
    kts("Pod", "web-kt-exchange-abcde", "shadow-exchange", 400, **{"kt-config": "app=web,replicas=2"})
    lab.kubectl("scale", "deploy/web", "--replicas=0")
    code, found = clean(lab) if how == "clean" else recover(lab, "web")
    assert code == 0, found
    assert as_it_was(lab, "web", "deployment")["spec"] == before
    lab.kubectl("rollout", "status", "deploy/web", f"--timeout={PODS_SECONDS:.0f}s")


@pytest.mark.parametrize("how", ["clean", "recover"])
def test_a_kt_connects_mesh(lab: LabBackend, kts: Callable[..., None], how: str) -> None:
    """Router, stuntman and a mesh's shadow; and the lock of a client that died in the middle."""
    before = as_it_was(lab, "web")
    ports = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    kts("Pod", "web-kt-router", "router", 400, **{"kt-config": "service=web"})
    kts("Service", "web-kt-stuntman", "stuntman", 400, spec=ports)
    kts("Service", "web-kt-mesh-v1", "shadow-mesh", 400, spec=ports)
    kts("Pod", "web-kt-mesh-v1", "shadow-mesh", 400)
    taken_by_kt(lab, "router")
    lock = json.dumps({"metadata": {"annotations": {"kt-lock": str(int(time.time()) - 400)}}})
    lab.kubectl("patch", "service", "web", "--type=merge", "--field-manager=ktctl", "-p", lock)
    code, found = clean(lab) if how == "clean" else recover(lab, "web")
    assert code == 0, found
    after = as_it_was(lab, "web")
    assert (after["spec"], after["annotations"]) == (before["spec"], before["annotations"])
    limit = time.monotonic() + 10
    while left := lab.kubectl("get", "pods,svc,cm", "-l", "control-by=kt", "-o", "name").split():
        assert time.monotonic() < limit, left
        time.sleep(0.2)


def test_a_living_kt_connects_is_not_touched(lab: LabBackend, kts: Callable[..., None]) -> None:
    kts("Pod", "web-kt-exchange-abcde", "shadow-exchange", 60)
    taken_by_kt(lab)
    held = as_it_was(lab, "web")
    try:
        code, found = clean(lab)
        assert (code, found["cleaned"]) == (0, [])
        assert any("by a KT Connect" in line for line in found["live"])
        code, found = ktctl(
            HereBackend(lab), "exchange", "web", "--expose", "8080:80", "--kubeconfig", str(lab.kubeconfig)
        )
        assert (code, found["error"]["class"]) == (26, "Exchanged")
        assert as_it_was(lab, "web") == held
    finally:
        assert recover(lab, "web")[0] == 0


def test_nothing_and_nobody(lab: LabBackend, tmp_path: Any) -> None:
    code, found = clean(lab, "-A")
    assert (code, found["cleaned"], found["failed"]) == (0, [], [])
    code, found = recover(lab, "nobody")
    assert (code, found["error"]["class"]) == (20, "ObjectMissing")
    code, found = recover(lab, "pod/web")
    assert (code, found["error"]["class"]) == (2, "UsageFault")
    code, found = ktctl(HereBackend(lab), "clean", "--local-only", "--kubeconfig", str(tmp_path / "none"))
    assert (code, found["local"]) == (0, [])

"""The lab is what it says: a laptop apart, a world around it, a cluster that admits only what it should."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.backend import LabBackend
from tests.cluster.probes import Probe, pod_addresses, run_probes, service_addresses
from tests.lab.cluster import Lab
from tests.lab.errors import LabError
from tests.lab.instance import DEFAULT, ENVIRONMENT, Instance
from tests.lab.processes import end, start_time


def test_up_is_idempotent(lab: LabBackend) -> None:
    pid = lab.lab.pid("apiserver")
    lab.lab.up()
    assert lab.lab.pid("apiserver") == pid


def test_laptop_reaches_the_api_server_and_nothing_else_of_the_cluster(
    lab: LabBackend, laptop: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert laptop("kubectl", "get", "--raw", "/readyz").stdout == "ok"
    pod4, pod6 = pod_addresses(lab, "app=web")
    for target, port in (
        (pod4, 8080),
        (pod6, 8080),
        (service_addresses(lab, "web")[0], 80),
        (lab.lab.instance.api4, 10250),
    ):
        code = f"import socket; socket.create_connection(({target!r}, {port}), 1)"
        assert laptop("python3", "-c", code, check=False).returncode != 0


def test_world_answers_and_cluster_names_do_not_exist(lab: LabBackend) -> None:
    rows = [
        Probe("web", "http", "www.world.test", 80),
        Probe("cluster", "no_name", "web.default.svc.cluster.local"),
        Probe("nothing", "no_name", "nothing.world.test"),
    ]
    assert [row["ok"] for row in run_probes(lab, rows)] == [True, True, True]


def test_samples_answer_inside_the_cluster(lab: LabBackend) -> None:
    code = "import urllib.request; print(urllib.request.urlopen('http://web/').read().decode())"
    assert "hello from web-" in lab.kubectl("exec", "deploy/echo", "--", "python3", "-c", code)


def test_cluster_resolves_the_world(lab: LabBackend) -> None:
    code = "import socket; print(socket.gethostbyname('www.world.test'))"
    assert lab.kubectl("exec", "deploy/echo", "--", "python3", "-c", code).strip() == lab.lab.instance.world4


def test_restricted_namespace_refuses_a_root_pod(lab: LabBackend, namespace: Callable[..., str]) -> None:
    name = namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": name},
        "spec": {"containers": [{"name": "root", "image": lab.python_image}]},
    }
    with pytest.raises(LabError, match="restricted"):
        lab.kubectl("create", "-f", "-", given=json.dumps(pod))


def test_audit_log_is_written(lab: LabBackend) -> None:
    lab.kubectl("get", "configmap", "kube-root-ca.crt")
    assert any('"kube-root-ca.crt"' in line for line in lab.lab.audit_log.read_text().splitlines()[-200:])


@pytest.mark.parametrize(("given", "name"), [(None, DEFAULT), ("", DEFAULT), ("mine-2", "mine-2")])
def test_instance_is_chosen_by_name(given: str | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    if given is not None:
        monkeypatch.setenv(ENVIRONMENT, given)
    instance = Instance.chosen()
    assert instance.name == name
    assert instance.state.name == name


@pytest.mark.parametrize("given", ["..", "../x", "a/b", "-a", "Upper", " "])
def test_a_name_that_leads_elsewhere_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, given)
    with pytest.raises(LabError, match=ENVIRONMENT):
        Instance.chosen()


def _traces(marks: set[str]) -> set[str]:
    """What on this machine bears one of `marks`, found without asking the lab; others may be using another lab meanwhile."""
    groups = {folder for root in Path("/sys/fs/cgroup").glob("**/k8s.io") for folder, _, _ in os.walk(root)}
    mounts = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}
    folders = ("/run/netns", "/sys/class/net", "/var/log/containers", "/var/lib/cni/results")
    listed = {str(file) for name in folders if Path(name).is_dir() for file in Path(name).iterdir()}
    return {trace for trace in groups | mounts | listed if any(mark in trace for mark in marks)}


def test_a_killed_second_lab_is_cleared_away_and_the_first_stays(lab: LabBackend) -> None:
    first = lab.lab.pid("apiserver")
    second = Lab(Instance("ktnet-test", 201))  # numbers made from names end at 200
    state = second.instance.state
    try:
        second.up()
        assert second.kubectl("get", "nodes", "-o", "name").strip() == "node/lab-node"
        tasks = state / "containerd" / "state" / "io.containerd.runtime.v2.task" / "k8s.io"
        marks = {f"{state}/", "ktlab201", *(task.name for task in tasks.iterdir())}
        pods = second.kubectl("get", "pods", "-A", "-o", "name").split()
        assert sum("/netns/cni-" in trace for trace in _traces(marks)) == len(pods)
        for name in second.processes.alive():
            pid = second.pid(name)
            assert pid is not None
            ticks = start_time(pid)
            assert ticks is not None
            end(pid, ticks, signal.SIGKILL, 5)
        assert not Lab(second.instance).is_up()
        assert second.left()
    finally:
        second.down()
    assert second.left() == []
    assert _traces(marks) == set()
    assert lab.lab.is_up()
    assert lab.lab.pid("apiserver") == first
    assert lab.kubectl("logs", "sts/redis")

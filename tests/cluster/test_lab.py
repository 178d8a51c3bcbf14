"""The lab is what it says: a laptop apart, a world around it, a cluster that admits only what it should."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.cluster.backend import LabBackend
from tests.cluster.probes import Probe, pod_addresses, run_probes, service_addresses
from tests.lab.errors import LabError


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

"""`ktctl doctor` on the lab: fine, without a cluster, with less than there should be, while connected, and after everything was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kt_net.host.machine import Machine, look_at_machine
from kt_net.session.doctor import Asked, examine
from tests.cluster.asking import soon
from tests.cluster.backend import LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl, ktctl
from tests.cluster.test_restore import IDLE, picture, wait_cluster_empty
from tests.cluster.test_role import (  # noqa: F401 - developer is a fixture
    NEEDED,
    USER,
    Right,
    developer,
    manifest,
    rights,
    without,
)
from tests.lab import pki

PROBLEMS = 50


def doctor(lab: LabBackend, *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Exit code, and what each check found."""
    code, answer = ktctl(lab, "doctor", *arguments)
    found: dict[str, list[dict[str, str]]] = {}
    for one in answer["checks"]:
        found.setdefault(one["check"], []).append(one)
    levels = {one["level"] for one in answer["checks"]}
    assert answer["ok"] == (code == 0) == ("problem" not in levels)
    assert all(one["next"] for one in answer["checks"] if one["level"] in ("warning", "problem"))
    return code, found


def level(found: dict[str, list[dict[str, str]]], check: str) -> str:
    (one,) = found[check]
    return one["level"]


def problems(found: dict[str, list[dict[str, str]]]) -> list[str]:
    return [check for check, ones in found.items() if any(one["level"] == "problem" for one in ones)]


def test_fine(lab: LabBackend) -> None:
    code, found = doctor(lab)
    assert code == 0
    assert {one["level"] for ones in found.values() for one in ones} == {"ok"}
    assert "as admin" in found["credentials"][0]["found"]
    assert "name server " + lab.lab.instance.world4 in found["resolver"][0]["found"]


def test_as_text(lab: LabBackend) -> None:
    program = [str(Path(sys.executable).with_name("ktctl")), "doctor"]
    said = subprocess.run(lab.laptop_argv(program), capture_output=True, text=True, check=True, timeout=60).stdout
    lines = said.splitlines()
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert lines[-1] == f"{len(lines) - 1} ok"


def test_no_kubeconfig(lab: LabBackend) -> None:
    code, found = doctor(lab, "--kubeconfig", "/nonexistent/config")
    assert (code, problems(found)) == (PROBLEMS, ["kubeconfig"]), found
    assert level(found, "permissions") == "skipped"


def test_wrong_context(lab: LabBackend) -> None:
    code, found = doctor(lab, "--context", "elsewhere")
    assert (code, problems(found)) == (PROBLEMS, ["kubeconfig"]), found
    assert "lab" in found["kubeconfig"][0]["next"]


def test_api_server_that_does_not_answer(lab: LabBackend, variant: Callable[..., str]) -> None:
    code, found = doctor(lab, "--kubeconfig", variant(cluster={"server": f"https://{lab.lab.instance.api4}:6444"}))
    assert (code, problems(found)) == (PROBLEMS, ["api-server"]), found
    assert level(found, "network-policies") == "skipped"


def test_expired_credentials(lab: LabBackend, variant: Callable[..., str]) -> None:
    folder = lab.lab.instance.state / "pki"
    pki.certificate(folder, "expired", "/O=system:masters/CN=late", days=-1)
    user = {"client-certificate": str(folder / "expired.crt"), "client-key": str(folder / "expired.key")}
    code, found = doctor(lab, "--kubeconfig", variant(user=user))
    assert (code, problems(found)) == (PROBLEMS, ["credentials"]), found
    assert level(found, "api-server") == level(found, "clock") == "ok"


@pytest.mark.parametrize("user", [{}, {"token": "wrong"}], ids=["none", "wrong"])
def test_no_credentials(lab: LabBackend, variant: Callable[..., str], user: dict[str, str]) -> None:
    code, found = doctor(lab, "--kubeconfig", variant(user=user))
    assert (code, problems(found)) == (PROBLEMS, ["credentials"]), found


def test_the_role_alone_is_no_problem(lab: LabBackend, developer: str) -> None:  # noqa: F811
    code, found = doctor(lab, "--kubeconfig", developer)
    assert (code, problems(found)) == (0, []), found
    assert level(found, "permissions") == "ok"
    said = " ".join(one["found"] for one in found["optional-permissions"])
    for verb, resource in rights("ClusterRole"):
        assert f"{verb} {resource} in the whole cluster" in said


def named(config: str, machine: Machine) -> dict[str, str]:
    """What doctor says about permissions that are not there: words and levels. In this process: it is asked often."""
    asked = Asked(config, None, None)
    return {
        one.found.partition(":")[0]: one.level
        for one in examine(asked, machine)
        if one.check in ("permissions", "optional-permissions") and one.level != "ok"
    }


def test_each_right_that_is_taken_away_is_named(lab: LabBackend, developer: str) -> None:  # noqa: F811
    """Of both parts of deploy/developer-role.yaml. (`connect` names them as well: test_role.py.)"""
    lab.kubectl("apply", "-f", "-", given=json.dumps(manifest("ClusterRole")))
    lab.kubectl("create", "clusterrolebinding", USER, "--clusterrole=ktctl-developer-reads", f"--user={USER}")
    machine = look_at_machine("/nonexistent")

    def says(lacks: dict[str, str], and_more: bool = False) -> bool:
        seen = named(developer, machine)
        return lacks.items() <= seen.items() if and_more else lacks == seen

    try:
        for kind, where in (("Role", "in namespace default"), ("ClusterRole", "in the whole cluster")):
            for right in sorted(rights(kind)):
                if kind == "Role" and right[1] in ("pods", "services") and right[0] == "list":
                    continue  # the ClusterRole has them everywhere; see below
                replace(lab, kind, right)
                lacks = {
                    f"no permission to {' '.join(right)} {where}": "problem"
                    if right in NEEDED and kind == "Role"
                    else "warning"
                }
                assert soon(partial(says, lacks)), (lacks, named(developer, machine))
            replace(lab, kind, None)
        lab.kubectl("delete", "clusterrolebinding", USER)
        for right, level_of in ((("list", "pods"), "problem"), (("list", "services"), "warning")):
            replace(lab, "Role", right)
            lacks = {f"no permission to {' '.join(right)} in namespace default": level_of}
            assert soon(partial(says, lacks, and_more=True)), named(developer, machine)
    finally:
        lab.kubectl("delete", "clusterrole", "ktctl-developer-reads")


def replace(lab: LabBackend, kind: str, less: Right | None) -> None:
    """The file's Role or ClusterRole, less one right."""
    lab.kubectl("replace", "-n", "default", "-f", "-", given=json.dumps(without(less, kind)))


def create(lab: LabBackend, namespace: str, **body: Any) -> None:
    """An object in `namespace`."""
    metadata = {"namespace": namespace, **body.pop("metadata")}
    lab.kubectl("create", "-f", "-", given=json.dumps({**body, "metadata": metadata}))


def test_what_a_namespace_does_not_take_is_named(lab: LabBackend, namespace: Callable[..., str]) -> None:
    """A policy that denies egress, a quota that is used up, and a session that nobody holds any more."""
    name = namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
    code, found = doctor(lab, "--namespace", name)
    assert code == 0
    assert "restricted" in found["namespace"][0]["found"]
    create(
        lab,
        name,
        apiVersion="networking.k8s.io/v1",
        kind="NetworkPolicy",
        metadata={"name": "default-deny"},
        spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    )
    create(lab, name, apiVersion="v1", kind="ResourceQuota", metadata={"name": "team"}, spec={"hard": {"pods": "0"}})
    labels = {"control-by": "kt", "kt-target": "0123"}
    lease = {"holderIdentity": "ada/0123", "leaseDurationSeconds": 30, "renewTime": "2020-01-01T00:00:00.000000Z"}
    create(
        lab,
        name,
        apiVersion="coordination.k8s.io/v1",
        kind="Lease",
        metadata={"name": "kt-connect-shadow-aaaaa", "labels": labels},
        spec=lease,
    )
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}
    create(
        lab,
        name,
        apiVersion="batch/v1",
        kind="Job",
        metadata={"name": "kt-connect-shadow-aaaaa", "labels": labels, "annotations": {"kt-user": "ada"}},
        spec={"suspend": True, "template": template},
    )
    code, found = doctor(lab, "--namespace", name)
    assert (code, problems(found)) == (PROBLEMS, ["quota", "network-policies"]), found
    assert "default-deny" in found["network-policies"][0]["found"]
    assert "pods 0 of 0 used" in found["quota"][0]["found"]
    (left,) = found["cluster-leftovers"]
    assert "job/kt-connect-shadow-aaaaa (of ada; its Lease says nothing for" in left["found"]
    assert left["next"] == f"ktctl clean -n {name}"


def test_namespace_that_is_not_there(lab: LabBackend) -> None:
    code, found = doctor(lab, "--namespace", "not-there")
    assert (code, problems(found)) == (PROBLEMS, ["namespace"]), found


def test_a_route_that_overlaps_is_named_with_its_interface(
    lab: LabBackend, laptop: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pods = lab.lab.instance.pods4
    laptop("ip", "route", "add", pods, "dev", "world")
    try:
        code, found = doctor(lab)
    finally:
        laptop("ip", "route", "del", pods, "dev", "world")
    assert (code, problems(found)) == (PROBLEMS, ["routes"]), found
    assert f"{pods} of the cluster overlaps {pods}, which this machine routes to world" in found["routes"][0]["found"]


def test_connected_and_then_killed(lab: LabBackend, laptop: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Client, helper and guard at once: what they left is named until `disconnect` has put it back."""
    before = picture(laptop, lab)
    with Ktctl(lab, "connect", "--image", lab.python_image, "--idle-exit", str(IDLE)) as running:
        running.wait_ready()
        code, found = doctor(lab)
        assert (code, problems(found)) == (0, []), found
        connection = found["connection"][0]["found"]
        assert f"process {running.process.pid}, kt0" in connection
        assert "ping sockets: ipv4, ipv6" in connection
        assert "1 live session" in found["cluster-leftovers"][0]["found"]
        assert "ktctl's while it is connected" in found["resolver"][0]["found"]
        os.kill(running.guard_pid(), signal.SIGKILL)
        os.kill(running.helper_pid(), signal.SIGKILL)
        running.signal(signal.SIGKILL)
        running.wait_ended()
    code, found = doctor(lab)
    assert (code, problems(found)) == (PROBLEMS, ["resolver", "leftovers"]), found
    for check in ("resolver", "leftovers"):
        assert "ktctl disconnect" in found[check][0]["next"]
    code, answer = ktctl(lab, "disconnect")
    assert (code, any("resolv.conf restored" in line for line in answer["restored"])) == (0, True)
    code, found = doctor(lab)
    assert (code, problems(found)) == (0, []), found
    assert "nothing is left" in found["leftovers"][0]["found"]
    assert picture(laptop, lab) == before
    wait_cluster_empty(lab)


def test_doctor_leaves_nothing(lab: LabBackend, laptop: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    before = picture(laptop, lab)
    doctor(lab)
    assert picture(laptop, lab) == before
    wait_nothing_of_ours(lab)

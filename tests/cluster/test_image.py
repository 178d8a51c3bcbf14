"""Dockerfile.shadow builds on a stock image, and the agent in it runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.cluster.backend import LabBackend
from tests.lab.commands import run
from tests.lab.images import archives, reference

ROOT = Path(__file__).parents[2]


def test_baked_agent_listens_and_ends(lab: LabBackend, tmp_path: Path) -> None:
    common = ["buildah", "--root", f"{tmp_path}/root", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs"]
    run(*common, "pull", "-q", f"docker-archive:{archives()[0]}")
    run(*common, "bud", "--isolation", "chroot", "--pull-never", "-q", "-f", ROOT / "Dockerfile.shadow",
        "--build-arg", f"BASE={reference('python')}", "-t", reference("shadow"), ROOT)  # fmt: skip
    archive = tmp_path / "shadow.tar"
    run(*common, "push", "-q", reference("shadow"), f"docker-archive:{archive}:{reference('shadow')}")
    socket = lab.lab.instance.state / "containerd" / "containerd.sock"
    run("ctr", "-a", socket, "-n", "k8s.io", "images", "import", archive)
    container = {
        "name": "agent",
        "image": reference("shadow"),
        "imagePullPolicy": "Never",
        "args": ["--idle-exit", "1"],
    }
    spec = {"restartPolicy": "Never", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "baked", "namespace": "default"}, "spec": spec}
    lab.kubectl("delete", "pod", "baked", "--ignore-not-found")
    lab.kubectl("create", "-f", "-", given=json.dumps(pod))
    try:
        limit = time.monotonic() + 30
        while lab.kubectl("get", "pod", "baked", "-o", "jsonpath={.status.phase}") != "Succeeded":
            assert time.monotonic() < limit, lab.kubectl("describe", "pod", "baked")
            time.sleep(0.2)
        said = lab.kubectl("logs", "baked")
        assert "listening on 127.0.0.1:7777" in said
        assert "no client for 1 s" in said
    finally:
        lab.kubectl("delete", "pod", "baked", "--wait=false")

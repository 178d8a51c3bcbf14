"""A cluster to test against, with a machine to connect from: the lab with its laptop, or a cluster of one's own with this machine.

Not here: tests.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import yaml

from tests.lab import libraries, pki
from tests.lab.cluster import Lab
from tests.lab.instance import SOURCE

STOCK_PYTHON = "python:3.13-slim"
STOCK_REDIS = "redis:7-alpine"


class Backend(Protocol):
    """What demo and tests need of a cluster."""

    kubeconfig: Path
    python_image: str
    #: A name outside the cluster that an HTTP server answers to, or "".
    outside: str

    def up(self) -> None:
        """Have cluster and samples there."""

    def kubectl(self, *arguments: str, check: bool = True, given: str = "") -> str:
        """kubectl as administrator."""

    def laptop_argv(self, command: list[str]) -> list[str]:
        """`command` as run on the machine under test."""


class LabBackend:
    """The lab."""

    outside = "www.world.test"

    def __init__(self) -> None:
        self.lab = Lab()
        self.kubeconfig = self.lab.kubeconfig
        self.python_image = self.lab.python_image

    def up(self) -> None:
        """See `Backend`."""
        self.lab.up()

    def kubectl(self, *arguments: str, check: bool = True, given: str = "") -> str:
        """See `Backend`."""
        return self.lab.kubectl(*arguments, check=check, given=given)

    def laptop_argv(self, command: list[str]) -> list[str]:
        """See `Backend`."""
        return self.lab.laptop_argv(command)

    def credentials(self, name: str) -> dict[str, str]:
        """Of a user, who may do nothing yet: for a kubeconfig."""
        folder = self.lab.instance.state / "pki"
        pki.certificate(folder, name, f"/CN={name}")
        return {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}


class HereBackend(LabBackend):
    """The lab's cluster, seen from this machine instead of the laptop."""

    def __init__(self, lab: LabBackend) -> None:
        self.lab = lab.lab
        self.kubeconfig = lab.kubeconfig
        self.python_image = lab.python_image

    def laptop_argv(self, command: list[str]) -> list[str]:
        return command


class KubeconfigBackend:
    """A cluster of one's own (kind is one, too); the samples come with stock images. This machine is the laptop."""

    outside = ""
    python_image = STOCK_PYTHON

    def __init__(self) -> None:
        self.kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")

    def up(self) -> None:
        """See `Backend`."""
        # On the server's side: the libraries are larger than the annotation that kubectl would keep them in.
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=json.dumps(stock_samples()))
        for what in ("deploy/web", "deploy/echo", "deploy/bytes", "deploy/grpc", "deploy/chat", "sts/redis"):
            self.kubectl("rollout", "status", what, "--timeout=180s")

    def kubectl(self, *arguments: str, check: bool = True, given: str = "") -> str:
        """See `Backend`."""
        result = subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments],
            capture_output=True,
            text=True,
            input=given,
            check=False,
        )
        if check and result.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def laptop_argv(self, command: list[str]) -> list[str]:
        """See `Backend`."""
        root = [] if os.geteuid() == 0 else ["sudo"]
        path = f"PATH={Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        return [*root, "env", f"KUBECONFIG={self.kubeconfig}", path, *command]


#: Every kind that one of ours may be.
OUR_KINDS = "all,cm,secret,lease,sa,role,rolebinding"


def wait_nothing_of_ours(backend: Backend, seconds: float = 10) -> None:
    """Until no object of ours is left; what a deleted owner owned goes a moment after it.

    Raises:
        AssertionError: something stays.
    """
    limit = time.monotonic() + seconds
    while left := backend.kubectl("get", OUR_KINDS, "-A", "-l", "control-by=kt", "-o", "name").split():
        assert time.monotonic() < limit, left
        time.sleep(0.2)


def stock_samples() -> dict[str, Any]:
    """The samples with stock images: their programs come in a ConfigMap instead of an image."""
    programs = {file.name: file.read_text() for file in (SOURCE / "samples").glob("*.py")}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "samples", "namespace": "default"},
        "data": programs,
        "binaryData": {libraries.FILE: base64.b64encode(libraries.archive()).decode()},
    }
    items: list[Any] = [config]
    for item in yaml.safe_load_all((SOURCE / "manifests" / "samples.yaml").read_text()):
        if item["kind"] in ("Deployment", "StatefulSet"):
            pod = item["spec"]["template"]["spec"]
            container = pod["containers"][0]
            container["imagePullPolicy"] = "IfNotPresent"
            if container["name"] == "redis":
                container["image"] = STOCK_REDIS
            else:
                container["image"] = STOCK_PYTHON
                container["volumeMounts"] = [{"name": "samples", "mountPath": "/samples"}]
                pod["volumes"] = [{"name": "samples", "configMap": {"name": "samples"}}]
        items.append(item)
    return {"apiVersion": "v1", "kind": "List", "items": items}


def chosen(name: str) -> Backend:
    """By the name of --cluster or CLUSTER."""
    return LabBackend() if name == "lab" else KubeconfigBackend()

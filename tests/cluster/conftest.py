"""The cluster of the cluster tier, once a run; and a connection for those tests that only use one."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.backend import Backend, LabBackend, chosen
from tests.cluster.command import Command
from tests.cluster.ktctl import Ktctl
from tests.lab.cluster import Lab

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """The cluster that --cluster names, with the samples in it."""
    made = chosen(request.config.getoption("--cluster"))
    made.up()
    return made


@pytest.fixture
def lab(backend: Backend) -> LabBackend:
    """For tests of what only the lab has: a laptop apart, and processes to kill."""
    if not isinstance(backend, LabBackend):
        pytest.skip("needs the lab: a machine apart, or the API server's processes")
    return backend


@pytest.fixture
def restarts(lab: LabBackend) -> Iterator[Lab]:
    """For tests that end the API server and start it again: the next test begins when controllers work again."""
    yield lab.lab
    lab.lab.wait_controllers()


@pytest.fixture(scope="module")
def connection(backend: Backend) -> Iterator[Ktctl]:
    """A connection for a whole file of tests."""
    with Ktctl(backend, "connect", "--image", backend.python_image) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def namespace(backend: Backend) -> Iterator[Callable[..., str]]:
    """Makes namespaces with labels; they go after the test."""
    made: list[str] = []

    def make(**labels: str) -> str:
        name = f"ktnet-test-{next(_NUMBERS)}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        backend.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=true")
        backend.kubectl("create", "-f", "-", given=json.dumps(body))
        made.append(name)
        return name

    yield make
    for name in made:
        backend.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def laptop(backend: Backend) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program on the machine under test."""

    def run(*command: str, seconds: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            backend.laptop_argv(list(command)), capture_output=True, text=True, timeout=seconds, check=check
        )

    return run


@pytest.fixture
def echo_pod(backend: Backend) -> str:
    """The name of a pod of the echo sample."""
    return backend.kubectl("get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[0].metadata.name}")


@pytest.fixture
def variant(lab: LabBackend, tmp_path: Path) -> Callable[..., str]:
    """Writes the administrator's kubeconfig with changes; its path."""

    def write(*, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> str:
        config = json.loads(lab.kubeconfig.read_text())
        config["clusters"][0]["cluster"] |= cluster or {}
        if user is not None:
            config["users"][0]["user"] = user
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(config))
        return str(file)

    return write


@pytest.fixture
def start(backend: Backend) -> Iterator[Callable[..., Command]]:
    """Starts commands that end with the test at the latest; a capture looks on when it is given back."""
    with contextlib.ExitStack() as started:

        def begin(*arguments: str) -> Command:
            command = started.enter_context(Command(backend, *arguments))
            if arguments[0] == "capture" and "json" not in arguments:
                command.wait_until(lambda: any("capturing" in line for line in command.errors))
            return command

        yield begin

"""Names while connected: where they go, and what follows the cluster while it changes."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator

from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import load_cluster
from kt_net.kube.follow import FollowedWords
from tests.cluster.asking import found, soon, trail
from tests.cluster.backend import Backend, LabBackend
from tests.cluster.ktctl import Ktctl, ktctl
from tests.lab.cluster import Lab


@contextlib.contextmanager
def made_namespace(backend: Backend, name: str) -> Iterator[None]:
    """Of exactly this name; gone before and after."""
    backend.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=true")
    backend.kubectl("create", "namespace", name)
    try:
        yield
    finally:
        backend.kubectl("delete", "namespace", name, "--wait=false")


def test_dns_says_who_was_asked(backend: Backend, connection: Ktctl) -> None:
    full = "echo.default.svc.cluster.local"
    _, answer = ktctl(backend, "dns", "echo", "AAAA")
    (step,) = answer["steps"]
    assert step["name"] == f"{full}."
    assert step["kept"] or [(one["who"], one["outcome"]) for one in step["trail"]] == [("cluster", "NOERROR")]
    code, answer = ktctl(backend, "dns", "nothing.default")
    assert (code, answer["error"]["class"]) == (20, "ObjectMissing")
    code, answer = ktctl(backend, "dns", "echo", "NONSENSE")
    assert (code, answer["error"]["class"]) == (2, "UsageFault")


def test_namespace_made_while_connected(backend: Backend, connection: Ktctl) -> None:
    with made_namespace(backend, "ktnet-later"):
        backend.kubectl("create", "service", "clusterip", "web", "--tcp=80", "-n", "ktnet-later")
        assert soon(lambda: bool(found(backend, "web.ktnet-later.")))


def test_namespace_that_is_a_top_level_domain(backend: Backend, connection: Ktctl) -> None:
    """Its Services are found as they come; other names of the domain are no business of the cluster."""
    with made_namespace(backend, "dev"):
        backend.kubectl("create", "service", "clusterip", "web", "--tcp=80", "-n", "dev")
        assert soon(lambda: bool(found(backend, "web.dev.")))
        assert soon(lambda: trail(backend, "example.dev.") == ["machine"])
        backend.kubectl("create", "service", "clusterip", "example", "--tcp=80", "-n", "dev")
        assert soon(lambda: bool(found(backend, "example.dev.")))
        backend.kubectl("delete", "service", "example", "-n", "dev")
        assert soon(lambda: trail(backend, "example.dev.") == ["machine"])


def test_names_are_followed_over_an_api_server_that_ends(lab: LabBackend, restarts: Lab) -> None:
    api = HttpKubeApi(load_cluster(kubeconfig=str(lab.kubeconfig)))
    seen: queue.Queue[frozenset[str]] = queue.Queue()
    lab.kubectl("delete", "svc", "followed", "--ignore-not-found")
    followed = FollowedWords(api, "Service", "default", seen.put)

    def until(there: bool) -> None:
        limit = time.monotonic() + 30
        while ("followed" in seen.get(timeout=max(0.1, limit - time.monotonic()))) != there:
            pass

    try:
        until(False)
        lab.kubectl("create", "service", "clusterip", "followed", "--tcp=80")
        until(True)
        restarts.kill_apiserver()
        restarts.start_apiserver()
        lab.kubectl("delete", "svc", "followed")
        until(False)
    finally:
        followed.close()
        api.close()

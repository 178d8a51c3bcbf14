"""A crowd in a namespace of its own: Services that nobody serves and pods that nobody schedules, with addresses. Objects only.

The addresses of the pods are a hundred to a /24, as if each hundred were on a node; no range of the lab has them.

Not here: what is measured with them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from kt_net.errors import ObjectMissing
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import load_cluster
from tests.cluster.backend import Backend

NAMESPACE = "ktnet-crowd"
#: Requests on their way at once; more do not make two processors faster.
THREADS = 16
#: Octets of an annotation: with what the API server adds a pod then has 5 KB, as real ones do.
FILLING = 3000
PODS_OF_A_NODE = 100
_FIRST = ipaddress.ip_address("10.160.0.0")
GONE_SECONDS = 300.0

T = TypeVar("T")


def pod_address(number: int) -> str:
    """Of the pod with that number."""
    return str(_FIRST + 256 * (number // PODS_OF_A_NODE) + 1 + number % PODS_OF_A_NODE)


def _pod_name(number: int) -> str:
    """In the order of the numbers, as lists have them."""
    return f"pod-{number:05}"


def _pod(number: int) -> dict[str, Any]:
    metadata = {"name": _pod_name(number), "annotations": {"ktnet.test/filling": "x" * FILLING}}
    containers = [{"name": "none", "image": "none.test/none:1"}]
    spec = {"schedulerName": "nobody", "containers": containers, "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _service(number: int) -> dict[str, Any]:
    # By the label kube-proxy leaves them alone: thousands of its rules would be another test.
    metadata = {"name": f"service-{number}", "labels": {"service.kubernetes.io/service-proxy-name": "nobody"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}


def _each(do: Callable[[T], object], these: Iterable[T]) -> None:
    with ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="crowd") as pool:
        try:
            for _ in pool.map(do, these):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def crowd(backend: Backend, *, services: int, pods: int, nth: int = 1) -> Iterator[str]:
    """So many Services and pods; their namespace. They go afterwards, and nothing of them is left when this ends.

    Args:
        nth: of the pods only each nth gets an address.
    """
    api = HttpKubeApi(load_cluster(kubeconfig=str(backend.kubeconfig)))

    def make_pod(number: int) -> None:
        api.create("Pod", NAMESPACE, _pod(number))
        if number % nth == 0:
            address = pod_address(number)
            status = {"podIP": address, "podIPs": [{"ip": address}]}
            api.patch("Pod", NAMESPACE, _pod_name(number), {"status": status}, subresource="status")

    try:
        _remove(api)  # of one that was killed
        api.create("Namespace", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        backend.kubectl("wait", "-n", NAMESPACE, "--for=create", "serviceaccount/default", "--timeout=60s")
        _each(lambda number: api.create("Service", NAMESPACE, _service(number)), range(services))
        _each(make_pod, range(pods))
        yield NAMESPACE
    finally:
        _remove(api)
        api.close()


def _remove(api: HttpKubeApi) -> None:
    """One by one, which many threads do faster than the API server does it alone; then the namespace."""
    try:
        api.get("Namespace", "", NAMESPACE)
    except ObjectMissing:
        return
    for kind in ("Pod", "Service"):
        names = [str(found["metadata"]["name"]) for found in api.list(kind, NAMESPACE)]
        _each(partial(api.delete, kind, NAMESPACE), names)
    api.delete("Namespace", "", NAMESPACE)
    limit = time.monotonic() + GONE_SECONDS
    while time.monotonic() < limit:
        try:
            api.get("Namespace", "", NAMESPACE)
        except ObjectMissing:
            return
        time.sleep(0.2)
    raise RuntimeError(f"namespace {NAMESPACE} does not go")

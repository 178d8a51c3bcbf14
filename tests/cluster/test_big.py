"""Ranges of a cluster whose lists come in several pages. Times and memory of a really big one: `make bench-big`."""

from __future__ import annotations

import base64
import ipaddress
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kt_net.kube.api import PAGE, HttpKubeApi
from kt_net.kube.config import load_cluster
from kt_net.kube.ranges import detect_ranges
from tests.cluster.backend import LabBackend
from tests.cluster.crowd import NAMESPACE, crowd, pod_address

PODS = 1100
NTH = 100
ROLE = Path(__file__).parents[2] / "deploy" / "developer-role.yaml"


@pytest.fixture(scope="module")
def many(backend: LabBackend) -> Iterator[str]:
    """A namespace with three pages of pods; each hundredth has an address."""
    with crowd(backend, services=3, pods=PODS, nth=NTH) as namespace:
        backend.kubectl("create", "-n", namespace, "-f", "-", given=ROLE.read_text().partition("\n---")[0])
        backend.kubectl("create", "rolebinding", "crowded", "-n", namespace, "--role=ktctl-developer", "--user=crowded")
        forget(backend)
        yield namespace


class Watched(HttpKubeApi):
    """Counts the pages of pods, and may make the first page's token one of long ago."""

    def __init__(self, kubeconfig: str, *, old: bool = False) -> None:
        super().__init__(load_cluster(kubeconfig=kubeconfig, namespace=NAMESPACE))
        self.statuses: list[int] = []
        self._old = old

    def _request(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None, **more: Any
    ) -> Any:
        if self._old and query and query.get("continue"):
            self._old = False
            query = {**query, "continue": long_ago(query["continue"])}
        response = super()._request(method, path, body, query=query, **more)
        if path.endswith("/pods"):
            self.statuses.append(response.status)
        return response


def long_ago(token: str) -> str:
    """The same place in a list that was begun at the cluster's first change."""
    place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return base64.urlsafe_b64encode(json.dumps({**place, "rv": 2}).encode()).decode().rstrip("=")


def forget(lab: LabBackend) -> None:
    """Have etcd forget what was, as the API server does every five minutes."""

    def etcd(path: str, **body: object) -> Any:
        program = ["curl", "-sf", "-d", json.dumps(body), f"http://127.0.0.1:2379/v3/kv/{path}"]
        node = f"--net=/run/netns/{lab.lab.instance.node}"
        return json.loads(subprocess.run(["nsenter", node, *program], capture_output=True, check=True).stdout)

    now = etcd("range", key=base64.b64encode(b"none").decode())["header"]["revision"]
    etcd("compaction", revision=int(now) - 1, physical=True)


def test_ranges_from_several_pages(many: str, lab: LabBackend, variant: Callable[..., str]) -> None:
    """With rights in the one namespace only."""
    api = Watched(variant(user=lab.credentials("crowded")))
    ranges = detect_ranges(api, many)
    api.close()
    assert api.statuses == [403] + 3 * [200]
    assert (ranges.pods_from, ranges.services_from) == (f"{PODS // NTH} pod addresses", "3 Service addresses")
    assert PODS > 2 * PAGE
    for number in range(0, PODS, NTH):
        address = ipaddress.ip_address(pod_address(number))
        assert any(address in prefix for prefix in ranges.pods), address
    assert sum(prefix.num_addresses for prefix in ranges.pods) == 256 * PODS // NTH


@pytest.mark.parametrize("how", ["list", "list_at"])
def test_a_page_that_came_too_late(many: str, lab: LabBackend, how: str) -> None:
    """The API server has forgotten how the list began (410): the rest comes as it is now."""
    api = Watched(str(lab.kubeconfig), old=True)
    if how == "list":
        names = [found["metadata"]["name"] for found in api.list("Pod", many)]
    else:
        names, version = api.list_at("Pod", many, lambda found: str(found["metadata"]["name"]))
        assert version.isdigit()
    api.close()
    assert api.statuses == [200, 410, 200, 200]
    assert names == [f"pod-{number:05}" for number in range(PODS)]

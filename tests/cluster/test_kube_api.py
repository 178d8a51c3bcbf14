"""The real API passes the conformance tests that its fake passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kt_net.kube.api import HttpKubeApi, KubeApi
from kt_net.kube.config import load_cluster
from kt_net.kube.ranges import detect_ranges
from tests.cluster.backend import Backend, LabBackend
from tests.conformance.kube_api import CHECKS, NAME

KINDS = ("ConfigMap", "Service", "Deployment")


@pytest.fixture
def api(backend: Backend) -> Iterator[HttpKubeApi]:
    made = HttpKubeApi(load_cluster(kubeconfig=str(backend.kubeconfig)))
    for kind in KINDS:
        made.delete(kind, "default", NAME)
    yield made
    for kind in KINDS:
        made.delete(kind, "default", NAME)
    made.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(api: HttpKubeApi, check: Callable[[KubeApi], None]) -> None:
    check(api)


def test_ranges_of_the_lab(lab: LabBackend, api: HttpKubeApi) -> None:
    ranges = detect_ranges(api, "default")
    assert {str(prefix) for prefix in ranges.pods} == {lab.lab.instance.pods4, lab.lab.instance.pods6}
    assert {str(prefix) for prefix in ranges.services} == set(lab.lab.instance.services.split(","))
    assert (ranges.pods_from, ranges.services_from) == ("node podCIDRs", "ServiceCIDR API")

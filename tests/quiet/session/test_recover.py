"""`recover` and foreign words: what a real KT Connect's annotations may and may not make it do."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kt_net.choreography.kt_connect import parse_config
from kt_net.errors import KtError, UsageFault
from kt_net.forward.targets import parse_target
from kt_net.kube.api import HttpKubeApi, url_path
from kt_net.session.clean import recover
from tests.conformance.fake_api import FakeApi

NAMESPACE = "shop"
LABELS = {"control-by": "kt", "kt-role": "shadow-exchange", "app": "web"}


def cluster(config: str, selector: dict[str, str] | None) -> FakeApi:
    """A Service, a Deployment that is scaled to nothing, and a KT Connect's pod that says of which it was."""
    api = FakeApi()
    spec: dict[str, Any] = {"ports": [], **({"selector": selector} if selector else {})}
    api.create("Service", NAMESPACE, {"metadata": {"name": "web"}, "spec": spec})
    api.create("Deployment", NAMESPACE, {"metadata": {"name": "web"}, "spec": {"replicas": 0}})
    metadata = {"name": "web-kt-abcde", "labels": LABELS, "annotations": {"kt-config": config}}
    api.create("Pod", NAMESPACE, {"metadata": metadata, "spec": {}})
    return api


def recovered(api: FakeApi) -> tuple[int, bool]:
    """Replicas afterwards, and whether the pod is there."""
    recover(cast(HttpKubeApi, api), NAMESPACE, parse_target("svc/web"))
    replicas = api.get("Deployment", NAMESPACE, "web")["spec"]["replicas"]
    return replicas, ("Pod", NAMESPACE, "web-kt-abcde") in api.objects()


def test_scaled_back() -> None:
    assert recovered(cluster("app=web,replicas=2", {"app": "web"})) == (2, False)


@pytest.mark.parametrize(
    ("config", "selector"),
    [
        ("app=web,replicas=2", None),
        ("app=web,replicas=2", {"app": "other"}),
        ("app=web,replicas=0", {"app": "web"}),
        ("app=web,replicas=many", {"app": "web"}),
        ("app=../../prod/deployments/db,replicas=3", {"app": "web"}),
        ("app=,replicas=3", {"app": "web"}),
        ("", {"app": "web"}),
    ],
    ids=["no selector", "another's", "none", "nonsense", "elsewhere", "nobody", "nothing"],
)
def test_what_is_not_this_services_or_makes_no_sense_is_left(config: str, selector: dict[str, str] | None) -> None:
    assert recovered(cluster(config, selector)) == (0, True)


@pytest.mark.parametrize("name", ["../../prod/deployments/db", "a/b", "..", "Web", "a?b", "", "-a", "a" * 254])
def test_names_that_are_none_say_nothing(name: str) -> None:
    assert parse_config(f"app={name},replicas=2").app == ""


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../b", "%2e%2e", "a?b", "a#b"])
def test_no_path_leads_elsewhere(name: str) -> None:
    for namespace, last in ((NAMESPACE, name), (name, "web")):
        with pytest.raises(UsageFault):
            url_path("Deployment", namespace, last)
    assert url_path("Deployment", NAMESPACE, "web.v1") == "apis/apps/v1/namespaces/shop/deployments/web.v1"
    assert issubclass(UsageFault, KtError)

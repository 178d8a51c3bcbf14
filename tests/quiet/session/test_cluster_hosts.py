"""Services and EndpointSlices as lines of a hosts file."""

from __future__ import annotations

from typing import Any

from kt_net.session.cluster_hosts import hosts_from, service_host, slice_hosts
from kt_net.session.directory import hosts_of


def service(*addresses: str, **spec: Any) -> dict[str, Any]:
    return {"spec": {"clusterIPs": list(addresses), **spec}}


def slice_of(name: str, *ends: dict[str, Any], kind: str = "IPv4") -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": name}
    return {"metadata": {"labels": labels}, "addressType": kind, "endpoints": list(ends)}


SERVICES = {
    ("default", "web"): service("10.96.0.7", "fd00::7"),
    ("default", "redis"): service("None"),
    ("default", "outside"): {"spec": {"type": "ExternalName", "externalName": "www.example.com"}},
    ("shop", "cart"): service("10.96.0.8"),
}
SLICES = {
    ("default", "web-x"): slice_of("web", {"addresses": ["10.244.0.1"]}),
    ("default", "redis-x"): slice_of(
        "redis",
        {"addresses": ["10.244.0.5"], "hostname": "redis-0", "conditions": {"ready": True}},
        {"addresses": ["10.244.0.6"], "hostname": "redis-1", "conditions": {"ready": False}},
    ),
    ("default", "redis-y"): slice_of("redis", {"addresses": ["fd00:244::5"], "hostname": "redis-0"}, kind="IPv6"),
    ("default", "redis-z"): slice_of("redis", {"addresses": ["host.example"]}, kind="FQDN"),
    ("default", "nobody's"): {"metadata": {}, "addressType": "IPv4", "endpoints": None},
}


def names(own: str) -> dict[str, tuple[str, ...]]:
    services = {key: service_host(found) for key, found in SERVICES.items()}
    slices = {key: slice_hosts(found) for key, found in SLICES.items()}
    return hosts_from(services, slices, own=own, domain="cluster.local")


def test_names_as_a_pod_knows_them() -> None:
    found = names("default")
    assert found["web"] == found["web.default.svc.cluster.local"] == ("10.96.0.7", "fd00::7")
    assert found["web.default"] == found["web.default.svc"] == found["web"]
    assert found["cart.shop"] == ("10.96.0.8",)
    assert "cart" not in found, "a name of one label is the own namespace's"
    assert "cart" in names("shop")
    assert "outside" not in found, "a hosts file has no aliases"


def test_headless() -> None:
    found = names("default")
    assert found["redis"] == found["redis.default.svc.cluster.local"] == ("10.244.0.5", "fd00:244::5")
    assert found["redis-0.redis"] == found["redis-0.redis.default.svc.cluster.local"] == ("10.244.0.5", "fd00:244::5")
    assert "redis-1.redis" not in found, "it is not ready"


def test_hosts_of_an_ingress() -> None:
    rules = [{"host": "shop.example"}, {"http": {}}, {"host": "*.apps.example"}]
    assert hosts_of({"spec": {"rules": rules}}) == {"shop.example", "*.apps.example"}
    assert hosts_of({"spec": {"defaultBackend": {}}}) == frozenset()

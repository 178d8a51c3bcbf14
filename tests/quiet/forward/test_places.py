"""Where a target is, by Kubernetes' objects."""

from __future__ import annotations

from typing import Any

import pytest

from kt_net.forward.places import (
    Part,
    Place,
    container_ports,
    places,
    pod_part,
    selector_text,
    service_part,
    slice_part,
)
from kt_net.forward.ports import Port, Protocol

TCP, UDP = Protocol.TCP, Protocol.UDP


def ends(*conditions: Any, family: str = "IPv4", port: int = 8080) -> dict[str, Any]:
    """A slice with an endpoint for each of the conditions."""
    return {
        "addressType": family,
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [f"10.0.0.{number}"], "conditions": one, "targetRef": {"uid": f"u{number}"}}
            for number, one in enumerate(conditions)
        ],
    }


def pod(**changes: Any) -> dict[str, Any]:
    """A ready pod."""
    status = {"podIP": "10.0.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}
    metadata = {"uid": "u1"} | changes.pop("metadata", {})
    return {"metadata": metadata, "spec": spec, "status": status | changes}


def test_slices_ready_present_and_their_own_ports() -> None:
    parts = [
        slice_part(ends({"ready": True}, {"ready": False, "serving": True}, {}), "IPv4"),
        slice_part(ends({"ready": True}, port=9090), "IPv4"),
        slice_part(ends({"ready": True}, family="IPv6"), "IPv4"),
        slice_part({"addressType": "IPv4", "ports": None, "endpoints": None}, "IPv4"),
    ]
    found = places(parts, "http", TCP)
    assert found.ready == (
        Place("10.0.0.0", 8080, "u0"),
        Place("10.0.0.0", 9090, "u0"),
        Place("10.0.0.2", 8080, "u2"),
    )
    assert found.present - set(found.ready) == {Place("10.0.0.1", 8080, "u1")}
    assert places(parts, "https", TCP).present == frozenset()


@pytest.mark.parametrize(
    ("changes", "ready", "ready_when_named"),
    [
        ({}, True, True),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, False, True),
        ({"conditions": None}, False, True),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, False, False),
        ({"phase": "Pending"}, None, None),
        ({"phase": "Succeeded"}, None, None),
        ({"podIP": None}, None, None),
    ],
)
def test_pods(changes: dict[str, Any], ready: bool | None, ready_when_named: bool | None) -> None:
    for only_ready, wanted in ((True, ready), (False, ready_when_named)):
        found = places([pod_part(pod(**changes), only_ready=only_ready)], "http", TCP)
        assert found.ready == ((Place("10.0.0.1", 8080, "u1"),) if wanted else ())
        assert bool(found.present) is (wanted is not None)


def test_a_service_is_at_its_address_unless_it_has_none() -> None:
    service: dict[str, Any] = {"metadata": {"uid": "u"}, "spec": {"clusterIP": "10.97.0.1", "ports": [{"port": 80}]}}
    assert places([service_part(service)], 80, TCP).ready == (Place("10.97.0.1", 80, "u"),)
    service["spec"]["clusterIP"] = "None"
    assert places([service_part(service)], 80, TCP).ready == ()
    assert service_part({}) == Part()


def test_ports_of_containers_and_of_sidecars_but_not_of_what_has_ended() -> None:
    spec = {
        "containers": [{"ports": [{"containerPort": 80}, {"containerPort": 9, "protocol": "SCTP"}]}, {}],
        "initContainers": [
            {"ports": [{"containerPort": 1}]},
            {"restartPolicy": "Always", "ports": [{"containerPort": 53, "protocol": "UDP", "name": "dns"}]},
        ],
    }
    assert container_ports(spec) == (Port("", 80, TCP), Port("dns", 53, UDP))


def test_selectors() -> None:
    selector = {
        "matchLabels": {"app": "web", "tier": ""},
        "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["1", "2"]},
            {"key": "b", "operator": "NotIn", "values": ["3"]},
            {"key": "c", "operator": "Exists"},
            {"key": "d", "operator": "DoesNotExist"},
        ],
    }
    assert selector_text(selector) == "app=web,tier=,a in (1,2),b notin (3),c,!d"
    assert selector_text({}) == ""

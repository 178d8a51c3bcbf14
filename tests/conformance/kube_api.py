"""What any KubeApi has to do; run on the fake in the quiet tier and on the real one in the cluster tier."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kt_net.errors import AlreadyThere, Conflict, ObjectMissing, RequestRefused
from kt_net.kube.api import KubeApi

NAME = "ktnet-conformance"


def body(**metadata: Any) -> dict[str, Any]:
    """A ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": {"ktnet": "conformance"}, **metadata},
    }


def service(**metadata: Any) -> dict[str, Any]:
    """A Service."""
    ports = [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    spec = {"selector": {"app": "nothing"}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, **metadata}, "spec": spec}


def deployment() -> dict[str, Any]:
    """A Deployment without pods, which nobody runs."""
    labels = {"app": NAME}
    pod = {"containers": [{"name": "one", "image": "nowhere.invalid/none"}], "nodeSelector": {"no": "where"}}
    spec = {
        "replicas": 3,
        "paused": True,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": spec}


def anothers(api: KubeApi, kind: str) -> dict[str, Any]:
    """The object, all of whose fields somebody else has set."""
    made = api.get(kind, "default", NAME)
    managed = [{**entry, "manager": "somebody"} for entry in made["metadata"]["managedFields"]]
    return api.patch(kind, "default", NAME, {"metadata": {"managedFields": managed}})


def has(found: dict[str, Any], manager: str, field: str) -> bool:
    """Whether a field manager has a field of the spec."""
    return any(
        f"f:{field}" in entry["fieldsV1"].get("f:spec", {})
        for entry in found["metadata"].get("managedFields", ())
        if entry["manager"] == manager and not entry.get("subresource")
    )


def created_is_there(api: KubeApi) -> None:
    made = api.create("ConfigMap", "default", body())
    assert made["metadata"]["uid"]
    assert api.get("ConfigMap", "default", NAME)["metadata"]["uid"] == made["metadata"]["uid"]


def created_twice_is_refused(api: KubeApi) -> None:
    api.create("ConfigMap", "default", body())
    with pytest.raises(AlreadyThere):
        api.create("ConfigMap", "default", body())


def missing_is_said(api: KubeApi) -> None:
    for call in (
        lambda: api.get("ConfigMap", "default", NAME),
        lambda: api.patch("ConfigMap", "default", NAME, {"data": {}}),
    ):
        with pytest.raises(ObjectMissing):
            call()


def deleting_what_is_not_there_is_no_error(api: KubeApi) -> None:
    api.delete("ConfigMap", "default", NAME)
    with pytest.raises(ObjectMissing):
        api.get("ConfigMap", "default", NAME)


def patch_merges_and_removes(api: KubeApi) -> None:
    first = api.create("ConfigMap", "default", body(annotations={"a": "1", "b": "2"}))
    patched = api.patch(
        "ConfigMap", "default", NAME, {"metadata": {"annotations": {"a": None, "c": "3"}}, "data": {"x": "y"}}
    )
    assert patched["metadata"]["annotations"] == {"b": "2", "c": "3"}
    assert patched["data"] == {"x": "y"}
    assert patched["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]


def another_uid_is_left_alone(api: KubeApi) -> None:
    made = api.create("ConfigMap", "default", body())
    api.delete("ConfigMap", "default", NAME, uid="00000000-0000-0000-0000-000000000000")
    with pytest.raises(RequestRefused):
        api.patch(
            "ConfigMap", "default", NAME, {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}, "data": {}}
        )
    uid = made["metadata"]["uid"]
    assert api.patch("ConfigMap", "default", NAME, {"metadata": {"uid": uid}, "data": {"x": "y"}})["data"] == {"x": "y"}
    api.delete("ConfigMap", "default", NAME, uid=uid)
    with pytest.raises(ObjectMissing):
        api.get("ConfigMap", "default", NAME)


def list_selects(api: KubeApi) -> None:
    api.create("ConfigMap", "default", body())
    names = [found["metadata"]["name"] for found in api.list("ConfigMap", "default", selector="ktnet=conformance")]
    assert names == [NAME]
    assert NAME in [found["metadata"]["name"] for found in api.list("ConfigMap", None)]
    assert list(api.list("ConfigMap", "default", selector="ktnet=other")) == []


def another_version_is_a_conflict(api: KubeApi) -> None:
    made = api.create("ConfigMap", "default", body())
    version = made["metadata"]["resourceVersion"]
    changed = api.patch("ConfigMap", "default", NAME, {"metadata": {"resourceVersion": version}, "data": {"x": "y"}})
    assert changed["data"] == {"x": "y"}
    with pytest.raises(Conflict):
        api.patch("ConfigMap", "default", NAME, {"metadata": {"resourceVersion": version}, "data": {"x": "z"}})
    assert api.get("ConfigMap", "default", NAME)["data"] == {"x": "y"}


def a_map_is_replaced_and_no_empty_ones_are_left(api: KubeApi) -> None:
    api.create("Service", "default", service())
    taken = api.patch(
        "Service",
        "default",
        NAME,
        {"metadata": {"annotations": {"a": "1"}}, "spec": {"selector": {"app": None, "other": "one"}}},
    )
    assert taken["spec"]["selector"] == {"other": "one"}
    assert (
        "annotations"
        not in api.patch("Service", "default", NAME, {"metadata": {"annotations": {"a": None}}})["metadata"]
    )


def who_changes_a_field_has_it_and_can_give_it_up(api: KubeApi) -> None:
    api.create("Service", "default", service())
    before = anothers(api, "Service")
    assert has(before, "somebody", "selector")
    assert not has(before, "ktctl", "selector")
    change = {"metadata": {"annotations": {"a": "1"}}, "spec": {"selector": {"app": "other"}}}
    taken = api.patch("Service", "default", NAME, change)
    assert has(taken, "ktctl", "selector")
    assert not has(taken, "somebody", "selector")
    back = api.patch("Service", "default", NAME, {"spec": {"selector": {"app": "nothing"}}})
    assert has(back, "ktctl", "selector")
    managed = before["metadata"]["managedFields"]
    clean = api.patch("Service", "default", NAME, {"metadata": {"annotations": {"a": None}, "managedFields": managed}})
    assert has(clean, "somebody", "selector")
    assert not [entry for entry in clean["metadata"]["managedFields"] if entry["manager"] == "ktctl"]
    none = api.patch("Service", "default", NAME, {"metadata": {"managedFields": [{}]}})
    assert not none["metadata"].get("managedFields")


def as_read(api: KubeApi, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A patch of the scale that holds for the Deployment as it was read. Its controller writes its status at the same time: read again."""
    while True:
        now = api.get("Deployment", "default", NAME)["metadata"]["resourceVersion"]
        wanted = {"metadata": {"resourceVersion": now}, "spec": spec}
        with contextlib.suppress(Conflict):
            return api.patch("Deployment", "default", NAME, wanted, subresource="scale")


def replicas_go_by_scale(api: KubeApi) -> None:
    api.create("Deployment", "default", deployment())
    before = anothers(api, "Deployment")
    version = before["metadata"]["resourceVersion"]
    wrong = {"metadata": {"resourceVersion": str(int(version) - 1)}, "spec": {"replicas": 0}}
    with pytest.raises(Conflict):
        api.patch("Deployment", "default", NAME, wrong, subresource="scale")
    assert not as_read(api, {"replicas": 0})["spec"].get("replicas")
    found = api.get("Deployment", "default", NAME)
    assert found["spec"]["replicas"] == 0
    assert not has(found, "somebody", "replicas")
    as_read(api, {"replicas": 3})
    managed = before["metadata"]["managedFields"]
    clean = api.patch("Deployment", "default", NAME, {"metadata": {"managedFields": managed}})
    assert has(clean, "somebody", "replicas")
    assert not [entry for entry in clean["metadata"]["managedFields"] if entry["manager"] == "ktctl"]
    assert clean["spec"]["replicas"] == 3


CHECKS: list[Callable[[KubeApi], None]] = [
    created_is_there,
    created_twice_is_refused,
    missing_is_said,
    deleting_what_is_not_there_is_no_error,
    patch_merges_and_removes,
    another_uid_is_left_alone,
    list_selects,
    another_version_is_a_conflict,
    a_map_is_replaced_and_no_empty_ones_are_left,
    who_changes_a_field_has_it_and_can_give_it_up,
    replicas_go_by_scale,
]

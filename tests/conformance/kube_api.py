"""What any KubeApi has to do; run on the fake in the quiet tier and on the real one in the cluster tier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kt_net.errors import AlreadyThere, ObjectMissing, RequestRefused
from kt_net.kube.api import KubeApi

NAME = "ktnet-conformance"


def body(**metadata: Any) -> dict[str, Any]:
    """A ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": {"ktnet": "conformance"}, **metadata},
    }


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


CHECKS: list[Callable[[KubeApi], None]] = [
    created_is_there,
    created_twice_is_refused,
    missing_is_said,
    deleting_what_is_not_there_is_no_error,
    patch_merges_and_removes,
    another_uid_is_left_alone,
    list_selects,
]

"""A container's environment, as the kubelet makes it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.kube.environment import container_of, env_file, environment_of, expanded, values_of

POD: dict[str, Any] = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u",
        "labels": {"app": "web"},
        "annotations": {"a/b": "c"},
    },
    "spec": {
        "nodeName": "node",
        "serviceAccountName": "sa",
        "containers": [
            {"name": "proxy", "ports": [{"containerPort": 15000}]},
            {"name": "web", "ports": [{"containerPort": 8080, "name": "http"}]},
        ],
    },
    "status": {"podIP": "10.0.0.1", "hostIP": "10.1.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
}
OBJECTS: dict[tuple[str, str], Mapping[str, str] | str] = {
    ("ConfigMap", "settings"): {"HOST": "db", "log.level": "debug", "bad name": "x", "=": "x"},
    ("Secret", "keys"): {"PASSWORD": "s3cret"},
    ("Secret", "closed"): "no permission to get secrets",
}


def made(*env: dict[str, Any], **container: Any) -> tuple[dict[str, str], list[str]]:
    found = environment_of(POD, {"env": list(env), **container}, lambda kind, name: OBJECTS.get((kind, name)))
    return found.values, found.missing


def test_plain_values_and_references_to_earlier_ones() -> None:
    values, missing = made(
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)2 $$(A) $(C) $A $"},
        {"name": "EMPTY"},
        {"name": "bad name", "value": "x"},
        {"name": "A", "value": "$(A)0"},
    )
    assert values == {"A": "10", "B": "12 $(A) $(C) $A $", "EMPTY": ""}
    assert missing == []


def test_all_of_a_config_map_and_a_secret_and_then_one_by_one() -> None:
    sources = [{"prefix": "X_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}]
    values, missing = made(
        {"name": "PASSWORD", "value": "own"}, {"name": "URL", "value": "$(X_HOST):1"}, envFrom=sources
    )
    assert values == {"X_HOST": "db", "X_log.level": "debug", "PASSWORD": "own", "URL": "db:1"}
    assert missing == []


def reference(kind: str, name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {kind: {"name": name, "key": key, **more}}}


@pytest.mark.parametrize(
    ("one", "values", "missing"),
    [
        (reference("configMapKeyRef", "settings", "HOST"), {"V": "db"}, []),
        (reference("secretKeyRef", "keys", "PASSWORD"), {"V": "s3cret"}, []),
        (reference("secretKeyRef", "keys", "OTHER"), {}, ["V (Secret keys, OTHER: there is none)"]),
        (reference("secretKeyRef", "keys", "OTHER", optional=True), {}, []),
        (reference("configMapKeyRef", "none", "X", optional=True), {}, []),
        (reference("secretKeyRef", "closed", "X"), {}, ["V (Secret closed, X: no permission to get secrets)"]),
        (
            reference("secretKeyRef", "closed", "X", optional=True),
            {},
            ["V (Secret closed, X: no permission to get secrets)"],
        ),
        ({"name": "V", "valueFrom": {"fileKeyRef": {"key": "x"}}}, {}, ["V (fileKeyRef is not known here)"]),
        ({"name": "V", "valueFrom": None}, {}, ["V ( is not known here)"]),
    ],
)
def test_one_by_one(one: dict[str, Any], values: dict[str, str], missing: list[str]) -> None:
    assert made(one) == (values, missing)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['a/b']", "c"),
        ("metadata.labels['none']", ""),
        ("spec.nodeName", "node"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "10.1.0.1"),
        ("status.podIP", "10.0.0.1"),
        ("status.podIPs", "10.0.0.1,fd00::1"),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert made({"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}) == ({"V": value}, [])


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.memory", "1Mi", "64"),
        ("requests.memory", "0", str(64 << 20)),
    ],
)
def test_resources(resource: str, divisor: str | None, value: str) -> None:
    one = {"name": "V", "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}
    resources = {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}
    assert made(one, resources=resources) == ({"V": value}, [])


def test_a_resource_without_a_limit_is_the_nodes_and_not_known() -> None:
    values, missing = made({"name": "V", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}})
    assert (values, len(missing)) == ({}, 1)


def test_a_whole_object_that_cannot_be_read() -> None:
    sources = [
        {"secretRef": {"name": "closed"}},
        {"configMapRef": {"name": "no"}},
        {"configMapRef": {"name": "no", "optional": True}},
    ]
    assert made(envFrom=sources) == (
        {},
        ["all of Secret closed: no permission to get secrets", "all of ConfigMap no: there is none"],
    )


@pytest.mark.parametrize(
    ("name", "port", "found"),
    [("", "http", "web"), ("", 8080, "web"), ("", 1, "proxy"), ("proxy", 8080, "proxy"), ("none", 8080, None)],
)
def test_which_container(name: str, port: int | str, found: str | None) -> None:
    one = container_of(POD, name=name, port=port)
    assert (one or {}).get("name") == found


def test_secrets_are_base64_and_may_be_no_text() -> None:
    data = {"a": base64.b64encode(b"x").decode(), "b": base64.b64encode(b"\xff").decode(), "c": "?"}
    assert values_of("Secret", {"data": data}) == {"a": "x", "b": "\udcff"}
    assert values_of("ConfigMap", {}) == {}


def test_an_environment_file_has_one_line_for_each() -> None:
    assert env_file({"B": "x y\"'", "A": "", "KEY": "1\n2"}) == ("A=\nB=x y\"'\n", ["KEY"])


@given(st.text(alphabet="$()AB ", max_size=20))
def test_expansion_of_whatever(text: str) -> None:
    assert expanded(text, {"A": "1"}).count("$$") <= text.count("$$")

"""Whether a namespace takes a shadow pod, by its objects; quantities as Kubernetes writes them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.findings import Level
from kt_net.kube.quantities import parse_quantity
from kt_net.kube.room import ENFORCE, judge_namespace, judge_quotas


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("10", 10),
        ("500m", Fraction(1, 2)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("64Mi", 64 * 1024**2),
        ("1Gi", 1024**3),
        ("2G", 2 * 10**9),
        ("1k", 1000),
        ("100n", Fraction(1, 10**7)),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12E", 12 * 10**18),
        ("-1", -1),
        ("", None),
        ("Mi", None),
        ("1 Gi", None),
        ("1K", None),
        ("1e9999", None),
        ("9" * 100, None),
        ("1\n", None),
    ],
)
def test_quantities(text: str, expected: int | Fraction | None) -> None:
    assert parse_quantity(text) == expected


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_none(text: str) -> None:
    parse_quantity(text)


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "team"},
        "spec": {"hard": hard, **spec},
        "status": {"hard": hard, "used": used or {}},
    }


@pytest.mark.parametrize(
    ("quotas", "level", "words"),
    [
        ([], Level.ok, "none in the namespace"),
        ([quota({"pods": "10"}, {"pods": "9"})], Level.ok, "room"),
        ([quota({"pods": "10"}, {"pods": "10"})], Level.problem, "team: pods 10 of 10 used, 1 needed"),
        ([quota({"pods": "0"})], Level.problem, "pods 0 of 0 used"),
        ([quota({"limits.memory": "1Gi"}, {"limits.memory": "512Mi"})], Level.ok, "room"),
        ([quota({"limits.memory": "1Gi"}, {"limits.memory": "513Mi"})], Level.problem, "limits.memory 513Mi of 1Gi"),
        ([quota({"requests.cpu": "1"}, {"requests.cpu": "960m"})], Level.problem, "requests.cpu"),
        ([quota({"requests.cpu": "1"}, {"requests.cpu": "950m"})], Level.ok, "room"),
        ([quota({"count/jobs.batch": "1"}, {"count/jobs.batch": "1"})], Level.problem, "count/jobs.batch"),
        ([quota({"services": "1"}, {"services": "1"})], Level.ok, "room"),
        ([quota({"pods": "0"}, scopes=["BestEffort"])], Level.ok, "room"),
        ([quota({"pods": "0"}, scopes=["NotTerminating"])], Level.problem, "pods"),
        (
            [quota({"pods": "0"}, scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass"}]})],
            Level.ok,
            "room",
        ),
        ([quota({"pods": "many"})], Level.ok, "room"),
        ([quota({"pods": "5"}), quota({"configmaps": "2"}, {"configmaps": "2"})], Level.problem, "configmaps"),
        ([{}], Level.ok, "room"),
    ],
)
def test_quotas(quotas: list[dict[str, Any]], level: Level, words: str) -> None:
    found = judge_quotas(quotas)
    assert (found.level, words in found.found) == (level, True), found


@pytest.mark.parametrize(
    ("namespace", "level", "words"),
    [
        ({"metadata": {"name": "shop"}}, Level.ok, "not enforced"),
        ({"metadata": {"name": "shop", "labels": {ENFORCE: "restricted"}}}, Level.ok, "restricted"),
        ({"metadata": {"name": "shop", "labels": {ENFORCE: "privileged"}}}, Level.ok, "privileged"),
        ({"metadata": {"name": "shop", "labels": {ENFORCE: "strictest"}}}, Level.warning, "'strictest'"),
        ({"metadata": {"name": "shop"}, "status": {"phase": "Terminating"}}, Level.problem, "being deleted"),
    ],
)
def test_namespaces(namespace: dict[str, Any], level: Level, words: str) -> None:
    found = judge_namespace(namespace)
    assert (found.level, words in found.found) == (level, True), found

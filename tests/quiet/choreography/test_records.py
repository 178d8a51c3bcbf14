"""Annotations that anybody may have written: what is not understood is refused with its object's name, and nothing else is raised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.choreography.names import KT_SELECTOR, RECORD
from kt_net.choreography.records import Owner, Record, record_of, record_text, selector_text
from kt_net.errors import RecordRefused

SELECTOR = Record(
    "a" * 20,
    "ann",
    "2026-01-02T03:04:05Z",
    {"app": "web", "example.com/tier": ""},
    {"kt-role": "shadow-exchange", "kt-target": "a" * 20},
    (Owner("helm", "Update", "v1"), Owner("argocd", "Apply", "v1", "scale")),
)
REPLICAS = Record("b1", "", "2026-01-02T03:04:05.123456Z", 3, 0, back=True)


def live(kind: str, **annotations: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "web", "namespace": "shop", "annotations": annotations}}


@pytest.mark.parametrize(
    ("kind", "record"), [("Service", SELECTOR), ("Deployment", REPLICAS), ("StatefulSet", REPLICAS)]
)
def test_written_and_read(kind: str, record: Record) -> None:
    assert record_of(live(kind, **{RECORD: record_text(kind, record)})) == record


def test_none() -> None:
    assert record_of(live("Service")) is None
    assert record_of({"kind": "Service"}) is None


def words(**changed: Any) -> str:
    return json.dumps({**json.loads(record_text("Service", SELECTOR)), **changed})


WRONG = {
    "no JSON": "{",
    "no object": "[]",
    "deep": "[" * 5000,
    "long": json.dumps("x" * 20000),
    "a newer version": words(schema="2"),
    "no version": words(schema=None),
    "a word of nobody's": words(patch={"spec": {}}),
    "another kind's": words(replicas={"was": 1, "ours": 0}),
    "no session": words(session=""),
    "a path as session": words(session="../x"),
    "a terminal's escape as user": words(user="\x1b[31m"),
    "no time": words(since="yesterday"),
    "no selector": words(selector={"was": {}, "ours": {"a": "b"}}),
    "half a selector": words(selector={"was": {"a": "b"}}),
    "no label": words(selector={"was": {"a b": "c"}, "ours": {"a": "b"}}),
    "no value": words(selector={"was": {"a": 1}, "ours": {"a": "b"}}),
    "owners": words(owners="all"),
    "an owner": words(owners=[{"manager": "m", "operation": "Delete", "apiVersion": "v1"}]),
    "an owner with more": words(owners=[{"manager": "m", "operation": "Apply", "fieldsV1": {}}]),
    "many owners": words(owners=[{"manager": "m", "operation": "Apply", "apiVersion": "v1"}] * 33),
    "back": words(back="yes"),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_forged(text: str) -> None:
    with pytest.raises(RecordRefused, match="service/web in namespace shop"):
        record_of(live("Service", **{RECORD: text}))


@pytest.mark.parametrize("replicas", [-1, 2**31, 1.5, True, "3", None])
def test_forged_replicas(replicas: object) -> None:
    text = json.dumps({**json.loads(record_text("Deployment", REPLICAS)), "replicas": {"was": replicas, "ours": 0}})
    with pytest.raises(RecordRefused, match="deployment/web"):
        record_of(live("Deployment", **{RECORD: text}))


def test_a_kind_that_has_none() -> None:
    with pytest.raises(RecordRefused, match="secret/web"):
        record_of(live("Secret", **{RECORD: record_text("Service", SELECTOR)}))


def test_the_two_annotations_do_not_agree() -> None:
    text = record_text("Service", SELECTOR)
    assert isinstance(SELECTOR.was, dict)
    assert record_of(live("Service", **{RECORD: text, KT_SELECTOR: selector_text(SELECTOR.was)})) == SELECTOR
    with pytest.raises(RecordRefused, match="service/web"):
        record_of(live("Service", **{RECORD: text, KT_SELECTOR: '{"app":"other"}'}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(sorted(json.loads(words()))), JSON),
    st.sampled_from(["Service", "Deployment"]),
    st.text(),
)
def test_whatever_stands_there(changed: dict[str, Any], kind: str, kts: str) -> None:
    for found in ({RECORD: words(**changed)}, {RECORD: words(), KT_SELECTOR: kts}, {RECORD: kts}):
        try:
            record_of(live(kind, **found))
        except RecordRefused:
            pass

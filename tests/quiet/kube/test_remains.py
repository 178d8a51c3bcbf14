"""Which of our objects are nobody's any more, by Leases and heart beats."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kt_net.findings import Level
from kt_net.kube.remains import judge_remains, judge_unknown

NOW = 1_800_000_000.0


def at(ago: float) -> str:
    return datetime.fromtimestamp(NOW - ago, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def lease(target: str, ago: float) -> dict[str, Any]:
    return {
        "metadata": {"name": f"kt-connect-shadow-{target}", "labels": {"kt-target": target}},
        "spec": {"renewTime": at(ago), "leaseDurationSeconds": 30},
    }


def job(target: str, ago: float = 3600, **status: Any) -> dict[str, Any]:
    metadata = {
        "name": f"kt-connect-shadow-{target}",
        "labels": {"kt-target": target},
        "annotations": {"kt-user": "ada"},
        "creationTimestamp": at(ago),
    }
    return {"metadata": metadata, "status": status}


def other(kind: str, ago: float, **metadata: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {
            "name": "old",
            "labels": {"kt-role": "shadow-connect"},
            "annotations": {"kt-last-heart-beat": str(int(NOW - ago))},
            **metadata,
        },
    }


@pytest.mark.parametrize(
    ("leases", "jobs", "others", "level", "words"),
    [
        ([], [], [], Level.ok, "0 live sessions"),
        ([lease("a", 5)], [job("a")], [], Level.ok, "1 live session"),
        (
            [lease("a", 31)],
            [job("a")],
            [],
            Level.warning,
            "job/kt-connect-shadow-a (of ada; its Lease says nothing for 31 s)",
        ),
        ([lease("a", 5), lease("b", 90)], [job("a"), job("b")], [], Level.warning, "job/kt-connect-shadow-b"),
        ([lease("a", 90)], [job("a", completionTime=at(3))], [], Level.ok, "none"),
        ([], [job("a", ago=10)], [], Level.ok, "none"),
        ([], [job("a", ago=100)], [], Level.warning, "job/kt-connect-shadow-a (of ada; it has no Lease any more)"),
        ([], [], [other("Pod", 301)], Level.warning, "pod/old"),
        ([], [], [other("Deployment", 301)], Level.warning, "deployment/old"),
        ([], [], [other("Pod", 299)], Level.ok, "none"),
        ([], [], [other("Pod", 900, ownerReferences=[{"kind": "Job"}])], Level.ok, "none"),
        ([], [], [{"metadata": {"annotations": {"kt-last-heart-beat": "9" * 400}}}], Level.ok, "none"),
        ([{"spec": {"renewTime": "soon", "leaseDurationSeconds": "x"}}], [{}], [{}], Level.ok, "none"),
    ],
)
def test_judgement(leases: Any, jobs: Any, others: Any, level: Level, words: str) -> None:
    objects = {"Lease": leases, "Job": jobs, "Pod": [], "Deployment": []}
    for one in others:
        objects[one.get("kind", "Pod")].append(one)
    found = judge_remains(objects, namespace="shop", now=NOW)
    assert (found.level, words in found.found) == (level, True), found


def test_a_living_session_is_not_named_beside_a_dead_one() -> None:
    objects = {"Lease": [lease("a", 5), lease("b", 90)], "Job": [job("a"), job("b")]}
    found = judge_remains(objects, namespace="shop", now=NOW)
    assert "shadow-a" not in found.found
    assert found.next_step == "ktctl clean -n shop"


def test_many_are_counted() -> None:
    jobs = [job(str(number)) for number in range(20)]
    found = judge_remains({"Job": jobs}, namespace="shop", now=NOW)
    assert "and 12 more" in found.found


def test_where_leases_may_not_be_read() -> None:
    found = judge_unknown([job("a")], "no permission to list leases in namespace shop")
    assert found.level is Level.skipped
    assert "list leases" in found.found
    assert "pod/kt-connect-shadow-a (of ada)" in found.found

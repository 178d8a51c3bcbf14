"""What is nobody's, and what is: ours by Leases, a real KT Connect's by heart beats; and what puts each right."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from kt_net.choreography.leftovers import Judgement, judge
from kt_net.choreography.names import RECORD
from kt_net.choreography.records import Record, record_text
from kt_net.kube.run import run_edit, run_step
from tests.conformance.fake_api import FakeApi

NOW, NAMESPACE = 1_800_000_000.0, "shop"
SESSION = "a" * 20


def at(ago: float) -> str:
    return datetime.fromtimestamp(NOW - ago, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def thing(name: str, *, labels: Any = None, annotations: Any = None, spec: Any = None, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid of {name}", "creationTimestamp": at(3600)}
    return {
        "metadata": {**metadata, "labels": labels or {}, "annotations": annotations or {}, **more},
        "spec": spec or {},
    }


def lease(ago: float, session: str = SESSION) -> dict[str, Any]:
    return thing("lease", labels={"kt-target": session}, spec={"renewTime": at(ago), "leaseDurationSeconds": 30})


def exchanged(**spec: Any) -> dict[str, Any]:
    ours = {"kt-role": "shadow-exchange", "kt-target": SESSION}
    record = Record(SESSION, "ann", "2026-01-02T03:04:05Z", {"app": "web"}, ours)
    text = record_text("Service", record)
    return thing("web", annotations={RECORD: text}, spec={"selector": ours, **spec})


def scaled() -> dict[str, Any]:
    record = Record(SESSION, "ann", "2026-01-02T03:04:05Z", 3, 0)
    return thing("web", annotations={RECORD: record_text("Deployment", record)}, spec={"replicas": 0})


def kts(name: str, role: str, target: str, ago: float, **annotations: str) -> dict[str, Any]:
    """Made by a real KT Connect."""
    beat = {"kt-last-heart-beat": str(int(NOW - ago)), "kt-user": "bob", **annotations}
    labels = {"control-by": "kt", "kt-role": role, "kt-target": target}
    return thing(name, labels=labels, annotations=beat)


def kts_service(target: str, **annotations: str) -> dict[str, Any]:
    """Exchanged by a real KT Connect."""
    selector = {"kt-role": "shadow-exchange", "kt-target": target}
    return thing("web", annotations={"kt-selector": '{"app":"web"}', **annotations}, spec={"selector": selector})


def words(judgement: Judgement) -> list[str]:
    return [f"{one.what}: {one.inverse}" for one in judgement.leftovers]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ({"Service": [exchanged()], "Lease": [lease(5)]}, []),
        ({"Service": [exchanged()], "Lease": [lease(31)]}, ["service/web: selector app=web again"]),
        ({"Service": [exchanged()], "Lease": [lease(5), lease(60)]}, []),
        ({"Service": [exchanged()], "Lease": [lease(60), lease(5)]}, []),
        ({"Service": [exchanged()], "Lease": []}, ["service/web: selector app=web again"]),
        ({"Service": [exchanged()], "Lease": [lease(5, "other")]}, ["service/web: selector app=web again"]),
        ({"Service": [exchanged(selector={"app": "new"})]}, ["service/web: selector app=new again"]),
        ({"Deployment": [scaled()], "Lease": [lease(600)]}, ["deployment/web: replicas 3 again"]),
        ({"StatefulSet": [scaled()], "Lease": [lease(-600)]}, ["statefulset/web: replicas 3 again"]),
        ({"Deployment": [scaled()], "Lease": [lease(5)]}, []),
        ({"Service": [thing("plain", spec={"selector": {"app": "x"}})], "Deployment": [thing("plain")]}, []),
        # a real KT Connect's
        ({"Service": [kts_service("x")]}, ["service/web: selector app=web again"]),
        ({"Service": [kts_service("x")], "Pod": [kts("pod", "shadow-exchange", "x", 299)]}, []),
        (
            {"Service": [kts_service("x")], "Pod": [kts("pod", "shadow-exchange", "x", 301)]},
            ["service/web: selector app=web again", "pod/pod: deleted"],
        ),
        ({"Service": [kts_service("x", **{"kt-selector": "[]"})]}, []),
        ({"Service": [thing("web", annotations={"kt-lock": str(int(NOW - 181))})]}, ["service/web: unlocked"]),
        ({"Service": [thing("web", annotations={"kt-lock": str(int(NOW - 179))})]}, []),
        (
            {
                "Deployment": [thing("web", spec={"replicas": 0})],
                "Pod": [kts("pod", "shadow-exchange", "x", 900, **{"kt-config": "app=web,replicas=2"})],
            },
            ["deployment/web: replicas 2 again", "pod/pod: deleted"],
        ),
        (
            {
                "Deployment": [thing("web", spec={"replicas": 5})],
                "Pod": [kts("pod", "shadow-exchange", "x", 900, **{"kt-config": "app=web,replicas=2"})],
            },
            ["pod/pod: deleted"],
        ),
        (
            {"ConfigMap": [kts("map", "shadow-mesh", "x", 900)], "Service": [kts("web-kt-stuntman", "x", "x", 900)]},
            ["configmap/map: deleted", "service/web-kt-stuntman: deleted"],
        ),
        ({"Pod": [thing("ours", labels={"kt-role": "shadow-connect", "control-by": "kt"})]}, []),
    ],
)
def test_judgement(objects: dict[str, Any], expected: list[str]) -> None:
    assert words(judge(objects, now=NOW)) == expected


def test_a_threshold_of_ones_own() -> None:
    pods = {"Pod": [kts("pod", "shadow-connect", "x", 400)]}
    assert words(judge(pods, now=NOW, threshold=900)) == []
    assert words(judge(pods, now=NOW, threshold=60)) == ["pod/pod: deleted"]


def test_what_is_not_understood_is_named_and_left_alone() -> None:
    forged = thing("web", annotations={RECORD: '{"schema":"9"}'}, spec={"selector": {"kt-target": "x"}})
    found = judge({"Service": [forged]}, now=NOW)
    assert words(found) == []
    assert "service/web in namespace shop" in str(found.refused[0])
    assert "'9'" in found.refused[0].why


@pytest.mark.parametrize("first", [600.0, -600.0, 31.0])
def test_a_lease_that_changes_between_two_looks_lives_whatever_its_stamp_says(first: float) -> None:
    """Clients whose clock is ten minutes wrong, either way."""
    service = exchanged()
    one = judge({"Service": [service], "Lease": [lease(first)]}, now=NOW)
    same = judge({"Service": [service], "Lease": [lease(first)]}, now=NOW + 14)
    renewed = judge({"Service": [service], "Lease": [lease(first - 10)]}, now=NOW + 14)
    back = judge({"Service": [service], "Lease": [lease(3)]}, now=NOW + 14)
    gone = judge({"Service": [service]}, now=NOW + 14)
    assert [len(later.confirmed(one)) for later in (same, renewed, back, gone)] == [1, 0, 0, 0]


def test_jobs_by_their_leases() -> None:
    labels = {"kt-target": SESSION, "control-by": "kt"}
    job = thing("job", labels=labels, annotations={"kt-user": "ann"})
    young = thing("young", labels={"kt-target": "b"}, creationTimestamp=at(10))
    done = {**thing("done", labels={"kt-target": "c"}), "status": {"completionTime": at(3)}}
    found = judge({"Job": [job, young, done], "Lease": [lease(40)]}, now=NOW)
    assert words(found) == ["job/job: deleted, with all that belongs to it"]
    assert found.live == ["job/young: of somebody"]


def test_everything_of_a_kt_connects_is_put_right_and_the_second_time_nothing() -> None:
    api = FakeApi()
    api.manager = "somebody"
    api.create("Service", NAMESPACE, kts_service("x", **{"kt-lock": str(int(NOW - 500))}))
    api.create("Deployment", NAMESPACE, thing("app", spec={"replicas": 0}))
    api.create("Pod", NAMESPACE, kts("pod", "shadow-exchange", "x", 900, **{"kt-config": "app=app,replicas=2"}))
    api.create("ConfigMap", NAMESPACE, kts("pod", "shadow-exchange", "x", 900))
    api.manager = "ktctl"

    def look() -> Judgement:
        kinds = ("Service", "Deployment", "Pod", "ConfigMap")
        return judge({kind: list(api.list(kind, NAMESPACE)) for kind in kinds}, now=NOW)

    for one in look().leftovers:
        run_step(api, one.step)
    assert look().leftovers == []
    service = api.get("Service", NAMESPACE, "web")
    assert service["spec"]["selector"] == {"app": "web"}
    assert "annotations" not in service["metadata"]
    assert not any(entry["manager"] == "ktctl" for entry in service["metadata"]["managedFields"])
    assert api.get("Deployment", NAMESPACE, "app")["spec"]["replicas"] == 2
    assert api.objects() == [("Deployment", NAMESPACE, "app"), ("Service", NAMESPACE, "web")]


def test_every_leftover_of_ours_is_an_edit_that_gives_back() -> None:
    api = FakeApi()
    api.create("Service", NAMESPACE, exchanged())
    (one,) = judge({"Service": list(api.list("Service", NAMESPACE))}, now=NOW).leftovers
    assert one.step.edit is not None
    run_edit(api, "Service", NAMESPACE, "web", one.step.edit)
    assert api.get("Service", NAMESPACE, "web")["spec"]["selector"] == {"app": "web"}
    assert json.dumps(api.get("Service", NAMESPACE, "web")["metadata"]).count("kt-") == 0


def test_a_copy_on_a_replica_set() -> None:
    """Of a Deployment that is given back; not of one that is exchanged still."""
    owner = [{"kind": "Deployment", "name": "web"}]
    copy = thing("web-1", annotations=scaled()["metadata"]["annotations"], ownerReferences=owner)
    given_back = thing("web", spec={"replicas": 3})
    assert words(judge({"Deployment": [given_back], "ReplicaSet": [copy]}, now=NOW)) == [
        "replicaset/web-1: annotation removed"
    ]
    live = {"Deployment": [scaled()], "ReplicaSet": [copy], "Lease": [lease(5)]}
    assert words(judge(live, now=NOW)) == []


def test_the_lease_of_a_guest() -> None:
    """It has no Job; somebody's pod is its owner."""
    owner = [{"kind": "Pod", "name": "web-1"}]
    found = {**lease(40), "metadata": {**lease(40)["metadata"], "ownerReferences": owner}}
    assert words(judge({"Lease": [found]}, now=NOW)) == ["lease/lease: deleted"]
    alive = {**lease(5), "metadata": found["metadata"]}
    judgement = judge({"Lease": [alive]}, now=NOW)
    assert (words(judgement), judgement.live) == ([], ["lease/lease: of somebody, a guest in pod web-1"])

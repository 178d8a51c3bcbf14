"""Edits of somebody's object: stopped after any request, by anybody, and gone on with by anybody else, it is as it was."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from kt_net.choreography.edits import (
    Edit,
    GiveBack,
    Standing,
    TakeReplicas,
    TakeSelector,
    exchange_selector,
    standing,
)
from kt_net.choreography.names import KT_SELECTOR, RECORD
from kt_net.choreography.records import record_of
from kt_net.errors import Conflict, Exchanged, GivenBack, KtError, UsageFault
from kt_net.kube.run import run_edit
from tests.conformance.fake_api import FakeApi

NAMESPACE, SESSION, OTHER = "shop", "a" * 20, "b" * 20
SINCE = "2026-01-02T03:04:05Z"
TAKES: dict[str, Callable[[str], Edit]] = {
    "Service": lambda session: TakeSelector(session, "ann", SINCE),
    "Deployment": lambda session: TakeReplicas(session, "ann", SINCE),
    "StatefulSet": lambda session: TakeReplicas(session, "ann", SINCE),
}
KINDS = sorted(TAKES)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at ReplicaSets."""
    monkeypatch.setattr("kt_net.kube.run.pause", lambda seconds: None)


class Killed(BaseException):
    """The program ends here."""


def cluster(kind: str, **metadata: Any) -> FakeApi:
    """One object of somebody's."""
    api = FakeApi()
    api.manager = "somebody"
    spec: dict[str, Any] = {"selector": {"app": "web", "tier": "front"}} if kind == "Service" else {"replicas": 3}
    api.create(kind, NAMESPACE, {"metadata": {"name": "web", **metadata}, "spec": {**spec, "other": "as it is"}})
    api.manager = "ktctl"
    return api


def state(api: FakeApi, kind: str) -> dict[str, Any]:
    """All of it but its version."""
    found = api.get(kind, NAMESPACE, "web")
    del found["metadata"]["resourceVersion"]
    found["metadata"]["managedFields"].sort(key=json.dumps)
    return found


def run(api: FakeApi, kind: str, edit: Edit) -> None:
    run_edit(api, kind, NAMESPACE, "web", edit)


def killed_at(api: FakeApi, number: int, *, after: bool) -> None:
    """From now on the program ends at its request of that number: before it is done, or when it is and the answer is lost."""
    count = itertools.count()

    def before(verb: str, kind: str, name: str) -> None:
        if next(count) == number + after:
            raise Killed

    api.before = before


def alive(api: FakeApi) -> None:
    api.before = lambda verb, kind, name: None


@pytest.mark.parametrize("metadata", [{}, {"annotations": {"own": "1"}, "labels": {"app": "web"}}], ids=["bare", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_taken_and_given_back_it_is_as_it_was(kind: str, metadata: dict[str, Any]) -> None:
    api = cluster(kind, **metadata)
    before = state(api, kind)
    run(api, kind, TAKES[kind](SESSION))
    taken = api.get(kind, NAMESPACE, "web")
    record = record_of(taken)
    assert record is not None
    assert (record.session, record.user, record.since, record.back) == (SESSION, "ann", SINCE, False)
    assert taken["spec"]["other"] == "as it is"
    if kind == "Service":
        assert taken["spec"]["selector"] == {"kt-role": "shadow-exchange", "kt-target": SESSION}
        assert json.loads(taken["metadata"]["annotations"][KT_SELECTOR]) == before["spec"]["selector"]
    else:
        assert taken["spec"]["replicas"] == 0
    for _ in range(2):
        run(api, kind, GiveBack(SESSION))
        assert state(api, kind) == before


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_after_every_request_while_taking_and_while_giving_back(kind: str) -> None:
    """Exhaustively: whoever ends at whichever request, in whichever order; the next one brings it to its end."""
    requests = range(8)
    for taking, giving, again in itertools.product(requests, requests, requests):
        for after in (False, True):
            api = cluster(kind)
            before = state(api, kind)
            stopped = []
            for edit, number in ((TAKES[kind](SESSION), taking), (GiveBack(SESSION), giving), (GiveBack(), again)):
                killed_at(api, number, after=after)
                try:
                    run(api, kind, edit)
                except Killed:
                    stopped.append(number)
                alive(api)
            run(api, kind, GiveBack(SESSION))
            assert state(api, kind) == before, (taking, giving, again, after, stopped)


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_two_who_race_wins(kind: str) -> None:
    """One client's requests come between any two of the other's."""
    for number in range(6):
        api = cluster(kind)
        before = state(api, kind)
        count = itertools.count()

        def between(
            verb: str, of: str, name: str, api: FakeApi = api, count: Any = count, number: int = number
        ) -> None:
            if next(count) == number:
                alive(api)
                try:
                    run(api, kind, TAKES[kind](OTHER))
                except Exchanged:
                    pass

        api.before = between
        refused = ""
        try:
            run(api, kind, TAKES[kind](SESSION))
        except Exchanged as error:
            refused = f"{error.what}: {error.why}; {error.next_step}"
        alive(api)
        record = record_of(api.get(kind, NAMESPACE, "web"))
        assert record is not None
        assert (record.session == OTHER) == bool(refused)
        if refused:
            assert "ann has had it since 2026-01-02T03:04:05Z" in refused
            assert "ktctl recover" in refused
        run(api, kind, GiveBack(OTHER if record.session == SESSION else SESSION))
        assert record_of(api.get(kind, NAMESPACE, "web")) == record
        run(api, kind, GiveBack(record.session))
        assert state(api, kind) == before


def deploy(api: FakeApi, kind: str, spec: dict[str, Any]) -> None:
    """As somebody, whose field it is then."""
    api.manager = "somebody"
    api.patch(kind, NAMESPACE, "web", {"spec": spec})
    api.manager = "ktctl"


def test_a_new_selector_is_what_is_put_back() -> None:
    """A re-deploy while it is exchanged: taken again; what was deployed is given back."""
    api = cluster("Service")
    run(api, "Service", TAKES["Service"](SESSION))
    deploy(api, "Service", {"selector": {"kt-role": None, "kt-target": None, "app": "web2"}})
    live = api.get("Service", NAMESPACE, "web")
    assert standing(live, SESSION, live["metadata"]["uid"]) is Standing.CHANGED
    run(api, "Service", TAKES["Service"](SESSION))
    live = api.get("Service", NAMESPACE, "web")
    assert live["spec"]["selector"] == exchange_selector(SESSION)
    assert standing(live, SESSION, live["metadata"]["uid"]) is Standing.HELD
    run(api, "Service", GiveBack(SESSION))
    found = state(api, "Service")
    assert found["spec"]["selector"] == {"app": "web2"}
    assert "annotations" not in found["metadata"]
    assert [entry["manager"] for entry in found["metadata"]["managedFields"]] == ["somebody"]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("Service", {"selector": {"kt-role": None, "kt-target": None, "app": "web2"}}), ("Deployment", {"replicas": 5})],
)
def test_what_somebody_changed_while_nobody_looked_stays(kind: str, spec: dict[str, Any]) -> None:
    api = cluster(kind)
    run(api, kind, TAKES[kind](SESSION))
    deploy(api, kind, spec)
    expected = state(api, kind)["spec"]
    run(api, kind, GiveBack())
    found = state(api, kind)
    assert found["spec"] == expected
    assert "annotations" not in found["metadata"]
    assert [entry["manager"] for entry in found["metadata"]["managedFields"]] == ["somebody"]


@pytest.mark.parametrize("known", ["record", "no record"])
@pytest.mark.parametrize("taken_again", [True, False])
@pytest.mark.parametrize(
    ("applied", "left"),
    [
        ({"app": "web"}, {"app": "web"}),
        ({"app": "web2"}, {"app": "web2"}),
        ({"kt-role": None, "app": "web2"}, {"app": "web2"}),
        ({"kt-role": None}, {"app": "web", "tier": "front"}),
    ],
    ids=["the same", "another", "half", "a key of ours"],
)
def test_client_side_apply_merges_its_keys_into_ours(
    applied: dict[str, Any], left: dict[str, str], taken_again: bool, known: str
) -> None:
    """What remains is what was applied, without what is left of ours; Kubernetes doc, "Declarative Management", merging of maps."""
    api = cluster("Service")
    run(api, "Service", TAKES["Service"](SESSION))
    record = record_of(api.get("Service", NAMESPACE, "web"))
    deploy(api, "Service", {"selector": applied})
    if taken_again:
        live = api.get("Service", NAMESPACE, "web")
        assert standing(live, SESSION, live["metadata"]["uid"]) is Standing.CHANGED
        run(api, "Service", TAKES["Service"](SESSION))
        assert api.get("Service", NAMESPACE, "web")["spec"]["selector"] == exchange_selector(SESSION)
        record = record_of(api.get("Service", NAMESPACE, "web"))
    if known == "no record":
        api.patch("Service", NAMESPACE, "web", {"metadata": {"annotations": {RECORD: None}}})
    for _ in range(2):
        run(api, "Service", GiveBack(SESSION, known=record if known == "no record" else None))
        found = state(api, "Service")
        assert found["spec"]["selector"] == left
        assert "annotations" not in found["metadata"]
        assert [entry["manager"] for entry in found["metadata"]["managedFields"]] == ["somebody"]


def test_without_a_selector_it_is_nobodys_to_take_or_to_put_back() -> None:
    """Somebody makes an ExternalName of it while it is exchanged."""
    api = cluster("Service")
    run(api, "Service", TAKES["Service"](SESSION))
    deploy(api, "Service", {"selector": None})
    with pytest.raises(UsageFault, match="no selector"):
        run(api, "Service", TAKES["Service"](SESSION))
    run(api, "Service", GiveBack(SESSION))
    found = state(api, "Service")
    assert "selector" not in found["spec"]
    assert "annotations" not in found["metadata"]


def test_our_annotation_taken_off_is_no_kt_connects() -> None:
    """`kubectl annotate svc web kt-record-`: taken again, whatever annotation of ours is left."""
    api = cluster("Service")
    run(api, "Service", TAKES["Service"](SESSION))
    api.patch("Service", NAMESPACE, "web", {"metadata": {"annotations": {RECORD: None}}})
    live = api.get("Service", NAMESPACE, "web")
    assert standing(live, SESSION, live["metadata"]["uid"]) is Standing.CHANGED
    run(api, "Service", TakeSelector(SESSION, "ann", SINCE, known={"app": "web"}))
    record = record_of(api.get("Service", NAMESPACE, "web"))
    assert record is not None
    assert record.was == {"app": "web"}


def test_a_record_of_replicas_that_is_taken_off_is_written_again() -> None:
    api = cluster("Deployment")
    run(api, "Deployment", TAKES["Deployment"](SESSION))
    api.patch("Deployment", NAMESPACE, "web", {"metadata": {"annotations": {RECORD: None}}})
    live = api.get("Deployment", NAMESPACE, "web")
    assert standing(live, SESSION, live["metadata"]["uid"]) is Standing.CHANGED
    run(api, "Deployment", TakeReplicas(SESSION, "ann", SINCE, known=3))
    record = record_of(api.get("Deployment", NAMESPACE, "web"))
    assert record is not None
    assert record.was == 3
    api.patch("Deployment", NAMESPACE, "web", {"metadata": {"annotations": {RECORD: None}}})
    run(api, "Deployment", GiveBack(SESSION, known=record))
    assert state(api, "Deployment")["spec"]["replicas"] == 3


def test_what_the_session_remembers_is_nothing_once_it_is_somebody_elses() -> None:
    """Given back while the client was away, and then: scaled to nothing by its owner; exchanged by a KT Connect."""
    api = cluster("Deployment")
    run(api, "Deployment", TAKES["Deployment"](SESSION))
    record = record_of(api.get("Deployment", NAMESPACE, "web"))
    run(api, "Deployment", GiveBack())
    deploy(api, "Deployment", {"replicas": 0})
    live = api.get("Deployment", NAMESPACE, "web")
    assert standing(live, SESSION, live["metadata"]["uid"]) is Standing.GIVEN_BACK
    run(api, "Deployment", GiveBack(SESSION, known=record))
    assert state(api, "Deployment")["spec"]["replicas"] == 0
    with pytest.raises(UsageFault, match="no pods"):
        run(api, "Deployment", TakeReplicas(SESSION, "ann", SINCE, known=3))

    api = cluster("Service")
    run(api, "Service", TAKES["Service"](SESSION))
    record = record_of(api.get("Service", NAMESPACE, "web"))
    run(api, "Service", GiveBack())
    kts = {"kt-role": "shadow-exchange", "kt-target": "another", "app": None, "tier": None}
    deploy(api, "Service", {"selector": kts})
    api.patch("Service", NAMESPACE, "web", {"metadata": {"annotations": {KT_SELECTOR: '{"app":"web"}'}}})
    before = state(api, "Service")
    run(api, "Service", GiveBack(SESSION, known=record))
    assert state(api, "Service") == before


def test_replicas_that_somebody_scaled_up_are_put_back() -> None:
    api = cluster("Deployment")
    run(api, "Deployment", TAKES["Deployment"](SESSION))
    deploy(api, "Deployment", {"replicas": 5})
    run(api, "Deployment", TAKES["Deployment"](SESSION))
    assert state(api, "Deployment")["spec"]["replicas"] == 0
    run(api, "Deployment", GiveBack(SESSION))
    assert state(api, "Deployment")["spec"]["replicas"] == 5


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_being_given_back_is_not_taken_again(kind: str) -> None:
    api = cluster(kind)
    run(api, kind, TAKES[kind](SESSION))
    uid = api.get(kind, NAMESPACE, "web")["metadata"]["uid"]
    killed_at(api, 1, after=True)  # its first request is a read
    with pytest.raises(Killed):
        run(api, kind, GiveBack())
    alive(api)
    assert standing(api.get(kind, NAMESPACE, "web"), SESSION, uid) is Standing.GIVEN_BACK
    with pytest.raises(GivenBack):
        run(api, kind, TAKES[kind](SESSION))
    run(api, kind, GiveBack())
    assert standing(api.get(kind, NAMESPACE, "web"), SESSION, uid) is Standing.GIVEN_BACK


def test_made_anew_it_is_taken_again_and_a_lost_record_is_written_again() -> None:
    api = cluster("Service")
    run(api, "Service", TAKES["Service"](SESSION))
    taken = api.get("Service", NAMESPACE, "web")
    uid = taken["metadata"]["uid"]
    lost = copy.deepcopy(taken)
    del lost["metadata"]["annotations"]
    assert standing(lost, SESSION, uid) is Standing.CHANGED
    api.patch("Service", NAMESPACE, "web", {"metadata": {"annotations": {RECORD: None, KT_SELECTOR: None}}})
    with pytest.raises(UsageFault):
        run(api, "Service", TakeSelector(SESSION, "ann", SINCE))
    run(api, "Service", TakeSelector(SESSION, "ann", SINCE, known={"app": "web"}))
    run(api, "Service", GiveBack())
    assert state(api, "Service")["spec"]["selector"] == {"app": "web"}
    assert standing(taken, OTHER, uid) is Standing.ANOTHERS
    assert standing(None, SESSION, uid) is Standing.GONE
    fresh = cluster("Service").get("Service", NAMESPACE, "web")
    assert standing(fresh, SESSION, "another uid") is Standing.CHANGED
    assert standing(fresh, SESSION, fresh["metadata"]["uid"]) is Standing.GIVEN_BACK


def test_a_kt_connects_is_left_alone() -> None:
    api = cluster("Service", annotations={KT_SELECTOR: '{"app":"web"}'})
    with pytest.raises(Exchanged, match="exchanged"):
        run(api, "Service", TAKES["Service"](SESSION))


def test_nothing_to_take() -> None:
    api = cluster("Service")
    deploy(api, "Service", {"selector": None})
    with pytest.raises(UsageFault, match="no selector"):
        run(api, "Service", TAKES["Service"](SESSION))
    api = cluster("Deployment")
    deploy(api, "Deployment", {"replicas": 0})
    with pytest.raises(UsageFault, match="no pods"):
        run(api, "Deployment", TAKES["Deployment"](SESSION))


def test_what_is_not_there_is_given_back() -> None:
    run_edit(FakeApi(), "Service", NAMESPACE, "web", GiveBack())
    with pytest.raises(KtError):
        run_edit(FakeApi(), "Service", NAMESPACE, "web", TAKES["Service"](SESSION))


def test_others_who_write_it_all_the_time_are_an_error_and_not_a_hang() -> None:
    api = cluster("Service")

    def busy(verb: str, kind: str, name: str) -> None:
        if verb == "patch":
            alive(api)
            api.patch(kind, NAMESPACE, name, {"metadata": {"labels": {"busy": "yes"}}})
            api.before = busy

    api.before = busy
    with pytest.raises(Conflict, match="never as it was read"):
        run(api, "Service", TAKES["Service"](SESSION))


def test_copies_on_replica_sets_are_taken_off() -> None:
    """The Deployment controller copies its annotations, once more even after it is given back."""
    api = cluster("Deployment")
    run(api, "Deployment", TAKES["Deployment"](SESSION))
    record = api.get("Deployment", NAMESPACE, "web")["metadata"]["annotations"]
    owner = [{"kind": "Deployment", "name": "web", "uid": "u"}]
    for name, owners in (("web-1", owner), ("web-2", owner), ("other-1", [])):
        annotations = {**record, "own": "1"}
        api.create(
            "ReplicaSet", NAMESPACE, {"metadata": {"name": name, "annotations": annotations, "ownerReferences": owners}}
        )
    late = itertools.count()

    def copy_late(verb: str, kind: str, name: str) -> None:
        if verb == "patch" and kind == "ReplicaSet" and next(late) == 1:
            alive(api)
            api.patch("ReplicaSet", NAMESPACE, "web-1", {"metadata": {"annotations": record}})

    api.before = copy_late
    run(api, "Deployment", GiveBack(SESSION))
    found = {
        name: api.get("ReplicaSet", NAMESPACE, name)["metadata"]["annotations"]
        for name in ("web-1", "web-2", "other-1")
    }
    assert found == {"web-1": {"own": "1"}, "web-2": {"own": "1"}, "other-1": {**record, "own": "1"}}

"""The whole of an exchange, from the shadow pod's first object to the last request of giving back, broken off after every single request.

Whoever is left (the client itself, its watchdog, the agent, `clean`, `recover`; one after the other or only one of them, broken off
themselves) brings the cluster to what it was.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from kt_net.choreography.edits import Edit, GiveBack, TakeReplicas, TakeSelector, converge
from kt_net.choreography.leftovers import judge
from kt_net.choreography.names import ROLE_EXCHANGE
from kt_net.choreography.restorer import Account
from kt_net.choreography.shadow import ShadowOptions, shadow_steps
from kt_net.choreography.steps import Sequence, Step
from kt_net.errors import ApiUnreachable
from kt_net.kube.run import run_sequence, run_step, undo_sequence
from kt_net.session.watchdog import Charge, give_back
from tests.conformance.fake_api import FakeApi

NAMESPACE, SESSION = "shop", "a" * 20
SINCE = "2026-01-02T03:04:05Z"
#: Unix seconds long after that, when the Lease has run out.
LATER = 1_800_000_000.0
#: Requests of each part; more than there are is one that is not broken off.
TAKING, GIVING = range(16), range(8)


class Killed(BaseException):
    """The program ends here."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_net.kube.run.pause", lambda seconds: None)


def cluster(kind: str) -> FakeApi:
    api = FakeApi()
    api.manager = "somebody"
    spec: dict[str, Any] = {"selector": {"app": "web"}} if kind == "Service" else {"replicas": 3}
    api.create(kind, NAMESPACE, {"metadata": {"name": "web", "namespace": NAMESPACE}, "spec": spec})
    api.manager = "ktctl"
    return api


def state(api: FakeApi, kind: str) -> dict[str, Any]:
    found = api.get(kind, NAMESPACE, "web")
    del found["metadata"]["resourceVersion"]
    found["metadata"]["managedFields"].sort(key=json.dumps)
    return found


def steps(kind: str, *, own: bool) -> list[Step]:
    """Of the whole way up."""
    account = Account(((kind, "web"),), own=True) if own else None
    options = ShadowOptions(
        "web-kt-exchange-abcde",
        NAMESPACE,
        "image",
        b"agent",
        "ann",
        SESSION,
        SINCE,
        0,
        role=ROLE_EXCHANGE,
        account=account,
    )
    take: Edit = TakeSelector(SESSION, "ann", SINCE) if kind == "Service" else TakeReplicas(SESSION, "ann", SINCE)
    inverse = Step("give back", "edit", kind, NAMESPACE, "web", edit=GiveBack(SESSION))
    return [*shadow_steps(options), Step("take", "edit", kind, NAMESPACE, "web", edit=take, inverse=inverse)]


def break_off(api: FakeApi, number: int) -> None:
    """After so many requests."""
    count = itertools.count()

    def before(verb: str, kind: str, name: str) -> None:
        if next(count) == number:
            raise Killed

    api.before = before


def alive(api: FakeApi) -> None:
    api.before = lambda verb, kind, name: None


def client(api: FakeApi, kind: str, sequence: Sequence) -> None:
    undo_sequence(api, sequence)


def watchdog(api: FakeApi, kind: str, sequence: Sequence) -> None:
    """It was told of the object before it was taken, and of the Job once it was there."""
    charge = Charge(held=[(kind, "web", SESSION)], jobs=[("web-kt-exchange-abcde", "")])
    assert list(give_back(api, NAMESPACE, charge)) == []


def agent(api: FakeApi, kind: str, sequence: Sequence) -> None:
    """It gives back; then its Job is complete and goes."""
    converge(
        GiveBack(SESSION),
        lambda: api.get(kind, NAMESPACE, "web"),
        lambda request: api.patch(kind, NAMESPACE, "web", request.body, subresource=request.subresource),
    )
    api.delete("Job", NAMESPACE, "web-kt-exchange-abcde")


def clean(api: FakeApi, kind: str, sequence: Sequence) -> None:
    kinds = ("Service", "Deployment", "StatefulSet", "Job", "Lease", "Pod", "ConfigMap")
    found = judge({one: list(api.list(one, NAMESPACE)) for one in kinds}, now=LATER)
    for one in found.leftovers:
        run_step(api, one.step)


NETS = (client, watchdog, agent, clean)


@pytest.mark.parametrize("own", [True, False], ids=["account", "no account"])
@pytest.mark.parametrize("kind", ["Service", "Deployment", "StatefulSet"])
def test_broken_off_after_every_request(kind: str, own: bool) -> None:
    for taking in TAKING:
        for first, second in itertools.product(NETS, NETS):
            for giving in GIVING if first is not second else [max(GIVING)]:
                api = cluster(kind)
                before = state(api, kind)
                sequence = Sequence(steps(kind, own=own))
                break_off(api, taking)
                try:
                    run_sequence_as_killed(api, sequence)
                except Killed:
                    pass
                break_off(api, giving)
                try:
                    first(api, kind, sequence)
                except Killed:
                    pass
                alive(api)
                second(api, kind, sequence)
                clean(api, kind, sequence)  # a Job of which the watchdog had not been told yet
                where = (taking, first.__name__, giving, second.__name__)
                assert state(api, kind) == before, where
                assert api.objects() == [(kind, NAMESPACE, "web")], where


def run_sequence_as_killed(api: FakeApi, sequence: Sequence) -> None:
    """A program that is killed undoes nothing."""
    while (step := sequence.due()) is not None:
        sequence.done(run_step(api, step))


def test_the_api_server_is_away_at_any_request_of_the_way_up() -> None:
    """The client lives, and takes back what it can: with the API server there again, everything."""
    for number in TAKING:
        api = cluster("Service")
        before = state(api, "Service")
        sequence = Sequence(steps("Service", own=True))
        count = itertools.count()

        def away(verb: str, kind: str, name: str, api: FakeApi = api, count: Any = count, number: int = number) -> None:
            if next(count) == number:
                alive(api)  # it is there again for what takes it back
                raise ApiUnreachable("away")

        api.before = away
        try:
            run_sequence(api, sequence)
        except ApiUnreachable:
            pass
        else:
            alive(api)
            undo_sequence(api, sequence)
        assert state(api, "Service") == before
        assert api.objects() == [("Service", NAMESPACE, "web")]

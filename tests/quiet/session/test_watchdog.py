"""What a watchdog makes of its client's lines, whole, forged and cut off; and what it gives back."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kt_net.choreography.edits import TakeSelector
from kt_net.errors import ApiUnreachable
from kt_net.kube.run import run_edit
from kt_net.session.watchdog import MAX_HELD, Charge, give_back, listen
from tests.conformance.fake_api import FakeApi

HOLD = {"hold": {"kind": "Service", "name": "web", "session": "a"}}
JOB = {"job": {"name": "shadow", "uid": ""}}


def told(*lines: Any) -> Charge:
    charge = Charge()
    listen(io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines)), charge)
    return charge


def test_held_until_done() -> None:
    charge = told({"where": {"namespace": "shop"}}, HOLD, HOLD, JOB)
    assert (charge.held, charge.jobs, charge.done) == ([("Service", "web", "a")], [("shadow", "")], False)
    assert told(HOLD, {"done": True}, JOB).jobs == []


def test_what_makes_no_sense_says_nothing() -> None:
    wrong = [[], 1, None, {"hold": 1}, {"hold": {"kind": "Secret", "name": "x", "session": "a"}}, {"job": []}]
    charge = told(*wrong, {"done": 1}, {"where": "here"})
    assert charge == Charge()
    many = [{"hold": {"kind": "Service", "name": str(number), "session": "a"}} for number in range(2 * MAX_HELD)]
    assert len(told(*many).held) == MAX_HELD


@given(st.binary(max_size=200))
def test_whatever_comes(data: bytes) -> None:
    listen(io.BytesIO(data), Charge())


def test_gives_back_and_deletes_and_says_what_could_not_be_yet() -> None:
    api = FakeApi()
    api.create("Service", "shop", {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}})
    api.create("Job", "shop", {"metadata": {"name": "shadow"}})
    run_edit(api, "Service", "shop", "web", TakeSelector("a", "ann", "2026-01-02T03:04:05Z"))
    charge = told(HOLD, JOB)

    def away(verb: str, kind: str, name: str) -> None:
        raise ApiUnreachable("away")

    api.before = away
    assert list(give_back(api, "shop", charge)) == ["away", "away"]
    api.before = lambda verb, kind, name: None
    for _ in range(2):
        assert list(give_back(api, "shop", charge)) == []
        assert api.get("Service", "shop", "web")["spec"]["selector"] == {"app": "web"}
        assert api.objects() == [("Service", "shop", "web")]

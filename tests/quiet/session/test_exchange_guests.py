"""Guests in several pods: when one cannot be, no other is begun any more."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from kt_net.errors import Exchanged
from kt_net.forward.targets import parse_target
from kt_net.session.engine import SessionOptions
from kt_net.session.exchange_guests import GuestsSession
from kt_net.session.exchange_wish import ExchangeWish, Mode

PODS = [f"web-{number}" for number in range(9)]


class Begun(GuestsSession):
    """Which were begun; one of them is somebody else's, and those beside it take until nobody wants them any more."""

    def __init__(self, taken: str) -> None:
        options = SessionOptions(agent=b"", user="ann")
        wish = ExchangeWish("svc/web", ("80",), mode=Mode.EPHEMERAL)
        super().__init__(options, lambda line: None, wish, parse_target("svc/web"), threading.Event())
        self._taken = taken
        self.begun: list[str] = []

    def _begin(self, pod: str) -> None:
        if self._ended.is_set():
            return
        self.begun.append(pod)
        if pod == self._taken:
            raise Exchanged(f"pod/{pod} is exchanged")
        if self._taken in PODS and pod != PODS[0]:
            assert self._ended.wait(30)


@pytest.mark.parametrize(("taken", "most"), [(PODS[0], 1), (PODS[1], 6), (PODS[3], 6)])
def test_the_first_one_decides_and_no_other_is_begun_after_a_refusal(taken: str, most: int) -> None:
    session = Begun(taken)
    with pytest.raises(Exchanged, match=taken):
        cast(Any, session)._begin_all(PODS)
    assert session.begun[0] == PODS[0]
    assert len(session.begun) <= most
    assert session.close() == []


def test_all_of_them() -> None:
    session = Begun("none")
    cast(Any, session)._begin_all(PODS)
    assert sorted(session.begun) == PODS

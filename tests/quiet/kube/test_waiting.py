"""Waiting on watches that end, break, say nonsense, or are not wanted any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from kt_net.errors import ApiUnreachable, KtError, PermissionMissing, RequestRefused, ShadowFailed
from kt_net.kube import waiting
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.waiting import Patience, Watched, watch_until

POD = {"metadata": {"name": "web"}, "status": {"phase": "Running"}}
STATUS = {"kind": "Status", "status": "Failure", "code": 410}
Event = tuple[str, dict[str, Any]]


class Watches:
    """An API of which only `watch` is there: one script after the other, the last one again and again."""

    def __init__(self, *scripts: list[Event | Exception]) -> None:
        self._scripts = list(scripts)

    def watch(self, kind: str, namespace: str, **asked: Any) -> Iterator[Event]:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        for one in script:
            if isinstance(one, Exception):
                raise one
            yield one


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "AGAIN_SECONDS", 0.0)


def judge(kind: str, seen: Any) -> tuple[str | None, str]:
    phase = (seen.get("status") or {}).get("phase")
    return ("found" if phase == "Running" else None), f"it is {phase}"


def wait(api: Watches, watched: Watched | None = None, patience: Patience | None = None) -> str:
    words: Any = {"late": "it did not run", "last": "nothing was seen"}
    patience = patience or Patience(30.0, time.monotonic)
    return watch_until(cast(HttpKubeApi, api), "shop", [watched or Watched("Pod")], judge, patience, **words)


@pytest.mark.parametrize(
    "first",
    [
        [],
        [("ADDED", {"status": {"phase": "Pending"}})],
        [("ERROR", STATUS)],
        [("DELETED", POD), ("ERROR", STATUS)],
        [ApiUnreachable("away")],
        [OSError("cut")],
    ],
    ids=["ended", "pending", "too old", "deleted", "away", "cut"],
)
def test_a_watch_that_ends_is_begun_again(first: list[Event | Exception]) -> None:
    assert wait(Watches(first, [("ADDED", POD)])) == "found"


def test_what_was_said_last_is_why() -> None:
    with pytest.raises(ShadowFailed, match="it did not run within 1 s") as caught:
        wait(Watches([("ADDED", {"status": {"phase": "Pending"}})]), patience=Patience(1.0, clock=ticking()))
    assert caught.value.why == "it is Pending"


def ticking() -> Callable[[], float]:
    """A tenth of a second a look."""
    ticks = iter(range(1000))
    return lambda: next(ticks) / 10


def test_given_up() -> None:
    patience = Patience(30.0, time.monotonic)
    patience.given_up.set()
    with pytest.raises(ShadowFailed, match="not waited for any more"):
        wait(Watches([]), patience=patience)


def test_gone() -> None:
    with pytest.raises(ShadowFailed, match="pod web is gone"):
        wait(Watches([("DELETED", POD)]), Watched("Pod", gone="pod web is gone"))


@pytest.mark.parametrize(("needed", "raised"), [(True, PermissionMissing), (False, ShadowFailed)])
def test_what_may_not_be_watched(needed: bool, raised: type[KtError]) -> None:
    refused = PermissionMissing("no permission to watch")
    with pytest.raises(raised):
        wait(Watches([refused]), Watched("Pod", needed=needed), Patience(1.0, clock=ticking()))


@pytest.mark.parametrize(("needed", "why"), [(True, "not now"), (False, "nothing was seen")])
def test_why_is_what_is_needed(needed: bool, why: str) -> None:
    with pytest.raises(ShadowFailed) as caught:
        wait(Watches([RequestRefused("not now")]), Watched("Pod", needed=needed), Patience(1.0, clock=ticking()))
    assert caught.value.why == why

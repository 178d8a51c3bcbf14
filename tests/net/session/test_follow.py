"""Following objects does not become a flood of requests when watches end at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kt_net.errors import PermissionMissing
from kt_net.kube.follow import FIRST_PAUSE, FollowedNames


class Api:
    """An API server whose watches are cut, as by a proxy, or end with an error event."""

    def __init__(self, events: list[tuple[str, Any]]) -> None:
        self.events = events
        self.lists = 0
        self.listed = threading.Event()

    def list_at(self, kind: str, namespace: str | None) -> tuple[list[Any], str]:
        self.lists += 1
        self.listed.set()
        return [{"metadata": {"name": "one"}}], "7"

    def watch(self, kind: str, namespace: str | None, **options: Any) -> Iterator[tuple[str, Any]]:
        assert options["since"] == "7"
        yield from self.events


@pytest.mark.parametrize("events", [[], [("ERROR", {"code": 410})], [("ADDED", {"metadata": {"name": "two"}})]])
def test_watches_that_end_at_once(events: list[tuple[str, Any]]) -> None:
    api, seen = Api(events), list[frozenset[str]]()
    followed = FollowedNames(api, "Service", "default", seen.append)  # type: ignore[arg-type]
    assert api.listed.wait(5)
    time.sleep(FIRST_PAUSE / 2)
    followed.close()
    assert api.lists == 1
    assert seen[0] == {"one"}
    assert len(seen) == 1 + (bool(events) and events[0][0] == "ADDED")


def test_one_who_may_not_stops() -> None:
    class Forbidden(Api):
        def list_at(self, kind: str, namespace: str | None) -> tuple[list[Any], str]:
            super().list_at(kind, namespace)
            raise PermissionMissing("no")

    api = Forbidden([])
    followed = FollowedNames(api, "Service", "default", lambda names: None)  # type: ignore[arg-type]
    assert api.listed.wait(5)
    followed.thread.join(5)
    assert not followed.thread.is_alive()
    assert api.lists == 1

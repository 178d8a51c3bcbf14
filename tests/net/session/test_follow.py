"""Following objects does not become a flood of requests when watches end at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kt_net.errors import PermissionMissing
from kt_net.kube.follow import FIRST_PAUSE, FollowedWords


class Api:
    """An API server whose watches are cut, as by a proxy, or end with an error event."""

    def __init__(self, events: list[tuple[str, Any]]) -> None:
        self.events = events
        self.lists = 0
        self.listed = threading.Event()

    def list_at(
        self, kind: str, namespace: str | None, part: Callable[[Any], Any], **only: str
    ) -> tuple[list[Any], str]:
        self.lists += 1
        self.listed.set()
        return [part({"metadata": {"name": "one"}})], "7"

    def watch(self, kind: str, namespace: str | None, **options: Any) -> Iterator[tuple[str, Any]]:
        assert options["since"] == "7"
        yield from self.events


@pytest.mark.parametrize("events", [[], [("ERROR", {"code": 410})], [("ADDED", {"metadata": {"name": "two"}})]])
def test_watches_that_end_at_once(events: list[tuple[str, Any]]) -> None:
    api, seen = Api(events), list[frozenset[str]]()
    followed = FollowedWords(api, "Service", "default", seen.append)  # type: ignore[arg-type]
    assert api.listed.wait(5)
    time.sleep(FIRST_PAUSE / 2)
    followed.close()
    assert api.lists == 1
    assert seen[0] == {"one"}
    assert len(seen) == 1 + (bool(events) and events[0][0] == "ADDED")


def test_one_who_may_not_stops() -> None:
    class Forbidden(Api):
        def list_at(
            self, kind: str, namespace: str | None, part: Callable[[Any], Any], **only: str
        ) -> tuple[list[Any], str]:
            super().list_at(kind, namespace, part, **only)
            raise PermissionMissing("no")

    api, refused = Forbidden([]), list[bool]()
    followed = FollowedWords(api, "Service", "default", lambda names: None, refused=lambda: refused.append(True))  # type: ignore[arg-type]
    assert api.listed.wait(5)
    followed.thread.join(5)
    assert not followed.thread.is_alive()
    assert api.lists == 1
    assert refused == [True]


def test_words_of_objects() -> None:
    """What two objects have in common goes with the last of them; what changes nothing is not told."""

    def cidrs(name: str, *words: str) -> Any:
        return {"metadata": {"name": name}, "spec": {"cidrs": list(words)}}

    api = Api(
        [
            ("MODIFIED", cidrs("one", "a")),
            ("ADDED", cidrs("two", "a", "b")),
            ("MODIFIED", cidrs("two", "a", "b")),
            ("DELETED", cidrs("one")),
            ("MODIFIED", cidrs("two", "b")),
            ("DELETED", cidrs("never")),
            ("DELETED", cidrs("two", "b")),
        ]
    )
    seen, ended = list[frozenset[str]](), threading.Event()

    def told(words: frozenset[str]) -> None:
        seen.append(words)
        if len(seen) > 1 and not words:
            ended.set()

    followed = FollowedWords(api, "ServiceCIDR", None, told, words=lambda found: found.get("spec", {}).get("cidrs", ()))  # type: ignore[arg-type]
    assert ended.wait(5)
    followed.close()
    assert [set(words) for words in seen] == [set(), {"a"}, {"a", "b"}, {"b"}, set()]

"""What a real KT Connect (0.3.x) writes into the user's objects, and the edits that take it back. Quiet.

It notes a Service's selector in an annotation of that Service, a Deployment's replicas in one of its own pod, and locks a Service with a
third. Foreign octets, all of them.

Not here: whether that KT Connect lives (leftovers.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kt_net.choreography.edits import Request, field_of, merged, request_of
from kt_net.choreography.names import KT_LOCK, KT_SELECTOR, RECORD, ROLE, TARGET, is_name
from kt_net.choreography.ownership import without_ours
from kt_net.choreography.records import Object, Selector, parse_selector

_MAX_REPLICAS = 10_000


@dataclass(frozen=True, slots=True)
class Config:
    """What the annotation `kt-config` of one of its pods says: `app=NAME,replicas=N`, or `service=NAME`."""

    app: str = ""
    replicas: int = 0
    service: str = ""


def parse_config(text: str) -> Config:
    """What makes no sense says nothing."""
    words = dict(part.split("=", 1) for part in text[:512].split(",") if "=" in part)
    replicas = words.get("replicas", "")
    number = int(replicas) if replicas.isdecimal() and len(replicas) < 6 else 0
    # They go into paths of requests, and whoever may make a pod here may have written them.
    app, service = (word if is_name(word) else "" for word in (words.get("app", ""), words.get("service", "")))
    return Config(app, number if number <= _MAX_REPLICAS else 0, service)


@dataclass(frozen=True, slots=True)
class GiveBackKt:
    """A Service selects what it did before; what somebody has put there meanwhile stays."""

    def selector(self, live: Object) -> Selector:
        """What it will select.

        Raises:
            RecordRefused: the annotation makes no sense.
        """
        annotations = (live.get("metadata") or {}).get("annotations") or {}
        was, now = parse_selector(live, annotations.get(KT_SELECTOR)), field_of(live)
        return now if isinstance(now, dict) and now and not (ROLE in now and TARGET in now) else was

    def request(self, live: Object) -> Request | None:
        """See `Edit`.

        Raises:
            RecordRefused: the annotation makes no sense.
        """
        annotations = (live.get("metadata") or {}).get("annotations") or {}
        if KT_SELECTOR not in annotations or RECORD in annotations:
            return None
        was, now = self.selector(live), field_of(live)
        if now != was:
            return request_of(live, {}, {"selector": merged(now, was)})
        removed = {KT_SELECTOR: None, **({KT_LOCK: None} if KT_LOCK in annotations else {})}
        return request_of(live, removed, managed=without_ours(live, "selector", ()))


@dataclass(frozen=True, slots=True)
class DropLock:
    """A Service is not locked any more, when it still is by the same lock."""

    lock: str

    def request(self, live: Object) -> Request | None:
        """See `Edit`."""
        annotations = (live.get("metadata") or {}).get("annotations") or {}
        if annotations.get(KT_LOCK) != self.lock:
            return None
        return request_of(live, {KT_LOCK: None})


@dataclass(frozen=True, slots=True)
class ScaleBack:
    """A Deployment that has no pods has as many as before."""

    replicas: int

    def request(self, live: Object) -> Request | None:
        """See `Edit`."""
        spec: dict[str, Any] = {"replicas": self.replicas}
        return request_of(live, {}, spec, "scale") if field_of(live) == 0 else None

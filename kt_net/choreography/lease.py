"""Who counts as alive (coordination.k8s.io/v1 Lease). Quiet.

Clocks of different machines are not compared: an observer counts, on its own clock, how long a Lease has not changed.

Not here: reading and writing the Lease.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kt_net.choreography.names import HEART_BEAT, SUMMARY

#: Seconds between renewals, and how long one holds.
RENEW_EVERY = 10.0
LEASE_SECONDS = 30
#: Seconds between beats that a real KT Connect can see (it allows 5 minutes).
HEART_BEAT_EVERY = 120.0
#: Octets of the summary that others read.
MAX_SUMMARY = 1024


@dataclass(slots=True)
class Observer:
    """Watches one Lease on the observer's own monotonic clock."""

    lease_seconds: float = LEASE_SECONDS
    _version: str | None = None
    _changed: float = 0.0

    def seen(self, lease: Mapping[str, Any], *, now: float) -> None:
        """The Lease as it is now."""
        version = str(lease.get("metadata", {}).get("resourceVersion", ""))
        if version != self._version:
            self._version = version
            self._changed = now

    def expired(self, *, now: float) -> bool:
        """Whether its holder has been silent for longer than the Lease holds; False before anything was seen."""
        return self._version is not None and now - self._changed > self.lease_seconds


def renewal(*, renew_time: str, unix_seconds: int, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch that renews a Lease.

    Args:
        renew_time: RFC 3339 with microseconds, as MicroTime has it.
        unix_seconds: for KT Connect's annotation.
        summary: for others to read; what does not fit is left out.
    """
    text = json.dumps(dict(summary), separators=(",", ":"))
    annotations = {HEART_BEAT: str(unix_seconds)}
    if len(text) <= MAX_SUMMARY:
        annotations[SUMMARY] = text
    return {"metadata": {"annotations": annotations}, "spec": {"renewTime": renew_time}}

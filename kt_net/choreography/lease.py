"""The session's sign of life (coordination.k8s.io/v1 Lease): what a renewal says. Quiet.

KT Connect's heart beat goes with it: a real one takes an object for dead after 5 minutes without.

Not here: judging others' Leases, sending the renewal (kt_net.session.heartbeat).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kt_net.choreography.names import HEART_BEAT, SUMMARY

#: Seconds between renewals, and how long one holds.
RENEW_EVERY = 10.0
LEASE_SECONDS = 30
#: Octets of the summary that others read.
MAX_SUMMARY = 1024


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

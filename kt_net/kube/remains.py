"""Which of our objects in a namespace belong to nobody any more, by their Leases; and a real KT Connect's, by their heart beat. Pure.

Clocks of clients are not trusted: `now` is the API server's own (its Date header), and so is what Leases say.

Not here: removing anything. Whoever removes watches one more renewal first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from kt_net.choreography.lease import LEASE_SECONDS
from kt_net.choreography.names import HEART_BEAT, TARGET, USER
from kt_net.choreography.shadow import IDLE_EXIT
from kt_net.findings import Finding, ok, skipped, warning

CHECK: Final = "cluster-leftovers"
#: A real KT Connect's own measure.
HEART_BEAT_SECONDS: Final = 300.0
#: So young a Job may have no Lease yet.
YOUNG_SECONDS: Final = 60.0
#: Named in one line.
MOST_NAMED: Final = 8

Object = Mapping[str, Any]


def judge_remains(
    *, leases: Iterable[Object], jobs: Iterable[Object], others: Iterable[Object], namespace: str, now: float
) -> Finding:
    """What is old, by name.

    Args:
        others: pods and Deployments with our label; those that a Job owns are passed over.
        now: unix seconds of the API server.
    """
    silent = {_target(lease): _silence(lease, now) for lease in leases}
    old = [
        f"job/{_name(job)}{_of_whom(job, silent.get(_target(job)))}" for job in jobs if _is_old_job(job, silent, now)
    ]
    old += [
        f"{one.get('kind', 'Pod').lower()}/{_name(one)}{_of_whom(one, None)}" for one in others if _is_old(one, now)
    ]
    if not old:
        living = sum(1 for seconds, lasts in silent.values() if seconds <= lasts)
        return ok(CHECK, f"none in namespace {namespace}; {living} live session{'s' * (living != 1)}")
    named = ", ".join(old[:MOST_NAMED]) + (f" and {len(old) - MOST_NAMED} more" if len(old) > MOST_NAMED else "")
    first = old[0].partition(" ")[0].replace("/", " ")
    return warning(
        CHECK,
        f"nobody's in namespace {namespace}: {named}",
        f"a Job goes by itself when its agent has had no client for {IDLE_EXIT / 60:.0f} minutes; at once: "
        f"kubectl delete {first} -n {namespace}",
    )


def judge_unknown(pods: Iterable[Object], why: str) -> Finding:
    """Where Leases may not be read: the pods that are there, of which nobody knows whether they live."""
    names = [f"pod/{_name(pod)}{_of_whom(pod, None)}" for pod in pods]
    seen = f"; there are {', '.join(names[:MOST_NAMED])}" if names else "; there is no shadow pod"
    return skipped(CHECK, f"{why}, which tell who is alive{seen}")


def _is_old_job(job: Object, silent: Mapping[str, tuple[float, float]], now: float) -> bool:
    if (job.get("status") or {}).get("completionTime"):
        return False  # it goes in seconds (ttlSecondsAfterFinished)
    seconds, lasts = silent.get(_target(job), (_age(job, now), YOUNG_SECONDS))
    return seconds > lasts


def _is_old(thing: Object, now: float) -> bool:
    metadata = thing.get("metadata") or {}
    beat = str((metadata.get("annotations") or {}).get(HEART_BEAT, ""))
    if metadata.get("ownerReferences") or not beat.isdecimal() or len(beat) > 12:
        return False
    return now - int(beat) > HEART_BEAT_SECONDS


def _silence(lease: Object, now: float) -> tuple[float, float]:
    """Seconds since the last renewal, and how long one holds."""
    spec = lease.get("spec") or {}
    lasts = spec.get("leaseDurationSeconds")
    return now - _unix(spec.get("renewTime"), now), float(lasts if isinstance(lasts, int) else LEASE_SECONDS)


def _age(thing: Object, now: float) -> float:
    return now - _unix((thing.get("metadata") or {}).get("creationTimestamp"), now)


def _unix(text: object, otherwise: float) -> float:
    """RFC 3339 as unix seconds."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return otherwise


def _target(thing: Object) -> str:
    return str(((thing.get("metadata") or {}).get("labels") or {}).get(TARGET, ""))


def _name(thing: Object) -> str:
    return str((thing.get("metadata") or {}).get("name", "?"))


def _of_whom(thing: Object, silence: tuple[float, float] | None) -> str:
    user = ((thing.get("metadata") or {}).get("annotations") or {}).get(USER)
    words = [f"of {user}"] if user else []
    if silence is not None:
        words.append(f"silent for {silence[0]:.0f} s")
    return f" ({', '.join(words)})" if words else ""

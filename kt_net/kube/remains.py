"""What of ours and of a real KT Connect's in a namespace belongs to nobody any more, as a finding of `doctor`. Pure.

Not here: the judgement (kt_net.choreography.leftovers), removing anything (`ktctl clean`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from kt_net.choreography.leftovers import judge
from kt_net.choreography.names import USER
from kt_net.findings import Finding, ok, skipped, warning

CHECK: Final = "cluster-leftovers"
#: Named in one line.
MOST_NAMED: Final = 8

Object = Mapping[str, Any]


def judge_remains(objects: Mapping[str, Iterable[Object]], *, namespace: str, now: float) -> Finding:
    """What is old, by name.

    Args:
        objects: by kind.
        now: unix seconds of the API server.
    """
    found = judge(objects, now=now)
    old = [f"{one.what} ({one.why})" for one in found.leftovers] + [str(error) for error in found.refused]
    if not old:
        living = sum(1 for one in found.live if one.startswith("job/"))
        return ok(CHECK, f"none in namespace {namespace}; {living} live session{'s' * (living != 1)}")
    named = "; ".join(old[:MOST_NAMED]) + (f" and {len(old) - MOST_NAMED} more" if len(old) > MOST_NAMED else "")
    return warning(CHECK, f"nobody's in namespace {namespace}: {named}", f"ktctl clean -n {namespace}")


def judge_unknown(pods: Iterable[Object], why: str) -> Finding:
    """Where Leases may not be read: the pods that are there, of which nobody knows whether they live."""
    names = [f"pod/{_name(pod)}{_of_whom(pod)}" for pod in pods]
    seen = f"; there are {', '.join(names[:MOST_NAMED])}" if names else "; there is no shadow pod"
    return skipped(CHECK, f"{why}, which tell who is alive{seen}")


def _name(thing: Object) -> str:
    return str((thing.get("metadata") or {}).get("name", "?"))


def _of_whom(thing: Object) -> str:
    user = ((thing.get("metadata") or {}).get("annotations") or {}).get(USER)
    return f" (of {user})" if user else ""

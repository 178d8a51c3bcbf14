"""Whether a namespace takes a shadow pod: is it there, what does Pod Security ask of pods, has its ResourceQuota room. Pure.

Not here: reading them; what webhooks and policy engines of the cluster say (they are heard when the pod is created).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Final

from kt_net.choreography.shadow import RESOURCES
from kt_net.findings import Finding, ok, problem, warning
from kt_net.kube.quantities import parse_quantity

NAMESPACE_CHECK: Final = "namespace"
QUOTA_CHECK: Final = "quota"
ENFORCE: Final = "pod-security.kubernetes.io/enforce"
#: Kubernetes doc, "Pod Security Standards". The shadow pod keeps to the strictest.
STANDARDS: Final = ("privileged", "baseline", "restricted")

#: What one shadow pod takes, by the names that a quota may use (Kubernetes doc, "Resource Quotas"). Pods' part, then the objects'.
POD_TAKES: Final[dict[str, str]] = {
    "pods": "1",
    "count/pods": "1",
    "cpu": RESOURCES["requests"]["cpu"],
    "memory": RESOURCES["requests"]["memory"],
    "requests.cpu": RESOURCES["requests"]["cpu"],
    "requests.memory": RESOURCES["requests"]["memory"],
    "limits.cpu": RESOURCES["limits"]["cpu"],
    "limits.memory": RESOURCES["limits"]["memory"],
}
OBJECTS_TAKE: Final[dict[str, str]] = {
    "configmaps": "1",
    "count/configmaps": "1",
    "count/jobs.batch": "1",
    "count/leases.coordination.k8s.io": "1",
}
#: Scopes of quotas that count no pod of ours: it has requests, limits, and no deadline.
OTHER_SCOPES: Final = frozenset({"BestEffort", "Terminating", "PriorityClass", "CrossNamespacePodAffinity"})

Object = Mapping[str, Any]


def judge_namespace(namespace: Object) -> Finding:
    """The Namespace object: being deleted, or with a word on Pod Security."""
    metadata = namespace.get("metadata") or {}
    name = metadata.get("name")
    if (namespace.get("status") or {}).get("phase") == "Terminating":
        return problem(
            NAMESPACE_CHECK, f"{name} is being deleted: nothing is created in it", "use another: --namespace NAME"
        )
    level = (metadata.get("labels") or {}).get(ENFORCE)
    if level is None:
        return ok(NAMESPACE_CHECK, f"{name}: Pod Security not enforced by a label")
    if level not in STANDARDS:
        return warning(
            NAMESPACE_CHECK,
            f"{name}: Pod Security {level!r} is none that we know",
            f"look at its label {ENFORCE}: kubectl get namespace {name} --show-labels",
        )
    return ok(NAMESPACE_CHECK, f"{name}: Pod Security {level}, which the shadow pod keeps to")


def judge_quotas(quotas: Iterable[Object]) -> Finding:
    """All ResourceQuotas of the namespace: every one has to have room for a shadow pod."""
    names, full = [], []
    for quota in quotas:
        names.append(str((quota.get("metadata") or {}).get("name")))
        full += [f"{names[-1]}: {words}" for words in _full(quota)]
    if full:
        return problem(
            QUOTA_CHECK,
            f"no room for a shadow pod: {'; '.join(full)}",
            "remove what is not needed, ask whoever set the quota, or use another namespace: --namespace NAME",
        )
    return ok(QUOTA_CHECK, f"{', '.join(sorted(names))}: room for a shadow pod" if names else "none in the namespace")


def _full(quota: Object) -> list[str]:
    """Which of its resources have no room, in words."""
    spec, status = quota.get("spec") or {}, quota.get("status") or {}
    taken = POD_TAKES | OBJECTS_TAKE
    scopes = {str(scope) for scope in spec.get("scopes") or ()}
    scopes |= {str(one.get("scopeName")) for one in (spec.get("scopeSelector") or {}).get("matchExpressions") or ()}
    if scopes & OTHER_SCOPES:
        return []
    found = []
    used = status.get("used") or {}
    for resource, most in (status.get("hard") or spec.get("hard") or {}).items():
        if resource in taken and not _fits(str(most), str(used.get(resource, "0")), taken[resource]):
            found.append(f"{resource} {used.get(resource, '0')} of {most} used, {taken[resource]} needed")
    return found


def _fits(most: str, used: str, more: str) -> bool:
    """Whether `more` goes in; a number that is none says nothing."""
    limit, begun, wanted = (parse_quantity(text) for text in (most, used, more))
    return None in (limit, begun) or Fraction(limit or 0) - Fraction(begun or 0) >= Fraction(wanted or 0)

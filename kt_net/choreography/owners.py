"""Who else writes an object, by what they leave on it, and what that means for an exchange; said before anything is changed. Quiet.

Not here: reading the objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from kt_net.choreography.records import Object, name_of

_ARGO_ANNOTATION: Final = "argocd.argoproj.io/tracking-id"
_ARGO_LABEL: Final = "argocd.argoproj.io/instance"
_FLUX: Final = ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name")
_KEDA: Final = "scaledobject.keda.sh/name"


def owners_of(live: Object, autoscalers: Iterable[Object] = ()) -> list[str]:
    """A sentence for each.

    Args:
        autoscalers: HorizontalPodAutoscalers of the namespace.
    """
    metadata = live.get("metadata") or {}
    labels: Mapping[str, str] = metadata.get("labels") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    name = name_of(live)
    found = []
    if _ARGO_ANNOTATION in annotations or _ARGO_LABEL in labels:
        app = str(annotations.get(_ARGO_ANNOTATION) or labels.get(_ARGO_LABEL)).partition(":")[0]
        found.append(
            f"{name} is Argo CD's (application {app}): with self-heal it puts it back, and it is taken again each time; "
            "disable self-heal, or ignore the field (ignoreDifferences), while you exchange it"
        )
    for label in _FLUX:
        if label in labels:
            kind = label.partition(".")[0]
            found.append(
                f"{name} is Flux' ({kind} {labels[label]}): every reconciliation puts it back, and it is taken again; "
                f"flux suspend {'kustomization' if kind == 'kustomize' else 'helmrelease'} {labels[label]}, while you exchange it"
            )
    for one in autoscalers:
        reference = (one.get("spec") or {}).get("scaleTargetRef") or {}
        if (reference.get("kind"), reference.get("name")) != (live.get("kind"), metadata.get("name")):
            continue
        keda = ((one.get("metadata") or {}).get("labels") or {}).get(_KEDA)
        if keda:
            found.append(
                f"{name} is scaled by KEDA (ScaledObject {keda}): it scales it up again when there is something to do; "
                f"pause it: kubectl annotate scaledobject {keda} autoscaling.keda.sh/paused=true"
            )
        else:
            autoscaler = (one.get("metadata") or {}).get("name")
            found.append(f"{name} is scaled by HorizontalPodAutoscaler {autoscaler}, which leaves 0 replicas alone")
    return found

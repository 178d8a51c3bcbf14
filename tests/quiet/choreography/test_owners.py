"""Who else writes an object, and what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from kt_net.choreography.owners import owners_of


def live(kind: str = "Service", **metadata: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "web", **metadata}}


def autoscaler(name: str = "web", kind: str = "Deployment", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "scaler", "labels": labels}, "spec": {"scaleTargetRef": {"kind": kind, "name": name}}}


@pytest.mark.parametrize(
    ("found", "autoscalers", "words"),
    [
        (
            live(annotations={"argocd.argoproj.io/tracking-id": "shop:/Service:default/web"}),
            [],
            ["Argo CD", "application shop", "self-heal"],
        ),
        (live(labels={"argocd.argoproj.io/instance": "shop"}), [], ["Argo CD", "application shop"]),
        (live(labels={"kustomize.toolkit.fluxcd.io/name": "apps"}), [], ["Flux", "flux suspend kustomization apps"]),
        (live(labels={"helm.toolkit.fluxcd.io/name": "shop"}), [], ["flux suspend helmrelease shop"]),
        (live("Deployment"), [autoscaler()], ["HorizontalPodAutoscaler scaler", "leaves 0 replicas alone"]),
        (live("Deployment"), [autoscaler(**{"scaledobject.keda.sh/name": "queue"})], ["KEDA", "scaledobject queue"]),
    ],
)
def test_said(found: dict[str, Any], autoscalers: list[Any], words: list[str]) -> None:
    (said,) = owners_of(found, autoscalers)
    assert all(word in said for word in words)


def test_nobody() -> None:
    assert owners_of(live("Deployment"), [autoscaler("other"), autoscaler(kind="StatefulSet"), {}]) == []
    assert owners_of({"kind": "Service"}) == []

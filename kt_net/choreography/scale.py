"""An exchange by scaling: a workload has no pods for a while, and the shadow pod stands in for them under their labels. Quiet.

Everything that finds the pods by their labels (Services, NetworkPolicies, meshes) finds the shadow pod. No controller takes it for one of
its own: it has an owner, its Job.

Not here: the change of the replicas (edits.py), which ports there are (exchange.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kt_net.choreography.edits import field_of
from kt_net.choreography.names import KT_CONFIG
from kt_net.choreography.records import Object, name_of
from kt_net.choreography.steps import Step
from kt_net.errors import UsageFault


def refuse_workload(workload: Object) -> None:
    """Nothing, when the workload can be scaled to nothing and back.

    Raises:
        UsageFault: it cannot; why, and what can be done instead.
    """
    spec = workload.get("spec") or {}
    if field_of(workload) == 0:
        raise UsageFault(f"{name_of(workload)} has no pods", why="its replicas are 0", next_step="scale it up first")
    policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    if policy.get("whenScaled") == "Delete":
        raise UsageFault(
            f"{name_of(workload)} cannot be exchanged by scaling",
            why="its persistentVolumeClaimRetentionPolicy.whenScaled is Delete: its volumes would be deleted",
            next_step="exchange its Service: --mode selector",
        )


def scale_notes(workload: Object) -> tuple[str, ...]:
    """What the user should know."""
    pod = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    empty = [str(volume.get("name")) for volume in pod.get("volumes") or () if "emptyDir" in volume]
    if not empty:
        return ()
    return (f"what its pods have in emptyDir volumes ({', '.join(empty)}) is lost",)


def template_labels(workload: Object) -> dict[str, str]:
    """Of its pods."""
    template = (workload.get("spec") or {}).get("template") or {}
    return {str(key): str(value) for key, value in ((template.get("metadata") or {}).get("labels") or {}).items()}


def all_ports(workload: Object, services: Sequence[Object]) -> Object:
    """What stands for the Services over a workload where there is not just one: all their ports, and the containers' own."""
    if len(services) == 1:
        return services[0]
    pod = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    ports: dict[tuple[int, str], Any] = {}
    for service in services:
        for port in (service.get("spec") or {}).get("ports") or ():
            ports.setdefault((int(port["port"]), str(port.get("protocol") or "TCP")), port)
    for container in pod.get("containers") or ():
        for port in container.get("ports") or ():
            number, protocol = int(port["containerPort"]), str(port.get("protocol") or "TCP")
            ports.setdefault((number, protocol), {"port": number, "name": port.get("name") or "", "protocol": protocol})
    headless = any((service.get("spec") or {}).get("clusterIP") == "None" for service in services)
    spec = {
        "selector": template_labels(workload),
        "ports": list(ports.values()),
        "clusterIP": "None" if headless else "",
    }
    return {"kind": workload.get("kind"), "metadata": workload["metadata"], "spec": spec}


def join_step(workload: Object, namespace: str, pod: str) -> Step:
    """The shadow pod stands in for the workload's pods from now on; with what a real KT Connect would note on it."""
    app = f"app={workload['metadata']['name']},replicas={field_of(workload)}"
    body = {"metadata": {"labels": template_labels(workload), "annotations": {KT_CONFIG: app}}}
    return Step("join", "patch", "Pod", namespace, pod, body)


def leave_step(workload: Object, namespace: str, pod: str, own: Mapping[str, str]) -> Step:
    """No more.

    Args:
        own: labels that the shadow pod has of itself.
    """
    labels = {key: own.get(key) for key in template_labels(workload)}
    return Step("leave", "patch", "Pod", namespace, pod, {"metadata": {"labels": labels}})

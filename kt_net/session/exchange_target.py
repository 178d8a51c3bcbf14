"""What is exchanged: which object is changed, which Services lead to it, and by which ports; read once, before anything is created.

Not here: what a Service or a workload has to be like (kt_net.choreography.exchange, scale).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kt_net.choreography.exchange import Plan, matching, plan, refuse_shape
from kt_net.choreography.records import Object
from kt_net.choreography.scale import all_ports, refuse_workload, scale_notes, template_labels
from kt_net.errors import RequestRefused, UsageFault
from kt_net.forward.places import container_ports, selector_text
from kt_net.forward.targets import Kind, Target
from kt_net.kube.api import HttpKubeApi
from kt_net.session.exchange_wish import Mode


@dataclass(frozen=True, slots=True)
class Found:
    """What is exchanged.

    Attributes:
        live: the object that is changed.
        services: names of those that lead here afterwards.
        ports: a Service, or what stands for several, whose ports these are.
    """

    live: Object
    services: tuple[str, ...]
    ports: Object
    plan: Plan

    @property
    def kind(self) -> str:
        """Of the object that is changed."""
        return str(self.live["kind"])

    @property
    def name(self) -> str:
        """Of the object that is changed."""
        return str(self.live["metadata"]["name"])


def find(api: HttpKubeApi, namespace: str, target: Target, exposes: tuple[str, ...], mode: Mode) -> Found:
    """Look it up.

    Raises:
        ObjectMissing: there is no such thing.
        UsageFault: it cannot be exchanged, or not so; why, and what can be done instead.
        RequestRefused: the API server's answer makes no sense.
        KtError: the refusals of kt_net.kube.
    """
    try:
        if mode is Mode.SCALE:
            return _by_scale(api, namespace, target, exposes)
        return _by_selector(api, namespace, target, exposes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RequestRefused(f"{target} makes no sense", why=f"in the API server's answer: {error!r}") from error


def _by_selector(api: HttpKubeApi, namespace: str, target: Target, exposes: tuple[str, ...]) -> Found:
    service = _service(api, namespace, target)
    refuse_shape(service)
    spec, name = service["spec"], str(service["metadata"]["name"])
    pods = list(api.list("Pod", namespace, selector=selector_text({"matchLabels": spec["selector"]})))
    planned = plan(service, exposes, numbers=numbers_of(pods))
    if "Local" in (spec.get("internalTrafficPolicy"), spec.get("externalTrafficPolicy")):
        running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
        nodes = dict.fromkeys(str((pod.get("spec") or {}).get("nodeName")) for pod in running)
        planned = replace(planned, nodes=tuple(nodes))
    others = [
        str(other["metadata"]["name"])
        for other in api.list("Service", namespace)
        if other["metadata"]["name"] != name and (other.get("spec") or {}).get("selector") == spec["selector"]
    ]
    if others:
        note = f"the same pods are behind {', '.join(others)}, which still lead there"
        planned = replace(planned, notes=(*planned.notes, note))
    return Found(service, (name,), service, planned)


def _by_scale(api: HttpKubeApi, namespace: str, target: Target, exposes: tuple[str, ...]) -> Found:
    services = list(api.list("Service", namespace))
    if target.kind in (Kind.ANY, Kind.SERVICE):
        named = {**api.get("Service", namespace, target.name), "kind": "Service"}
        refuse_shape(named)
        workload = _workload(api, namespace, named)
        ports: Object = named
    else:
        workload = {**api.get(str(target.kind), namespace, target.name), "kind": str(target.kind)}
        ports = {}
    refuse_workload(workload)
    over = [{**service, "kind": "Service"} for service in matching(services, template_labels(workload))]
    if not over:
        raise UsageFault(
            f"{target} is behind no Service",
            why="nobody would find the shadow pod",
            next_step="preview a Service of another name instead",
        )
    names = tuple(str(service["metadata"]["name"]) for service in over)
    ports = ports or all_ports(workload, over)
    planned = plan(ports, exposes, numbers=numbers_of([workload["spec"]["template"]]))
    notes = (*planned.notes, *scale_notes(workload))
    if len(names) > 1:
        notes = (*notes, f"all that lead to its pods lead here: {', '.join(names)}")
    return Found(workload, names, ports, replace(planned, notes=notes))


def numbers_of(pods: Iterable[Object]) -> dict[str, int]:
    """Named ports of pods, or of a template of theirs: the first one's number where they differ."""
    numbers: dict[str, int] = {}
    for pod in pods:
        for port in container_ports(pod.get("spec") or {}):
            numbers.setdefault(port.name, port.number)
    return numbers


def _service(api: HttpKubeApi, namespace: str, target: Target) -> Object:
    if target.kind in (Kind.ANY, Kind.SERVICE):
        return {**api.get("Service", namespace, target.name), "kind": "Service"}
    workload = api.get(str(target.kind), namespace, target.name)
    found = matching(api.list("Service", namespace), template_labels(workload))
    names = ", ".join(f"svc/{service['metadata']['name']}" for service in found)
    if len(found) != 1:
        raise UsageFault(
            f"{target} is behind {f'{len(found)} Services: {names}' if found else 'no Service'}",
            why="an exchange changes where one Service leads",
            next_step="name one of them, or exchange the workload: --mode scale"
            if found
            else "preview a Service of another name instead",
        )
    return {**found[0], "kind": "Service"}


def _workload(api: HttpKubeApi, namespace: str, service: Object) -> Object:
    """The one whose pods a Service selects."""
    found: list[Mapping[str, Any]] = []
    for kind in ("Deployment", "StatefulSet"):
        found += [
            {**one, "kind": kind} for one in api.list(kind, namespace) if matching([service], template_labels(one))
        ]
    if len(found) != 1:
        names = ", ".join(f"{one['kind'].lower()}/{one['metadata']['name']}" for one in found)
        raise UsageFault(
            f"{service['metadata']['name']} leads to {f'several workloads: {names}' if found else 'no Deployment and no StatefulSet'}",
            why="an exchange by scaling needs one",
            next_step="name one of them" if found else "leave --mode scale out",
        )
    return found[0]

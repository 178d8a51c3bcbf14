"""What a target is in this cluster: read once, before anything is created.

Not here: what becomes of it afterwards (forward_follow.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from kt_net.errors import ObjectMissing, PermissionMissing, RequestRefused, UsageFault
from kt_net.forward.places import (
    Address,
    Part,
    container_ports,
    pod_part,
    ports_of,
    selector_text,
    service_part,
    slice_part,
)
from kt_net.forward.ports import Port
from kt_net.forward.targets import Kind, Target
from kt_net.kube.api import HttpKubeApi, Object

#: Which Service an EndpointSlice is of.
SLICE_SERVICE: Final = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Watch:
    """The objects that say where a target is, and what is kept of each."""

    kind: str
    keep: Callable[[Object], Part]
    selector: str = ""
    fields: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """A target that is there.

    Attributes:
        target: with its kind.
        how: in words, for the user.
        offered: ports that it names.
        unlisted: other port numbers will do, too.
        by_name: its places know ports by the names of `offered`.
        watch: what to follow; None where nothing changes.
        fixed: where it is, when nothing is followed.
        absent: what to say when no place of it takes connections.
    """

    target: Target
    how: str
    offered: tuple[Port, ...] = ()
    unlisted: bool = True
    by_name: bool = False
    watch: Watch | None = None
    fixed: Part = Part()  # noqa: RUF009 - frozen
    absent: str = ""


def find(api: HttpKubeApi, namespace: str, target: Target, *, balance: bool) -> Destination:
    """Look it up.

    Args:
        balance: a Service's ready pods instead of its cluster address.

    Raises:
        ObjectMissing: no such thing.
        UsageFault: it makes no sense with `balance`, or there is nothing that it could lead to.
        RequestRefused: the API server's answer makes no sense.
        KtError: the refusals of kt_net.kube.
    """
    try:
        return _find(api, namespace, target, balance=balance)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RequestRefused(f"{target} makes no sense", why=f"in the API server's answer: {error!r}") from error


def _find(api: HttpKubeApi, namespace: str, target: Target, *, balance: bool) -> Destination:
    match target.kind:
        case Kind.ANY:
            return _any(api, namespace, target.name, balance=balance)
        case Kind.SERVICE:
            return _service(target, api.get("Service", namespace, target.name), balance=balance)
        case Kind.DEPLOYMENT | Kind.STATEFUL_SET:
            return _workload(target, api.get(target.kind, namespace, target.name))
        case Kind.POD | Kind.HOST if balance:
            raise UsageFault(
                f"--balance makes no sense for {target}", why="it is one place", next_step="leave --balance out"
            )
        case Kind.POD:
            return _pod(target, api.get("Pod", namespace, target.name))
        case Kind.HOST:
            return _host(target, "as the shadow pod resolves and reaches it")


def _any(api: HttpKubeApi, namespace: str, name: str, *, balance: bool) -> Destination:
    unseen: PermissionMissing | None = None
    try:
        return _find(api, namespace, Target(Kind.SERVICE, name), balance=balance)
    except ObjectMissing:
        pass
    except PermissionMissing as error:
        unseen = error  # who may not read Services may mean a pod
    try:
        return _find(api, namespace, Target(Kind.POD, name), balance=balance)
    except ObjectMissing:
        if unseen is not None:
            raise unseen from None
    raise ObjectMissing(
        f"no Service and no pod {name} in namespace {namespace}",
        why="a plain name is a Service's, else a pod's",
        next_step=f"check the name and --namespace, or name its kind: deployment/{name}, statefulset/{name}, host/{name}",
    )


def _service(target: Target, service: Object, *, balance: bool) -> Destination:
    spec = service.get("spec") or {}
    offered = ports_of(spec.get("ports") or (), "port")
    if spec.get("type") == "ExternalName":
        name = str(spec.get("externalName", ""))
        if balance:
            raise UsageFault(
                f"--balance makes no sense for {target}", why=f"it is another name of {name}: it has no pods"
            )
        return _host(Target(Kind.HOST, name), f"{target} is another name of it (ExternalName)", offered)
    headless = spec.get("clusterIP") in (None, "", "None")
    if not (headless or balance):
        watch = Watch("Service", service_part, fields=f"metadata.name={target.name}")
        how = f"at its cluster address {spec['clusterIP']}"
        return Destination(target, how, offered, unlisted=False, watch=watch, absent="it is gone")
    family = str((spec.get("ipFamilies") or ["IPv4"])[0])
    watch = Watch("EndpointSlice", partial(slice_part, family=family), selector=f"{SLICE_SERVICE}={target.name}")
    how = "headless: to its ready pods in turn" if headless else "to its ready pods in turn"
    return Destination(
        target, how, offered, unlisted=headless, by_name=True, watch=watch, absent="no pod of it is ready"
    )


def _workload(target: Target, found: Object) -> Destination:
    spec = found.get("spec") or {}
    selector = selector_text(spec.get("selector") or {})
    if not selector:
        raise UsageFault(f"{target} has no selector", why="its pods cannot be told from others")
    return Destination(
        target,
        "to its ready pods in turn",
        container_ports((spec.get("template") or {}).get("spec") or {}),
        watch=Watch("Pod", partial(pod_part, only_ready=True), selector=selector),
        absent="no pod of it is ready",
    )


def _pod(target: Target, pod: Object) -> Destination:
    watch = Watch("Pod", partial(pod_part, only_ready=False), fields=f"metadata.name={target.name}")
    offered = container_ports(pod.get("spec") or {})
    return Destination(target, "this one", offered, watch=watch, absent="it is gone, or does not run")


def _host(target: Target, how: str, offered: tuple[Port, ...] = ()) -> Destination:
    return Destination(target, how, offered, fixed=Part((Address(target.name, "", True),)))

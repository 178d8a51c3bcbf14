"""Where a target is, as Kubernetes' objects say it: addresses, ports, and whether they are ready.

Not here: reading and following the objects (kt_net.session), which place a connection goes to (choice.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kt_net.forward.ports import Port, Protocol, number_of

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """One address and port that connections may go to.

    Attributes:
        uid: of the pod; an address that came back belongs to another one.
    """

    address: str
    port: int
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """Of a pod or a Service."""

    text: str
    uid: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Part:
    """What is kept of an object: its addresses, and the ports that each of them has."""

    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """Those that take new connections, and all that are there: connections to others are over."""

    ready: tuple[Place, ...] = ()
    present: frozenset[Place] = frozenset()


def ports_of(found: Iterable[Object], number: str) -> tuple[Port, ...]:
    """TCP and UDP ports of a list in an object; `number` is the key of theirs."""
    return tuple(
        Port(str(one.get("name") or ""), int(one[number]), Protocol(one.get("protocol") or "TCP"))
        for one in found
        if one.get(number) and (one.get("protocol") or "TCP") in list(Protocol)
    )


def container_ports(spec: Object) -> tuple[Port, ...]:
    """Of a pod's spec; init containers that stay (sidecars) among them."""
    stay = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    return tuple(
        port
        for one in (*(spec.get("containers") or ()), *stay)
        for port in ports_of(one.get("ports") or (), "containerPort")
    )


def service_part(service: Object) -> Part:
    """A Service's cluster address; kube-proxy finds the pods."""
    spec, uid = service.get("spec") or {}, str((service.get("metadata") or {}).get("uid", ""))
    address = spec.get("clusterIP")
    found = () if address in (None, "", "None") else (Address(str(address), uid, True),)
    return Part(found, ports_of(spec.get("ports") or (), "port"))


def slice_part(ends: Object, family: str) -> Part:
    """An EndpointSlice (discovery.k8s.io/v1) of one address family; a pod of a dual-stack Service is in a slice of each."""
    if ends.get("addressType") != family:
        return Part()
    addresses = [
        Address(
            str(one["addresses"][0]),  # all of an endpoint's are the same pod's
            str((one.get("targetRef") or {}).get("uid", "")),
            (one.get("conditions") or {}).get("ready") is not False,  # "nil should be interpreted as true"
        )
        for one in ends.get("endpoints") or ()
        if one.get("addresses")
    ]
    return Part(tuple(addresses), ports_of(ends.get("ports") or (), "port"))


def pod_part(pod: Object, *, only_ready: bool) -> Part:
    """A pod while it runs.

    Args:
        only_ready: it has to be ready as well; one that was named by the user has not.
    """
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    if not status.get("podIP") or status.get("phase") != "Running":
        return Part()
    conditions = {one.get("type"): one.get("status") for one in status.get("conditions") or ()}
    ready = not metadata.get("deletionTimestamp") and (not only_ready or conditions.get("Ready") == "True")
    address = Address(str(status["podIP"]), str(metadata.get("uid", "")), ready)
    return Part((address,), container_ports(pod.get("spec") or {}))


def places(parts: Iterable[Part], wanted: int | str, protocol: Protocol) -> Places:
    """Of all parts together, where a port is; each place once."""
    ready: dict[Place, None] = {}
    present: set[Place] = set()
    for part in parts:
        number = number_of(wanted, protocol, part.ports)
        if number is None:
            continue
        for address in part.addresses:
            place = Place(address.text, number, address.uid)
            present.add(place)
            if address.ready:
                ready[place] = None
    return Places(tuple(sorted(ready, key=lambda place: (place.address, place.port, place.uid))), frozenset(present))


def selector_text(selector: Object) -> str:
    """A workload's `spec.selector` as the query that finds its pods (Kubernetes doc, "Labels and Selectors")."""
    words = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or ():
        key, values = one.get("key"), ",".join(map(str, one.get("values") or ()))
        match one.get("operator"):
            case "In":
                words.append(f"{key} in ({values})")
            case "NotIn":
                words.append(f"{key} notin ({values})")
            case "Exists":
                words.append(f"{key}")
            case _:
                words.append(f"!{key}")
    return ",".join(words)

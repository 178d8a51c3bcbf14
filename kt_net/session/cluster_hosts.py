"""Names and addresses of Services and of the pods behind headless ones, kept current: for the hosts file.

A hosts file has no aliases, no SRV and no reverse zones: ExternalName Services are not in it.

Not here: writing it (kt_net.host).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.follow import Followed, Key

Hosts: TypeAlias = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ServiceHost:
    """Of a Service: the addresses that it has itself."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SliceHosts:
    """Of an EndpointSlice: its Service, all ready addresses, and those that have a name of their own (a StatefulSet's pods)."""

    service: str
    addresses: tuple[str, ...]
    named: tuple[tuple[str, str], ...]


def service_host(service: Mapping[str, Any]) -> ServiceHost:
    """What is kept of a Service."""
    return ServiceHost(
        tuple(str(one) for one in service.get("spec", {}).get("clusterIPs") or () if one not in ("", "None"))
    )


def slice_hosts(found: Mapping[str, Any]) -> SliceHosts:
    """What is kept of an EndpointSlice (discovery.k8s.io/v1)."""
    addresses, named = [], []
    if found.get("addressType") in ("IPv4", "IPv6"):
        for end in found.get("endpoints") or ():
            if (end.get("conditions") or {}).get("ready") is False:
                continue
            addresses += [str(one) for one in end.get("addresses") or ()]
            named += [(str(end["hostname"]), str(one)) for one in end.get("addresses") or () if end.get("hostname")]
    return SliceHosts(
        (found["metadata"].get("labels") or {}).get("kubernetes.io/service-name", ""), tuple(addresses), tuple(named)
    )


def hosts_from(
    services: Mapping[Key, ServiceHost], slices: Mapping[Key, SliceHosts], *, own: str, domain: str
) -> Hosts:
    """The names as a pod of namespace `own` knows them: SVC there, SVC.NS, SVC.NS.svc and SVC.NS.svc.DOMAIN everywhere."""
    found: dict[str, list[str]] = {}

    def add(name: str, namespace: str, addresses: tuple[str, ...]) -> None:
        full = f"{name}.{namespace}.svc.{domain}"
        short = [name] if namespace == own else []
        for one in (*short, f"{name}.{namespace}", f"{name}.{namespace}.svc", full):
            known = found.setdefault(one, [])
            known += [address for address in addresses if address not in known]

    for (namespace, name), service in services.items():
        if service.addresses:
            add(name, namespace, service.addresses)
    for (namespace, _), ends in slices.items():
        headless = services.get((namespace, ends.service))
        if headless is None or headless.addresses:
            continue
        add(ends.service, namespace, ends.addresses)
        for hostname, address in ends.named:
            add(f"{hostname}.{ends.service}", namespace, (address,))
    return {name: tuple(addresses) for name, addresses in found.items()}


class ClusterHosts:
    """Follows the Services and EndpointSlices of namespaces, from the start.

    Args:
        namespaces: whose names are wanted.
        own: the namespace whose Services have a name of one label.
    """

    def __init__(self, api: HttpKubeApi, namespaces: tuple[str, ...], *, own: str) -> None:
        self._own = own
        self._lock = threading.Condition()
        self._kept: dict[tuple[str, str], Mapping[Key, Any]] = {}
        self._refused: list[str] = []
        self._changed: Callable[[], None] = lambda: None
        keep: dict[str, Callable[[Object], Any]] = {"Service": service_host, "EndpointSlice": slice_hosts}
        self._followed = [
            Followed[Any](
                api,
                kind,
                namespace,
                partial(self._seen, kind, namespace),
                keep=keep[kind],
                refused=partial(self._not_seen, kind, namespace),
            )
            for namespace in namespaces
            for kind in keep
        ]

    def wait(self, seconds: float) -> list[str]:
        """Until all are known; what may not be, or is not yet, in words."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._kept) == len(self._followed), seconds)
            late = len(self._followed) - len(self._kept)
            return [*self._refused, *([f"{late} lists of Services and EndpointSlices"] if late else [])]

    def now(self, domain: str) -> Hosts:
        """All names and addresses."""
        with self._lock:
            services, slices = (
                {key: found for (kind, _), kept in self._kept.items() if kind == wanted for key, found in kept.items()}
                for wanted in ("Service", "EndpointSlice")
            )
        return hosts_from(services, slices, own=self._own, domain=domain)

    def tell(self, changed: Callable[[], None]) -> None:
        """Tell when `now` may be another one; on threads."""
        self._changed = changed

    def close(self) -> None:
        """Follow nothing any more."""
        for followed in self._followed:
            followed.close()

    def _seen(self, kind: str, namespace: str, kept: Mapping[Key, Any]) -> None:
        with self._lock:
            self._kept[kind, namespace] = kept
            self._lock.notify_all()
        self._changed()

    def _not_seen(self, kind: str, namespace: str) -> None:
        with self._lock:
            self._refused.append(f"{kind}s of namespace {namespace}, which this account may not list")
            self._kept[kind, namespace] = {}
            self._lock.notify_all()

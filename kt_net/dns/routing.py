"""Where a name goes: a decision over words. Pure.

Not here: asking.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kt_net.addr import IPPrefix
from kt_net.dns.top_level import TOP_LEVEL
from kt_net.errors import UsageFault


class Upstream(Enum):
    """Whom to ask."""

    CLUSTER = "cluster"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Step:
    """One question: whom, and for which name."""

    upstream: Upstream
    name: str


#: What is asked, in order: the next one when a name is not there (NXDOMAIN). The last answer counts.
Way = tuple[Step, ...]


class Order(Enum):
    """What comes first for names that may be the cluster's or not."""

    #: The cluster, then this machine's resolver.
    CLUSTER_FIRST = "cluster,upstream"
    #: This machine's resolver, then the cluster.
    MACHINE_FIRST = "upstream,cluster"
    #: This machine's resolver is not asked at all.
    CLUSTER_ONLY = "cluster"


def order_of(mode: str) -> Order:
    """The order that a mode of names in KT Connect's words means: "localDNS", "localDNS:ORDER" or "podDNS".

    Raises:
        UsageFault: no such mode.
    """
    kind, _, order = mode.partition(":")
    if mode == "podDNS":
        return Order.CLUSTER_ONLY
    if kind == "localDNS":
        try:
            return Order(order.replace(" ", "") or Order.CLUSTER_FIRST)
        except ValueError:
            pass
    raise UsageFault(
        f"--dns-mode: {mode} is none", next_step="use localDNS, localDNS:upstream,cluster, localDNS:cluster or podDNS"
    )


class Routing:
    """The rules for one connection.

    Args:
        cluster_domains: usually only "cluster.local"; names without one are looked for in the first.
        namespace: whose Services have a name of one label.
        namespaces: that are there; each is a routing domain of its own.
        prefixes: of the cluster, for reverse lookups.
        domains: whose names the cluster's DNS is asked as well.
    """

    def __init__(
        self,
        *,
        cluster_domains: Iterable[str],
        namespace: str,
        namespaces: Iterable[str],
        prefixes: Iterable[IPPrefix],
        domains: Iterable[str] = (),
        order: Order = Order.CLUSTER_FIRST,
    ) -> None:
        self._domains = tuple(_plain(domain) for domain in cluster_domains)
        self._namespace = namespace
        self._prefixes = tuple(prefixes)
        self._more = tuple(_plain(domain) for domain in domains)
        self._order = order
        self._services: dict[str, frozenset[str]] = {}
        self._namespaces: frozenset[str] = frozenset()
        self.update_namespaces(namespaces)

    def update_namespaces(self, namespaces: Iterable[str]) -> bool:
        """The namespaces that are there now; whether that is something new."""
        before, self._namespaces = self._namespaces, frozenset(namespaces) | {self._namespace}
        self._services = {name: found for name, found in self._services.items() if name in self._namespaces}
        return self._namespaces != before

    def update_services(self, namespace: str, services: Iterable[str]) -> bool:
        """The Services that are there now in a namespace; whether that is something new. Needed only of `ambiguous` ones."""
        before, self._services[namespace] = self._services.get(namespace), frozenset(services)
        return self._services[namespace] != before

    @property
    def ambiguous(self) -> frozenset[str]:
        """Namespaces that are called like a top-level domain: below them only Services that are there belong to the cluster."""
        return self._namespaces & TOP_LEVEL

    @property
    def namespaces(self) -> frozenset[str]:
        """Those that are routing domains now."""
        return self._namespaces

    def is_clusters(self, name: str) -> bool:
        """Whether nobody but the cluster can know `name`."""
        return any(_is_below(name, domain) for domain in self._domains)

    def way(self, name: str) -> Way:
        """The way of `name` (lower case, no final dot)."""
        labels = name.split(".")
        if self.is_clusters(name):
            return (Step(Upstream.CLUSTER, name),)
        if labels[-1] == "arpa":
            return self._plain_way(name, mine=not self._is_cluster_address(labels))
        if any(_is_below(name, domain) for domain in self._more):
            return self._either(name, name)
        if labels[-1] == "svc" and len(labels) >= 3:
            return self._either(f"{name}.{self._domains[0]}", name)
        if len(labels) == 1 and name:
            return self._either(f"{name}.{self._namespace}.svc.{self._domains[0]}", name)
        if len(labels) >= 2 and labels[-1] in self._namespaces and self._may_be_service(labels):
            return self._either(f"{name}.svc.{self._domains[0]}", name)
        return self._plain_way(name, mine=True)

    def _plain_way(self, name: str, *, mine: bool) -> Way:
        mine = mine and self._order is not Order.CLUSTER_ONLY
        return (Step(Upstream.MACHINE if mine else Upstream.CLUSTER, name),)

    def _either(self, cluster_name: str, name: str) -> Way:
        cluster, machine = Step(Upstream.CLUSTER, cluster_name), Step(Upstream.MACHINE, name)
        if self._order is Order.CLUSTER_FIRST:
            return cluster, machine
        if self._order is Order.MACHINE_FIRST:
            return machine, cluster
        return (cluster,) if cluster_name == name else (cluster, Step(Upstream.CLUSTER, name))

    def _may_be_service(self, labels: list[str]) -> bool:
        if labels[-1] not in TOP_LEVEL:
            return True
        known = self._services.get(labels[-1])
        return known is None or labels[-2] in known

    def _is_cluster_address(self, labels: list[str]) -> bool:
        address = _reverse(labels)
        return address is not None and any(address in p for p in self._prefixes if p.version == address.version)


def _plain(domain: str) -> str:
    return domain.strip(".").lower()


def _is_below(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


_V4_LABELS: Final = 6
_V6_LABELS: Final = 34


def _reverse(labels: list[str]) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a reverse name is about (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == _V4_LABELS:
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == _V6_LABELS:
            return ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16))
    except ValueError:
        pass
    return None

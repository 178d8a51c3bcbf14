"""Where a name goes: a decision over words. Pure.

Not here: asking.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
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
    #: Nobody: it is a host of an Ingress, and the user has said where that is.
    INGRESS = "ingress"


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


@dataclass(frozen=True, slots=True)
class Mode:
    """How names are resolved, in KT Connect's words.

    Attributes:
        order: for names that may be the cluster's or not.
        hosts: namespaces whose names go to the hosts file, none for the session's own; None when no names do, but a resolver is asked.
    """

    order: Order = Order.CLUSTER_FIRST
    hosts: tuple[str, ...] | None = None


def mode_of(words: str) -> Mode:
    """What "localDNS", "localDNS:ORDER", "podDNS", "hosts" or "hosts:NAMESPACES" means.

    Raises:
        UsageFault: no such mode.
    """
    kind, colon, rest = words.partition(":")
    if words == "podDNS":
        return Mode(Order.CLUSTER_ONLY)
    if kind == "hosts":
        namespaces = tuple(rest.replace(",", " ").split())
        if namespaces or not colon:
            return Mode(hosts=namespaces)
    if kind == "localDNS":
        try:
            return Mode(Order(rest.replace(" ", "") or Order.CLUSTER_FIRST))
        except ValueError:
            pass
    raise UsageFault(
        f"--dns-mode: {words} is none",
        next_step="use localDNS, localDNS:upstream,cluster, localDNS:cluster, podDNS, hosts or hosts:NAMESPACES",
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
        self._passed_on = False
        self._services: dict[str, frozenset[str]] = {}
        self._headless: frozenset[str] = frozenset()
        self._hosts: frozenset[str] = frozenset()
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

    def update_headless(self, services: Iterable[str]) -> bool:
        """The Services of our namespace whose pods have names of their own, POD.SERVICE; whether that is something new."""
        before, self._headless = self._headless, frozenset(services)
        return self._headless != before

    def update_hosts(self, hosts: Iterable[str]) -> bool:
        """The hosts of Ingress objects that are there now, "*.DOMAIN" among them; whether that is something new."""
        before, self._hosts = self._hosts, frozenset(_plain(host) for host in hosts)
        return self._hosts != before

    def is_host(self, name: str) -> bool:
        """Whether an Ingress has it: itself, or by a wildcard for its first label (Kubernetes doc, "Ingress", hostname wildcards)."""
        return name in self._hosts or f"*.{name.partition('.')[2]}" in self._hosts

    def pass_on(self, passed_on: bool) -> bool:
        """Whether the machine's resolver is another connection, so that it may know what is in no cluster of ours; whether that is news."""
        before, self._passed_on = self._passed_on, passed_on
        return self._passed_on != before

    def update_prefixes(self, prefixes: Iterable[IPPrefix]) -> None:
        """The ranges that the cluster has now."""
        self._prefixes = tuple(prefixes)

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

    @property
    def routed(self) -> tuple[str, ...]:
        """Domains below which a name may be the cluster's, likeliest first: for a machine whose own resolver routes by domain.

        Names of one label are not among them: they have no domain.
        """
        clear = sorted(self._namespaces - TOP_LEVEL)
        services = [
            f"{name}.{namespace}" for namespace in sorted(self.ambiguous) for name in self._services_of(namespace)
        ]
        hosts = sorted({host.removeprefix("*.") for host in self._hosts})
        return (
            *self._domains,
            "svc",
            *self._more,
            *hosts,
            *clear,
            *services,
            *sorted(self._headless - TOP_LEVEL),
            *_reverse_zones(self._prefixes),  # many, where ranges do not end at an octet, and the least asked for
        )

    def _services_of(self, namespace: str) -> list[str]:
        return sorted(self._services.get(namespace) or ())

    def way(self, name: str) -> Way:
        """The way of `name` (lower case, no final dot)."""
        labels = name.split(".")
        if self.is_clusters(name):
            mine = (Step(Upstream.CLUSTER, name),)
            passed_on = self._passed_on and self._order is not Order.CLUSTER_ONLY
            return (*mine, Step(Upstream.MACHINE, name)) if passed_on else mine
        if labels[-1] == "arpa":
            return self._plain_way(name, mine=not self._is_cluster_address(labels))
        if any(_is_below(name, domain) for domain in self._more):
            return self._either(name, name)
        searched = [f"{name}.{rest}" for rest in self._searched(labels)]
        return self._either(name, *searched) if searched else self._plain_way(name, mine=True)

    def _searched(self, labels: list[str]) -> Iterator[str]:
        """What is to be put behind a name, in the order of a pod's search list; nothing for a name that cannot be the cluster's."""
        domain = self._domains[0]
        if labels[-1] == "svc" and len(labels) >= 3:
            yield domain
            return
        if labels == [labels[0]] and labels[0]:
            yield f"{self._namespace}.svc.{domain}"
            return
        if labels[-1] in self._headless and labels[-1] not in TOP_LEVEL and len(labels) == 2:
            yield f"{self._namespace}.svc.{domain}"
        if labels[-1] in self._namespaces and len(labels) >= 2 and self._may_be_service(labels):
            yield f"svc.{domain}"

    def _plain_way(self, name: str, *, mine: bool) -> Way:
        mine = mine and self._order is not Order.CLUSTER_ONLY
        return (Step(Upstream.MACHINE if mine else Upstream.CLUSTER, name),)

    def _either(self, name: str, *cluster_names: str) -> Way:
        cluster, machine = [Step(Upstream.CLUSTER, one) for one in cluster_names], Step(Upstream.MACHINE, name)
        if self._order is Order.CLUSTER_FIRST:
            return *cluster, machine
        if self._order is Order.MACHINE_FIRST:
            return machine, *cluster
        return tuple(cluster) if name in cluster_names else (*cluster, Step(Upstream.CLUSTER, name))

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


def _reverse_zones(prefixes: Iterable[IPPrefix]) -> list[str]:
    """Zones of the reverse names (RFC 1035 section 3.5, RFC 3596 section 2.5); a prefix that ends between two labels is several."""
    zones: list[str] = []
    for prefix in prefixes:
        bits = 8 if prefix.version == 4 else 4
        whole = min(-(-prefix.prefixlen // bits) * bits, prefix.max_prefixlen)
        labels = whole // bits
        for part in prefix.subnets(new_prefix=whole):
            zones.append(".".join(part.network_address.reverse_pointer.split(".")[-labels - 2 :]))
    return zones


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

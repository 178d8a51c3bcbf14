"""Where a name goes: a decision over words. Pure.

Not here: asking.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from kt_net.addr import IPPrefix


@dataclass(frozen=True, slots=True)
class Way:
    """Where to ask for a name.

    Attributes:
        cluster_name: what the cluster's DNS is asked, or None when only the machine's resolver is.
        then_machine: ask the machine's resolver for the name as it is when the cluster says NXDOMAIN.
    """

    cluster_name: str | None
    then_machine: bool


MACHINE = Way(None, True)


class Routing:
    """The rules for one connection.

    Args:
        cluster_domain: usually "cluster.local".
        namespace: whose Services have a name of one label.
        namespaces: that are there; each is a routing domain of its own.
        prefixes: of the cluster, for reverse lookups.
    """

    def __init__(
        self, *, cluster_domain: str, namespace: str, namespaces: Iterable[str], prefixes: Iterable[IPPrefix]
    ) -> None:
        self._domain = cluster_domain.strip(".").lower()
        self._namespace = namespace
        self._prefixes = tuple(prefixes)
        self.update_namespaces(namespaces)

    def update_namespaces(self, namespaces: Iterable[str]) -> None:
        """The namespaces that are there now."""
        self._namespaces = frozenset(namespaces) | {self._namespace}

    def way(self, name: str) -> Way:
        """The way of `name` (lower case, no final dot)."""
        labels = name.split(".")
        if name == self._domain or name.endswith(f".{self._domain}"):
            return Way(name, False)
        if labels[-1] == "arpa":
            return Way(name, False) if self._is_cluster_address(labels) else MACHINE
        if labels[-1] == "svc" and len(labels) >= 3:
            return Way(f"{name}.{self._domain}", True)
        if len(labels) == 1 and name:
            return Way(f"{name}.{self._namespace}.svc.{self._domain}", True)
        if len(labels) >= 2 and labels[-1] in self._namespaces:
            return Way(f"{name}.svc.{self._domain}", True)
        return MACHINE

    def _is_cluster_address(self, labels: list[str]) -> bool:
        address = _reverse(labels)
        return address is not None and any(address in p for p in self._prefixes if p.version == address.version)


def _reverse(labels: list[str]) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a reverse name is about (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16))
    except ValueError:
        pass
    return None

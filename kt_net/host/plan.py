"""What is to become of this machine's network: a value, decided from values. Pure.

Not here: doing it (helper.py).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from kt_net.addr import IPAddress, IPPrefix, collapse, subtract
from kt_net.errors import RouteConflict
from kt_net.host.helper import INTERFACE, NEVER_ROUTED
from kt_net.host.naming import Way
from kt_net.host.reroute import is_networks
from kt_net.host.routes import Route

#: Where the resolver may live: the last addresses of the benchmarking range (RFC 2544, 198.18.0.0/15), which no network routes.
RESOLVER_CANDIDATES = tuple(ipaddress.ip_address(f"198.19.255.{last}") for last in range(253, 200, -1))
#: Our own address on the device, for programs that want one as source; from the same range.
DEVICE_CANDIDATES = tuple(ipaddress.ip_address(f"198.18.255.{last}") for last in range(253, 200, -1))
#: Likewise for IPv6: a unique local prefix made for this (RFC 4193).
DEVICE_V6 = ipaddress.ip_network("fd6b:746e:6574::/64")


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What the helper is to do.

    Attributes:
        addresses: of the device, in text.
        routes: prefixes to the device.
        names: how programs come to our resolver; None when names are left alone.
    """

    interface: str
    mtu: int
    offload: bool
    addresses: tuple[str, ...]
    routes: tuple[IPPrefix, ...]
    names: Way | None

    def request(self) -> dict[str, Any]:
        """As the helper takes it."""
        return {
            "interface": {
                "name": self.interface,
                "mtu": self.mtu,
                "offload": self.offload,
                "addresses": list(self.addresses),
            },
            "routes": [str(route) for route in self.routes],
            "resolver": None if self.names is None else self.names.request(),
        }


def free_address(candidates: tuple[IPAddress, ...], prefixes: list[IPPrefix], routes: list[Route]) -> IPAddress:
    """The first candidate that neither cluster nor machine uses.

    Raises:
        RouteConflict: all are used.
    """
    taken = prefixes + [route.prefix for route in routes if route.prefix.prefixlen]
    for candidate in candidates:
        if not any(candidate in prefix for prefix in taken if prefix.version == candidate.version):
            return candidate
    raise RouteConflict(f"{candidates[0]} and its neighbours are routed elsewhere on this machine")


def plan_host(
    *,
    interface: str,
    mtu: int,
    offload: bool,
    prefixes: list[IPPrefix],
    holes: list[IPAddress],
    routes: list[Route],
    resolver: IPAddress,
    names: Way | None,
    excluded: tuple[IPPrefix, ...] = (),
    routed: bool = True,
    allow_conflicts: bool = False,
    owners: Mapping[str, str] | None = None,
) -> HostPlan:
    """The plan for a connection.

    Args:
        prefixes: of the cluster (pods, Services).
        holes: addresses that must stay reached as they are: API server, gateways, the machine's resolvers.
        routes: that the machine has.
        resolver: address at which the stack's resolver answers.
        names: see `HostPlan`.
        excluded: what is left out of `prefixes`.
        routed: False for a device without routes but the resolver's.
        owners: names of this user's connections, by their devices.

    Raises:
        RouteConflict: a prefix overlaps a route of this machine; names both and the interface.
    """
    chosen = subtract(prefixes, [*excluded, *NEVER_ROUTED]) if routed else []
    wanted = subtract(chosen, [ipaddress.ip_network(hole) for hole in holes])
    if not allow_conflicts:
        for prefix in chosen:
            refuse_overlap(prefix, {interface}, routes, owners or {})
    # An address of one's own is in no table of routes that is read here: several devices tell theirs apart by their numbers.
    number = int(interface.removeprefix("kt"))
    device = free_address((*DEVICE_CANDIDATES[number:], *DEVICE_CANDIDATES[:number]), prefixes, routes)
    return HostPlan(
        interface=interface,
        mtu=mtu,
        offload=offload,
        addresses=(f"{device}/32", f"{DEVICE_V6[number + 1]}/128"),
        routes=tuple(collapse([*wanted, ipaddress.ip_network(resolver)])),
        names=names,
    )


def refuse_overlap(prefix: IPPrefix, own: Set[str], routes: list[Route], owners: Mapping[str, str]) -> None:
    """Nothing, when no other interface than `own` ones has a route into the prefix (default routes and link-local ones do not count).

    Args:
        owners: see `plan_host`.

    Raises:
        RouteConflict: one has; names it, and whose it is.
    """
    for route in routes:
        known = route.prefix
        if not is_networks(known) or route.interface in own:
            continue
        if known.version == prefix.version and known.overlaps(prefix):
            whose, end = "", "end the connection that routes it"
            if INTERFACE.match(route.interface):
                name = owners.get(route.interface)
                whose = f", the device of connection {name}" if name else ", the device of another user's connection"
                end = f"end that connection: ktctl disconnect --name {name}" if name else end
            raise RouteConflict(
                f"{prefix} of the cluster overlaps {known}, which this machine routes to {route.interface}{whose}",
                next_step=f"leave it out with --exclude-ips {max(prefix, known, key=lambda one: one.prefixlen)}, or {end}",
            )

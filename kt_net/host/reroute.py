"""What has to be done about this machine's routes while a connection lasts: a decision over values. Pure.

The kernel prefers the longest prefix, and of equal ones the lowest metric (ip-route(8)): a network that comes up later may take addresses
of the cluster, or leave them to it. That is told; which of the two is wanted only its user knows. What has to stay reached as it is
(gateways, resolvers) is taken out of our routes, whatever else is routed.

Not here: reading routes (routes.py), changing them (helper.py), why a range is new (kt_net.session.growth).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from kt_net.addr import IPAddress, IPPrefix, collapse, subtract
from kt_net.host.helper import NEVER_ROUTED
from kt_net.host.routes import Route

#: Of routes that are made without one (ip-route(8)).
PLAIN_METRIC = {4: 0, 6: 1024}
#: What is shorter is as good as a default route: some VPNs have two halves of the internet instead of one.
SHORTEST_NETWORK = {4: 4, 6: 8}
#: Prefixes that one line names.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Range:
    """A range of the cluster, and what it is: "service CIDR"."""

    kind: str
    prefix: IPPrefix


@dataclass(frozen=True, slots=True)
class Situation:
    """What is to be reached, and what this machine routes.

    Attributes:
        ranges: of the cluster.
        excluded: what is left out of them.
        resolver: address of the stack's resolver.
        holes: addresses that must stay reached as they are.
        routes: of this machine, ours among them.
        versions: of IP that the device has.
    """

    ranges: tuple[Range, ...]
    excluded: tuple[IPPrefix, ...]
    resolver: IPAddress
    holes: frozenset[IPAddress]
    routes: tuple[Route, ...]
    versions: frozenset[int] = frozenset({4, 6})

    def wanted(self) -> list[IPPrefix]:
        """Routes to the device, as a plan has them."""
        holes = [ipaddress.ip_network(hole) for hole in self.holes]
        chosen = subtract([one.prefix for one in self.ranges], [*self.excluded, *NEVER_ROUTED, *holes])
        return [
            prefix
            for prefix in collapse([*chosen, ipaddress.ip_network(self.resolver)])
            if prefix.version in self.versions
        ]

    def present(self, interface: str) -> set[IPPrefix]:
        """What is routed to the device."""
        return {route.prefix for route in self.routes if route.interface == interface}


@dataclass(frozen=True, slots=True)
class ChangeRoutes:
    """For the helper: routes to the device, first those to make, so that nothing is without a route meanwhile."""

    add: tuple[IPPrefix, ...]
    remove: tuple[IPPrefix, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """A line for the user."""

    text: str


Action: TypeAlias = ChangeRoutes | Say


def what_changed(before: Situation, after: Situation, *, interface: str) -> list[Action]:
    """What to do, and what to say.

    Args:
        before: as it was when everything had been done.
        interface: of the device.
    """
    had, wanted, present = before.wanted(), after.wanted(), after.present(interface)
    add = tuple(prefix for prefix in wanted if prefix not in present)
    remove = tuple(prefix for prefix in had if prefix not in wanted and prefix in present)
    actions: list[Action] = [ChangeRoutes(add, remove)] if add or remove else []
    for one in _new_ranges(before, after):
        if any(_overlap_each_other(prefix, one.prefix) for prefix in wanted):
            actions.append(Say(f"{one.kind} {one.prefix} is new; routed"))
    vanished = [prefix for prefix in add if prefix in had and prefix in before.present(interface)]
    if vanished:
        actions.append(Say(f"somebody has removed routes to the cluster, put back: {_words(vanished)}"))
    for hole in sorted(after.holes - before.holes, key=lambda address: (address.version, int(address))):
        if any(hole.version == one.prefix.version and hole in one.prefix for one in after.ranges):
            actions.append(
                Say(f"{hole} is a gateway or resolver of this machine now: left out of the cluster's routes")
            )
    known = {(route.prefix, route.interface) for route in before.routes}
    for route in after.routes:
        if (route.prefix, route.interface) not in known and route.interface != interface and is_networks(route.prefix):
            line = _overlap(route, after, wanted, interface)
            if line:
                actions.append(Say(line))
    return actions


def is_networks(prefix: IPPrefix) -> bool:
    """Whether a route may be in the way of a range: default routes and the kernel's own are not."""
    if prefix.prefixlen < SHORTEST_NETWORK[prefix.version]:
        return False
    return not prefix.is_link_local and not prefix.is_loopback and not prefix.is_multicast


def in_the_way(prefix: IPPrefix, routes: Iterable[Route], interface: str) -> Route | None:
    """A route of this machine that overlaps a range."""
    for route in routes:
        if route.interface != interface and is_networks(route.prefix) and _overlap_each_other(route.prefix, prefix):
            return route
    return None


def _overlap_each_other(one: IPPrefix, other: IPPrefix) -> bool:
    return one.version == other.version and one.overlaps(other)


def _new_ranges(before: Situation, after: Situation) -> list[Range]:
    """Those that were not reached before as part of another one, either."""
    known = [one.prefix for one in before.ranges]
    return [one for one in after.ranges if subtract([one.prefix], known)]


def _overlap(route: Route, after: Situation, wanted: list[IPPrefix], interface: str) -> str:
    """What a route of somebody else means for ours, in words; nothing when it means nothing."""
    met = [prefix for prefix in wanted if _overlap_each_other(prefix, route.prefix)]
    ranges = [one for one in after.ranges if _overlap_each_other(one.prefix, route.prefix)]
    if not met or not ranges:
        return ""
    metrics = {known.prefix: known.metric for known in after.routes if known.interface == interface}
    here = f"{route.prefix} is routed to {route.interface} now and overlaps {ranges[0].kind} {ranges[0].prefix}"
    # Ours do not overlap each other: either all of them lie in this one, or it is, or lies in, the only one that it meets.
    first = met[0]
    rule = "of equal routes the lower metric wins" if first == route.prefix else "the more specific route wins"
    if _wins(route, first, metrics.get(first, PLAIN_METRIC[first.version])):
        return f"{here}: {rule}, {route.prefix} goes to {route.interface}"
    return f"{here}: {rule}, the cluster keeps its addresses"


def _wins(route: Route, ours: IPPrefix, metric: int) -> bool:
    if route.prefix.prefixlen == ours.prefixlen:
        return route.metric < metric
    return route.prefix.prefixlen > ours.prefixlen


def _words(prefixes: list[IPPrefix]) -> str:
    more = len(prefixes) - NAMED
    return ", ".join(map(str, prefixes[:NAMED])) + (f" and {more} more" if more > 0 else "")

"""Several connections on one machine: who they are, which one's text the resolver file has, and whom each one asks on. Pure.

Each connection has a device and a resolver of its own, and the kernel's routes tell of them, whoever's they are. The resolver file names
one of them, the leader. It asks its own cluster, and for every other name the next connection, which does the same; the last one asks this
machine's own resolvers. So what the file says is one connection's to undo, and no two have to agree on anything.

Not here: reading routes (routes.py), taking the file when its leader has ended (kt_net.session.name_keeper).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kt_net.host.helper import INTERFACE
from kt_net.host.naming import Environment
from kt_net.host.plan import RESOLVER_CANDIDATES
from kt_net.host.resolvconf import parse_resolv_conf
from kt_net.host.routes import Route

#: Devices, and so connections, at one time.
MOST = 10

#: Device of a connection -> address of its resolver.
Neighbours = Mapping[str, str]


def neighbours_of(routes: Iterable[Route], interface: str) -> dict[str, str]:
    """The other connections: `interface` is one's own."""
    return {
        route.interface: str(route.prefix.network_address)
        for route in routes
        if route.interface != interface
        and INTERFACE.match(route.interface)
        and route.prefix.num_addresses == 1
        and route.prefix.network_address in RESOLVER_CANDIDATES
    }


def leader_of(resolv_conf: str, connections: Neighbours) -> str:
    """The device of the connection whose resolver the file names; "" when it names none of them."""
    named = parse_resolv_conf(resolv_conf).nameservers
    return next((interface for interface, server in connections.items() if server in named), "")


def asked_on(interface: str, leader: str, neighbours: Neighbours) -> str:
    """The resolver that answers what is not this connection's; "" for this machine's own ones.

    Args:
        leader: whose resolver the file names, perhaps one's own; "" for nobody's.
    """
    rest = sorted({*neighbours} - {leader}, key=_number)
    if interface != leader:  # which asks the first of the others, and each of them the next one
        rest = [other for other in rest if _number(other) > _number(interface)]
    return neighbours[rest[0]] if rest else ""


def free_interface(devices: Iterable[str]) -> str:
    """A name for a device that is not there yet; "" when there are too many."""
    taken = set(devices)
    return next((name for name in (f"kt{number}" for number in range(MOST)) if name not in taken), "")


def without_leader(environment: Environment, before: str) -> Environment:
    """A machine as it would be without the connection that has the resolver file. `before`: what was in it, "" when there was none."""
    return replace(environment, resolv_conf=before or None)


def _number(interface: str) -> int:
    return int(interface.removeprefix("kt"))

"""What is done and said when the cluster grows, and when this machine's network changes."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from kt_net.host.plan import plan_host
from kt_net.host.reroute import ChangeRoutes, Range, Say, Situation, in_the_way, what_changed
from kt_net.host.routes import Route

RESOLVER = ipaddress.ip_address("198.19.255.253")
PODS, SERVICES = "10.244.0.0/16", "10.96.0.0/16"


def route(text: str) -> Route:
    """As "10.0.0.0/8 eth0 via 10.0.0.1 metric 5"."""
    prefix, interface, *more = text.split()
    words = dict(zip(more[::2], more[1::2], strict=True))
    gateway = ipaddress.ip_address(words["via"]) if "via" in words else None
    network = ipaddress.ip_network(prefix)
    metric = int(words.get("metric", 1024 if network.version == 6 else 0))
    return Route(network, interface, gateway, metric)


LAN = ("0.0.0.0/0 eth0 via 192.168.0.1", "192.168.0.0/24 eth0")
OURS = (f"{PODS} kt0", f"{SERVICES} kt0", "198.19.255.253/32 kt0")


def situation(
    *routes: str, ranges: tuple[str, ...] = (SERVICES,), excluded: tuple[str, ...] = (), holes: tuple[str, ...] = ()
) -> Situation:
    return Situation(
        ranges=(
            Range("pod CIDR", ipaddress.ip_network(PODS)),
            *(Range("service CIDR", ipaddress.ip_network(text)) for text in ranges),
        ),
        excluded=tuple(ipaddress.ip_network(text) for text in excluded),
        resolver=RESOLVER,
        holes=frozenset(ipaddress.ip_address(text) for text in holes),
        routes=tuple(route(text) for text in routes),
    )


def words(before: Situation, after: Situation) -> list[str]:
    """As "+ 10.0.0.0/8", "- 10.0.0.0/8" and what is said."""
    found = list[str]()
    for action in what_changed(before, after, interface="kt0"):
        if isinstance(action, Say):
            found.append(action.text)
        else:
            found += [f"+ {prefix}" for prefix in action.add] + [f"- {prefix}" for prefix in action.remove]
    return found


USUAL = situation(*LAN, *OURS)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (situation(*LAN, *OURS), []),
        (situation(*LAN, "172.17.0.0/16 docker0", *OURS), []),
        (situation("0.0.0.0/1 tun0", "128.0.0.0/1 tun0", *LAN, *OURS), []),
        (situation(*OURS), []),
        (
            situation(*LAN, *OURS, ranges=(SERVICES, "10.98.0.0/16")),
            ["+ 10.98.0.0/16", "service CIDR 10.98.0.0/16 is new; routed"],
        ),
        (
            situation(*LAN, *OURS, ranges=(SERVICES, "fd00:98::/112")),
            ["+ fd00:98::/112", "service CIDR fd00:98::/112 is new; routed"],
        ),
        (situation(*LAN, *OURS, ranges=(SERVICES, "10.96.7.0/24")), []),
        (situation(*LAN, *OURS, ranges=(SERVICES, "10.98.0.0/16"), excluded=("10.98.0.0/16",)), []),
        (
            situation(*LAN, "198.19.255.253/32 kt0"),
            [
                "+ 10.96.0.0/16",
                "+ 10.244.0.0/16",
                "somebody has removed routes to the cluster, put back: 10.96.0.0/16, 10.244.0.0/16",
            ],
        ),
        (
            situation(*LAN, "10.244.3.0/24 tun0", *OURS),
            [
                "10.244.3.0/24 is routed to tun0 now and overlaps pod CIDR 10.244.0.0/16: the more specific route wins, "
                "10.244.3.0/24 goes to tun0"
            ],
        ),
        (
            situation(*LAN, "10.0.0.0/8 tun0", *OURS),
            [
                "10.0.0.0/8 is routed to tun0 now and overlaps pod CIDR 10.244.0.0/16: the more specific route wins, "
                "the cluster keeps its addresses"
            ],
        ),
        (
            situation(*LAN, f"{SERVICES} br0 metric 50", *OURS),
            [
                "10.96.0.0/16 is routed to br0 now and overlaps service CIDR 10.96.0.0/16: of equal routes the lower metric wins, "
                "the cluster keeps its addresses"
            ],
        ),
        (situation(*LAN, "198.18.0.0/15 tun0", *OURS), []),
    ],
)
def test_what_changes(after: Situation, expected: list[str]) -> None:
    assert words(USUAL, after) == expected


def test_equal_routes_of_ipv6() -> None:
    """Ours have the kernel's metric there, 1024, and others' may be lower."""
    services = "fd00:96::/112"
    before = situation(*OURS, f"{services} kt0", ranges=(SERVICES, services))
    for metric, who in (("50", f"{services} goes to tun0"), ("2000", "the cluster keeps its addresses")):
        after = situation(*OURS, f"{services} kt0", f"{services} tun0 metric {metric}", ranges=(SERVICES, services))
        (line,) = words(before, after)
        assert line.endswith(f"of equal routes the lower metric wins, {who}")


@pytest.mark.parametrize("length", [17, 20, 30])
def test_around_a_hole_ours_are_more_specific(length: int) -> None:
    hole = ("10.244.0.1",)
    ours = [f"{prefix} kt0" for prefix in situation(holes=hole).wanted()]
    (line,) = words(situation(*ours, holes=hole), situation(*ours, f"10.244.0.0/{length} tun0", holes=hole))
    assert line.endswith("the more specific route wins, the cluster keeps its addresses")


def test_a_gateway_inside_of_our_routes() -> None:
    """First the pieces around it, then what they replace: nothing is without a route meanwhile."""
    gateway = "10.244.0.1"
    after = situation("0.0.0.0/0 tun0 via 10.244.0.1", *OURS, holes=(gateway,))
    change, said = what_changed(USUAL, after, interface="kt0")
    assert isinstance(change, ChangeRoutes)
    assert change.remove == (ipaddress.ip_network(PODS),)
    assert len(change.add) == 16
    assert not any(ipaddress.ip_address(gateway) in prefix for prefix in change.add)
    assert said == Say("10.244.0.1 is a gateway or resolver of this machine now: left out of the cluster's routes")
    again = dataclasses.replace(after, routes=tuple(Route(prefix, "kt0", None) for prefix in after.wanted()))
    assert words(again, again) == []
    assert words(again, dataclasses.replace(again, holes=frozenset())) == [
        f"+ {PODS}",
        *(f"- {prefix}" for prefix in change.add),
    ]


def test_ipv6_that_the_device_has_not() -> None:
    six = situation(*OURS, ranges=(SERVICES, "fd00:98::/112"))
    assert words(USUAL, dataclasses.replace(six, versions=frozenset({4}))) == []


def test_the_same_routes_as_a_plan() -> None:
    excluded, hole = ipaddress.ip_network("10.96.7.0/24"), ipaddress.ip_address("10.244.9.9")
    made = plan_host(
        interface="kt0",
        mtu=1500,
        offload=True,
        prefixes=[ipaddress.ip_network(PODS), ipaddress.ip_network(SERVICES)],
        holes=[hole],
        routes=[],
        resolver=RESOLVER,
        names=None,
        excluded=(excluded,),
    )
    assert list(made.routes) == situation(excluded=(str(excluded),), holes=(str(hole),)).wanted()


@pytest.mark.parametrize(
    ("prefix", "found"),
    [("10.98.0.0/16", None), ("192.168.0.128/25", "192.168.0.0/24"), ("192.0.0.0/8", "192.168.0.0/24")],
)
def test_in_the_way(prefix: str, found: str | None) -> None:
    route = in_the_way(ipaddress.ip_network(prefix), USUAL.routes, "kt0")
    assert (route and str(route.prefix)) == found

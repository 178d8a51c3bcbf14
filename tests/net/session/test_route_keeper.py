"""Routes are kept by the real helper in a network of the test's own: what is put back, what is said."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kt_net.host.client import HostHelper
from kt_net.host.plan import HostPlan
from kt_net.host.reroute import Range, Situation
from kt_net.host.routes import Route, read_routes
from kt_net.session.route_keeper import RouteKeeper
from tests.net.namespaces import run_inside

PODS, RESOLVER = ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_address("198.19.255.253")
SECONDS = 10.0


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def ours() -> set[str]:
    return {str(route.prefix) for route in read_routes() if route.interface == "kt7" and route.prefix.version == 4}


def until(condition: Callable[[], bool]) -> bool:
    limit = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def kept(state: str) -> dict[str, Any]:
    """A connection's routes, and everything that may happen to them."""
    before, said = read_routes(), list[str]()
    ip("link add vpn0 type veth peer name vpn1")
    plan = HostPlan("kt7", 1500, True, ("198.18.255.253/32",), (PODS, ipaddress.ip_network("198.19.255.253/32")), None)
    helper = HostHelper.start(state)
    applied = helper.apply(plan)

    def holes(routes: list[Route]) -> list[Any]:
        return [route.gateway for route in routes if route.gateway is not None]

    situation = Situation(
        ranges=(Range("pod CIDR", PODS),),
        excluded=(),
        resolver=RESOLVER,
        holes=frozenset(),
        routes=tuple(before),
        versions=frozenset({4}),
    )
    keeper = RouteKeeper(helper, situation, interface="kt7", holes=holes, progress=said.append)
    keeper.start()
    usual = {"10.244.0.0/16", "198.19.255.253/32"}
    result: dict[str, Any] = {"at first": [until(lambda: ours() == usual), list(said)]}

    def step(name: str, change: str, wanted: Callable[[], bool]) -> None:
        said.clear()
        if change:
            ip(change)
        keeper.look(name)
        result[name] = [until(wanted), list(said)]

    step("flushed", "route flush dev kt7", lambda: ours() == usual and bool(said))
    ip("link set vpn0 up")
    step("overlap", "route add 10.244.3.0/24 dev vpn0", lambda: bool(said))
    ip("addr add 192.0.2.2/24 dev vpn0")
    step("gateway", "route add 203.0.113.0/24 via 192.0.2.1", lambda: keeper._known.holes != frozenset())
    step(
        "gateway inside",
        "route add 203.0.114.0/24 via 10.244.9.9 dev vpn0 onlink",
        lambda: len(ours()) == 17 and bool(said),
    )
    step("gateway gone", "route del 203.0.114.0/24", lambda: ours() == usual)
    keeper.grow("service CIDR", [ipaddress.ip_network("10.96.0.0/16"), ipaddress.ip_network("192.0.2.128/25")])
    step("grown", "", lambda: len(said) == 2)
    result["routed"] = sorted(ours() - usual)
    ip("link set kt7 down")
    step("device down", "", lambda: bool(said))
    step("device up", "link set kt7 up", lambda: ours() == usual | {"10.96.0.0/16"})
    keeper.close()
    ip("route flush dev kt7")
    keeper.look("closed")
    time.sleep(0.2)
    result["closed"] = sorted(ours())
    helper.undo()
    os.close(applied.descriptor)
    helper.close()
    return result


def test_routes_are_kept(tmp_path: Path) -> None:
    result = run_inside(kept, tmp_path, str(tmp_path / "state"))
    done, (said,) = result.pop("device down")
    assert done
    assert said.startswith("no route to 10.244.0.0/16, 10.96.0.0/16, 198.19.255.253/32: ip: ")
    assert result == {
        "at first": [True, []],
        "flushed": [True, ["somebody has removed routes to the cluster, put back: 10.244.0.0/16, 198.19.255.253/32"]],
        "overlap": [
            True,
            [
                "10.244.3.0/24 is routed to vpn0 now and overlaps pod CIDR 10.244.0.0/16: the more specific route wins, "
                "10.244.3.0/24 goes to vpn0"
            ],
        ],
        "gateway": [True, []],
        "gateway inside": [
            True,
            ["10.244.9.9 is a gateway or resolver of this machine now: left out of the cluster's routes"],
        ],
        "gateway gone": [True, []],
        "grown": [
            True,
            [
                "service CIDR 192.0.2.128/25 is new; not routed: 192.0.2.0/24 is vpn0's already",
                "service CIDR 10.96.0.0/16 is new; routed",
            ],
        ],
        "routed": ["10.96.0.0/16"],
        "device up": [True, []],
        "closed": [],
    }

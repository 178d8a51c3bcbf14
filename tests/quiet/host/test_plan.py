"""Plans for this machine, from values: routes, holes, conflicts, resolv.conf."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from kt_net.addr import IPAddress, IPPrefix, subtract
from kt_net.errors import RouteConflict
from kt_net.host.helper import RESOLVER_MARK, Fault, check_plan, partly
from kt_net.host.naming import ResolverFile
from kt_net.host.plan import RESOLVER_CANDIDATES, HostPlan, free_address, plan_host
from kt_net.host.resolvconf import parse_resolv_conf, rewrite
from kt_net.host.routes import Route, parse_ipv4_routes, parse_ipv6_routes

PODS, SERVICES = ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_network("10.96.0.0/16")
RESOLV = "nameserver 192.168.0.1\nsearch corp.test\noptions ndots:2 # two\n"


def route(prefix: str, interface: str = "eth0", gateway: str | None = None) -> Route:
    return Route(ipaddress.ip_network(prefix), interface, ipaddress.ip_address(gateway) if gateway else None)


def plan(
    *,
    prefixes: list[IPPrefix] | None = None,
    holes: list[IPAddress] | None = None,
    routes: list[Route] | None = None,
    interface: str = "kt0",
    **more: Any,
) -> HostPlan:
    return plan_host(
        interface=interface,
        mtu=1500,
        offload=True,
        prefixes=prefixes or [PODS, SERVICES],
        holes=holes or [],
        routes=routes or [],
        resolver=ipaddress.ip_address("198.19.255.253"),
        names=ResolverFile("nameserver 198.19.255.253\n", ""),
        **more,
    )


def test_routes_and_resolver() -> None:
    made = plan()
    assert set(made.routes) == {PODS, SERVICES, ipaddress.ip_network("198.19.255.253/32")}
    check_plan(made.request())


def test_rewritten() -> None:
    content = rewrite(RESOLV, nameserver="198.19.255.253", search_first=("default.svc.cluster.local",)).splitlines()
    assert content == [
        RESOLVER_MARK,
        "nameserver 198.19.255.253",
        "search default.svc.cluster.local corp.test",
        "options ndots:2",
    ]


def test_what_must_stay_reached_is_left_out() -> None:
    hole = ipaddress.ip_address("10.96.0.1")
    made = plan(holes=[hole])
    assert not any(hole in prefix for prefix in made.routes if prefix.version == 4)
    covered = sum(prefix.num_addresses for prefix in made.routes if prefix.overlaps(SERVICES))
    assert covered == SERVICES.num_addresses - 1


def test_excluded_is_left_out_and_no_conflict() -> None:
    excluded = ipaddress.ip_network("10.244.3.0/24")
    made = plan(excluded=(excluded,), routes=[route("10.244.3.0/24", "tun7")])
    assert not any(prefix.overlaps(excluded) for prefix in made.routes if prefix.version == 4)
    assert any(ipaddress.ip_address("10.244.4.1") in prefix for prefix in made.routes if prefix.version == 4)


def test_device_without_routes() -> None:
    made = plan(routed=False, routes=[route("10.0.0.0/8", "tun7")])
    assert made.routes == (ipaddress.ip_network("198.19.255.253/32"),)


@pytest.mark.parametrize(("known", "named"), [("10.244.3.0/24", "10.244.3.0/24"), ("10.0.0.0/8", "10.244.0.0/16")])
def test_what_to_leave_out_is_named(known: str, named: str) -> None:
    with pytest.raises(RouteConflict) as caught:
        plan(prefixes=[PODS], routes=[route(known, "tun7")])
    assert f"--exclude-ips {named}," in caught.value.next_step


@pytest.mark.parametrize("prefix", ["10.244.3.0/24", "10.0.0.0/8", "10.96.0.0/16"])
def test_overlap_is_named_and_refused(prefix: str) -> None:
    with pytest.raises(RouteConflict, match=f"{prefix}.*tun7"):
        plan(routes=[route(prefix, "tun7")])


def test_overlap_may_be_allowed() -> None:
    assert plan(routes=[route("10.0.0.0/8", "tun7")], allow_conflicts=True).routes


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "169.254.0.0/16", "192.168.0.0/24", "127.0.0.0/8"])
def test_these_are_no_overlap(prefix: str) -> None:
    assert plan(routes=[route(prefix)]).routes


def test_addresses_of_ours_avoid_what_is_routed() -> None:
    found = free_address(RESOLVER_CANDIDATES, [], [route("198.19.255.248/29")])
    assert found == ipaddress.ip_address("198.19.255.247")
    with pytest.raises(RouteConflict):
        free_address(RESOLVER_CANDIDATES, [], [route("198.18.0.0/15")])


def test_subtract_takes_exactly_the_holes() -> None:
    left = subtract(
        [ipaddress.ip_network("10.0.0.0/30")],
        [ipaddress.ip_network("10.0.0.1/32"), ipaddress.ip_network("fd00::1/128")],
    )
    assert [str(prefix) for prefix in left] == ["10.0.0.0/32", "10.0.0.2/31"]
    assert subtract([ipaddress.ip_network("10.0.0.0/30")], [ipaddress.ip_network("10.0.0.0/8")]) == []
    left = subtract([ipaddress.ip_network("fd00::/127")], [ipaddress.ip_network("fd00::1/128")])
    assert [str(prefix) for prefix in left] == ["fd00::/128"]


@pytest.mark.parametrize(
    ("text", "nameservers", "search", "options"),
    [
        ("", (), (), ()),
        (RESOLV, ("192.168.0.1",), ("corp.test",), ("ndots:2",)),
        ("search a b\ndomain c\n", (), ("c",), ()),
        ("nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n", ("fe80::1%eth0",), (), ()),
        ("; comment\n# nameserver 1.1.1.1\nnameserver 9.9.9.9 ; why\n", ("9.9.9.9",), (), ()),
    ],
)
def test_resolv_conf(
    text: str, nameservers: tuple[str, ...], search: tuple[str, ...], options: tuple[str, ...]
) -> None:
    parsed = parse_resolv_conf(text)
    assert (parsed.nameservers, parsed.search, parsed.options) == (nameservers, search, options)


def test_rewrite_does_not_repeat_search_domains() -> None:
    assert "search a b c\n" in rewrite("search b c\n", nameserver="1.2.3.4", search_first=("a", "b"))


def test_kernel_routes() -> None:
    v4 = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        "broken\n"
    )
    assert parse_ipv4_routes(v4) == [route("0.0.0.0/0", gateway="192.168.0.1"), route("192.168.0.0/16")]
    zero = "0" * 32
    v6 = (
        f"fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n"
        f"fd000000000000000000000000000001 80 {zero} 00 {zero} 00000000 00000001 00000000 80200001 lo\n"
        f"ff000000000000000000000000000000 08 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n"
        "broken\n"
    )
    assert parse_ipv6_routes(v6) == [route("fd00::/64")]


GOOD = plan().request()


def changed(**parts: Any) -> dict[str, Any]:
    return {**GOOD, **parts}


@pytest.mark.parametrize(
    "request_",
    [
        None,
        {},
        changed(more=1),
        changed(interface={**GOOD["interface"], "name": "eth0"}),
        changed(interface={**GOOD["interface"], "name": "kt0; reboot"}),
        changed(interface={**GOOD["interface"], "mtu": 10}),
        changed(interface={**GOOD["interface"], "addresses": ["10.0.0.0/8"]}),
        changed(interface={**GOOD["interface"], "addresses": [7]}),
        changed(interface={**GOOD["interface"], "addresses": ["fe80::1%x\nlink set eth0 down"]}),
        changed(routes=["fd00::%x\nroute del default/64", "fd00::%x/64"]),
        changed(routes=["0.0.0.0/0"]),
        changed(routes=["0.0.0.0/1"]),
        changed(routes=["::/0"]),
        changed(routes=["127.0.0.0/8"]),
        changed(routes=["169.254.0.0/16"]),
        changed(routes=["224.0.0.0/4"]),
        changed(routes=["nonsense"]),
        changed(routes=["10.0.0.1/8"]),
        changed(routes=["10.0.0.0/24"] * 2000),
        changed(resolver={"path": "/etc/passwd", "content": "x"}),
        changed(resolver={"path": "/etc/resolv.conf", "content": "x" * 100_000}),
        changed(resolver={"path": "/etc/resolv.conf"}),
    ],
)
def test_helper_refuses_what_is_outside_its_grammar(request_: Any) -> None:
    with pytest.raises(Fault):
        check_plan(request_)


BEFORE, AFTER = (
    b"nameserver 192.168.0.1\nsearch corp.test\n",
    b"# ours\nnameserver 198.19.255.253\nsearch a.b.c.d.e.f.g.h.i.j.k\n",
)


def test_a_shorter_file_of_somebody_else_is_not_ours() -> None:
    """It begins as the machine's did, and ends before ours would."""
    assert not partly(BEFORE, BEFORE + AFTER, AFTER)


@pytest.mark.parametrize(
    ("current", "ours"),
    [
        *((AFTER[:at] + BEFORE[at:], True) for at in range(1, len(AFTER) + 1)),
        *((BEFORE[:at] + AFTER[at:], True) for at in range(1, len(BEFORE) + 1)),
        *((AFTER[:at], True) for at in range(len(AFTER) + 1)),
        (AFTER + b"options edns0\n", False),
        (BEFORE + b"options edns0\n", False),
        (b"nameserver 192.0.2.1\n", False),
        (AFTER.replace(b"198", b"192"), False),
    ],
)
def test_a_file_that_was_being_written_is_known(current: bytes, ours: bool) -> None:
    assert partly(current, BEFORE, AFTER) == ours


def test_devices_have_addresses_of_their_own() -> None:
    """One's own are in no table of routes."""
    addresses = [address for number in range(10) for address in plan(interface=f"kt{number}").addresses]
    assert len({*addresses}) == 20
    for number in range(10):
        check_plan(plan(interface=f"kt{number}").request())


@pytest.mark.parametrize(
    ("interface", "whose", "next_step"),
    [
        ("kt1", "kt1, the device of connection stage", "ktctl disconnect --name stage"),
        ("kt2", "kt2, the device of another user's connection", "or end the connection that routes it"),
        ("tun7", "routes to tun7", "or end the connection that routes it"),
    ],
)
def test_whose_route_is_in_the_way(interface: str, whose: str, next_step: str) -> None:
    with pytest.raises(RouteConflict) as caught:
        plan(routes=[route("10.244.0.0/16", interface)], owners={"kt1": "stage"})
    assert caught.value.what.endswith(whose)
    assert caught.value.next_step.endswith(next_step)
    assert "--exclude-ips 10.244.0.0/16" in caught.value.next_step

"""Who else is connected, whose text the resolver file has, and whom each connection asks on."""

from __future__ import annotations

import ipaddress

import pytest

from kt_net.host.naming import Environment, decide
from kt_net.host.neighbours import MOST, asked_on, free_interface, leader_of, neighbours_of, without_leader
from kt_net.host.resolvconf import rewrite
from kt_net.host.routes import Route

SERVERS = {"kt0": "198.19.255.253", "kt1": "198.19.255.252", "kt2": "198.19.255.251", "kt10": "198.19.255.250"}


def route(prefix: str, interface: str) -> Route:
    return Route(ipaddress.ip_network(prefix), interface, None)


def test_routes_tell_of_others() -> None:
    routes = [
        route("0.0.0.0/0", "eth0"),
        route("198.19.255.253/32", "kt0"),
        route("10.96.0.0/16", "kt0"),
        route("198.19.255.252/32", "kt1"),
        route("10.1.2.3/32", "kt1"),
        route("198.19.255.251/32", "tun0"),
        route("198.18.0.0/15", "kt7"),
        route("fd00:97::/112", "kt1"),
    ]
    assert neighbours_of(routes, "kt0") == {"kt1": "198.19.255.252"}
    assert neighbours_of(routes, "kt9") == {"kt0": "198.19.255.253", "kt1": "198.19.255.252"}


@pytest.mark.parametrize(
    ("text", "leader"),
    [
        (rewrite("", nameserver=SERVERS["kt1"], search_first=("svc",)), "kt1"),
        (rewrite("", nameserver="198.19.255.249", search_first=("svc",)), ""),  # one that has died, or one's own
        ("nameserver 192.0.2.53\n", ""),
        ("", ""),
    ],
)
def test_whose_file_it_is(text: str, leader: str) -> None:
    assert leader_of(text, SERVERS) == leader


@pytest.mark.parametrize(
    "there", [["kt0"], ["kt0", "kt1"], ["kt0", "kt1", "kt2"], ["kt0", "kt2", "kt10"], ["kt1", "kt10"]]
)
def test_everybody_is_asked_once(there: list[str]) -> None:
    """Whoever leads: its question goes by all the others, and the last one asks this machine."""
    for leader in there:
        asked, now = [], leader
        while now:
            asked.append(now)
            others = {one: SERVERS[one] for one in there if one != now}
            server = asked_on(now, leader, others)
            now = next((one for one in there if SERVERS[one] == server), "")
        assert sorted(asked) == sorted(there), leader


def test_no_circle_while_nobody_leads() -> None:
    there = ["kt0", "kt1", "kt2"]
    asked = [asked_on(one, "", {other: SERVERS[other] for other in there if other != one}) for one in there]
    assert asked == [SERVERS["kt1"], SERVERS["kt2"], ""]


def test_free_devices() -> None:
    assert free_interface([]) == "kt0"
    assert free_interface(["lo", "kt0", "kt2"]) == "kt1"
    assert free_interface([f"kt{number}" for number in range(MOST)]) == ""


def test_as_it_would_be_alone() -> None:
    led = Environment("linux", rewrite("", nameserver=SERVERS["kt0"], search_first=("svc",)))
    ours = tuple(SERVERS.values())
    assert decide(without_leader(led, "nameserver 192.0.2.53\n"), ours=ours).own.nameservers == ("192.0.2.53",)
    assert decide(without_leader(led, ""), ours=ours).own.nameservers == ("127.0.0.1",)  # there was no file

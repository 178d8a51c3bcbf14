"""Mutated plans: the helper refuses in words, and what it takes is safe by rules that are written down here a second time.

20,000; `--long`: 500,000.
"""

from __future__ import annotations

import copy
import json
import random
import re
import socket
from typing import Any

import pytest

from kt_net.host import helper
from kt_net.host.helper import Fault, check_plan, each_once, folder_files, set_routes

SEEDS = 2

GOOD: dict[str, Any] = {
    "interface": {
        "name": "kt0",
        "mtu": 1500,
        "offload": True,
        "addresses": ["198.18.255.253/32", "fd6b:746e:6574::1/128"],
    },
    "routes": ["10.244.0.0/16", "10.96.0.0/16", "198.19.255.253/32", "fd00:244::/64", "240.0.0.0/8"],
    "resolver": {
        "kind": "file",
        "path": "/etc/resolv.conf",
        "content": "nameserver 198.19.255.253\nsearch default.svc.cluster.local\n",
        "seen": "0123abcd",
    },
}
LINK: dict[str, Any] = {
    "kind": "link",
    "server": "198.19.255.253",
    "search": ["default.svc.cluster.local", "svc.cluster.local"],
    "domains": ["cluster.local", "97.10.in-addr.arpa", "_tcp.web"],
    "everything": False,
}
HOSTS: dict[str, Any] = {
    "kind": "hosts",
    "path": "/etc/hosts",
    "lines": [["10.96.0.7", "web", "web.default"], ["fd00:96::7", "web"]],
}
#: The four ways of names, each in a plan.
WRITTEN = [json.dumps({**GOOD, "resolver": way}) for way in (GOOD["resolver"], LINK, {**LINK, "kind": "folder"}, HOSTS)]

ODD_TEXT = (
    "", " ", "\n", ";", "%", "%eth0", "\0", "\ud800", "١٢", "²", "+1", "0x10", "/", "/0", "/33", "/129", "/-1",
    "kt0", "kt1000", "kt٣", "kt0\n", "eth0", "lo", "/etc/passwd", "/etc/../etc/resolv.conf", "/etc/resolv.conf\n",
    "0.0.0.0/0", "0.0.0.0/4", "16.0.0.0/4", "::/0", "::/8", "2000::/3", "fe00::/8", "fd00::/8", "112.0.0.0/4", "160.0.0.0/4",
    "126.0.0.0/7", "127.0.0.1/32", "169.254.169.254/32", "168.0.0.0/6", "224.0.0.0/4", "232.0.0.0/8", "::1/128",
    "::ffff:10.0.0.0/104", "::ffff:a00:0/104", "fe80::/64", "ff02::1/128", "10.0.0.0/255.0.0.0", "10.0.0.0/0.255.255.255",
    "10.0.0.1", "10.0.0.1/8", "010.0.0.0/8", "10.1/16", "10.0.0.0/08", "10.0.0.0/8 via 10.0.0.1", "10.0.0.0/8\nroute del default",
    "fd00::%x\nroute del default/64", "fd00::%x/64", "FD00::/64", "fd00:0::/64", "8.8.8.8/32", "192.168.0.1/32", "2001:db8::1/128",
    "198.18.0.1/32", "fd6b:746e:6574::9/128", "default", "١٠.0.0.0/8", "link", "hosts", "folder", "file", "-h", "--help", "~.", ".", "..",
    "../x", "a..b", ".a", "a.", "-a", "a-", "a_b", "A", "ä", "a b", "a\tb", "x" * 63, "x" * 64, "x." * 126 + "x", "x." * 127 + "x",
    "a\n1.2.3.4 b",     "a#b", "1.2.3.4", "fd00::7", "FD00::7", "1.2.3", "fe80::1%lo", "/etc/hosts",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    *ODD_TEXT, None, True, False, 0, 1, -1, 1279, 1280, 65535, 65536, 2**63, 10**400, 1500.0, 1e400, float("nan"),
    [], {}, [[]], [[[[[[[[]]]]]]]], {"name": "kt0"}, ["10.0.0.0/8"], ["198.18.0.1/32"] * 9, "\ud800" * 3, b"octets", (1,), {1: 2},
    {"\ud800": 1},
)  # fmt: skip
HUGE: tuple[Any, ...] = (["10.0.0.0/8"] * 1025, "x" * 70_000, "x" * 65_536, "10.0.0.0/8" * 10_000, 10**5000)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value in it."""
    found = [way]
    if isinstance(value, dict):
        for name in value:
            found += places(value[name], (*way, name))
    elif isinstance(value, list):
        for number, part in enumerate(value[:20]):
            found += places(part, (*way, number))
    return found


def odd(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(HUGE if chance.random() < 0.02 else ODD))


def changed(chance: random.Random, value: Any) -> Any:
    """One value, a little or altogether different."""
    if chance.random() < 0.4 or not isinstance(value, str):
        return odd(chance)
    at = chance.randint(0, len(value))
    match chance.randrange(4):
        case 0:
            return value[:at] + chance.choice(ODD_TEXT) + value[at:]
        case 1:
            return value[:at] + value[at + 1 :]
        case 2:
            return value[:at] + chance.choice("0123456789abcdef:./%;\n \0\ud801٣") + value[at + 1 :]
        case _:
            return chance.choice(ODD_TEXT)


def mutated(chance: random.Random) -> Any:
    plan: Any = json.loads(chance.choice(WRITTEN))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        way = chance.choice(places(plan))
        if not way:
            if chance.random() < 0.05:
                return odd(chance)
            continue
        holder = plan
        for step in way[:-1]:
            holder = holder[step]
        last = way[-1]
        match chance.randrange(6):
            case 0 if chance.random() < 0.3:
                del holder[last]
            case 1 if isinstance(holder, list):
                holder.insert(last, changed(chance, holder[last]))
            case 2 if isinstance(holder, dict) and chance.random() < 0.3:
                holder[chance.choice(("more", "", "name", "\ud800"))] = odd(chance)
            case _:
                holder[last] = changed(chance, holder[last])
    return plan


def fault_of(plan: Any) -> Fault | None:
    try:
        check_plan(plan)
    except Fault as fault:
        return fault
    return None


# -- the rules, once more, by other means


def numbers(text: str) -> tuple[int, int, int]:
    """Of a prefix: bits of the family, first address, last address."""
    address, _, length = text.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    first = int.from_bytes(socket.inet_pton(family, address))
    return bits, first, first + (1 << (bits - int(length))) - 1


#: IPv4 and IPv6: from, to (both included), what is never captured.
NEVER = {
    32: ((0, 0x00FFFFFF), (0x7F000000, 0x7FFFFFFF), (0xA9FE0000, 0xA9FEFFFF), (0xE0000000, 0xEFFFFFFF)),
    128: ((0, 1), (0xFFFF << 32, (0xFFFF << 32) + 0xFFFFFFFF), (0xFE80 << 112, (0xFEC0 << 112) - 1), (0xFF << 120, (1 << 128) - 1)),
}  # fmt: skip


def assert_safe(plan: Any) -> None:
    assert sorted(plan) == ["interface", "resolver", "routes"]
    interface = plan["interface"]
    assert sorted(interface) == ["addresses", "mtu", "name", "offload"]
    assert re.fullmatch("kt[0123456789]{1,3}", interface["name"])
    assert type(interface["mtu"]) is int
    assert 1280 <= interface["mtu"] <= 65535
    assert interface["offload"] in (True, False)
    assert type(interface["offload"]) is bool
    assert len(interface["addresses"]) <= 8
    for text in interface["addresses"]:
        bits, first, last = numbers(text)
        assert first == last
        assert first >> 17 == 0xC6120000 >> 17 if bits == 32 else first >> 64 == 0xFD6B746E65740000
    assert len(plan["routes"]) <= 1024
    for text in plan["routes"]:
        bits, first, last = numbers(text)
        assert last - first < 1 << (28 if bits == 32 else 120), f"{text} is much of the internet"
        assert first % (last - first + 1) == 0
        assert not any(first <= to and since <= last for since, to in NEVER[bits]), text
    if plan["resolver"] is not None:
        assert_safe_names(plan["resolver"])


def assert_safe_names(resolver: Any) -> None:
    match resolver["kind"]:
        case "file":
            assert sorted(resolver) == ["content", "kind", "path", "seen"]
            assert resolver["path"] == "/etc/resolv.conf"
            assert len(resolver["content"]) <= 65536
            assert "\0" not in resolver["content"].encode().decode()
        case "link" | "folder":
            assert sorted(resolver) == ["domains", "everything", "kind", "search", "server"]
            assert type(resolver["everything"]) is bool
            assert numbers(f"{resolver['server']}/{128 if ':' in resolver['server'] else 32}")
            for name in (*resolver["search"], *resolver["domains"]):
                assert_name(name)
            for name in folder_files("kt0", resolver):
                assert "/" not in name and not name.startswith(".")  # noqa: PT018 - one thought
        case "hosts":
            assert sorted(resolver) == ["kind", "lines", "path"]
            assert resolver["path"] == "/etc/hosts"
            for address, *names in resolver["lines"]:
                assert names
                assert numbers(f"{address}/{128 if ':' in address else 32}")
                for name in names:
                    assert_name(name)
        case other:
            raise AssertionError(other)


def assert_name(name: Any) -> None:
    """Small letters, digits, hyphens and underscores, in labels of 1 to 63, none of them with a hyphen at an end; 253 in all."""
    assert 0 < len(name) <= 253
    for label in name.split("."):
        assert 0 < len(label) <= 63
        assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
        assert label[0] != "-" != label[-1]


@pytest.fixture
def said_to_ip(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines that would go to `ip -batch`."""
    lines: list[str] = []
    monkeypatch.setattr(helper, "run_ip", lambda arguments, text: lines.extend(text.split("\n")))
    monkeypatch.setattr(helper, "ipv6_is_on", lambda name: True)
    return lines


LINE = re.compile(
    r"link set kt[0-9]{1,3} (mtu [0-9]{4,5}|txqueuelen 1000 up)|(addr|route) add [0-9a-f.:]+/[0-9]{1,3} dev kt[0-9]{1,3}( nodad)?|",
    re.ASCII,
)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_mutated_plans(seed: int, long: bool, said_to_ip: list[str]) -> None:
    chance = random.Random(seed)
    total = (500_000 if long else 20_000) // SEEDS
    refused = 0
    for _ in range(total):
        plan = mutated(chance)
        fault = fault_of(plan)
        if fault is not None:
            refused += 1
            assert fault.kind == "plan"
            assert len(str(fault)) < 400, "an answer has to stay small"
            continue
        assert_safe(plan)
        said_to_ip.clear()
        set_routes(plan["interface"], plan["routes"])
        assert all(LINE.fullmatch(line) for line in said_to_ip), said_to_ip
        json.dumps(plan).encode()  # the journal can be written
    assert total // 4 < refused < total * 9 // 10


@pytest.mark.parametrize("seed", range(SEEDS))
def test_mutated_octets(seed: int, long: bool) -> None:
    """As they come over the socket."""
    chance = random.Random(seed)
    taken = 0
    for _ in range((100_000 if long else 4_000) // SEEDS):
        line = bytearray(chance.choice(WRITTEN).encode())
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(line))
            match chance.randrange(4):
                case 0:
                    line[at] = chance.choice(b'"{}[],:0\\u\xff\xed')
                case 1:
                    del line[at : at + chance.randint(1, 9)]
                case 2:
                    line[at:at] = chance.choice(
                        (b"\\ud800", b"\\u0000", b"1e999", b"NaN", b"[" * 50, b'"routes": [], ')
                    )
                case _:
                    line[at] ^= 1 << chance.randrange(8)
        try:
            plan = json.loads(line.decode(), object_pairs_hook=each_once)
        except (ValueError, RecursionError):
            continue
        if fault_of(plan) is not None:
            continue
        assert_safe(plan)
        taken += 1
    assert taken


def test_the_same_name_twice_is_no_object() -> None:
    with pytest.raises(ValueError, match="twice"):
        json.loads('{"do": "beat", "do": "apply"}', object_pairs_hook=each_once)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((("routes", 0), text) for text in ("112.0.0.0/4", "160.0.0.0/4", "fe00::/8", "::ffff:a00:0/104", "10.0.0.0/255.0.0.0")),
        *((("routes", 0), value) for value in (167772160, ["10.0.0.0", 8], True, "FD00::/64", "10.0.0.1", "١٠.0.0.0/8")),
        *((("interface", "addresses", 0), text) for text in ("8.8.8.8/32", "127.0.0.1/32", "fe80::1/128", "198.18.0.1")),
        *((("interface", "mtu"), value) for value in (True, 1500.0, 10**5000, float("nan"), "1500")),
        *((("interface", "name"), value) for value in ("kt0\n", "kt٣", "kt", "kt1000", "kt0;")),
        (("interface", "offload"), 1),
        (("resolver", "content"), "nameserver 1.2.3.4\n\ud800"),
        (("resolver", "content"), "\0"),
        (("interface", "addresses"), ["198.18.0.1/32"] * 9),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, int) else "a number",
)  # fmt: skip
def test_what_was_once_taken(place: tuple[Any, ...], value: Any) -> None:
    plan: Any = copy.deepcopy(GOOD)
    check_plan(plan)
    holder = plan
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    with pytest.raises(Fault):
        check_plan(plan)

"""Mutated messages from programs and from upstreams: nothing is raised, and nothing is kept of them. 5,000; `--long`: 100,000."""

from __future__ import annotations

import random
import struct

import pytest
from dnslib import AAAA, CNAME, QTYPE, RR, SOA, SRV, A, DNSRecord
from dnslib.dns import EDNS0

from kt_net.dns.resolver import Answer, Ask, Resolver, Transport
from kt_net.dns.routing import Order, Routing

SEEDS = 4
NAMES = ("web", "web.default", "web.dev", "a.b.default.svc.cluster.local", "example.com", "1.0.96.10.in-addr.arpa", "")
KINDS = ("A", "AAAA", "SRV", "PTR", "TXT", "ANY")
ODD_OCTETS = (0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xC1, 0xFF)


def query(chance: random.Random) -> bytes:
    """One as programs make it."""
    record = DNSRecord.question(chance.choice(NAMES), chance.choice(KINDS))
    record.header.id = chance.randrange(65536)
    if chance.random() < 0.5:
        record.add_ar(EDNS0(udp_len=chance.choice((0, 512, 1232, 65535))))
    return with_odd_record(chance, bytes(record.pack()))


def with_odd_record(chance: random.Random, message: bytes) -> bytes:
    """With another record behind all of them, of any type and of octets that need not be its."""
    if chance.random() < 0.7:
        return message
    data = chance.choice((b"\0", b"\0\xff\x20" + bytes(32), chance.randbytes(chance.randrange(24))))
    count = int.from_bytes(message[10:12], "big") + 1
    kind = chance.choice((2, 12, 15, 29, 43, 46, 47, 48, 50, 52, 64, 65, 250, 257, chance.randrange(1, 300)))
    record = b"\0" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
    return message[:10] + count.to_bytes(2, "big") + message[12:] + record


def reply(chance: random.Random, asked: bytes) -> bytes:
    """One as upstreams make it."""
    answer = DNSRecord.parse(asked).reply()
    answer.header.rcode = chance.choice((0, 0, 0, 2, 3, 3, 5))
    answer.header.tc = chance.random() < 0.1
    name = answer.q.qname
    for _ in range(chance.randrange(4)):
        data = chance.choice((A("10.0.0.1"), AAAA("fd00::1"), CNAME("x.default"), SRV(0, 1, 80, "web.default")))
        answer.add_answer(
            RR(name, getattr(QTYPE, type(data).__name__), rdata=data, ttl=chance.choice((0, 1, 30, 1 << 31)))
        )
    if chance.random() < 0.5:
        answer.add_auth(RR("cluster.local", QTYPE.SOA, rdata=SOA("ns.", "admin.", (1, 2, 3, 4, 5)), ttl=30))
    return with_odd_record(chance, bytes(answer.pack()))


def mutated(chance: random.Random, message: bytes) -> bytes:
    """With up to three faults; the id is often kept."""
    data = bytearray(message)
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        at = chance.randrange(len(data)) if data and chance.random() < 0.5 else chance.randrange(2, 30)
        match chance.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(data):
                data[at] = chance.choice(ODD_OCTETS)
            case 2:
                del data[at:]
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 5))
            case _:
                data += chance.randbytes(chance.randrange(20))
    return bytes(data)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("order", list(Order))
def test_nothing_is_raised_and_nothing_is_kept(seed: int, order: Order, long: bool) -> None:
    chance = random.Random(f"{seed} {order}")
    routing = Routing(
        cluster_domains=["cluster.local"], namespace="shop", namespaces=["default", "dev"], prefixes=[], order=order
    )
    routing.update_services("dev", ["web"])
    resolver = Resolver(routing=routing, entropy=chance.randbytes)
    now, asks, answered = 0.0, list[Ask](), 0
    for number in range((100_000 if long else 5_000) // SEEDS // len(Order)):
        now += chance.choice((0.0, 0.001, 0.3, 2.0))
        transport = chance.choice(list(Transport))
        resolver.receive_query(mutated(chance, query(chance)), client=number, transport=transport, now=now)
        if asks and chance.random() < 0.8:
            ask = asks.pop(chance.randrange(len(asks)))
            resolver.receive_answer(ask.ask, mutated(chance, reply(chance, ask.data)), now=now)
        timer = resolver.next_timer()
        if timer is not None and timer <= now:
            resolver.handle_timer(now=now)
        while (event := resolver.next_event()) is not None:
            if isinstance(event, Ask):
                asks.append(event)
            else:
                assert isinstance(event, Answer)
                answered += 1
    while (timer := resolver.next_timer()) is not None:
        resolver.handle_timer(now=timer)
        while (event := resolver.next_event()) is not None:
            answered += isinstance(event, Answer)
    assert answered > 100
    assert resolver.under_way == 0

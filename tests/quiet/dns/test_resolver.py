"""Where names go, what comes back, and what is told when nothing does."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from dnslib.dns import EDNS0
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_net.dns.messages import question, records_of, truncated
from kt_net.dns.resolver import ASK_SECONDS, MAX_ASKS, Answer, Ask, Resolver, Transport
from kt_net.dns.routing import Mode, Order, Routing, Upstream, Way, mode_of
from kt_net.errors import MalformedMessage, UsageFault

PREFIXES = [ipaddress.ip_network("10.96.0.0/16"), ipaddress.ip_network("fd00:96::/112")]


def routing(**options: Any) -> Routing:
    given = {
        "cluster_domains": ["cluster.local", "second.example"],
        "namespace": "shop",
        "namespaces": ["default", "dev"],
        "prefixes": PREFIXES,
    }
    return Routing(**given | options)


def words(way: Way) -> list[str]:
    """As "cluster web.default" and "machine web"."""
    return [f"{step.upstream.value} {step.name}" for step in way]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("web.default.svc.cluster.local", ["cluster web.default.svc.cluster.local"]),
        ("web.default.svc.second.example", ["cluster web.default.svc.second.example"]),
        ("cluster.local", ["cluster cluster.local"]),
        ("web", ["cluster web.shop.svc.cluster.local", "machine web"]),
        ("web.default", ["cluster web.default.svc.cluster.local", "machine web.default"]),
        ("web.shop", ["cluster web.shop.svc.cluster.local", "machine web.shop"]),
        ("redis-0.redis.default", ["cluster redis-0.redis.default.svc.cluster.local", "machine redis-0.redis.default"]),
        ("web.default.svc", ["cluster web.default.svc.cluster.local", "machine web.default.svc"]),
        ("example.com", ["machine example.com"]),
        ("notcluster.local", ["machine notcluster.local"]),
        ("svc", ["cluster svc.shop.svc.cluster.local", "machine svc"]),
        ("", ["machine "]),
        ("1.0.96.10.in-addr.arpa", ["cluster 1.0.96.10.in-addr.arpa"]),
        ("1.0.168.192.in-addr.arpa", ["machine 1.0.168.192.in-addr.arpa"]),
        ("x.in-addr.arpa", ["machine x.in-addr.arpa"]),
        ("1." + "0." * 19 + "6.9.0.0.0.0.d.f.ip6.arpa", ["machine 1." + "0." * 19 + "6.9.0.0.0.0.d.f.ip6.arpa"]),
        (
            "1.0.0.0." + "0." * 20 + "6.9.0.0.0.0.d.f.ip6.arpa",
            ["cluster 1.0.0.0." + "0." * 20 + "6.9.0.0.0.0.d.f.ip6.arpa"],
        ),
    ],
)
def test_way(name: str, way: list[str]) -> None:
    assert words(routing().way(name)) == way


@pytest.mark.parametrize(
    ("order", "name", "way"),
    [
        (Order.MACHINE_FIRST, "web", ["machine web", "cluster web.shop.svc.cluster.local"]),
        (Order.MACHINE_FIRST, "web.default.svc.cluster.local", ["cluster web.default.svc.cluster.local"]),
        (Order.MACHINE_FIRST, "example.com", ["machine example.com"]),
        (Order.CLUSTER_ONLY, "web", ["cluster web.shop.svc.cluster.local", "cluster web"]),
        (Order.CLUSTER_ONLY, "example.com", ["cluster example.com"]),
        (Order.CLUSTER_ONLY, "www.corp.example", ["cluster www.corp.example"]),
        (Order.CLUSTER_ONLY, "1.0.168.192.in-addr.arpa", ["cluster 1.0.168.192.in-addr.arpa"]),
        (Order.CLUSTER_FIRST, "www.corp.example", ["cluster www.corp.example", "machine www.corp.example"]),
        (Order.CLUSTER_FIRST, "corp.example", ["cluster corp.example", "machine corp.example"]),
        (Order.CLUSTER_FIRST, "notcorp.example", ["machine notcorp.example"]),
    ],
)
def test_way_by_choice(order: Order, name: str, way: list[str]) -> None:
    assert words(routing(order=order, domains=["corp.example."]).way(name)) == way


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        ("localDNS", Order.CLUSTER_FIRST),
        ("localDNS:cluster,upstream", Order.CLUSTER_FIRST),
        ("localDNS:upstream, cluster", Order.MACHINE_FIRST),
        ("localDNS:cluster", Order.CLUSTER_ONLY),
        ("podDNS", Order.CLUSTER_ONLY),
    ],
)
def test_modes(mode: str, order: Order) -> None:
    assert mode_of(mode) == Mode(order)


@pytest.mark.parametrize(
    "mode", ["", "localdns", "localDNS:upstream", "localDNS:a", "podDNS:cluster", "hosts:", "hosts: ,"]
)
def test_no_modes(mode: str) -> None:
    with pytest.raises(UsageFault, match="--dns-mode"):
        mode_of(mode)


@pytest.mark.parametrize(("name", "kind"), [("a..b", "A"), ("x" * 64, "A"), ("web", "FOO"), ("a." * 200, "A")])
def test_questions_that_cannot_be(name: str, kind: str) -> None:
    with pytest.raises(MalformedMessage):
        question(name, kind, 1)


def test_question_and_records() -> None:
    asked = DNSRecord.parse(question("web.default.", "aaaa", 7))
    assert (asked.header.id, str(asked.q.qname), asked.q.qtype, asked.ar[0].rclass) == (7, "web.default.", 28, 1232)
    answer = asked.reply()
    answer.add_answer(RR("web.default.", QTYPE.A, rdata=A("10.96.0.1"), ttl=5))
    assert records_of(bytes(answer.pack())) == ("NOERROR", ["web.default. 5 A 10.96.0.1"])


def test_names_of_another_connection() -> None:
    """Where the machine's resolver is one, what is in no cluster of ours may be in its; not for those who want ours alone."""
    table = routing()
    for passed_on, more in ((True, ["machine web.shop.svc.cluster.local"]), (False, [])):
        assert table.pass_on(passed_on)
        assert not table.pass_on(passed_on)
        assert words(table.way("web.shop.svc.cluster.local")) == ["cluster web.shop.svc.cluster.local", *more]
    alone = routing(order=Order.CLUSTER_ONLY)
    alone.pass_on(True)
    assert words(alone.way("web.shop.svc.cluster.local")) == ["cluster web.shop.svc.cluster.local"]


def test_namespaces_change() -> None:
    table = routing()
    assert words(table.way("web.new")) == ["machine web.new"]
    table.update_namespaces(["new"])
    assert words(table.way("web.new")) == ["cluster web.new.svc.cluster.local", "machine web.new"]
    assert words(table.way("web.default")) == ["machine web.default"]


def test_a_namespace_that_is_a_top_level_domain_has_the_services_that_are_there() -> None:
    table = routing()
    assert table.ambiguous == {"dev", "shop"}
    unknown = ["cluster www.example.dev.svc.cluster.local", "machine www.example.dev"]
    assert words(table.way("www.example.dev")) == unknown, "nobody may list Services: the cluster knows"
    table.update_services("dev", ["web"])
    assert words(table.way("www.example.dev")) == ["machine www.example.dev"]
    assert words(table.way("web.dev")) == ["cluster web.dev.svc.cluster.local", "machine web.dev"]
    assert len(table.way("redis-0.web.dev")) == 2, "a pod of a StatefulSet"
    assert words(table.way("dev")) == ["cluster dev.shop.svc.cluster.local", "machine dev"]
    table.update_namespaces(["other"])
    table.update_namespaces(["dev"])
    assert words(table.way("www.example.dev")) == unknown, "it is another namespace now"


class Machine:
    """A resolver and its conversation."""

    def __init__(self) -> None:
        self.number = 0
        self.resolver = Resolver(routing=routing(namespaces=["default"]), entropy=self._entropy)

    def _entropy(self, count: int) -> bytes:
        self.number += 1
        return self.number.to_bytes(count, "big")

    def query(self, name: str, kind: str = "A", *, transport: Transport = Transport.UDP, edns: int = 0) -> DNSRecord:
        record = DNSRecord.question(name, kind)
        if edns:
            record.add_ar(EDNS0(udp_len=edns))
        self.resolver.receive_query(bytes(record.pack()), client="program", transport=transport, now=0.0)
        return record

    def ask(self) -> Ask:
        event = self.resolver.next_event()
        assert isinstance(event, Ask)
        return event

    def answer(self) -> DNSRecord:
        event = self.resolver.next_event()
        assert isinstance(event, Answer)
        assert event.client == "program"
        return DNSRecord.parse(event.data)


def reply(ask: Ask, *addresses: str, rcode: int = RCODE.NOERROR) -> bytes:
    answer = DNSRecord.parse(ask.data).reply()
    answer.header.rcode = rcode
    for address in addresses:
        answer.add_answer(RR(answer.q.qname, QTYPE.A, rdata=A(address), ttl=17))
    return bytes(answer.pack())


def test_cluster_name_passes_as_it_is() -> None:
    machine = Machine()
    asked = machine.query("web.default.svc.cluster.local")
    ask = machine.ask()
    assert ask.upstream is Upstream.CLUSTER
    machine.resolver.receive_answer(ask.ask, reply(ask, "10.96.0.1"), now=0.1)
    answer = machine.answer()
    assert (answer.header.id, str(answer.rr[0].rdata), answer.rr[0].ttl) == (asked.header.id, "10.96.0.1", 17)


def test_expanded_name_comes_back_as_asked() -> None:
    machine = Machine()
    machine.query("WeB")
    ask = machine.ask()
    assert str(DNSRecord.parse(ask.data).q.qname) == "web.shop.svc.cluster.local."
    machine.resolver.receive_answer(ask.ask, reply(ask, "10.96.0.2"), now=0.1)
    answer = machine.answer()
    assert str(answer.q.qname) == "WeB."
    assert str(answer.rr[0].rname) == "WeB."


def test_nxdomain_of_the_cluster_goes_on_to_the_machine() -> None:
    machine = Machine()
    machine.query("printer")
    ask = machine.ask()
    machine.resolver.receive_answer(ask.ask, reply(ask, rcode=RCODE.NXDOMAIN), now=0.1)
    second = machine.ask()
    assert (second.upstream, str(DNSRecord.parse(second.data).q.qname)) == (Upstream.MACHINE, "printer.")
    machine.resolver.receive_answer(second.ask, reply(second, "192.168.0.9"), now=0.2)
    assert str(machine.answer().rr[0].rdata) == "192.168.0.9"


def test_nxdomain_under_the_cluster_domain_is_the_answer() -> None:
    machine = Machine()
    machine.query("no.default.svc.cluster.local")
    ask = machine.ask()
    machine.resolver.receive_answer(ask.ask, reply(ask, rcode=RCODE.NXDOMAIN), now=0.1)
    assert machine.answer().header.rcode == RCODE.NXDOMAIN


def test_failure_is_servfail_not_a_lie() -> None:
    machine = Machine()
    machine.query("web")
    machine.resolver.ask_failed(machine.ask().ask, now=0.1)
    assert machine.answer().header.rcode == RCODE.SERVFAIL


def test_a_name_that_is_too_long_when_it_is_expanded() -> None:
    machine = Machine()
    name = ".".join(["a" * 60] * 4)[:240] + ".default"
    machine.query(name)
    ask = machine.ask()
    assert (ask.upstream, str(DNSRecord.parse(ask.data).q.qname)) == (Upstream.MACHINE, name + ".")


def test_a_name_that_comes_back_from_the_cluster_goes_on_to_the_machine() -> None:
    """The DNS of a cluster on this machine asks this machine for what it does not know: not a circle."""
    machine = Machine()
    machine.resolver = Resolver(routing=routing(order=Order.CLUSTER_ONLY), entropy=random.Random(1).randbytes)
    machine.query("www.example.com")
    first = machine.ask()
    assert first.upstream is Upstream.CLUSTER
    sent = str(DNSRecord.parse(first.data).q.qname)
    assert sent.lower() == "www.example.com." != sent
    machine.query("www.example.com")
    machine.query("WWW.EXAMPLE.COM")
    other = machine.ask()
    assert other.upstream is Upstream.CLUSTER, "others who ask are not sent elsewhere"
    machine.query(sent)
    second = machine.ask()
    assert second.upstream is Upstream.MACHINE
    machine.resolver.receive_answer(second.ask, reply(second, "192.0.2.1"), now=0.1)
    assert str(machine.answer().rr[0].rdata) == "192.0.2.1"
    machine.resolver.receive_answer(first.ask, reply(first, "192.0.2.1"), now=0.2)
    answer = machine.answer()
    assert [str(answer.q.qname), str(answer.rr[0].rname)] == ["www.example.com."] * 2, "as it was asked"
    machine.resolver.receive_answer(other.ask, reply(other, "192.0.2.1"), now=0.2)
    assert [str(machine.answer().q.qname), str(machine.answer().q.qname)] != [sent, sent]
    assert machine.resolver.under_way == 0


def test_all_who_asked_hear_that_it_is_no_name() -> None:
    machine = Machine()
    machine.resolver = Resolver(routing=routing(order=Order.MACHINE_FIRST), entropy=random.Random(1).randbytes)
    name = ".".join(["a" * 60] * 4)[:240] + ".default"
    machine.query(name)
    machine.query(name)
    ask = machine.ask()
    machine.resolver.receive_answer(ask.ask, reply(ask, rcode=RCODE.NXDOMAIN), now=0.1)
    assert [machine.answer().header.rcode, machine.answer().header.rcode] == [RCODE.NXDOMAIN] * 2
    assert machine.resolver.under_way == 0


def test_trail() -> None:
    machine = Machine()
    machine.query("printer")
    ask = machine.ask()
    machine.resolver.receive_answer(ask.ask, reply(ask, rcode=RCODE.NXDOMAIN), now=0.5)
    machine.resolver.ask_failed(machine.ask().ask, now=2.0)
    event = machine.resolver.next_event()
    assert isinstance(event, Answer)
    assert [(asked.step.upstream.value, asked.outcome, asked.records, asked.seconds) for asked in event.trail] == [
        ("cluster", "NXDOMAIN", 0, 0.5),
        ("machine", "no answer", 0, 1.5),
    ]


def test_silence_is_servfail_in_time() -> None:
    machine = Machine()
    machine.query("example.com")
    machine.ask()
    assert machine.resolver.next_timer() == ASK_SECONDS
    machine.resolver.handle_timer(now=ASK_SECONDS)
    assert machine.answer().header.rcode == RCODE.SERVFAIL
    assert machine.resolver.next_timer() is None


def test_answers_to_something_else_are_not_taken() -> None:
    machine = Machine()
    machine.query("example.com")
    ask = machine.ask()
    good = reply(ask, "192.0.2.1")
    wrong_id = bytes([good[0] ^ 1]) + good[1:]
    other = DNSRecord.question("other.com")
    other.header.id = DNSRecord.parse(ask.data).header.id
    for forged in (wrong_id, bytes(other.reply().pack()), ask.data):
        machine.resolver.receive_answer(ask.ask, forged, now=0.1)
        assert machine.resolver.next_event() is None
    machine.resolver.receive_answer(ask.ask, good, now=0.2)
    assert str(machine.answer().rr[0].rdata) == "192.0.2.1"


def test_large_answers_are_truncated_over_udp_and_whole_over_tcp() -> None:
    addresses = [f"10.0.0.{last}" for last in range(1, 60)]
    for transport, edns, whole in ((Transport.UDP, 0, False), (Transport.UDP, 4096, True), (Transport.TCP, 0, True)):
        machine = Machine()
        machine.query("many.default.svc.cluster.local", transport=transport, edns=edns)
        ask = machine.ask()
        assert ask.transport is transport
        machine.resolver.receive_answer(ask.ask, reply(ask, *addresses), now=0.1)
        answer = machine.answer()
        assert (answer.header.tc, len(answer.rr)) == ((0, 59) if whole else (1, 0))


def test_truncated_without_a_question() -> None:
    assert truncated(bytes(12) + bytes(600), 512) == b"\0\0\x02\0" + bytes(8)


def test_too_many_questions_are_servfail() -> None:
    machine = Machine()
    for number in range(MAX_ASKS):
        machine.query(f"name{number}.example.com")
        machine.ask()
    machine.query("one.more.example.com")
    assert machine.answer().header.rcode == RCODE.SERVFAIL


def test_what_is_no_query() -> None:
    machine = Machine()
    machine.resolver.receive_query(
        b"\x12\x34\x01\x00" + b"\xff" * 20, client="program", transport=Transport.UDP, now=0.0
    )
    answer = machine.answer()
    assert (answer.header.id, answer.header.rcode) == (0x1234, RCODE.FORMERR)
    machine.resolver.receive_query(b"x", client="program", transport=Transport.UDP, now=0.0)
    assert machine.resolver.next_event() is None
    assert machine.resolver.dropped == 1


def test_a_name_that_leads_into_the_header_is_no_question() -> None:
    """Under another id it would be another name."""
    machine = Machine()
    query = b"\0\0\x01\0\0\1" + bytes(6) + b"\xc0\0" + b"\0\1\0\1"
    machine.resolver.receive_query(query, client="program", transport=Transport.UDP, now=0.0)
    assert machine.answer().header.rcode == RCODE.FORMERR


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=5))
def test_foreign_octets(data: bytes, changes: list[tuple[int, int]]) -> None:
    machine = Machine()
    mutated = bytearray(DNSRecord.question("web.default").pack())
    for at, octet in changes:
        mutated[at % len(mutated)] = octet
    for query in (data, bytes(mutated)):
        machine.resolver.receive_query(query, client="program", transport=Transport.UDP, now=0.0)
    while (event := machine.resolver.next_event()) is not None:
        if isinstance(event, Ask):
            machine.resolver.receive_answer(event.ask, bytes(mutated), now=0.1)
            machine.resolver.receive_answer(event.ask, event.data[:2] + data, now=0.1)
    machine.resolver.handle_timer(now=100.0)
    assert machine.resolver.next_timer() is None


def test_domains_for_a_machine_that_routes_by_domain() -> None:
    rules = routing(domains=["corp.example"], prefixes=[*PREFIXES, ipaddress.ip_network("10.12.0.0/15")])
    rules.update_services("dev", ["web"])
    rules.update_hosts(["shop.example", "*.apps.example"])
    routed = rules.routed
    assert routed[:3] == ("cluster.local", "second.example", "svc")
    assert {"corp.example", "shop.example", "apps.example", "default", "web.dev"} <= set(routed)
    assert not {"dev", "shop"} & set(routed), "a top-level domain is not the cluster's"
    assert {"96.10.in-addr.arpa", "12.10.in-addr.arpa", "13.10.in-addr.arpa"} <= set(routed)
    zone = next(name for name in routed if name.endswith("ip6.arpa"))
    assert "7.0.0.0." + zone == ipaddress.ip_address("fd00:96::7").reverse_pointer
    assert len(zone.split(".")) == 112 // 4 + 2


def test_hosts_of_ingresses() -> None:
    made = Resolver(routing=routing(), entropy=random.Random(1).randbytes, ingress=("192.0.2.80", "2001:db8::80"))
    made.update_hosts(["shop.example", "*.apps.example"])
    found = {}
    for name, kind in [
        ("Shop.example", "A"),
        ("a.apps.example", "AAAA"),
        ("shop.example", "MX"),
        ("apps.example", "A"),
    ]:
        made.receive_query(question(name, kind, 7), client=name, transport=Transport.UDP, now=0.0)
        found[name, kind] = made.next_event()
    first, second, third, other = found.values()
    assert isinstance(first, Answer)
    assert records_of(first.data) == ("NOERROR", ["Shop.example. 5 A 192.0.2.80"])
    assert first.trail[0].step.upstream is Upstream.INGRESS
    assert isinstance(second, Answer)
    assert records_of(second.data)[1] == ["a.apps.example. 5 AAAA 2001:db8::80"]
    assert isinstance(third, Answer)
    assert records_of(third.data) == ("NOERROR", [])
    assert isinstance(other, Ask), "a wildcard is for one label more"


@pytest.mark.parametrize(
    ("mode", "namespaces"), [("hosts", ()), ("hosts:shop", ("shop",)), ("hosts:shop, default", ("shop", "default"))]
)
def test_hosts_modes(mode: str, namespaces: tuple[str, ...]) -> None:
    assert mode_of(mode) == Mode(hosts=namespaces)


def test_namespaces_that_are_routed_are_told() -> None:
    routing = Routing(cluster_domains=["cluster.local"], namespace="default", namespaces=["shop"], prefixes=[])
    resolver = Resolver(routing=routing, entropy=bytes)
    assert resolver.namespaces == {"default", "shop"}
    resolver.update_namespaces(["other"])
    assert resolver.namespaces == {"default", "other"}

"""What is kept, for how long, for whom; and that one question goes out once."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, SOA, SRV, A, DNSRecord
from dnslib.dns import EDNS0
from hypothesis import given
from hypothesis import strategies as st

from kt_net.dns import cache
from kt_net.dns.cache import Cache
from kt_net.dns.messages import aged, lifetime, ttl_offsets
from kt_net.dns.resolver import LONGEST_NEGATIVE, MAX_ASKERS, Answer, Ask, Resolver, Transport
from kt_net.dns.routing import Routing, Upstream
from kt_net.errors import MalformedMessage

NAME = "web.default.svc.cluster.local"


class Conversation:
    """A resolver, programs and upstreams."""

    def __init__(self, **options: Any) -> None:
        self._number = 0
        routing = Routing(cluster_domains=["cluster.local"], namespace="shop", namespaces=["default"], prefixes=[])
        self.resolver = Resolver(routing=routing, entropy=self._entropy, **options)

    def _entropy(self, count: int) -> bytes:
        self._number += 1
        return self._number.to_bytes(count, "big")

    def ask(
        self,
        name: str,
        kind: str = "A",
        *,
        at: float,
        who: str = "one",
        tcp: bool = False,
        edns: int = 0,
        number: int = 77,
    ) -> list[Ask | Answer]:
        """What comes of a question."""
        record = DNSRecord.question(name, kind)
        record.header.id = number
        if edns:
            record.add_ar(EDNS0(udp_len=edns))
        transport = Transport.TCP if tcp else Transport.UDP
        self.resolver.receive_query(bytes(record.pack()), client=who, transport=transport, now=at)
        return self.events()

    def events(self) -> list[Ask | Answer]:
        """Everything that waits."""
        found: list[Ask | Answer] = []
        while (event := self.resolver.next_event()) is not None:
            found.append(event)
        return found

    def answered(self, ask: Ask | Answer, answer: DNSRecord, *, at: float) -> list[Ask | Answer]:
        """What comes of an upstream's answer."""
        assert isinstance(ask, Ask)
        answer.header.id = int.from_bytes(ask.data[:2], "big")
        self.resolver.receive_answer(ask.ask, bytes(answer.pack()), now=at)
        return self.events()


def reply(name: str, kind: str = "A", *, ttl: int = 30, rcode: int = RCODE.NOERROR, count: int = 1) -> DNSRecord:
    answer = DNSRecord.question(name, kind).reply()
    answer.header.rcode = rcode
    for number in range(count):
        answer.add_answer(RR(name, QTYPE.A, rdata=A(f"10.96.0.{number + 1}"), ttl=ttl))
    if not count:
        answer.add_auth(RR("cluster.local", QTYPE.SOA, rdata=SOA("ns.", "admin.", (1, 2, 3, 4, 5)), ttl=30))
    return answer


def only_options() -> DNSRecord:
    """An answer section of nothing but OPT."""
    answer = DNSRecord.question(NAME).reply()
    answer.add_answer(EDNS0(udp_len=1232))
    return answer


def shown(event: Ask | Answer) -> tuple[object, int, int, list[int]]:
    """Of an answer: whose, id, code, TTLs."""
    assert isinstance(event, Answer)
    record = DNSRecord.parse(event.data)
    return event.client, record.header.id, record.header.rcode, [found.ttl for found in record.rr]


def test_the_clusters_answer_is_kept_and_ages() -> None:
    talk = Conversation()
    (asked,) = talk.ask(NAME, at=0.0)
    assert [shown(event) for event in talk.answered(asked, reply(NAME), at=0.0)] == [("one", 77, 0, [30])]
    assert [shown(event) for event in talk.ask(NAME, at=12.9, who="two", number=5)] == [("two", 5, 0, [18])]
    assert [shown(event) for event in talk.ask(NAME, at=29.9)] == [("one", 77, 0, [1])]
    (again,) = talk.ask(NAME, at=30.0)
    assert isinstance(again, Ask)


def test_an_expanded_name_is_kept_under_the_name_that_was_asked() -> None:
    talk = Conversation()
    (asked,) = talk.ask("web", at=0.0)
    talk.answered(asked, reply("web.shop.svc.cluster.local"), at=0.0)
    (answer,) = talk.ask("web", at=1.0)
    assert isinstance(answer, Answer)
    record = DNSRecord.parse(answer.data)
    assert (str(record.q.qname), str(record.rr[0].rname), record.rr[0].ttl) == ("web.", "web.", 29)


@pytest.mark.parametrize("other", [{"kind": "AAAA"}, {"edns": 1232}, {"name": "WEB.default.svc.cluster.local"}])
def test_another_question_has_another_answer(other: dict[str, Any]) -> None:
    talk = Conversation()
    (asked,) = talk.ask(NAME, at=0.0)
    talk.answered(asked, reply(NAME), at=0.0)
    (event,) = talk.ask(**{"name": NAME, "at": 1.0, **other})
    assert isinstance(event, Ask)


def test_absence_is_kept_for_a_moment_only() -> None:
    """A Service that is made now is found at once."""
    talk = Conversation()
    (asked,) = talk.ask(NAME, at=0.0)
    talk.answered(asked, reply(NAME, rcode=RCODE.NXDOMAIN, count=0), at=0.0)
    assert [shown(event)[2] for event in talk.ask(NAME, at=LONGEST_NEGATIVE - 0.01)] == [RCODE.NXDOMAIN]
    (event,) = talk.ask(NAME, at=LONGEST_NEGATIVE)
    assert isinstance(event, Ask)


def test_a_name_that_leads_nowhere_is_absent() -> None:
    """An ExternalName of a Service that is not there yet."""
    talk = Conversation()
    for rcode in (RCODE.NOERROR, RCODE.NXDOMAIN):
        (asked,) = talk.ask(NAME, at=float(rcode))
        answer = reply(NAME, rcode=rcode, count=0)
        answer.add_answer(RR(NAME, QTYPE.CNAME, rdata=CNAME("later.default.svc.cluster.local"), ttl=30))
        talk.answered(asked, answer, at=float(rcode))
        assert isinstance(talk.ask(NAME, at=rcode + 0.1)[0], Answer)
        (again,) = talk.ask(NAME, at=rcode + LONGEST_NEGATIVE)
        assert isinstance(again, Ask)
        talk.resolver.ask_failed(again.ask, now=rcode + 0.6)
        talk.events()


def test_what_was_asked_before_the_cluster_changed_is_not_kept() -> None:
    talk = Conversation()
    (asked,) = talk.ask("web.default", at=0.0)
    talk.resolver.update_namespaces(["default", "other"])
    talk.answered(asked, reply(NAME), at=0.1)
    assert talk.resolver.kept == 0
    (asked,) = talk.ask("web.default", at=0.2)
    talk.answered(asked, reply(NAME), at=0.2)
    talk.resolver.update_namespaces(["other", "default"])
    assert talk.resolver.kept == 1, "nothing has changed"


def test_this_machines_answers_are_its_own_business() -> None:
    talk = Conversation()
    (asked,) = talk.ask("example.com", at=0.0)
    assert isinstance(asked, Ask)
    assert asked.upstream is Upstream.MACHINE
    talk.answered(asked, reply("example.com"), at=0.0)
    (event,) = talk.ask("example.com", at=0.1)
    assert isinstance(event, Ask)


def test_failures_and_truncated_answers_are_not_kept() -> None:
    talk = Conversation()
    cut = reply(NAME)
    cut.header.tc = 1
    for answer in (reply(NAME, rcode=RCODE.SERVFAIL), reply(NAME, rcode=RCODE.REFUSED), cut, reply(NAME, ttl=0)):
        (asked,) = talk.ask(NAME, at=0.0)
        talk.answered(asked, answer, at=0.0)
    assert talk.resolver.kept == 0


@pytest.mark.parametrize(("longest", "kept"), [(0.0, False), (10.0, True)])
def test_the_longest_time(longest: float, kept: bool) -> None:
    talk = Conversation(longest_kept=longest)
    (asked,) = talk.ask(NAME, at=0.0)
    talk.answered(asked, reply(NAME), at=0.0)
    assert talk.resolver.kept == kept
    assert isinstance(talk.ask(NAME, at=longest - 0.1 if kept else 0.0)[0], Answer) == kept
    if kept:
        assert isinstance(talk.ask(NAME, at=longest)[0], Ask)


def test_what_was_asked_over_tcp_is_cut_over_udp() -> None:
    talk = Conversation()
    (asked,) = talk.ask(NAME, at=0.0, tcp=True)
    talk.answered(asked, reply(NAME, count=60), at=0.0)
    (answer,) = talk.ask(NAME, at=1.0)
    assert isinstance(answer, Answer)
    record = DNSRecord.parse(answer.data)
    assert (record.header.tc, len(record.rr)) == (1, 0)
    assert len(shown(talk.ask(NAME, at=1.0, tcp=True)[0])[3]) == 60


def test_other_namespaces_other_answers() -> None:
    talk = Conversation()
    (asked,) = talk.ask("web.default", at=0.0)
    talk.answered(asked, reply(NAME), at=0.0)
    talk.resolver.update_namespaces(["other"])
    (event,) = talk.ask("web.default", at=1.0)
    assert isinstance(event, Ask)
    assert event.upstream is Upstream.MACHINE


def test_the_same_question_goes_out_once() -> None:
    talk = Conversation()
    (asked,) = talk.ask("web", at=0.0)
    assert talk.ask("web", at=0.1, who="two", number=5) == []
    assert talk.ask("web", at=0.2) == [], "a program that asks again gets one answer"
    answers = talk.answered(asked, reply("web.shop.svc.cluster.local"), at=0.3)
    assert [shown(event)[:2] for event in answers] == [("one", 77), ("two", 5)]


def test_and_on_to_the_machine_once() -> None:
    talk = Conversation()
    (asked,) = talk.ask("printer", at=0.0)
    talk.ask("printer", at=0.1, who="two")
    (second,) = talk.answered(asked, reply("printer.shop.svc.cluster.local", rcode=RCODE.NXDOMAIN, count=0), at=0.2)
    talk.ask("printer", at=0.3, who="three")
    answers = talk.answered(second, reply("printer"), at=0.4)
    assert [shown(event)[0] for event in answers] == ["one", "two", "three"]


def test_all_are_told_when_nothing_comes() -> None:
    talk = Conversation()
    (asked,) = talk.ask(NAME, at=0.0)
    talk.ask(NAME, at=0.0, who="two", number=5)
    assert isinstance(asked, Ask)
    talk.resolver.ask_failed(asked.ask, now=1.0)
    assert [shown(event)[:3] for event in talk.events()] == [("one", 77, 2), ("two", 5, 2)]
    assert isinstance(talk.ask(NAME, at=1.0)[0], Ask)


def test_askers_of_one_question_are_bounded() -> None:
    talk = Conversation()
    talk.ask(NAME, at=0.0)
    for number in range(1, MAX_ASKERS):
        assert talk.ask(NAME, at=0.0, who=f"program {number}") == []
    assert [shown(event)[2] for event in talk.ask(NAME, at=0.0, who="too many")] == [RCODE.SERVFAIL]


def test_octets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_OCTETS", 3000)
    kept = Cache(longest=60.0)
    answer = bytes(reply(NAME).pack())
    for number in range(10):
        kept.keep(bytes([number]), answer, udp_octets=512, seconds=30, now=0.0)
        kept.keep(bytes([number]), answer, udp_octets=512, seconds=30, now=0.0)
    assert kept.find(b"\0", now=1.0) is None
    assert kept.find(bytes([9]), now=1.0) is not None
    assert len(kept) == 3000 // (len(answer) + 1 + cache.ENTRY_OCTETS)
    kept.clear()
    assert len(kept) == 0


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (reply(NAME, ttl=7, count=2), 7),
        (reply(NAME, ttl=0), 0),
        (reply(NAME, count=0), 5),
        (reply(NAME, rcode=RCODE.NXDOMAIN, count=0), 5),
        (DNSRecord.question(NAME).reply(), None),
        (only_options(), None),
        (reply(NAME, rcode=RCODE.SERVFAIL), None),
        (reply(NAME, ttl=0x80000000), None),
    ],
)
def test_lifetime(answer: DNSRecord, seconds: int | None) -> None:
    assert lifetime(DNSRecord.parse(answer.pack())) == seconds


records = st.sampled_from(
    [
        RR(NAME, QTYPE.A, rdata=A("10.0.0.1"), ttl=100),
        RR("x." + NAME, QTYPE.AAAA, rdata=AAAA("fd00::1"), ttl=200),
        RR(NAME, QTYPE.CNAME, rdata=CNAME("elsewhere.example.com"), ttl=300),
        RR("_http._tcp." + NAME, QTYPE.SRV, rdata=SRV(0, 10, 80, NAME), ttl=400),
    ]
)


@given(st.lists(records, max_size=6), st.lists(records, max_size=3), st.booleans(), st.integers(0, 1000))
def test_age(answers: list[RR], more: list[RR], edns: bool, seconds: int) -> None:
    """Every TTL, and nothing else; names are compressed."""
    message = DNSRecord.question(NAME).reply()
    message.add_answer(*answers)
    message.add_ar(*more)
    if edns:
        message.add_ar(EDNS0(flags="do", udp_len=1232))
    data = bytes(message.pack())
    changed = DNSRecord.parse(aged(data, ttl_offsets(data), seconds))
    message = DNSRecord.parse(data)
    for before, after in zip((*message.rr, *message.ar), (*changed.rr, *changed.ar), strict=True):
        if before.rtype != QTYPE.OPT:
            before.ttl = max(0, before.ttl - seconds)
        assert str(before) == str(after)


@given(st.binary(max_size=80), st.integers(0, 200))
def test_foreign_octets(tail: bytes, cut: int) -> None:
    whole = bytes(reply(NAME, count=3).pack())
    for data in (tail, struct.pack("!6H", 0, 0, 1, 1, 1, 1) + tail, whole[:cut], whole[:cut] + tail):
        try:
            offsets = ttl_offsets(data)
        except MalformedMessage:
            continue
        assert all(at + 4 <= len(data) for at in offsets)

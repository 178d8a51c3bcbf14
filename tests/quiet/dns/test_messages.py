"""Messages that dnslib reads and cannot write again, or that would cost more than they are: an error of ours, at once."""

from __future__ import annotations

import contextlib
import struct

import pytest
from dnslib import CNAME, QTYPE, RR, DNSRecord

from kt_net.dns.messages import FORMERR, MAX_POINTERS, answer_for, parse_message, records_of, with_name
from kt_net.dns.resolver import Answer, Ask, Resolver, Transport
from kt_net.dns.routing import Routing
from kt_net.errors import MalformedMessage

NSEC, LOC, HTTPS = 47, 29, 65
#: Whose data nobody reads (RFC 6895 section 3.1, private use).
PRIVATE = 65280
#: Of records that are read and not written again, or not shown: no types, window 255, no location, a key without a value.
ODD = [(NSEC, b"\0"), (NSEC, b"\0\xff\x20" + b"\xff" * 32), (LOC, b"\0" * 15), (HTTPS, b"\0\1\0\0\1\0\2\xff\xff")]


def record(kind: int, data: bytes) -> bytes:
    return b"\0" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data


def query(name: str, *additional: bytes) -> bytes:
    head = struct.pack("!6H", 7, 0x0100, 1, 0, 0, len(additional))
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return head + labels + b"\0" + struct.pack("!2H", QTYPE.A, 1) + b"".join(additional)


def resolver() -> Resolver:
    return Resolver(
        routing=Routing(cluster_domains=["cluster.local"], namespace="shop", namespaces=["default"], prefixes=[]),
        entropy=lambda count: bytes(count),
    )


@pytest.mark.parametrize(("kind", "data"), ODD)
def test_a_query_with_an_odd_record_is_asked_without_it(kind: int, data: bytes) -> None:
    asking = resolver()
    asking.receive_query(query("web", record(kind, data)), client=1, transport=Transport.UDP, now=0.0)
    event = asking.next_event()
    if isinstance(event, Ask):
        assert DNSRecord.parse(event.data).ar == []
    else:
        assert isinstance(event, Answer)
        assert event.data[3] & 0x0F == FORMERR


@pytest.mark.parametrize(("kind", "data"), ODD)
def test_an_answer_with_an_odd_record(kind: int, data: bytes) -> None:
    """Written again, or shown, or refused as malformed."""
    asked = DNSRecord.question("web")
    made = DNSRecord.question("web.shop.svc.cluster.local").reply()
    made.add_answer(RR("web.shop.svc.cluster.local", QTYPE.CNAME, rdata=CNAME("x.y")))
    answer = bytearray(made.pack())
    answer[8:10] = b"\0\1"
    whole = bytes(answer) + record(kind, data)
    shown = whole[:6] + b"\0\2\0\0" + whole[10:]
    with contextlib.suppress(MalformedMessage):
        assert answer_for(parse_message(whole), asked, "web.shop.svc.cluster.local")
    with contextlib.suppress(MalformedMessage):
        assert records_of(shown)


def test_names_of_pointers_without_end() -> None:
    """One name that leads from pointer to pointer, and a message that has it ten thousand times."""
    head = struct.pack("!6H", 7, 0x8180, 1, 4000, 0, 0)
    start = len(head) + 7
    first = b"\1a\0" + struct.pack("!2H", QTYPE.A, 1)
    chain = b"".join(
        struct.pack("!H", 0xC000 | (len(head) if not at else start + 11 + 2 * at - 2)) for at in range(700)
    )
    records = record(PRIVATE, chain)
    last = struct.pack("!H", 0xC000 | (start + 11 + 2 * 699))
    records += (last + struct.pack("!HHIH", PRIVATE, 1, 60, 0)) * 3999
    with pytest.raises(MalformedMessage, match="pointers"):
        parse_message(head + first + records)


@pytest.mark.parametrize("depth", [1, MAX_POINTERS - 1])
def test_pointers_as_they_are_needed(depth: int) -> None:
    labels = [b"\1a" + struct.pack("!H", 0xC000 | 12)]
    at = 12 + 3 + 4
    body = b""
    for _ in range(depth - 1):
        body += record(PRIVATE, labels[-1])
        labels.append(b"\1a" + struct.pack("!H", 0xC000 | (at + 11)))
        at += 11 + 4
    body += labels[-1] + struct.pack("!HHIH", QTYPE.A, 1, 60, 4) + bytes(4)
    head = struct.pack("!6H", 7, 0x8180, 1, depth, 0, 0)
    found = parse_message(head + b"\1a\0" + struct.pack("!2H", QTYPE.A, 1) + body)
    assert str(found.rr[-1].rname) == "a." * (depth + 1)


@pytest.mark.parametrize(("questions", "records"), [(2, 0), (1200, 0), (1, 9), (1, 65535)])
def test_counts_are_judged_before_anything_is_read(questions: int, records: int) -> None:
    data = bytearray(query("web"))
    data[4:6], data[10:12] = questions.to_bytes(2, "big"), records.to_bytes(2, "big")
    asking = resolver()
    asking.receive_query(bytes(data) * 1000, client=1, transport=Transport.TCP, now=0.0)
    event = asking.next_event()
    assert isinstance(event, Answer)
    assert event.data[3] & 0x0F == FORMERR


def test_a_signature_is_of_another_name() -> None:
    """What is added to a query holds for its name, but for EDNS."""
    asked = DNSRecord.parse(query("web", record(250, b"\0" * 16), b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)))
    again = DNSRecord.parse(with_name(asked, "web.shop", 9))
    assert [extra.rtype for extra in again.ar] == [QTYPE.OPT]

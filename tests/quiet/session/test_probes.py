"""What users are told after connecting: a table of what can come of two probes."""

from __future__ import annotations

import pytest
from dnslib import RR, A, DNSRecord

from kt_net.dns.messages import error_answer
from kt_net.session.probes import Target, Tried, fault_of, targets, verdict
from kt_net.tunnel.requests import Network, ReplyCode, Request

DNS, API = "DNS 10.97.0.10", "10.97.0.1:443"
OK, REFUSED, UNREACHABLE = ReplyCode.SUCCEEDED, ReplyCode.CONNECTION_REFUSED, ReplyCode.HOST_UNREACHABLE
WRONG = "the cluster does not answer the shadow pod as it should: "
POLICY = "; a NetworkPolicy may keep the shadow pod from it"
NEXT = "; next: ktctl doctor"


@pytest.mark.parametrize(
    ("dns", "dial", "said"),
    [
        (OK, OK, f"cluster answers: {DNS} in 3 ms, {API} in 2 ms"),
        (None, OK, f"{WRONG}no answer from {DNS} within 2 s{POLICY}{NEXT}"),
        (REFUSED, OK, f"{WRONG}{DNS} refuses: nothing listens there{NEXT}"),
        (OK, None, f"{WRONG}no answer from {API} within 2 s{POLICY}{NEXT}"),
        (OK, REFUSED, f"{WRONG}{API} refuses: nothing listens there{NEXT}"),
        (OK, UNREACHABLE, f"{WRONG}{API} cannot be reached (host unreachable){NEXT}"),
        (None, None, f"{WRONG}no answer from {DNS} nor {API} within 2 s{POLICY}{NEXT}"),
        (REFUSED, REFUSED, f"{WRONG}{DNS} refuses: nothing listens there; {API} refuses: nothing listens there{NEXT}"),
        (
            REFUSED, None,
            f"{WRONG}{DNS} refuses: nothing listens there; no answer from {API} within 2 s{POLICY}{NEXT}",
        ),
    ],
)  # fmt: skip
def test_one_line(dns: ReplyCode | None, dial: ReplyCode | None, said: str) -> None:
    tried = [
        Tried(DNS, dns, 2.0 if dns is None else 0.003),
        Tried(API, dial, 2.0 if dial is None else 0.0021),
    ]
    assert verdict(tried) == said


def test_an_answer_that_is_no_good() -> None:
    tried = [Tried(DNS, OK, 0.01, "NXDOMAIN for kubernetes.default.svc"), Tried(API, OK, 0.01)]
    assert verdict(tried) == f"{WRONG}{DNS} answers NXDOMAIN for kubernetes.default.svc{NEXT}"


def test_faults() -> None:
    (target, _) = targets(["10.97.0.10"], "cluster.local", "10.97.0.1")
    query = DNSRecord.parse(target.question)
    assert str(query.q.qname) == "kubernetes.default.svc.cluster.local."
    reply = query.reply()
    assert fault_of(bytes(reply.pack())) == "", "no record of this type: the Service may be IPv6 only"
    reply.add_answer(RR(query.q.qname, rdata=A("10.97.0.1")))
    assert fault_of(bytes(reply.pack())) == ""
    assert fault_of(error_answer(target.question, 3)) == "NXDOMAIN for kubernetes.default.svc"
    assert fault_of(error_answer(target.question, 5)) == "REFUSED for kubernetes.default.svc"
    assert fault_of(b"x") == "nonsense"


@pytest.mark.parametrize(
    ("servers", "service", "found"),
    [
        (["10.97.0.10", "10.97.0.11"], "10.97.0.1", [(Network.UDP, "10.97.0.10", 53), (Network.TCP, "10.97.0.1", 443)]),
        (["fd00:97::a"], "", [(Network.UDP, "fd00:97::a", 53), (Network.TCP, "fd00:97::a", 53)]),
        ([], "fd00:97::1", [(Network.TCP, "fd00:97::1", 443)]),
        ([], "", []),
    ],
)
def test_what_is_tried(servers: list[str], service: str, found: list[tuple[Network, str, int]]) -> None:
    assert [target.request for target in targets(servers, "cluster.local", service)] == [Request(*one) for one in found]


def test_what_is_tried_is_told_apart() -> None:
    tried = targets(["fd00:97::a"], "cluster.local", "")
    assert [target.what for target in tried] == ["DNS fd00:97::a", "[fd00:97::a]:53"]


def test_a_domain_that_is_none_is_not_asked_for() -> None:
    assert targets(["10.97.0.10"], "x" * 300, "") == [Target("10.97.0.10:53", Request(Network.TCP, "10.97.0.10", 53))]

"""What NetworkPolicies keep the shadow pod from, by the objects alone."""

from __future__ import annotations

from typing import Any

import pytest

from kt_net.choreography.shadow import pod_labels
from kt_net.findings import Level
from kt_net.kube.policies import Way, closed_to_callers, dns_way, judge_policies, limits_egress, selects, tcp_way

LABELS = pod_labels("kt-connect-shadow-abcde", "0123")
KUBE_SYSTEM = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
UDP_53 = {"protocol": "UDP", "port": 53}
TCP_53 = {"protocol": "TCP", "port": 53}
EVERYWHERE: dict[str, Any] = {"ipBlock": {"cidr": "0.0.0.0/0"}}


def policy(*egress: dict[str, Any], name: str = "one", **spec: Any) -> dict[str, Any]:
    """An egress policy for all pods."""
    body = {"podSelector": {}, "policyTypes": ["Egress"], "egress": list(egress), **spec}
    return {"metadata": {"name": name}, "spec": body}


DENY = policy(name="default-deny")
DNS_ONLY = policy({"ports": [UDP_53, TCP_53]}, name="allow-dns")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, True),
        ({}, True),
        ({"matchLabels": {"control-by": "kt"}}, True),
        ({"matchLabels": {"control-by": "kt", "app": "web"}}, False),
        ({"matchLabels": {"app": "web"}}, False),
        ({"matchExpressions": [{"key": "control-by", "operator": "In", "values": ["kt", "x"]}]}, True),
        ({"matchExpressions": [{"key": "control-by", "operator": "In", "values": ["x"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "control-by", "operator": "NotIn", "values": ["kt"]}]}, False),
        ({"matchExpressions": [{"key": "kt-target", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "batch.kubernetes.io/controller-uid", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "kt-role", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "kt-role", "operator": "Sideways"}]}, False),
        (
            {
                "matchLabels": {"control-by": "kt"},
                "matchExpressions": [{"key": "control-by", "operator": "DoesNotExist"}],
            },
            False,
        ),
    ],
)
def test_selectors(selector: dict[str, Any] | None, expected: bool) -> None:
    assert selects(selector, LABELS) is expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, False),
        ({"ingress": []}, False),
        ({"egress": []}, False),  # as the API server's own default has it: only rules count
        ({"egress": [{}]}, True),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, False),
        ({"policyTypes": ["Egress"]}, True),
        ({"policyTypes": ["Ingress", "Egress"]}, True),
    ],
)
def test_which_policies_are_about_egress(spec: dict[str, Any], expected: bool) -> None:
    assert limits_egress({"spec": spec}) is expected


@pytest.mark.parametrize(
    ("rule", "dns", "tcp"),
    [
        ({}, Way.open, Way.open),
        ({"to": [EVERYWHERE]}, Way.open, Way.open),
        ({"ports": [UDP_53]}, Way.open, Way.closed),
        ({"ports": [UDP_53, TCP_53]}, Way.open, Way.closed),
        ({"ports": [{"protocol": "UDP", "port": "dns"}]}, Way.open, Way.closed),
        ({"ports": [TCP_53]}, Way.closed, Way.closed),
        ({"ports": [{"port": 443}]}, Way.closed, Way.partly),
        ({"ports": [{"protocol": "UDP", "port": 123}]}, Way.closed, Way.closed),
        ({"ports": [{"protocol": "UDP", "port": 1, "endPort": 100}]}, Way.open, Way.closed),
        ({"ports": [{"protocol": "UDP"}, {"protocol": "TCP"}]}, Way.open, Way.open),
        ({"ports": [{"protocol": "TCP", "port": 1, "endPort": 65535}]}, Way.closed, Way.open),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, Way.partly, Way.partly),
        ({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}, Way.partly, Way.partly),
        ({"to": [{"ipBlock": {"cidr": "nonsense"}}]}, Way.partly, Way.partly),
        ({"to": [{"namespaceSelector": {}}]}, Way.open, Way.partly),
        ({"to": [{"namespaceSelector": KUBE_SYSTEM}], "ports": [UDP_53]}, Way.open, Way.closed),
        (
            {"to": [{"namespaceSelector": KUBE_SYSTEM, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]},
            Way.open,
            Way.partly,
        ),
        ({"to": [{"namespaceSelector": KUBE_SYSTEM, "podSelector": {"matchLabels": {"app": "x"}}}]}, Way.closed, Way.partly),
        ({"to": [{"namespaceSelector": {"matchLabels": {"team": "platform"}}}], "ports": [UDP_53]}, Way.partly, Way.closed),
        (
            {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]},
            Way.closed,
            Way.partly,
        ),
        ({"to": [{"podSelector": {}}]}, Way.closed, Way.partly),
    ],
)  # fmt: skip
def test_rules(rule: dict[str, Any], dns: Way, tcp: Way) -> None:
    assert (dns_way([policy(rule)], "shop"), tcp_way([policy(rule)])) == (dns, tcp)


def test_what_one_policy_allows_no_other_takes_away() -> None:
    both = [DENY, policy({})]
    assert (dns_way(both, "shop"), tcp_way(both)) == (Way.open, Way.open)


@pytest.mark.parametrize(
    ("policies", "level", "words"),
    [
        ([], Level.ok, ["none limits"]),
        ([DENY], Level.problem, ["default-deny", "names", "every TCP connection"]),
        ([DENY, DNS_ONLY], Level.problem, ["allow-dns, default-deny", "every TCP connection"]),
        ([DENY, policy({"ports": [{"port": 443}]}, name="https")], Level.problem, ["names"]),
        ([DNS_ONLY, policy({"ports": [{"port": 443}]}, name="https")], Level.warning, ["https", "only what"]),
        ([policy({})], Level.ok, ["nothing"]),
        ([policy(policyTypes=["Ingress"])], Level.ok, ["none limits"]),
        ([policy(podSelector={"matchLabels": {"app": "web"}})], Level.ok, ["none limits"]),
        ([policy(podSelector={"matchLabels": {"control-by": "kt"}})], Level.problem, ["one"]),
        ([{}, {"spec": None}, {"spec": {"policyTypes": []}}], Level.ok, ["none limits"]),
    ],
)
def test_judgement(policies: list[dict[str, Any]], level: Level, words: list[str]) -> None:
    found = judge_policies(policies, LABELS, "shop")
    assert found.level is level
    assert all(word in found.found for word in words), found.found
    assert bool(found.next_step) == (level is not Level.ok)


def test_dns_only_does_not_name_dns_as_lost() -> None:
    assert "DNS" not in judge_policies([DENY, DNS_ONLY], LABELS, "shop").found


def test_the_own_namespace_is_the_dns_servers() -> None:
    assert dns_way([policy({"to": [{"podSelector": {}}]})], "kube-system") is Way.open


@pytest.mark.parametrize(
    ("spec", "closed"),
    [
        ({"podSelector": {}, "policyTypes": ["Ingress"]}, ["8080 (p)"]),
        ({"podSelector": {}}, ["8080 (p)"]),
        ({"podSelector": {}, "policyTypes": ["Egress"]}, []),
        ({"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Ingress"]}, []),
        ({"podSelector": {}, "ingress": [{}]}, []),
        ({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}, []),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": 8080}]}]}, []),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": 8000, "endPort": 9000}]}]}, []),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}, []),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": "https"}]}]}, ["8080 (p)"]),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": 8080, "protocol": "UDP"}]}]}, ["8080 (p)"]),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}, ["8080 (p)"]),
    ],
)
def test_whether_callers_may_come(spec: dict[str, Any], closed: list[str]) -> None:
    policy = {"metadata": {"name": "p"}, "spec": spec}
    assert closed_to_callers([policy], {"control-by": "kt"}, [("TCP", 8080, "http")]) == closed

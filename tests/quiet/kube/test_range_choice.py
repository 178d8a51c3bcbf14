"""What is reached of a cluster's ranges, by flags."""

from __future__ import annotations

import ipaddress

import pytest

from kt_cli.flags import words
from kt_net.errors import UsageFault
from kt_net.kube.ranges import ClusterRanges, RangeChoice, parse_prefixes

PODS, SERVICES = ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_network("10.96.0.0/16")
RANGES = ClusterRanges((PODS,), (SERVICES,), "", "")


def test_choice() -> None:
    more = ipaddress.ip_network("192.0.2.0/24")
    assert set(RangeChoice().of(RANGES)) == {PODS, SERVICES}
    assert set(RangeChoice(pods=False, included=(more,)).of(RANGES)) == {SERVICES, more}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("10.1.2.3", ["10.1.2.3/32"]),
        ("10.1.2.3/16, fd00::7", ["10.1.0.0/16", "fd00::7/128"]),
        ("10.1.0.0/16 10.2.0.0/16", ["10.1.0.0/16", "10.2.0.0/16"]),
    ],
)
def test_prefixes(text: str, expected: list[str]) -> None:
    assert [str(prefix) for prefix in parse_prefixes(words(text), "--include-ips")] == expected


@pytest.mark.parametrize("text", ["10.1.2", "echo", "10.0.0.0/33", "0.0.0.0/0", "::/0", "10.1.0.0/16;10.2.0.0/16"])
def test_no_prefixes(text: str) -> None:
    with pytest.raises(UsageFault, match="--include-ips"):
        parse_prefixes(words(text), "--include-ips")

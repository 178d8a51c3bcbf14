"""Status in words, and what of it is a change."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kt_cli.status import MOST_FLOWS, size, text_of, what_counts
from kt_net.stats import AgentStats, FlowStats, SessionStats, TunnelStats

FLOW = FlowStats("tcp", "10.0.0.2:4000", "10.96.0.1:80", "ESTABLISHED", 75, 5 << 20, 1.5)
STATS = SessionStats(
    cluster="lab",
    namespace="default",
    pod="kt-connect-shadow-abcde-fghij",
    device="kt0",
    routes=("10.96.0.0/16", "fd00:96::/112"),
    resolver="198.19.255.253",
    names_by="resolv.conf",
    search=("default.svc.cluster.local", "svc.cluster.local", "cluster.local"),
    connected_s=3725.2,
    flows_open=2,
    flows_total=7,
    tunnel=TunnelStats(4, 2048, 3 << 30, 0.0021, 3, "spdy"),
    flows=(FLOW, dataclasses.replace(FLOW, protocol="udp", destination="10.96.0.10:53", state="", octets_down=40)),
    since="2026-05-01T10:00:00+0200",
    cluster_domains=("cluster.local", "other.example"),
    namespaces=4,
    agent=AgentStats("1.0", ("ipv4", "ipv6"), ("ipv4",)),
)


def as_sent(stats: SessionStats) -> dict[str, Any]:
    return dataclasses.asdict(stats)


def test_words() -> None:
    assert text_of(as_sent(STATS)).splitlines() == [
        "connected to lab, namespace default, for 1 h 2 min (since 2026-05-01T10:00:00+0200)",
        "shadow pod kt-connect-shadow-abcde-fghij: agent 1.0, ipv4 ipv6, ping ipv4",
        "tunnel 3 lanes of form spdy, round trip 2.1 ms, 2.0 KiB sent, 3.0 GiB received",
        "device kt0, routes 10.96.0.0/16, fd00:96::/112",
        "names by 198.19.255.253 (resolv.conf): cluster.local other.example and 4 namespaces; "
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "2 flows open, 7 in all",
        "  tcp 10.0.0.2:4000 -> 10.96.0.1:80 ESTABLISHED up 75 B down 5.0 MiB",
        "  udp 10.0.0.2:4000 -> 10.96.0.10:53 up 75 B down 40 B",
    ]


def test_words_when_little_is_known() -> None:
    tunnel = TunnelStats(0, 0, 0, None, 1, "exec")
    agent = AgentStats("1.0", ("ipv4",), ())
    few = dataclasses.replace(STATS, tunnel=tunnel, agent=agent, flows=(FLOW,) * (MOST_FLOWS + 3), connected_s=59.9)
    lines = text_of(as_sent(few)).splitlines()
    assert lines[0].startswith("connected to lab, namespace default, for 59 s ")
    assert lines[1].endswith("agent 1.0, ipv4, no ping")
    assert lines[2] == "tunnel 1 lane of form exec, round trip not measured yet, 0 B sent, 0 B received"
    assert lines[-1] == "  and 3 more"
    assert text_of(as_sent(dataclasses.replace(few, agent=None))).splitlines()[1] == f"shadow pod {STATS.pod}"


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"connected_s": 9999.0}, False),
        ({"tunnel": dataclasses.replace(STATS.tunnel, rtt_s=0.5, octets_sent=2060)}, False),
        ({"flows": tuple(dataclasses.replace(flow, age_s=99.0, rtt_s=0.1) for flow in STATS.flows)}, False),
        ({"tunnel": dataclasses.replace(STATS.tunnel, lanes=4)}, True),
        ({"tunnel": dataclasses.replace(STATS.tunnel, carrier="exec")}, True),
        ({"pod": "another"}, True),
        ({"routes": ("10.96.0.0/16",)}, True),
        ({"namespaces": 5}, True),
        ({"flows": STATS.flows[:1]}, True),
        ({"flows": (dataclasses.replace(FLOW, octets_up=76), STATS.flows[1])}, True),
        ({"flows": (dataclasses.replace(FLOW, state="TIME-WAIT"), STATS.flows[1])}, True),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else str(value),
)
def test_what_is_a_change(changes: dict[str, Any], counts: bool) -> None:
    after = what_counts(as_sent(dataclasses.replace(STATS, **changes)))
    assert (after != what_counts(as_sent(STATS))) is counts


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 << 10, "1.5 MiB"),
        (5 << 40, "5.0 TiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes(octets: int, text: str) -> None:
    assert size(octets) == text


def test_words_of_a_connection_with_a_name() -> None:
    for name, words in (("default", "lab, namespace"), ("stage", "lab as stage, namespace")):
        named = dataclasses.replace(STATS, name=name)
        assert text_of(as_sent(named)).startswith(f"connected to {words}")

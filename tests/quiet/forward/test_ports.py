"""Which ports are meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.errors import UsageFault
from kt_net.forward.ports import MAX_FORWARDS, Forward, Pair, Port, Protocol, number_of, parse_pair, plan

TCP, UDP = Protocol.TCP, Protocol.UDP
HTTP, ADMIN = Port("http", 80, TCP), Port("admin", 9090, TCP)
DNS, DNS_TCP, SYSLOG = Port("dns", 53, UDP), Port("dns-tcp", 53, TCP), Port("syslog", 514, UDP)


@pytest.mark.parametrize(
    ("text", "local", "remote", "protocol"),
    [
        ("80", None, 80, None),
        ("8080:80", 8080, 80, None),
        ("0:80", 0, 80, None),
        (":80", 0, 80, None),
        ("http", None, "http", None),
        ("8080:http", 8080, "http", None),
        ("5353:53/udp", 5353, 53, UDP),
        ("53/TCP", None, 53, TCP),
        ("dns/udp", None, "dns", UDP),
        ("1:2-b", 1, "2-b", None),
    ],
)
def test_pairs(text: str, local: int | None, remote: int | str, protocol: Protocol | None) -> None:
    assert parse_pair(text) == Pair(text, local, remote, protocol)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "0",
        "80:",
        "80:0",
        "65536",
        "65536:80",
        "a:80",
        "80:65536",
        "80/sctp",
        "80/",
        "-1",
        "1:2:3",
        "8 0",
        "a_b",
    ],
)
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(UsageFault) as refused:
        parse_pair(text)
    assert refused.value.why


@given(st.text())
def test_any_text_is_a_pair_or_refused(text: str) -> None:
    try:
        parse_pair(text)
    except UsageFault:
        pass


@pytest.mark.parametrize(
    ("pairs", "offered", "unlisted", "by_name", "planned"),
    [
        # A Service by its address.
        (["8080:80"], [HTTP], False, False, [Forward(8080, 80, TCP, "80 (http)")]),
        (["http"], [HTTP, ADMIN], False, False, [Forward(80, 80, TCP, "80 (http)")]),
        ([], [HTTP, DNS], False, False, [Forward(80, 80, TCP, "80 (http)"), Forward(53, 53, UDP, "53/udp (dns)")]),
        # UDP by itself where there is only UDP; TCP where there are both.
        (["0:514"], [SYSLOG], False, False, [Forward(0, 514, UDP, "514/udp (syslog)")]),
        (["0:53"], [DNS, DNS_TCP], False, False, [Forward(0, 53, TCP, "53 (dns-tcp)")]),
        (["0:53/udp"], [DNS_TCP, DNS], False, False, [Forward(0, 53, UDP, "53/udp (dns)")]),
        # A Service by its slices: they know names, "" where a Service has one port.
        (["0:80"], [HTTP], False, True, [Forward(0, "http", TCP, "80 (http)")]),
        (["0:80"], [Port("", 80, TCP)], False, True, [Forward(0, "", TCP, "80")]),
        (["0:81"], [HTTP], True, True, [Forward(0, 81, TCP, "81")]),
        # Pods: any number, and names as each pod has them.
        (["0:81", "1:81/udp"], [HTTP], True, False, [Forward(0, 81, TCP, "81"), Forward(1, 81, UDP, "81/udp")]),
        (["0:http"], [HTTP], True, False, [Forward(0, "http", TCP, "80 (http)")]),
        (["0:80"], [HTTP], True, False, [Forward(0, 80, TCP, "80 (http)")]),
        # One local port of either protocol.
        (
            ["53", "53/udp"],
            [DNS, DNS_TCP],
            False,
            False,
            [Forward(53, 53, TCP, "53 (dns-tcp)"), Forward(53, 53, UDP, "53/udp (dns)")],
        ),
    ],
)
def test_plans(pairs: list[str], offered: list[Port], unlisted: bool, by_name: bool, planned: list[Forward]) -> None:
    found = plan([parse_pair(one) for one in pairs], offered, "web", unlisted=unlisted, by_name=by_name)
    assert list(found) == planned


@pytest.mark.parametrize(
    ("pairs", "offered", "unlisted"),
    [
        ([], [], True),
        (["81"], [HTTP], False),
        (["https"], [HTTP], False),
        (["https"], [HTTP], True),
        (["80/udp"], [HTTP], False),
        (["8080:80", "8080:9090"], [HTTP, ADMIN], False),
        ([f"0:{number + 1}" for number in range(MAX_FORWARDS + 1)], [], True),
    ],
)
def test_refused_plans_say_what_else(pairs: list[str], offered: list[Port], unlisted: bool) -> None:
    with pytest.raises(UsageFault) as refused:
        plan([parse_pair(one) for one in pairs], offered, "web", unlisted=unlisted, by_name=False)
    assert refused.value.next_step != UsageFault.default_next_step


def test_any_free_port_may_be_had_twice() -> None:
    assert len(plan([parse_pair("0:80"), parse_pair("0:80")], [HTTP], "web", unlisted=False, by_name=False)) == 2


def test_numbers_of_names() -> None:
    assert number_of("http", TCP, [ADMIN, HTTP]) == 80
    assert number_of("http", UDP, [ADMIN, HTTP]) is None
    assert number_of(7, TCP, []) == 7

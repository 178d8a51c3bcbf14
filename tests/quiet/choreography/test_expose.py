"""What `--expose` means, and what it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.choreography.expose import MAX_EXPOSED, Expose, parse_expose, parse_exposes, pod_ports
from kt_net.errors import UsageFault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", Expose("127.0.0.1", 8080, 8080)),
        ("8080:80", Expose("127.0.0.1", 8080, 80)),
        ("5353:53/udp", Expose("127.0.0.1", 5353, 53, "UDP")),
        ("8080/tcp", Expose("127.0.0.1", 8080, 8080)),
        ("box:8080", Expose("box", 8080, 8080)),
        ("box.lan:8080:80", Expose("box.lan", 8080, 80)),
        ("192.168.1.7:8080:80", Expose("192.168.1.7", 8080, 80)),
        ("[::1]:8080", Expose("::1", 8080, 8080)),
        ("[fd00::7]:8080:80/udp", Expose("fd00::7", 8080, 80, "UDP")),
    ],
)
def test_expose(text: str, expected: Expose) -> None:
    assert parse_expose(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http",
        "0",
        "8080:0",
        "65536",
        "8080:80:80",
        "::1:8080",
        "[::1]8080",
        "8080/sctp",
        "8080:",
        "box:",
        "-1",
        "٣",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageFault):
        parse_expose(text)


@given(st.text(max_size=30) | st.from_regex(r"[\[\]0-9a-f:./udp]{0,20}", fullmatch=True))
def test_anything(text: str) -> None:
    try:
        found = parse_expose(text)
    except UsageFault:
        return
    assert 0 < found.local < 65536
    assert 0 < found.remote < 65536
    assert parse_expose(f"{found.target}:{found.remote}/{found.protocol.lower()}") == found


def test_several() -> None:
    assert len(parse_exposes(["8080:80", "8080:80/udp"])) == 2
    for texts in ([], ["1:80", "2:80"], [str(port) for port in range(1, MAX_EXPOSED + 2)]):
        with pytest.raises(UsageFault):
            parse_exposes(texts)


def test_pod_ports_are_those_of_the_service_where_the_agent_may_listen() -> None:
    exposes = parse_exposes(["1:80", "1:80/udp", "1:8080", "1:7777", "1:20080", "1:1023", "1:1024"])
    assert list(pod_ports(exposes).values()) == [20081, 20082, 8080, 27777, 20080, 21023, 1024]

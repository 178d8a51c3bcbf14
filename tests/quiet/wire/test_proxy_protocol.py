"""PROXY protocol v2: vectors written by hand from haproxy's doc/proxy-protocol.txt, section 2.2."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kt_net.wire.proxy_protocol import emit_header

SIGNATURE = "0d0a0d0a000d0a515549540a"


@pytest.mark.parametrize(
    ("caller", "caller_port", "destination", "port", "expected"),
    [
        ("10.1.2.3", 0xC001, "10.96.0.10", 80, "2111000c 0a010203 0a60000a c001 0050"),
        (
            "fd00::1",
            1,
            "fd00:96::a",
            443,
            "21210024 fd000000000000000000000000000001 fd00009600000000000000000000000a 0001 01bb",
        ),
        ("10.1.2.3", 1, "fd00::1", 2, "21000000"),
    ],
    ids=["IPv4", "IPv6", "two families"],
)
def test_header(caller: str, caller_port: int, destination: str, port: int, expected: str) -> None:
    header = emit_header(ip_address(caller), caller_port, ip_address(destination), port)
    assert header == bytes.fromhex(SIGNATURE + expected)

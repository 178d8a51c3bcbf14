"""What the agent dials and what it refuses; and the file that it is brought as."""

from __future__ import annotations

import io
import ipaddress
import zipfile

import pytest

from shadow_image.bundle import MAX_BUNDLE_OCTETS, build_zipapp
from shadow_image.policy import Policy
from shadow_image.report import nameservers

POLICY = Policy(
    own=[ipaddress.ip_address("10.244.0.9")],
    listen_port=7777,
    nameservers=[ipaddress.ip_address("169.254.20.10"), ipaddress.ip_address("10.96.0.10")],
)


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("127.0.0.1", 80),
        ("127.9.9.9", 80),
        ("::1", 80),
        ("::ffff:127.0.0.1", 80),
        ("::127.0.0.1", 80),
        ("64:ff9b::7f00:1", 80),
        ("2002:7f00:1::", 80),
        ("0.0.0.0", 80),
        ("0.1.2.3", 80),
        ("::", 80),
        ("169.254.169.254", 80),
        ("::ffff:169.254.169.254", 80),
        ("fd00:ec2::254", 80),
        ("100.100.100.200", 80),
        ("fe80::1", 80),
        ("fe80::1%eth0", 80),
        ("224.0.0.1", 80),
        ("ff02::1", 80),
        ("255.255.255.255", 80),
        ("10.244.0.9", 7777),
        ("169.254.20.10", 80),
    ],
)
def test_refused(address: str, port: int) -> None:
    assert POLICY.refusal(ipaddress.ip_address(address), port) is not None


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("10.96.0.1", 443),
        ("10.244.0.9", 8080),
        ("10.244.0.8", 7777),
        ("fd00::1", 80),
        ("192.0.2.1", 80),
        ("169.254.20.10", 53),
    ],
)
def test_dialled(address: str, port: int) -> None:
    assert POLICY.refusal(ipaddress.ip_address(address), port) is None


def test_allow_list() -> None:
    policy = Policy(listen_port=1, allowed=[ipaddress.ip_network("10.0.0.0/8")])
    assert policy.refusal(ipaddress.ip_address("10.1.1.1"), 80) is None
    assert policy.refusal(ipaddress.ip_address("11.1.1.1"), 80) is not None
    assert policy.refusal(ipaddress.ip_address("fd00::1"), 80) is not None


def test_nameservers_of_the_pod() -> None:
    text = "search a\nnameserver 10.96.0.10\nnameserver nonsense\nnameserver fe80::1%eth0\nnameserver\n"
    assert [str(address) for address in nameservers(text)] == ["10.96.0.10", "fe80::1"]


def test_bundle_is_the_same_for_the_same_sources_and_small() -> None:
    data = build_zipapp()
    assert data == build_zipapp()
    assert len(data) <= MAX_BUNDLE_OCTETS
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert "__main__.py" in names
    assert all(
        name.startswith(("kt_net/choreography/", "kt_net/tunnel/", "shadow_image/", "__main__")) or name.count("/") == 1
        for name in names
    )
    assert not any("wire" in name or "stack" in name for name in names)

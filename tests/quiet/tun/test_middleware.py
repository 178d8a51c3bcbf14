"""Middleware is a device like any other; and what each one does."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Packet, Raw

from kt_net.tun.device import Device
from kt_net.tun.dissect import in_line
from kt_net.tun.faults import Faults, FaultyDevice
from kt_net.tun.memory import MemoryDevice
from kt_net.tun.pcap import PcapDevice
from kt_net.tun.tracer import TracingDevice
from kt_net.wire.vnet import GSO_TCPV4, PLAIN, VnetHeader
from tests.conformance.device import CHECKS, Subject

WRAPPERS: dict[str, Callable[[Device], Device]] = {
    "pcap": lambda device: PcapDevice(device, io.BytesIO(), lambda: 0.0),
    "tracer": lambda device: TracingDevice(device, lambda line: None, lambda: 0.0),
    "faults": lambda device: FaultyDevice(device, Faults(), random.Random(1), lambda: 0.0),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("offload", [False, True])
def test_conformance(check: Callable[[Subject], None], wrapper: str, offload: bool) -> None:
    device = MemoryDevice(offload=offload)

    def give(packet: bytes) -> None:
        assert device.inject((PLAIN if offload else b"") + packet)

    check(Subject(WRAPPERS[wrapper](device), give))


# -- faults


def passed(faults: Faults, count: int = 2000, seed: int = 7) -> list[int]:
    """Which of so many numbered packets come out, in their order."""
    device = MemoryDevice(queue=2 * count)
    faulty = FaultyDevice(device, faults, random.Random(seed), lambda: 0.0)
    for number in range(count):
        assert faulty.write_packet([number.to_bytes(4, "big")])
    written = [int.from_bytes(packet, "big") for packet in device.taken()]
    for number in range(count):
        device.inject(number.to_bytes(4, "big"))
    read = []
    while packets := faulty.read_packets(100):
        read += [int.from_bytes(packet, "big") for packet in packets]
    assert abs(len(read) - len(written)) < count // 5
    return written


def test_nothing_broken_nothing_changed() -> None:
    assert passed(Faults()) == list(range(2000))


def test_loss() -> None:
    out = passed(Faults(loss=0.1))
    assert 1700 < len(out) < 1900
    assert out == sorted(out)


def test_doubling() -> None:
    out = passed(Faults(duplicate=0.1))
    assert 2100 < len(out) < 2300
    assert set(out) == set(range(2000))


def test_holding_back() -> None:
    out = passed(Faults(reorder=0.05, distance=3))
    assert out != sorted(out)
    assert len(set(out)) == len(out) > 1990
    assert max(place - number for place, number in enumerate(out)) <= 20


def test_what_nothing_follows_is_late_and_not_lost() -> None:
    device, now = MemoryDevice(), [5.0]
    faulty = FaultyDevice(device, Faults(reorder=1.0, late=0.002), random.Random(1), lambda: now[0])
    assert faulty.next_timer() is None
    device.inject(b"in")
    assert faulty.read_packets(9) == []
    now[0] = 5.001
    assert faulty.write_packet([b"o", b"ut"])
    assert faulty.next_timer() == 5.002
    now[0] = 5.002
    faulty.handle_timer(now=5.002)
    assert (faulty.read_packets(9), device.taken()) == ([b"in"], [])
    assert faulty.next_timer() == 5.003
    faulty.handle_timer(now=5.003)
    assert device.taken() == [b"out"]
    assert faulty.next_timer() is None


def test_damage() -> None:
    out = passed(Faults(corrupt=0.1))
    changed = [(place, number) for place, number in enumerate(out) if place != number]
    assert 140 < len(changed) < 260
    assert all((place ^ number).bit_count() == 1 for place, number in changed)


def test_the_same_seed_breaks_the_same() -> None:
    faults = Faults(loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1)
    assert passed(faults, seed=3) == passed(faults, seed=3) != passed(faults, seed=4)


def test_no_room_is_said() -> None:
    faulty = FaultyDevice(MemoryDevice(queue=1), Faults(duplicate=1.0), random.Random(1), lambda: 0.0)
    assert not faulty.write_packet([b"twice"])


# -- tracer

V4, V6 = IP(src="10.0.0.2", dst="10.96.0.1"), IPv6(src="fd00::2", dst="fd00::10")


@pytest.mark.parametrize(
    ("packet", "line"),
    [
        (
            V4 / TCP(sport=1000, dport=80, flags="S", seq=5, options=[("MSS", 1460), ("SAckOK", b""), ("WScale", 7)]),
            "10.0.0.2:1000 > 10.96.0.1:80 TCP SYN seq=5 win=8192 len=0 mss=1460 scale=7 sack-permitted",
        ),
        (
            V6 / TCP(sport=1, dport=2, flags="PA", seq=5, ack=9, options=[("Timestamp", (3, 4))]) / Raw(b"abc"),
            "[fd00::2]:1 > [fd00::10]:2 TCP PSH|ACK seq=5 ack=9 win=8192 len=3 ts=3/4",
        ),
        (
            V4 / TCP(sport=1, dport=2, flags="A", seq=5, ack=9, options=[("SAck", (20, 30))]),
            "10.0.0.2:1 > 10.96.0.1:2 TCP ACK seq=5 ack=9 win=8192 len=0 sack=20-30",
        ),
        (V4 / TCP(sport=1, dport=2, flags=0, seq=5), "10.0.0.2:1 > 10.96.0.1:2 TCP - seq=5 win=8192 len=0"),
        (V4 / UDP(sport=5, dport=53) / Raw(b"abcd"), "10.0.0.2:5 > 10.96.0.1:53 UDP len=4"),
        (V4 / ICMP(id=3, seq=4) / Raw(b"x"), "10.0.0.2 > 10.96.0.1 ICMP echo request type=8 code=0 id=3 seq=4 len=1"),
        (
            V6 / ICMPv6EchoRequest(id=3, seq=4),
            "fd00::2 > fd00::10 ICMPv6 echo request type=128 code=0 id=3 seq=4 len=0",
        ),
        (IP(src="10.0.0.2", dst="10.96.0.1", proto=132) / Raw(b"x"), "10.0.0.2 > 10.96.0.1 protocol 132 len=1"),
        (
            fragment(V4 / UDP() / Raw(bytes(3000)), fragsize=800)[1],
            "10.0.0.2 > 10.96.0.1 fragment id=1 800:800+",
        ),
    ],
)
def test_lines(packet: Packet, line: str) -> None:
    assert in_line(bytes(packet), offload=False) == line
    meta = VnetHeader(gso_type=GSO_TCPV4, gso_size=1460).emit()
    assert in_line(meta + bytes(packet), offload=True) == line + " gso=1460"


@given(st.binary(max_size=200), st.booleans())
def test_foreign_octets_raise_nothing(data: bytes, offload: bool) -> None:
    assert in_line(data, offload=offload)


def test_both_directions_are_told() -> None:
    lines: list[str] = []
    device = MemoryDevice(offload=True, queue=1)
    traced = TracingDevice(device, lines.append, lambda: 1.5)
    device.inject(PLAIN + bytes(V4 / UDP(sport=5, dport=53)))
    traced.read_packets(1)
    for _ in range(2):
        traced.write_packet([PLAIN, bytes(V4 / UDP(sport=5, dport=53))])
    assert lines == [
        "1.500000 out 10.0.0.2:5 > 10.96.0.1:53 UDP len=0",
        "1.500000 in  10.0.0.2:5 > 10.96.0.1:53 UDP len=0",
        "1.500000 in  10.0.0.2:5 > 10.96.0.1:53 UDP len=0 (no room: lost)",
    ]

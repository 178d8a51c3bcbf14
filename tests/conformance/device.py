"""What any Device has to do; run on the in-memory twin in the quiet tier and on a real TUN in the net tier.

`give` makes the kernel's side send a packet; `taken` waits for what the device wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kt_net.errors import TunUnavailable
from kt_net.tun.device import Device
from kt_net.wire.ipv4 import IPv4Header
from kt_net.wire.vnet import PLAIN

#: A datagram of protocol 253, "for experimentation" (RFC 3692): nobody's kernel answers it.
PACKET = IPv4Header(bytes([10, 199, 0, 1]), bytes([10, 199, 0, 2]), 253, 20, 24).emit() + b"data"


@dataclass
class Subject:
    """A device and its kernel's side."""

    device: Device
    give: Callable[[bytes], None]


def reading_nothing_does_not_wait(subject: Subject) -> None:
    assert subject.device.read_packets(10) == []


def given_packets_are_read_in_order_and_no_more_than_asked(subject: Subject) -> None:
    prefix = PLAIN if subject.device.offload else b""
    for number in range(5):
        subject.give(PACKET[:-4] + bytes([number] * 4))
    first, rest = subject.device.read_packets(2), subject.device.read_packets(10)
    assert [packet[len(prefix) + 20 :] for packet in first + rest] == [bytes([number] * 4) for number in range(5)]
    assert len(first) == 2


def written_in_pieces_is_one_packet(subject: Subject) -> None:
    prefix = [PLAIN] if subject.device.offload else []
    assert subject.device.write_packet([*prefix, PACKET[:20], memoryview(PACKET)[20:]])


def closed_is_said(subject: Subject) -> None:
    subject.device.close()
    subject.device.close()
    with pytest.raises(TunUnavailable):
        subject.device.read_packets(1)


CHECKS: list[Callable[[Subject], None]] = [
    reading_nothing_does_not_wait,
    given_packets_are_read_in_order_and_no_more_than_asked,
    written_in_pieces_is_one_packet,
    closed_is_said,
]

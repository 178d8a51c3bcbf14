"""The in-memory device is what the real one is; and the pcap middleware."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pytest

from kt_net.tun.memory import MemoryDevice
from kt_net.tun.pcap import PcapDevice
from kt_net.wire.vnet import PLAIN
from tests.conformance.device import CHECKS, PACKET, Subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("offload", [False, True])
def test_conformance(check: Callable[[Subject], None], offload: bool) -> None:
    device = MemoryDevice(offload=offload)

    def give(packet: bytes) -> None:
        assert device.inject((PLAIN if offload else b"") + packet)

    check(Subject(device, give))


def test_full_queues_lose_packets() -> None:
    device = MemoryDevice(queue=1)
    assert device.inject(PACKET)
    assert not device.inject(PACKET)
    assert device.write_packet([PACKET])
    assert not device.write_packet([PACKET])
    assert device.taken() == [PACKET]


def test_pcap_has_both_directions_without_device_headers() -> None:
    file, device = io.BytesIO(), MemoryDevice(offload=True)
    recorded = PcapDevice(device, file, lambda: 12.5)
    device.inject(PLAIN + PACKET)
    recorded.read_packets(1)
    recorded.write_packet([PLAIN, PACKET])
    assert (recorded.name, recorded.mtu, recorded.offload, recorded.fileno()) == ("memory0", 1500, True, -1)
    data = file.getvalue()
    assert struct.unpack_from("<IHHiIII", data)[0::6] == (0xA1B2C3D4, 101)
    entry = struct.pack("<IIII", 12, 500000, len(PACKET), len(PACKET)) + PACKET
    assert data[24:] == entry * 2
    recorded.close()

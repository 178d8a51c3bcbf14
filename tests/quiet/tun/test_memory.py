"""The in-memory device is what the real one is; and the pcap middleware."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import rdpcap

from kt_net.stack import Stack
from kt_net.tun.memory import MemoryDevice
from kt_net.tun.pcap import PcapDevice
from kt_net.wire.vnet import HEADER_OCTETS, PLAIN
from tests.conformance.device import CHECKS, PACKET, Subject

CLIENT = IP(src="10.0.0.2", dst="10.96.0.1")


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


def test_scapy_finds_no_fault_with_checksums_that_the_device_would_have_filled_in(tmp_path: Path) -> None:
    """What the stack sends with offload, super-packets among it, read back by somebody else."""
    file = tmp_path / "all.pcap"
    stack = Stack(entropy=bytes, mtu=1500, offload=True)
    with file.open("wb") as opened:
        recorded = PcapDevice(MemoryDevice(offload=True), opened, lambda: 1e9 + 0.9999999)
        stack.receive_packet(PLAIN + bytes(CLIENT / TCP(sport=5, dport=80, flags="S", seq=1)), now=0.0)
        stack.accept(1, window=1000, now=0.0)
        (answer,) = stack.packets_to_send(now=0.0)
        recorded.write_packet(answer)
        sequence = IP(b"".join(answer)[HEADER_OCTETS:])[TCP].seq
        stack.receive_packet(
            PLAIN + bytes(CLIENT / TCP(sport=5, dport=80, flags="A", seq=2, ack=sequence + 1, window=65535)), now=0.0
        )
        stack.send(1, bytes(range(251)) * 30, now=0.0)
        for buffers in stack.packets_to_send(now=0.0):
            recorded.write_packet(buffers)
        recorded.close()
    read = rdpcap(str(file))
    assert len(read) >= 2
    assert max(len(packet) for packet in read) > 1500
    assert float(read[0].time) == 1e9 + 1
    for packet in read:
        again = packet.__class__(bytes(packet))
        del again[TCP].chksum
        assert packet.__class__(bytes(again))[TCP].chksum == packet[TCP].chksum

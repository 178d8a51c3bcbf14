"""A whole transfer against a small simulated kernel, over a path that loses and reorders, on a virtual clock and by seed.

The stack is driven by `next_timer` only, so a timer that is missing or wrong shows as a transfer that does not end.
"""

from __future__ import annotations

import heapq
import random

import pytest

from kt_net.stack import DataAcknowledged
from kt_net.stack.tcp.seq import distance
from kt_net.wire.tcp import ACK, FIN
from tests.quiet.stack.script import KERNEL_SEQ, Script

OCTETS = 1 << 20


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("offload", [False, True])
def test_download_is_whole(loss: float, offload: bool) -> None:
    chance = random.Random(f"{loss}{offload}")
    script = Script(offload=offload)
    script.established(scale=7)
    data = random.Random(1).randbytes(OCTETS)
    got: dict[int, bytes] = {}
    expected = 1  # next sequence number of the stack, relative
    path: list[tuple[float, int, int]] = []  # acknowledgements on their way
    script.stack.send(script.flow, data, now=script.now)
    script.stack.finish(script.flow, now=script.now)
    finished, acknowledged, count = False, 0, 0
    while not finished:
        for segment in script.take():
            if chance.random() < loss:
                continue
            start = distance((0xFFFFFFF0 + expected) & 0xFFFFFFFF, segment.header.sequence) + expected
            got.setdefault(start, segment.payload)
            if segment.header.flags & FIN:
                got[start + len(segment.payload)] = b"\0"
            while expected in got:
                expected += len(got.pop(expected))
            count += 1
            if chance.random() >= loss:
                heapq.heappush(path, (script.now + 0.001 + chance.random() * 0.002, count, expected))
        if path:
            at, _, number = heapq.heappop(path)
            script.elapse(max(0.0, at - script.now))
            script.send(ACK, seq=1, ack=number)
        else:
            timer = script.stack.next_timer()
            assert timer is not None, "\n".join(script.log[-20:])
            script.elapse(max(0.0, timer - script.now))
        acknowledged += sum(event.octets for event in script.events() if isinstance(event, DataAcknowledged))
        finished = acknowledged == OCTETS
        assert script.now < 2000, "the transfer does not end"
    assert expected >= 1 + OCTETS


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_upload_is_whole(loss: float) -> None:
    chance = random.Random(str(loss))
    script = Script()
    script.established(window=1 << 20)
    data = random.Random(2).randbytes(OCTETS // 4)
    pieces = {at: data[at : at + 1000] for at in range(0, len(data), 1000)}
    got, expected = b"", 0
    for _ in range(200):
        order = list(range(expected, len(data), 1000))[:40]
        chance.shuffle(order)
        for at in order:
            if chance.random() >= loss:
                script.send(ACK, seq=1 + at, ack=1, data=pieces[at])
        got += script.received()
        for segment in script.take():
            expected = max(expected, distance((KERNEL_SEQ + 1) & 0xFFFFFFFF, segment.header.acknowledgement))
        expected -= expected % 1000 if expected < len(data) else 0
        if expected >= len(data):
            break
    assert got == data

"""TCP as RFC 9293 and its companions have it, one script a clause."""

from __future__ import annotations

import itertools

import pytest

from kt_net.errors import StreamClosed
from kt_net.stack import (
    DataAcknowledged,
    DataReceived,
    EndReceived,
    FlowClosed,
    FlowRequested,
    FlowReset,
    StackConfig,
)
from kt_net.wire import vnet
from kt_net.wire.tcp import ACK, FIN, PSH, RST, SYN, TcpHeader
from tests.quiet.stack.script import MSS, Script

BOTH = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])


@BOTH
def test_syn_is_answered_only_after_accept(v6: bool) -> None:
    script = Script(v6=v6)
    script.send(SYN, mss=MSS, scale=7)
    (event,) = script.events()
    assert isinstance(event, FlowRequested)
    script.expect_nothing()
    script.send(SYN, mss=MSS, scale=7)
    assert script.events() == []
    script.expect_nothing()
    script.stack.accept(event.flow, window=5000, now=script.now)
    segment = script.expect(SYN | ACK, seq=0, ack=1, window=5000)
    assert (segment.header.mss, segment.header.window_scale) == (1440 if v6 else 1460, 7)


def test_window_scale_only_when_offered() -> None:
    script = Script()
    script.send(SYN, mss=MSS)
    (event,) = script.events()
    assert isinstance(event, FlowRequested)
    script.stack.accept(event.flow, window=200_000, now=script.now)
    segment = script.expect(SYN | ACK, window=0xFFFF)
    assert segment.header.window_scale is None


@BOTH
def test_refused_is_a_reset(v6: bool) -> None:
    script = Script(v6=v6)
    script.send(SYN)
    (event,) = script.events()
    assert isinstance(event, FlowRequested)
    script.stack.refuse(event.flow, now=script.now)
    script.expect(RST | ACK, ack=1)
    with pytest.raises(StreamClosed):
        script.stack.accept(event.flow, window=1, now=script.now)


def test_program_gives_up_while_pending() -> None:
    script = Script()
    script.send(SYN)
    (event,) = script.events()
    assert isinstance(event, FlowRequested)
    script.send(RST, seq=1)
    assert script.events() == [FlowReset(event.flow)]


def test_backlog_is_capped() -> None:
    script = Script(config=StackConfig(pending_flows=2))
    for port in (1, 2, 3):
        script.send(SYN, port=port)
    assert len(script.events()) == 2
    assert script.stack.stats(now=script.now).overflow == 1


@BOTH
@pytest.mark.parametrize("offload", [False, True])
def test_data_both_ways(v6: bool, offload: bool) -> None:
    script = Script(v6=v6, offload=offload)
    script.established()
    script.send(ACK | PSH, seq=1, ack=1, data=b"question")
    assert script.events() == [DataReceived(script.flow, memoryview(b"question"))]
    script.expect(ACK, seq=1, ack=9)
    script.stack.send(script.flow, b"answer", now=script.now)
    script.expect(ACK | PSH, seq=1, ack=9, data=b"answer")
    script.send(ACK, seq=9, ack=7)
    assert script.events() == [DataAcknowledged(script.flow, 6)]


def test_super_packet_with_offload_and_segments_without() -> None:
    data = bytes(range(256)) * 40
    with_offload = Script(offload=True)
    with_offload.established()
    with_offload.stack.send(with_offload.flow, data, now=with_offload.now)
    segment = with_offload.expect(ACK | PSH, seq=1, data=data)
    assert (segment.meta.gso_type, segment.meta.gso_size, segment.meta.hdr_len) == (vnet.GSO_TCPV4, MSS, 40)
    assert segment.meta.flags == vnet.F_NEEDS_CSUM
    without = Script()
    without.established()
    without.stack.send(without.flow, data, now=without.now)
    segments = without.take()
    assert b"".join(segment.payload for segment in segments) == data
    assert max(len(segment.payload) for segment in segments) == MSS


def test_window_is_what_was_granted_and_never_exceeded() -> None:
    script = Script()
    script.established(window=1000)
    script.send(ACK, seq=1, ack=1, data=b"a" * 1460)
    assert script.received() == b"a" * 1000
    script.expect(ACK, ack=1001, window=0)
    script.send(ACK, seq=1001, ack=1, data=b"a" * 460)
    assert script.received() == b""
    script.expect(ACK, ack=1001, window=0)
    script.stack.grant(script.flow, 10_000, now=script.now)
    script.expect(ACK, ack=1001, window=10_000 >> 7)


def test_small_grants_are_told_together() -> None:
    script = Script()
    script.established(window=50_000)
    script.stack.grant(script.flow, 100, now=script.now)
    script.expect_nothing()
    script.stack.grant(script.flow, 3000, now=script.now)
    script.expect(ACK)


def test_out_of_order_data_waits_for_the_gap() -> None:
    script = Script()
    script.established()
    script.send(ACK, seq=6, ack=1, data=b"world")
    assert script.received() == b""
    script.expect(ACK, ack=1)
    script.send(ACK, seq=1, ack=1, data=b"hello")
    assert script.received() == b"helloworld"
    script.expect(ACK, ack=11)


def test_overlapping_and_repeated_data_is_delivered_once() -> None:
    script = Script()
    script.established()
    script.send(ACK, seq=1, ack=1, data=b"abc")
    script.send(ACK, seq=1, ack=1, data=b"abcdef")
    script.send(ACK, seq=1, ack=1, data=b"abc")
    assert script.received() == b"abcdef"


def test_fin_out_of_order() -> None:
    script = Script()
    script.established()
    script.send(ACK | FIN, seq=4, ack=1, data=b"def")
    assert script.events() == []
    script.send(ACK, seq=1, ack=1, data=b"abc")
    events = script.events()
    assert b"".join(bytes(event.data) for event in events if isinstance(event, DataReceived)) == b"abcdef"
    assert events[-1] == EndReceived(script.flow)


def test_program_closes_first() -> None:
    script = Script()
    script.established()
    script.send(ACK | FIN, seq=1, ack=1)
    assert script.events() == [EndReceived(script.flow)]
    script.expect(ACK, ack=2)
    script.stack.send(script.flow, b"still", now=script.now)
    script.expect(ACK | PSH, seq=1, data=b"still")
    script.stack.finish(script.flow, now=script.now)
    script.expect(ACK | FIN, seq=6)
    script.send(ACK, seq=2, ack=7)
    assert script.events() == [DataAcknowledged(script.flow, 5), FlowClosed(script.flow)]


def test_far_side_closes_first() -> None:
    script = Script()
    script.established()
    script.stack.send(script.flow, b"bye", now=script.now)
    script.stack.finish(script.flow, now=script.now)
    script.expect(ACK | FIN | PSH, seq=1, data=b"bye")
    script.send(ACK, seq=1, ack=5)
    script.send(ACK, seq=1, ack=5, data=b"rest")
    assert script.received() == b"rest"
    script.expect(ACK, ack=5)
    script.send(ACK | FIN, seq=5, ack=5)
    assert script.events() == [EndReceived(script.flow), FlowClosed(script.flow)]
    script.expect(ACK, ack=6)
    script.send(ACK | FIN, seq=5, ack=5)
    script.expect(ACK, ack=6)
    script.elapse(2)
    assert script.stack.stats(now=script.now).tcp_flows == 0


def test_simultaneous_close() -> None:
    script = Script()
    script.established()
    script.stack.finish(script.flow, now=script.now)
    script.expect(ACK | FIN, seq=1)
    script.send(ACK | FIN, seq=1, ack=1)
    script.expect(ACK, ack=2)
    script.send(ACK, seq=2, ack=2)
    assert script.events() == [EndReceived(script.flow), FlowClosed(script.flow)]


def test_new_connection_from_time_wait() -> None:
    script = Script()
    script.established()
    script.stack.finish(script.flow, now=script.now)
    script.expect(ACK | FIN)
    script.send(ACK | FIN, seq=1, ack=2)
    script.events()
    script.take()
    script.send(SYN, seq=100_000)
    assert [type(event) for event in script.events()] == [FlowRequested]


def test_reset_by_the_program() -> None:
    script = Script()
    script.established()
    script.send(RST, seq=1)
    assert script.events() == [FlowReset(script.flow)]
    script.expect_nothing()


def test_reset_inside_the_window_is_challenged() -> None:
    """RFC 5961 section 3.2."""
    script = Script()
    script.established()
    script.send(RST, seq=500)
    assert script.events() == []
    script.expect(ACK, seq=1, ack=1)


def test_syn_inside_the_window_is_challenged() -> None:
    """RFC 5961 section 4.2."""
    script = Script()
    script.established()
    script.send(SYN, seq=10)
    script.expect(ACK, seq=1, ack=1)
    assert script.events() == []


def test_challenges_are_limited() -> None:
    """RFC 5961 section 7."""
    script = Script(config=StackConfig(challenge_acks=3))
    script.established()
    for _ in range(10):
        script.send(RST, seq=500)
    assert len(script.take()) == 3


def test_acknowledgement_of_what_was_never_sent() -> None:
    script = Script()
    script.established()
    script.send(ACK, seq=1, ack=5000, data=b"forged")
    assert script.events() == []
    script.expect(ACK, seq=1, ack=1)


def test_reset_by_the_far_side() -> None:
    script = Script()
    script.established()
    script.stack.reset(script.flow, now=script.now)
    script.expect(RST | ACK, seq=1, ack=1)
    assert script.events() == []


def test_segment_of_no_connection() -> None:
    script = Script()
    script.send(ACK, seq=5, ack=7)
    script.expect(RST, seq=7)
    script.send(FIN, seq=5)
    script.expect(RST | ACK, ack=6)
    script.send(RST, seq=5)
    script.expect_nothing()


def test_lost_synack_is_sent_again() -> None:
    script = Script()
    script.send(SYN, mss=MSS)
    (event,) = script.events()
    assert isinstance(event, FlowRequested)
    script.stack.accept(event.flow, window=1000, now=script.now)
    script.expect(SYN | ACK)
    script.elapse(1.0)
    script.expect(SYN | ACK, seq=0, ack=1)
    script.send(SYN, mss=MSS)
    script.expect(SYN | ACK, seq=0, ack=1)


def test_retransmission_backs_off_and_gives_up() -> None:
    script = Script(config=StackConfig(retransmissions=3))
    script.established()
    script.stack.send(script.flow, b"lost", now=script.now)
    script.expect(ACK | PSH, data=b"lost")
    times = []
    start = script.now
    while not script.events():
        script.elapse(0.05)
        times += [round(script.now - start, 1) for segment in script.take() if segment.payload == b"lost"]
        assert script.now - start < 100
    gaps = [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)]
    assert len(times) == 3
    assert gaps == sorted(gaps)
    assert gaps[1] >= 1.9 * gaps[0]


def test_three_duplicates_bring_the_segment_again() -> None:
    """RFC 5681 section 3.2."""
    script = Script()
    script.established()
    data = bytes(5 * MSS)
    script.stack.send(script.flow, data, now=script.now)
    assert len(script.take()) == 5
    for _ in range(3):
        script.expect_nothing()
        script.send(ACK, seq=1, ack=1)
    again = script.take()
    assert again
    assert again[0].header.sequence == (0xFFFFFFF0 + 1) & 0xFFFFFFFF
    script.send(ACK, seq=1, ack=1 + len(data))
    assert sum(event.octets for event in script.events() if isinstance(event, DataAcknowledged)) == len(data)


def test_shut_window_is_probed_until_it_opens() -> None:
    script = Script()
    script.established(kernel_window=0)
    script.stack.send(script.flow, b"waits", now=script.now)
    script.expect_nothing()
    script.elapse(0.3)
    script.expect(ACK, seq=0)
    script.send(ACK, seq=1, ack=1, window=100)
    script.expect(ACK | PSH, seq=1, data=b"waits")


def test_shut_window_that_is_acknowledged_never_ends_the_flow() -> None:
    script = Script(config=StackConfig(retransmissions=3))
    script.established(kernel_window=0)
    script.stack.send(script.flow, b"waits", now=script.now)
    probes = 0
    while probes < 12:
        script.elapse(0.5)
        if script.take():
            probes += 1
            script.send(ACK, seq=1, ack=1, window=0)
        assert script.now < 3000
    assert FlowReset(script.flow) not in script.events()


def test_send_window_is_kept() -> None:
    script = Script()
    script.established(scale=None, kernel_window=2000)
    script.stack.send(script.flow, bytes(5000), now=script.now)
    assert sum(len(segment.payload) for segment in script.take()) <= 2000
    script.send(ACK, seq=1, ack=1461, window=2000)
    assert sum(len(segment.payload) for segment in script.take()) <= 2000


def test_partly_acknowledged_segment_is_trimmed() -> None:
    script = Script(offload=True)
    script.established()
    script.stack.send(script.flow, b"0123456789", now=script.now)
    script.take()
    script.send(ACK, seq=1, ack=5)
    script.elapse(2)
    assert script.take()[0].payload == b"456789"


def test_wrong_checksum_is_counted() -> None:
    script = Script()
    packet = bytearray(script.packet(TcpHeader(1, 2, 3, 4, SYN, 5), b""))
    packet[-1] ^= 1
    script.stack.receive_packet(bytes(packet), now=0.0)
    assert script.events() == []
    assert script.stack.stats(now=0.0).malformed == 1

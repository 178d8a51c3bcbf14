"""Time: delayed acknowledgements, keep-alive, probes, silly windows, timestamps. RFC 9293, RFC 1122, RFC 7323."""

from __future__ import annotations

import pytest

from kt_net.stack import DataReceived, EndReceived, FlowRequested, FlowReset, StackConfig
from kt_net.wire.tcp import ACK, FIN, PSH, RST, SYN, URG
from tests.quiet.stack.script import MSS, Script

# -- delayed acknowledgements: RFC 9293 section 3.8.6.3


def exchanged(times: int) -> Script:
    """A connection after so many requests, each answered after 1 ms."""
    script = Script()
    script.established()
    for number in range(times):
        script.send(ACK | PSH, seq=1 + number, ack=1 + number, data=b"q")
        script.elapse(0.001)
        script.stack.send(script.flow, b"a", now=script.now)
        script.take()
    script.events()
    return script


def test_the_first_requests_are_acknowledged_at_once() -> None:
    script = exchanged(3)
    script.send(ACK | PSH, seq=4, ack=4, data=b"q")
    script.expect(ACK, ack=5)


def test_a_program_that_always_gets_an_answer_gets_one_segment() -> None:
    script = exchanged(10)
    script.send(ACK | PSH, seq=11, ack=11, data=b"q")
    script.expect_nothing()
    script.elapse(0.002)
    script.stack.send(script.flow, b"a", now=script.now)
    script.expect(ACK | PSH, ack=12, data=b"a")
    script.elapse(1)
    assert all(segment.payload for segment in script.take())  # retransmissions of the answer; no bare acknowledgement


def test_an_answer_that_does_not_come_ends_the_delay() -> None:
    script = exchanged(10)
    script.send(ACK | PSH, seq=11, ack=11, data=b"q")
    script.elapse(0.009)
    script.expect_nothing()
    script.elapse(0.002)
    script.expect(ACK, ack=12)
    script.send(ACK | PSH, seq=12, ack=11, data=b"q")
    script.expect(ACK, ack=13)


def test_a_second_segment_is_acknowledged_at_once() -> None:
    script = exchanged(10)
    script.send(ACK | PSH, seq=11, ack=11, data=b"q")
    script.expect_nothing()
    script.send(ACK | PSH, seq=12, ack=11, data=b"q")
    script.expect(ACK, ack=13)


def test_a_fin_is_not_delayed() -> None:
    script = exchanged(10)
    script.send(ACK | PSH | FIN, seq=11, ack=11, data=b"q")
    script.expect(ACK, ack=13)


# -- keep-alive: RFC 9293 section 3.8.4


def test_an_idle_program_is_asked_and_lives() -> None:
    script = Script(config=StackConfig(keepalive_idle=100, keepalive_interval=10, keepalive_probes=3))
    script.established()
    script.elapse(99)
    script.expect_nothing()
    script.elapse(2)
    script.expect(ACK, seq=0, ack=1)
    script.send(ACK, seq=1, ack=1)
    script.expect_nothing()
    script.elapse(98)
    script.expect_nothing()
    script.elapse(3)
    script.expect(ACK, seq=0)


def test_a_program_that_is_gone_is_found_out() -> None:
    """Half-open: its namespace was deleted; nobody resets, nobody answers."""
    script = Script(config=StackConfig(keepalive_idle=100, keepalive_interval=10, keepalive_probes=3))
    script.established()
    script.elapse(129)
    assert len(script.take()) == 3
    assert script.events() == []
    script.elapse(20)
    script.expect(RST | ACK)
    assert script.events() == [FlowReset(script.flow)]


def test_a_program_that_began_anew_resets() -> None:
    """RFC 9293 section 3.5.1: a SYN into what we believe is open brings a challenge, and that the reset."""
    script = Script()
    script.established()
    script.send(SYN, seq=5000, mss=MSS)
    challenge = script.expect(ACK, seq=1, ack=1)
    assert challenge.header.flags == ACK
    script.send(RST, seq=1)
    assert script.events() == [FlowReset(script.flow)]


# -- windows: RFC 9293 sections 3.8.6.1 and 3.8.6.2


def test_a_small_window_is_used_after_a_while() -> None:
    """The override timer: a receiver that never opens more must not wait for ever."""
    script = Script()
    script.established(kernel_window=8000, scale=0)
    script.stack.send(script.flow, bytes(8000), now=script.now)
    script.take()
    script.stack.send(script.flow, bytes(3000), now=script.now)
    script.send(ACK, seq=1, ack=8001, window=200)
    script.expect_nothing()
    script.elapse(0.21)
    assert len(script.expect(ACK).payload) == 200


def test_half_of_the_largest_window_is_enough() -> None:
    script = Script()
    script.established(kernel_window=1000, scale=0)
    script.stack.send(script.flow, bytes(1000), now=script.now)
    script.take()
    script.stack.send(script.flow, bytes(3000), now=script.now)
    script.send(ACK, seq=1, ack=1001, window=500)
    assert len(script.expect(ACK).payload) == 500


def test_acknowledgements_pass_a_shut_window() -> None:
    """RFC 9293 section 3.10.7.4: RCV.WND is 0, and the segment is beyond it; what it acknowledges counts."""
    script = Script()
    script.established(window=10)
    script.send(ACK, seq=1, ack=1, data=b"0123456789")
    script.take()
    script.stack.send(script.flow, b"answer", now=script.now)
    script.expect(ACK | PSH, window=0)
    script.events()
    script.send(ACK, seq=11, ack=7, data=b"more")
    script.expect(ACK, ack=11, window=0)
    script.elapse(5)
    script.expect_nothing()  # nothing is sent again


def test_a_window_that_shrinks() -> None:
    """RFC 9293 section 3.8.6: a sender must be robust; what is beyond is sent again when there is room, and the flow lives."""
    script = Script(config=StackConfig(retransmissions=3))
    script.established(kernel_window=10_000, scale=0)
    script.stack.send(script.flow, bytes(10_000), now=script.now)
    script.take()
    for _ in range(40):
        script.elapse(1)
        if script.take():
            script.send(ACK, seq=1, ack=1, window=0)
    assert FlowReset(script.flow) not in script.events()
    script.send(ACK, seq=1, ack=1, window=10_000)
    script.elapse(1)  # not what the timeouts had backed off to: what was beyond a shut window was not lost on the way
    got = 1
    for _ in range(20):
        for segment in script.take():
            start = (segment.header.sequence - 0xFFFFFFF0) & 0xFFFFFFFF
            if start <= got:
                got = max(got, start + len(segment.payload))
        script.send(ACK, seq=1, ack=got, window=10_000)
    assert got == 10_001


# -- timestamps: RFC 7323


def test_timestamps_are_echoed() -> None:
    script = Script()
    script.established(ts=1000)
    script.send(ACK | PSH, seq=1, ack=1, data=b"x", ts=(1007, 0))
    assert script.expect(ACK).header.timestamp_echo == 1007
    script.elapse(2)
    script.stack.send(script.flow, b"y", now=script.now)
    first = script.expect(ACK | PSH).header.timestamp
    script.elapse(0.1)
    script.send(ACK | PSH, seq=2, ack=2, data=b"z", ts=(1009, first or 0))
    second = script.expect(ACK).header
    assert second.timestamp is not None
    assert first is not None
    assert (second.timestamp - first, second.timestamp_echo) == (100, 1009)


def test_no_timestamps_unless_offered() -> None:
    script = Script()
    script.established()
    script.send(ACK | PSH, seq=1, ack=1, data=b"x", ts=(5, 5))
    assert script.expect(ACK).header.timestamp is None


def test_the_option_takes_the_room_of_payload() -> None:
    """RFC 6691."""
    script = Script()
    script.established(ts=1)
    script.stack.send(script.flow, bytes(4000), now=script.now)
    assert {len(segment.payload) for segment in script.take()[:-1]} == {MSS - 12}


def test_old_duplicates_are_dropped() -> None:
    """PAWS, RFC 7323 section 5: in the window by its number, and from an earlier turn of the numbers by its clock."""
    script = Script()
    script.established(ts=1000)
    script.send(ACK, seq=1, ack=1, data=b"x", ts=(2000, 0))
    script.take()
    script.events()
    script.elapse(1)
    script.send(ACK, seq=2, ack=1, data=b"old", ts=(1999, 0))
    assert script.events() == []
    script.expect(ACK, ack=2)


def test_after_24_days_an_old_clock_is_believed() -> None:
    script = Script(config=StackConfig(keepalive_idle=1e9))
    script.established(ts=1000)
    script.elapse(25 * 24 * 3600)
    script.send(ACK, seq=1, ack=1, data=b"new", ts=(5, 0))
    assert script.received() == b"new"


def test_clocks_wrap() -> None:
    script = Script()
    script.established(ts=0xFFFFFFF0)
    script.send(ACK, seq=1, ack=1, data=b"x", ts=(5, 0))
    assert script.received() == b"x"
    assert script.expect(ACK).header.timestamp_echo == 5


def test_segments_without_a_clock_are_dropped_once_agreed() -> None:
    """RFC 7323 section 3.2; resets pass."""
    script = Script()
    script.established(ts=1)
    script.send(ACK, seq=1, ack=1, data=b"x")
    assert script.events() == []
    script.expect_nothing()
    script.send(RST, seq=1)
    assert script.events() == [FlowReset(script.flow)]


def test_the_echo_is_that_of_the_left_edge() -> None:
    """RFC 7323 section 4.3: a segment beyond a gap does not move TS.Recent."""
    script = Script()
    script.established(ts=10)
    script.send(ACK, seq=101, ack=1, data=b"later", ts=(20, 0))
    assert script.expect(ACK).header.timestamp_echo == 10


def test_round_trips_are_measured_through_a_retransmission() -> None:
    """RFC 7323 section 4: the echo tells which transmission was acknowledged."""
    script = Script()
    script.established(ts=10)
    script.stack.send(script.flow, b"x", now=script.now)
    script.take()
    script.elapse(0.3)
    again = script.expect(ACK | PSH, data=b"x")
    script.elapse(0.05)
    script.send(ACK, seq=1, ack=2, ts=(11, again.header.timestamp or 0))
    (flow,) = script.stack.flow_stats(now=script.now)
    assert flow.rtt_s == pytest.approx(0.01 * 7 / 8 + 0.15 / 8, abs=0.001)
    assert flow.retransmits == 1


# -- urgent data: RFC 9293 section 3.8.5, RFC 6093


def test_urgent_octets_are_payload() -> None:
    script = Script()
    script.established()
    script.send(ACK | URG | PSH, seq=1, ack=1, data=b"abc!", urgent=4)
    assert script.received() == b"abc!"
    script.expect(ACK, ack=5)


def test_end_after_shut_window() -> None:
    """A FIN needs no room."""
    script = Script()
    script.established(window=3)
    script.send(ACK, seq=1, ack=1, data=b"abc")
    script.take()
    script.events()
    script.stack.grant(script.flow, 1, now=script.now)
    script.send(ACK | FIN, seq=4, ack=1)
    assert EndReceived(script.flow) in script.events()
    script.expect(ACK, ack=5)


def test_statistics_of_a_flow() -> None:
    script = Script()
    script.established(window=5000, kernel_window=100)
    script.send(ACK, seq=1, ack=1, data=b"12345", window=100)
    assert isinstance(script.events()[0], DataReceived)
    script.stack.send(script.flow, b"123", now=script.now)
    script.elapse(0.0001)
    (flow,) = script.stack.flow_stats(now=script.now)
    assert (flow.octets_up, flow.octets_down, flow.waiting, flow.receive_window) == (5, 3, 3, 4995)
    assert flow.send_window == 100 << 7
    assert flow.age_s == pytest.approx(0.0101)
    assert flow.source == "10.0.0.2:40000"


# -- what an adversarial reading found


def test_a_forged_segment_makes_no_real_one_look_old() -> None:
    """RFC 7323 section 5.3, R2 before R3: only what is acceptable is remembered."""
    for seq in (-500_000_000, 1):
        script = Script()
        script.established(ts=1000)
        script.send(ACK, seq=seq, ack=123_456_789, data=b"x", ts=(1000 + 0x70000000, 0))
        script.take()
        script.elapse(1)
        script.send(ACK, seq=1, ack=1, data=b"legit", ts=(2000, 0))
        assert script.received() == b"legit"


def test_an_old_acknowledgement_tells_no_window() -> None:
    """RFC 9293 section 3.10.7.4: SND.UNA =< SEG.ACK, or it says what was."""
    script = Script()
    script.established(kernel_window=10_000, scale=0)
    script.stack.send(script.flow, bytes(3000), now=script.now)
    script.take()
    script.send(ACK, seq=1, ack=3001, data=bytes(100), window=1000)
    script.take()
    script.send(ACK, seq=101, ack=1, data=bytes(100), window=10_000)
    script.stack.send(script.flow, bytes(9000), now=script.now)
    assert sum(len(segment.payload) for segment in script.take()) <= 1000


@pytest.mark.parametrize("scale", [None, 7])
def test_grants_that_the_header_cannot_tell_are_not_told(scale: int | None) -> None:
    """An acknowledgement that says nothing new counts as one of a loss (RFC 5681 section 2)."""
    script = Script()
    script.established(window=1_000_000 if scale is None else 1460, scale=scale)
    script.send(ACK, seq=1, ack=1, data=bytes(1460))
    script.take()
    for _ in range(4):
        script.stack.grant(script.flow, 10, now=script.now)
    script.expect_nothing()


def test_probes_of_an_idle_program_keep_their_distance_however_late() -> None:
    """RFC 9293 section 3.8.4: a machine that was asleep for an hour must not count it as nine probes without an answer."""
    script = Script()
    script.established()
    script.now += 3600
    script.stack.handle_timer(now=script.now)
    script.expect(ACK, seq=0)
    script.expect_nothing()
    assert script.events() == []


def test_a_fin_again_begins_time_wait_again() -> None:
    """RFC 9293 section 3.10.7.4."""
    script = Script()
    script.established()
    script.stack.finish(script.flow, now=script.now)
    script.take()
    script.send(ACK | FIN, seq=1, ack=2)
    script.take()
    for _ in range(5):
        script.elapse(0.8)
        script.send(ACK | FIN, seq=1, ack=2)
        script.expect(ACK, ack=2)
    script.elapse(1.1)
    assert script.stack.stats(now=script.now).tcp_flows == 0


def test_the_default_mss_is_the_familys() -> None:
    """RFC 9293 section 3.7.1."""
    for v6, mss in ((False, 536), (True, 1220)):
        script = Script(v6=v6)
        script.send(SYN, scale=7)
        (event,) = script.events()
        assert isinstance(event, FlowRequested)
        script.stack.accept(event.flow, window=1000, now=script.now)
        script.take()
        script.send(ACK, seq=1, ack=1)
        script.stack.send(event.flow, bytes(5000), now=script.now)
        assert max(len(segment.payload) for segment in script.take()) == mss

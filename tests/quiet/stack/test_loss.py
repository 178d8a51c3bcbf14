"""What is lost and how it is found out: RFC 2018, RFC 2883, RFC 5681, RFC 6582, RFC 8985."""

from __future__ import annotations

import pytest

from kt_net.errors import StreamClosed
from kt_net.stack import DataAcknowledged, FlowReset, StackConfig
from kt_net.stack.tcp import send
from kt_net.stack.tcp.congestion import Cubic
from kt_net.wire.tcp import ACK, FIN, PSH
from tests.quiet.stack.script import KERNEL_SEQ, MSS, STACK_SEQ, Script

TEN = bytes(range(10)) * (MSS)


def starts(script: Script) -> list[int]:
    """Relative sequence numbers of what the stack has sent meanwhile, of segments with payload."""
    return [(segment.header.sequence - STACK_SEQ) & 0xFFFFFFFF for segment in script.take() if segment.payload]


def acknowledged(script: Script) -> int:
    return sum(event.octets for event in script.events() if isinstance(event, DataAcknowledged))


def sending(segments: int = 10, *, config: StackConfig | None = None, sack_ok: bool = True) -> Script:
    """A connection with `segments` in flight, each acknowledged never; the round trip is 10 ms."""
    script = Script(config=config)
    script.established(sack_ok=sack_ok)
    script.stack.send(script.flow, bytes(MSS), now=script.now)
    script.take()
    script.elapse(0.01)
    script.send(ACK, seq=1, ack=1 + MSS)
    script.events()
    script.stack.send(script.flow, bytes(MSS * segments), now=script.now)
    assert len(starts(script)) == segments
    script.elapse(0.01)
    return script


def place(segment: int) -> int:
    """Where the segment of that number (from 0) of `sending` begins."""
    return 1 + MSS + segment * MSS


# -- RFC 2018, the receiving side


def test_blocks_tell_what_arrived_the_latest_first() -> None:
    script = Script()
    script.established(sack_ok=True)
    script.send(ACK, seq=101, ack=1, data=b"b" * 100)
    script.expect(ACK, ack=1, sacks=((101, 201),))
    script.send(ACK, seq=301, ack=1, data=b"d" * 100)
    script.expect(ACK, ack=1, sacks=((301, 401), (101, 201)))
    script.send(ACK, seq=501, ack=1, data=b"f" * 100)
    script.expect(ACK, ack=1, sacks=((501, 601), (301, 401), (101, 201)))
    script.send(ACK, seq=201, ack=1, data=b"c" * 100)
    script.expect(ACK, ack=1, sacks=((101, 401), (501, 601)))
    script.send(ACK, seq=1, ack=1, data=b"a" * 100)
    script.expect(ACK, ack=401, sacks=((501, 601),))
    script.send(ACK, seq=401, ack=1, data=b"e" * 100)
    script.expect(ACK, ack=601, sacks=())
    assert script.received() == b"".join(letter * 100 for letter in (b"a", b"b", b"c", b"d", b"e", b"f"))


def test_blocks_leave_room_for_timestamps() -> None:
    script = Script()
    script.established(sack_ok=True, ts=5)
    for number in range(1, 6):
        script.send(ACK, seq=1 + 200 * number, ack=1, data=b"x" * 100, ts=(6, 0))
    assert [len(segment.header.sacks) for segment in script.take()] == [1, 2, 3, 3, 3]


def test_no_blocks_unless_agreed() -> None:
    script = Script()
    script.established()
    script.send(ACK, seq=101, ack=1, data=b"b" * 100)
    script.expect(ACK, ack=1, sacks=())


def test_payload_and_blocks_go_apart() -> None:
    """A block in a full segment would make it larger than the device takes."""
    script = Script()
    script.established(sack_ok=True)
    script.stack.send(script.flow, bytes(MSS), now=script.now)
    script.send(ACK, seq=101, ack=1, data=b"b")
    told, payload = script.take()
    assert (len(payload.payload), payload.header.sacks) == (MSS, ())
    assert (len(told.payload), len(told.header.sacks)) == (0, 1)


@pytest.mark.parametrize(("start", "octets"), [(1, 10), (5, 3), (21, 10)])
def test_what_arrives_twice_is_told_once(start: int, octets: int) -> None:
    """RFC 2883 section 4: below the acknowledgement, and beyond a gap."""
    script = Script()
    script.established(sack_ok=True)
    script.send(ACK, seq=1, ack=1, data=b"a" * 10)
    script.send(ACK, seq=21, ack=1, data=b"c" * 10)
    script.take()
    script.send(ACK, seq=start, ack=1, data=b"?" * octets)
    segment = script.expect(ACK, ack=11)
    assert len(segment.header.sacks) == 2
    script.send(ACK, seq=11, ack=1, data=b"b" * 10)
    script.expect(ACK, ack=31, sacks=())
    assert script.received() == b"a" * 10 + b"b" * 10 + b"c" * 10


def test_what_came_first_stays() -> None:
    """Overlapping payload does not replace what waits: a program reads what was acknowledged."""
    script = Script()
    script.established(sack_ok=True)
    script.send(ACK, seq=5, ack=1, data=b"EFGH")
    script.send(ACK, seq=11, ack=1, data=b"KL")
    script.send(ACK, seq=3, ack=1, data=b"cdefghijklmn")
    script.send(ACK, seq=1, ack=1, data=b"ab")
    assert script.received() == b"abcdEFGHijKLmn"


def test_pieces_beyond_a_gap_are_capped_and_not_told_of() -> None:
    script = Script(config=StackConfig(out_of_order=3))
    script.established(sack_ok=True)
    for number in range(1, 6):
        script.send(ACK, seq=1 + 10 * number, ack=1, data=b"x")
    assert len(script.take()[-1].header.sacks) == 3
    script.send(ACK, seq=1, ack=1, data=b"y" * 10)
    script.expect(ACK, ack=12)


# -- RFC 8985, the sending side


def test_one_hole_is_filled_when_three_behind_it_arrived() -> None:
    script = sending()
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(4)),))
    assert starts(script) == [place(0)]
    script.elapse(0.01)
    script.send(ACK, seq=1, ack=place(10))
    assert acknowledged(script) == 10 * MSS


def test_every_hole_is_filled_at_once() -> None:
    script = sending()
    blocks = ((place(1), place(2)), (place(3), place(4)), (place(5), place(10)))
    script.send(ACK, seq=1, ack=place(0), sacks=blocks)
    assert starts(script) == [place(0), place(2), place(4)]


def test_reordering_is_given_time() -> None:
    """RFC 8985 section 6.2: fewer than three behind the hole, and no reordering seen yet: a quarter of the round trip."""
    script = sending()
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(2)),))
    script.expect_nothing()
    script.elapse(0.002)
    script.expect_nothing()
    script.elapse(0.001)
    assert starts(script) == [place(0)]


def test_reordering_that_was_seen_makes_patient() -> None:
    script = sending()
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(2)),))
    script.send(ACK, seq=1, ack=place(2))  # it was only late
    script.expect_nothing()
    script.send(ACK, seq=1, ack=place(2), sacks=((place(3), place(8)),))
    script.expect_nothing()
    script.elapse(0.005)
    assert starts(script) == [place(2)]


def test_a_retransmission_that_is_lost_is_found_out() -> None:
    script = sending()
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(6)),))
    assert starts(script) == [place(0)]
    script.stack.send(script.flow, bytes(4 * MSS), now=script.now)
    script.elapse(0.01)
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(10)),))
    new = starts(script)
    assert new
    assert place(0) not in new
    script.elapse(0.012)
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), new[-1] + MSS),))
    assert starts(script)[0] == place(0)


def test_the_tail_is_probed_before_the_timeout() -> None:
    """RFC 8985 section 7: nothing behind it will tell that the last segments are lost."""
    script = sending(3)
    script.elapse(0.03)
    assert starts(script) == [place(2)]
    script.send(ACK, seq=1, ack=place(0), sacks=((place(2), place(3)),))
    script.elapse(0.01)
    assert starts(script) == [place(0), place(1)]


def test_a_probe_is_new_payload_when_there_is_some() -> None:
    script = Script()
    script.established(sack_ok=True, kernel_window=65535)
    script.stack.send(script.flow, bytes(MSS), now=script.now)
    script.take()
    script.elapse(0.01)
    script.send(ACK, seq=1, ack=1 + MSS)
    script.stack.send(script.flow, bytes(30 * MSS), now=script.now)
    sent = starts(script)
    script.elapse(0.05)
    assert starts(script) == [sent[-1] + MSS]


def test_a_probe_that_repaired_a_loss_slows_down() -> None:
    script = sending(3)
    before = script.stack.flow_stats(now=script.now)[0].congestion_window
    script.elapse(0.03)
    assert starts(script) == [place(2)]
    script.stack.send(script.flow, bytes(MSS), now=script.now)
    script.take()
    script.send(ACK, seq=1, ack=place(4))
    assert script.stack.flow_stats(now=script.now)[0].congestion_window < before


def test_a_probe_that_was_for_nothing_changes_nothing() -> None:
    script = sending(3)
    before = script.stack.flow_stats(now=script.now)[0].congestion_window
    script.elapse(0.03)
    script.take()
    script.send(ACK, seq=1, ack=place(3), sacks=((place(2), place(3)),))
    assert script.stack.flow_stats(now=script.now)[0].congestion_window >= before


def test_needless_retransmissions_make_patient() -> None:
    """RFC 8985 section 6.2 step 4: each round with a D-SACK widens the reordering window."""
    script = sending()
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(2)),))
    script.send(ACK, seq=1, ack=place(2), sacks=((place(0), place(1)),))
    script.send(ACK, seq=1, ack=place(2), sacks=((place(3), place(4)),))
    script.elapse(0.004)
    script.expect_nothing()  # 10 ms / 4 would be over
    script.elapse(0.005)
    assert starts(script)[0] == place(2)


def test_timeout_begins_again_at_the_first() -> None:
    script = sending(4)
    script.elapse(0.031)
    script.take()  # the probe
    script.elapse(0.25)
    assert starts(script)[0] == place(0)
    script.send(ACK, seq=1, ack=place(1))
    assert starts(script)[:2] == [place(1), place(2)]


def test_a_receiver_may_take_its_blocks_back() -> None:
    """RFC 2018 section 8: after a timeout with a block at the left edge, blocks are not believed any more."""
    script = sending(4)
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(2)), (place(3), place(4))))
    script.take()
    script.send(ACK, seq=1, ack=place(1), sacks=())
    script.elapse(0.6)
    assert place(1) in starts(script)


@pytest.mark.parametrize(
    "block", [(place(2), place(1)), (0, place(1)), (place(3), place(40)), (5_000_000, 6_000_000), (place(0), place(0))]
)
def test_lying_blocks_change_nothing(block: tuple[int, int]) -> None:
    script = sending(4)
    script.send(ACK, seq=1, ack=place(0), sacks=(block,))
    script.expect_nothing()
    script.send(ACK, seq=1, ack=place(4))
    assert acknowledged(script) == 4 * MSS


def test_blocks_inside_segments() -> None:
    """A receiver may tell of parts (it has cut a segment at its window)."""
    script = sending(4)
    script.send(ACK, seq=1, ack=place(0), sacks=((place(0) + 100, place(3) + 7),))
    script.elapse(0.005)
    (again,) = script.take()
    assert len(again.payload) == 100
    script.send(ACK, seq=1, ack=place(3) + 7)
    script.elapse(1)
    (rest,) = script.take()[-1:]
    assert (rest.header.sequence - STACK_SEQ) & 0xFFFFFFFF == place(3) + 7
    assert len(rest.payload) == MSS - 7


# -- RFC 5681 and RFC 6582, without SACK


def test_limited_transmit_and_partial_acknowledgements() -> None:
    script = sending(10, sack_ok=False, config=StackConfig(congestion="newreno"))
    script.stack.send(script.flow, bytes(20 * MSS), now=script.now)
    script.take()
    sent = []
    for _ in range(2):
        script.send(ACK, seq=1, ack=place(0))
        sent.append(len(starts(script)))
    assert sent == [1, 1]  # RFC 3042
    script.send(ACK, seq=1, ack=place(0))
    assert place(0) in starts(script)
    script.send(ACK, seq=1, ack=place(3))
    assert place(3) in starts(script)
    script.send(ACK, seq=1, ack=place(12))
    assert acknowledged(script) == 12 * MSS


def test_timeout_without_sack_goes_back_to_the_first() -> None:
    script = sending(4, sack_ok=False)
    script.elapse(0.25)
    assert starts(script) == [place(0)]
    script.send(ACK, seq=1, ack=place(1))
    assert starts(script) == [place(1), place(2)]
    script.send(ACK, seq=1, ack=place(4))
    assert acknowledged(script) == 4 * MSS


def test_lost_fin_is_sent_again() -> None:
    script = sending(1)
    script.stack.finish(script.flow, now=script.now)
    script.expect(ACK | FIN)
    script.send(ACK, seq=1, ack=place(1))
    script.elapse(0.5)
    script.expect(ACK | FIN | PSH)


def test_nobody_answers() -> None:
    script = sending(3, config=StackConfig(retransmissions=4))
    script.elapse(120)
    assert script.events()[-1] == FlowReset(script.flow)
    assert script.stack.stats(now=script.now).tcp_flows == 0


# -- acknowledgements and probes around a loss


def test_segments_of_one_turn_are_acknowledged_two_by_two() -> None:
    """RFC 5681 section 4.2: a lost acknowledgement must not be that of a whole flight."""
    script = Script()
    script.established(sack_ok=True)
    for number in range(5):
        script.send(ACK, seq=1 + number * MSS, ack=1, data=bytes(MSS), more=True)
    assert [segment.header.acknowledgement for segment in script.take()] == [
        (KERNEL_SEQ + 1 + number * MSS) & 0xFFFFFFFF for number in (2, 4, 5)
    ]


def test_super_packets_of_one_turn_are_acknowledged_once() -> None:
    script = Script(offload=True)
    script.established(window=1 << 20, sack_ok=True)
    for number in range(0, 80, 40):
        script.send(ACK, seq=1 + number * MSS, ack=1, data=bytes(40 * MSS), more=True)
    script.expect(ACK, ack=1 + 80 * MSS)
    script.expect_nothing()


def test_what_is_out_of_order_is_told_of_one_by_one() -> None:
    """RFC 5681 section 4.2; and so is what fills the gap."""
    script = Script()
    script.established(sack_ok=True)
    for number in (1, 2, 0):
        script.send(ACK, seq=1 + number * MSS, ack=1, data=bytes(MSS), more=True)
    told = script.take()
    assert [len(segment.header.sacks) for segment in told] == [1, 1, 0]
    assert told[-1].header.acknowledgement == (KERNEL_SEQ + 1 + 3 * MSS) & 0xFFFFFFFF


def test_the_tail_is_probed_in_a_recovery_too() -> None:
    """Deviation from RFC 8985 section 7.2, as RFC 9002 section 6.2: the retransmission is lost, and nothing behind it tells."""
    script = sending(4)
    script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(4)),))
    assert starts(script) == [place(0)]
    script.elapse(0.05)
    assert starts(script) == [place(0)]
    script.elapse(0.1)
    assert starts(script) == []  # one probe, then the timeout


def test_a_probe_is_what_is_lost_when_something_is() -> None:
    """Lost and waiting for room, and no acknowledgement comes that would make some."""
    script = sending(10, config=StackConfig(congestion="newreno"))
    script.send(ACK, seq=1, ack=place(0), sacks=((place(7), place(10)),))
    first = starts(script)
    assert first[0] == place(0)
    missing = [place(number) for number in range(7) if place(number) not in first]
    assert missing
    script.elapse(0.05)
    assert starts(script) == missing[:1]


def test_payload_after_the_end_is_refused() -> None:
    script = Script()
    script.established()
    script.stack.finish(script.flow, now=script.now)
    with pytest.raises(StreamClosed):
        script.stack.send(script.flow, b"more", now=script.now)


# -- what an adversarial reading found


def test_a_timeout_sends_the_first_whatever_else_is_on_its_way() -> None:
    """RFC 6298 section 5.4: a trickle of small writes keeps putting the probe off, up to the timeout."""
    script = sending(1)
    script.send(ACK, seq=1, ack=place(1))
    script.take()
    sent: list[int] = []
    for _ in range(50):
        script.stack.send(script.flow, bytes(100), now=script.now)
        sent += starts(script)
        script.elapse(0.006)
        sent += starts(script)
    assert sent.count(sent[0]) == 2


def test_what_was_told_of_before_is_no_news_when_it_is_acknowledged() -> None:
    """RFC 8985 section 6.2: neither reordering, nor a round trip (RFC 6298 section 3), follows from it."""
    script = sending(10)
    for end in (2, 3, 4):
        script.send(ACK, seq=1, ack=place(0), sacks=((place(1), place(end)),))
    assert starts(script) == [place(0)]
    script.elapse(3)
    script.take()
    script.send(ACK, seq=1, ack=place(10))
    connection = next(iter(script.stack._connections.connections()))
    assert not connection.sender._rack.reordering
    assert connection.sender.rtt.rto < 1


def test_a_probe_that_repaired_a_loss_slows_down_when_more_is_acknowledged() -> None:
    """RFC 8985 section 7.4.2: the acknowledgement of just the probe may be that of either transmission."""
    script = sending(3)
    before = script.stack.flow_stats(now=script.now)[0].congestion_window
    script.elapse(0.03)
    assert starts(script) == [place(2)]
    script.send(ACK, seq=1, ack=place(3))
    assert script.stack.flow_stats(now=script.now)[0].congestion_window >= before
    script.stack.send(script.flow, bytes(MSS), now=script.now)
    script.take()
    script.send(ACK, seq=1, ack=place(4))
    assert script.stack.flow_stats(now=script.now)[0].congestion_window < before


def test_the_congestion_window_counts_the_programs_segments() -> None:
    """RFC 6928: ten of the size that was agreed on."""
    script = Script()
    script.established(mss=536)
    script.stack.send(script.flow, bytes(60_000), now=script.now)
    assert sum(len(segment.payload) for segment in script.take()) == 5360


def test_idle_time_grows_no_window() -> None:
    """RFC 9438 section 5.8."""

    def grown(idle: float) -> int:
        congestion = Cubic(MSS)
        congestion.lost(10 * MSS, now=0.0)
        now = 0.0
        for turn in range(20):
            if turn == 5:
                congestion.idle(idle)
                now += idle
            now += 0.1
            congestion.acknowledged(congestion.window, rtt=0.1, now=now)
        return congestion.window

    assert grown(600.0) == grown(0.0)


def test_a_receiver_that_tells_of_every_octet_makes_no_pieces_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "MOST_PIECES", 40)
    script = sending(10)
    for octet in range(1, 2000, 2):
        script.send(ACK, seq=1, ack=place(0), sacks=((place(1) + octet, place(1) + octet + 1),))
    connection = next(iter(script.stack._connections.connections()))
    assert len(connection.sender.half.sent) < 60
    script.send(ACK, seq=1, ack=place(10))
    assert acknowledged(script) == 10 * MSS

"""How connections begin: active opens, simultaneous opens, answers that are none, caps. RFC 9293 sections 3.5 and 3.10.7.3."""

from __future__ import annotations

import pytest

from kt_net.errors import LimitExceeded
from kt_net.stack import DataReceived, FlowAddress, FlowEstablished, FlowRequested, FlowReset, StackConfig
from kt_net.wire.tcp import ACK, FIN, PSH, RST, SYN
from tests.quiet.stack.script import FAR4, FAR_PORT, MSS, PORT, PROGRAM4, STACK_SEQ, Script


def opening(config: StackConfig | None = None) -> Script:
    """A connection that the stack opens towards the program."""
    script = Script(config=config)
    script.flow = script.stack.open(
        FlowAddress(FAR4, FAR_PORT), FlowAddress(PROGRAM4, PORT), window=50_000, now=script.now
    )
    syn = script.expect(SYN, seq=0, window=50_000)
    assert syn.header.mss == 1460
    assert syn.header.sack_permitted
    assert syn.header.timestamp is not None
    return script


def test_open_and_answer() -> None:
    script = opening()
    script.stack.send(script.flow, b"early", now=script.now)
    script.expect_nothing()
    script.send(SYN | ACK, seq=0, ack=1, mss=MSS, scale=7)
    assert script.events() == [FlowEstablished(script.flow)]
    script.expect(ACK | PSH, seq=1, ack=1, data=b"early")
    script.send(ACK | PSH, seq=1, ack=6, data=b"hello", window=100)
    assert script.received() == b"hello"


def test_open_is_acknowledged_when_there_is_nothing_to_say() -> None:
    script = opening()
    script.send(SYN | ACK, seq=0, ack=1, mss=MSS)
    script.expect(ACK, seq=1, ack=1)


def test_open_refused() -> None:
    script = opening()
    script.send(RST | ACK, ack=1)
    assert script.events() == [FlowReset(script.flow)]


def test_reset_without_our_number_is_nobodys() -> None:
    script = opening()
    script.send(RST, seq=0)
    script.send(RST | ACK, ack=7)
    script.send(ACK, ack=1)
    script.send(FIN, seq=0)
    assert script.events() == []
    script.expect_nothing()


def test_answer_to_another_syn_is_reset() -> None:
    script = opening()
    script.send(SYN | ACK, seq=0, ack=77)
    script.expect(RST, seq=77)
    assert script.events() == []


def test_syn_is_sent_again_and_given_up() -> None:
    script = opening(StackConfig(syn_retransmissions=2))
    script.elapse(1.0)
    script.expect(SYN, seq=0)
    script.elapse(2.0)
    script.expect(SYN, seq=0)
    script.elapse(4.0)
    assert script.events() == [FlowReset(script.flow)]
    script.expect_nothing()


def test_simultaneous_open() -> None:
    """RFC 9293 section 3.5, figure 7."""
    script = opening()
    script.send(SYN, seq=0, mss=MSS, scale=7)
    script.expect(SYN | ACK, seq=0, ack=1)
    script.send(SYN | ACK, seq=0, ack=1, mss=MSS, scale=7)
    script.send(ACK | PSH, seq=1, ack=1, data=b"x")
    assert [type(event) for event in script.events()] == [FlowEstablished, DataReceived]
    script.expect(ACK, ack=2)


def test_reset_while_opening_by_us() -> None:
    script = opening()
    script.stack.reset(script.flow, now=script.now)
    script.expect_nothing()  # nobody has answered: there is nothing to reset
    assert script.stack.stats(now=script.now).tcp_flows == 0


def test_same_ends_twice() -> None:
    script = opening()
    with pytest.raises(LimitExceeded):
        script.stack.open(FlowAddress(FAR4, FAR_PORT), FlowAddress(PROGRAM4, PORT), window=1, now=script.now)


def test_synack_is_given_up() -> None:
    script = Script(config=StackConfig(syn_retransmissions=2))
    script.send(SYN, mss=MSS)
    (event,) = script.events()
    assert isinstance(event, FlowRequested)
    script.stack.accept(event.flow, window=1000, now=script.now)
    script.elapse(30)
    assert [segment.header.flags for segment in script.take()] == [SYN | ACK] * 3 + [RST | ACK]
    assert script.events() == [FlowReset(event.flow)]


def test_wrong_acknowledgement_of_our_synack() -> None:
    script = Script()
    script.send(SYN, mss=MSS)
    (event,) = script.events()
    assert isinstance(event, FlowRequested)
    script.stack.accept(event.flow, window=1000, now=script.now)
    script.take()
    script.send(ACK, seq=1, ack=99)
    script.expect(RST, seq=99)
    script.send(ACK, seq=1, ack=1)
    script.expect_nothing()


def test_payload_with_the_last_acknowledgement() -> None:
    script = Script()
    script.send(SYN, mss=MSS)
    (event,) = script.events()
    assert isinstance(event, FlowRequested)
    script.stack.accept(event.flow, window=1000, now=script.now)
    script.take()
    script.send(ACK | PSH, seq=1, ack=1, data=b"GET /")
    assert script.received() == b"GET /"


def test_tiny_mss_is_not_believed() -> None:
    script = Script()
    script.established(mss=1)
    script.stack.send(script.flow, bytes(96), now=script.now)
    assert [len(segment.payload) for segment in script.take()] == [48, 48]


def test_initial_numbers_are_the_entropys() -> None:
    """RFC 9293 section 3.4.1, RFC 6528: not guessable."""
    script = Script()
    script.established()
    assert script.stack.flow_stats(now=script.now)[0].state == "ESTABLISHED"
    assert STACK_SEQ == 0xFFFFFFF0


@pytest.mark.parametrize("algorithm", ["cubic", "newreno"])
def test_either_congestion_control(algorithm: str) -> None:
    script = Script(config=StackConfig(congestion=algorithm))
    script.established(kernel_window=0xFFFF)
    script.stack.send(script.flow, bytes(100 * MSS), now=script.now)
    assert len(script.take()) == 10  # RFC 6928
    script.elapse(0.001)
    script.send(ACK, seq=1, ack=1 + 10 * MSS)
    assert len(script.take()) == 20

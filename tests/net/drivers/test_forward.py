"""Local ports and a switchboard of the test's own: other places are tried, resets and half-closes pass, flows end."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kt_net.drivers.forward import ForwardListener
from kt_net.drivers.forward_datagrams import IDLE_SECONDS, DatagramListener
from kt_net.drivers.forward_sockets import take_port
from kt_net.drivers.loop import Loop
from kt_net.errors import StreamClosed
from kt_net.forward.choice import Choice
from kt_net.forward.places import Place, Places
from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request

A, B = Place("10.0.0.1", 80, "a"), Place("10.0.0.2", 80, "b")
SECONDS = 10.0


class FarStream:
    """A stream as its owner sees it; what was sent on it, and how it ended."""

    def __init__(self, request: Request, owner: Any) -> None:
        self.request, self.owner = request, owner
        self.sent = bytearray()
        self.ended = ""
        self.room = 1 << 20

    def send(self, data: bytes | memoryview, *, now: float) -> None:
        self.sent += data

    def consume(self, octets: int, *, now: float) -> None:
        """Nobody counts."""

    def finish(self, *, now: float) -> None:
        self.ended = "finished"

    def reset(self, *, now: float) -> None:
        self.ended = "reset"

    def forget(self) -> None:
        self.ended += ", forgotten"


class Far:
    """The switchboard."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.streams: list[FarStream] = []
        self.broken = False

    def open(self, request: Request, owner: Any, *, now: float) -> FarStream:
        if self.broken:
            raise StreamClosed("no tunnel")
        stream = FarStream(request, owner)
        self.streams.append(stream)
        return stream

    def tell(self, number: int, what: str, *words: Any) -> None:
        """Call the owner of a stream, once there is one."""
        wait_until(lambda: len(self.streams) > number)
        owner = self.streams[number].owner
        self.loop.call_soon(lambda: getattr(owner, f"stream_{what}")(*words, now=self.loop.now()))

    def asked(self) -> list[str]:
        return [stream.request.host for stream in self.streams]


def wait_until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def known(*places: Place) -> Places:
    return Places(places, frozenset(places))


@pytest.fixture
def far() -> Iterator[Far]:
    loop = Loop()
    loop.start("test")
    yield Far(loop)
    loop.stop()
    assert loop.failure is None


@pytest.fixture
def refused() -> list[ReplyCode]:
    return []


@pytest.fixture
def tcp(far: Far, refused: list[ReplyCode]) -> Iterator[tuple[ForwardListener, socket.socket]]:
    """A listener that knows two places, and a program that has connected."""
    taken = take_port(socket.SOCK_STREAM, ("127.0.0.1",), 0, "")
    listener = ForwardListener(far.loop, far, taken, Choice(known(A, B)), refused.append)  # type: ignore[arg-type]
    far.loop.call_soon(listener.start)
    with socket.create_connection(taken[0].getsockname(), timeout=SECONDS) as program:
        yield listener, program
    far.loop.stop()
    listener.close()


@pytest.fixture
def udp(far: Far, refused: list[ReplyCode]) -> Iterator[tuple[DatagramListener, socket.socket]]:
    """A listener that knows two places, and a program that speaks to it."""
    taken = take_port(socket.SOCK_DGRAM, ("127.0.0.1",), 0, "")
    listener = DatagramListener(far.loop, far, taken, Choice(known(A, B)), refused.append)  # type: ignore[arg-type]
    far.loop.call_soon(listener.start)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.settimeout(SECONDS)
        program.connect(taken[0].getsockname())
        yield listener, program
    far.loop.stop()
    listener.close()


Tcp = tuple[ForwardListener, socket.socket]
Udp = tuple[DatagramListener, socket.socket]


def test_another_place_is_tried_before_the_program_sees_anything(far: Far, tcp: Tcp, refused: list[ReplyCode]) -> None:
    _, program = tcp
    program.sendall(b"early")
    far.tell(0, "refused", ReplyCode.CONNECTION_REFUSED)
    far.tell(1, "opened", Reply(ReplyCode.SUCCEEDED))
    wait_until(lambda: bytes(far.streams[1].sent) == b"early")
    far.tell(1, "data", b"answer")
    assert program.recv(100) == b"answer"
    assert (far.asked(), bytes(far.streams[0].sent), refused) == ([A.address, B.address], b"", [])


def test_refused_everywhere_is_a_reset_and_said(far: Far, tcp: Tcp, refused: list[ReplyCode]) -> None:
    _, program = tcp
    far.tell(0, "refused", ReplyCode.HOST_UNREACHABLE)
    far.tell(1, "refused", ReplyCode.CONNECTION_REFUSED)
    with pytest.raises(ConnectionResetError):
        program.recv(1)
    wait_until(lambda: refused == [ReplyCode.CONNECTION_REFUSED])


def test_half_close_and_reset_pass(far: Far, tcp: Tcp) -> None:
    _, program = tcp
    far.tell(0, "opened", Reply(ReplyCode.SUCCEEDED))
    program.sendall(b"all")
    program.shutdown(socket.SHUT_WR)
    wait_until(lambda: far.streams[0].ended == "finished")
    far.tell(0, "data", b"still")
    assert program.recv(100) == b"still"
    far.tell(0, "reset")
    with pytest.raises(ConnectionResetError):
        program.recv(1)


def test_when_both_have_finished_nobody_keeps_the_stream(far: Far, tcp: Tcp) -> None:
    _, program = tcp
    far.tell(0, "opened", Reply(ReplyCode.SUCCEEDED))
    program.shutdown(socket.SHUT_WR)
    far.tell(0, "data", b"last")
    far.tell(0, "finished")
    assert program.recv(100) == b"last"
    assert program.recv(1) == b""
    wait_until(lambda: far.streams[0].ended == "finished, forgotten")


def test_a_place_that_is_gone_resets_and_one_that_drains_does_not(far: Far, tcp: Tcp) -> None:
    listener, program = tcp
    far.tell(0, "opened", Reply(ReplyCode.SUCCEEDED))
    far.loop.call_soon(lambda: listener.replace(Places((B,), frozenset((A, B)))))
    far.tell(0, "data", b"draining")
    assert program.recv(100) == b"draining"
    far.loop.call_soon(lambda: listener.replace(known(B)))
    with pytest.raises(ConnectionResetError):
        program.recv(1)
    assert far.streams[0].ended == "reset"
    assert far.asked() == [A.address]


def test_a_place_that_goes_while_it_is_tried_is_not_waited_for(far: Far, tcp: Tcp) -> None:
    listener, program = tcp
    wait_until(lambda: len(far.streams) == 1)
    far.loop.call_soon(lambda: listener.replace(known(B)))
    far.tell(1, "opened", Reply(ReplyCode.SUCCEEDED))
    far.tell(1, "data", b"here")
    assert program.recv(100) == b"here"
    assert far.streams[0].ended == "reset"


@pytest.mark.parametrize("why", ["no place", "no tunnel"])
def test_nowhere_to_go_is_a_reset(far: Far, tcp: Tcp, why: str) -> None:
    listener, program = tcp
    wait_until(lambda: len(far.streams) == 1)
    address = program.getpeername()
    if why == "no tunnel":
        far.broken = True
    else:
        far.loop.call_soon(lambda: listener.replace(known()))
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(address, timeout=SECONDS) as another,
    ):
        another.recv(1)


def test_without_descriptors_what_waits_is_accepted_later_and_the_loop_rests(far: Far, tcp: Tcp) -> None:
    listener, program = tcp
    wait_until(lambda: len(far.streams) == 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as another:
        lowest = min(set(range(soft)) - {int(name) for name in os.listdir("/proc/self/fd")})
        another.settimeout(SECONDS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            another.connect(program.getpeername())
            wait_until(lambda: listener.next_timer() is not None)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        far.tell(1, "opened", Reply(ReplyCode.SUCCEEDED))
        far.tell(1, "data", b"late")
        assert another.recv(100) == b"late"


def test_datagrams_keep_their_boundaries_both_ways(far: Far, udp: Udp) -> None:
    _, program = udp
    sent = [b"one", b"", b"x" * 60_000]
    for data in sent:
        program.send(data)
    wait_until(lambda: bool(far.streams) and len(far.streams[0].sent) == sum(2 + len(data) for data in sent))
    (stream,) = far.streams
    assert stream.request == Request(Network.UDP, A.address, 80)
    assert DatagramParser().receive(bytes(stream.sent)) == sent
    framed = b"".join(map(frame_datagram, sent))
    far.tell(0, "data", framed[:7])
    far.tell(0, "data", framed[7:])
    assert [program.recv(65535) for _ in sent] == sent


def test_each_program_has_a_flow_and_the_oldest_makes_room(far: Far, udp: Udp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_net.drivers.forward_datagrams.MAX_FLOWS", 2)
    _, program = udp
    program.send(b"first")
    wait_until(lambda: len(far.streams) == 1)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third,
    ):
        second.sendto(b"second", program.getpeername())
        wait_until(lambda: len(far.streams) == 2)
        program.send(b"again")
        wait_until(lambda: far.streams[0].sent.endswith(b"again"))
        third.sendto(b"third", program.getpeername())
        wait_until(lambda: len(far.streams) == 3)
    assert [stream.ended for stream in far.streams] == ["", "reset", ""]


def test_a_silent_flow_ends_and_the_next_datagram_begins_another(far: Far, udp: Udp) -> None:
    listener, program = udp
    program.send(b"one")
    wait_until(lambda: len(far.streams) == 1)
    due = listener.next_timer()
    assert due is not None
    listener.handle_timer(now=due - 1)
    assert far.streams[0].ended == ""
    assert due <= far.loop.now() + IDLE_SECONDS
    listener.handle_timer(now=due)
    assert far.streams[0].ended == "reset"
    assert listener.next_timer() is None
    program.send(b"two")
    wait_until(lambda: len(far.streams) == 2)


def test_flows_end_with_their_place_and_by_word_of_the_far_side(far: Far, udp: Udp, refused: list[ReplyCode]) -> None:
    listener, program = udp
    program.send(b"one")
    wait_until(lambda: len(far.streams) == 1)
    far.loop.call_soon(lambda: listener.replace(known(B)))
    wait_until(lambda: far.streams[0].ended == "reset")
    endings: list[tuple[str, list[ReplyCode]]] = [
        ("reset", []),
        ("refused", [ReplyCode.HOST_UNREACHABLE]),
        ("finished", []),
    ]
    for number, (what, words) in enumerate(endings, 1):
        program.send(b"more")
        far.tell(number, what, *words)
        wait_until(lambda: listener.next_timer() is None)
    assert far.asked() == [A.address, *[B.address] * 3]
    assert refused == [ReplyCode.CONNECTION_REFUSED, ReplyCode.HOST_UNREACHABLE]

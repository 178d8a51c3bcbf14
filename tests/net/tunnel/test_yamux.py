"""Our mux against hashicorp/yamux (Go), in both roles: random sizes, half-closes, resets, windows used up; every digest compared."""

from __future__ import annotations

import hashlib
import os
import random
import select
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_net.errors import StreamClosed
from kt_net.tunnel.events import StreamData, StreamFinished, StreamOpened, StreamReset
from kt_net.tunnel.frames import GoAwayCode
from kt_net.tunnel.limits import Limits
from kt_net.tunnel.mux import Mux, Role
from tests.lab.build import go_program

SOURCE = Path(__file__).parents[2] / "interop" / "yamux"
STREAMS = 1000
HEADER = struct.Struct("!IH")
#: Streams that we have open at once: fewer than hashicorp/yamux leaves unaccepted (256), so that it refuses none.
AT_ONCE = 100


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("yamux") / "yamux"
    subprocess.run([go_program(), "build", "-o", str(built), "."], cwd=SOURCE, check=True)
    return built


class Session:
    """Our mux, joined to the program's standard input and output."""

    def __init__(self, program: Path, role: Role, how: str, count: int) -> None:
        self.mux = Mux(role=role, limits=Limits())
        self.process = subprocess.Popen(
            [program, how, str(count), "7"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._unsent = b""

    def turn(self, handle: Callable[[object], None]) -> bool:
        """Move octets and handle events; False when the program has hung up."""
        while (event := self.mux.next_event()) is not None:
            handle(event)
        if not self._unsent:
            self._unsent = b"".join(self.mux.frames_to_send(1 << 18))
        readable, writable, _ = select.select([self._out], [self._in] if self._unsent else [], [], 10)
        assert readable or writable, "nothing moves"
        if writable:
            try:
                self._unsent = self._unsent[os.write(self._in, self._unsent) :]
            except BrokenPipeError:
                return False  # it has counted, and wants no more credit
        if readable:
            data = os.read(self._out, 1 << 18)
            if not data:
                return False
            self.mux.receive_data(data)
        return True

    @property
    def idle(self) -> bool:
        """Whether everything has gone that may."""
        return not self._unsent and not self.mux.busy

    def end(self) -> list[int]:
        """What the program counted: whole, broken, wrong."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        errors = self.process.stderr.read()
        self.process.wait(20)
        self.process.stdout.close()
        self.process.stderr.close()
        return [int(word) for word in errors.split()[:3]]


def consume(mux: Mux, number: int, octets: int) -> None:
    try:
        mux.consume(number, octets, now=0.0, round_trip=0.0)
    except StreamClosed:
        pass  # both ends have finished


def test_we_accept(program: Path) -> None:
    """hashicorp/yamux opens; streams wait before they are read, so that windows are used up."""
    session = Session(program, Role.AGENT, "open", STREAMS)
    mux, received = session.mux, dict[int, bytearray]()
    answers: dict[int, bytes] = {}
    unread: dict[int, int] = {}

    def handle(event: object) -> None:
        if isinstance(event, StreamOpened):
            received[event.stream], unread[event.stream] = bytearray(), 0
        elif isinstance(event, StreamData):
            received[event.stream] += event.data
            unread[event.stream] += len(event.data)
            if unread[event.stream] >= 200_000 or event.stream % 3:  # some are read late
                consume(mux, event.stream, unread[event.stream])
                unread[event.stream] = 0
        elif isinstance(event, StreamFinished):
            data = bytes(received.pop(event.stream)[HEADER.size :])
            mux.send(event.stream, hashlib.sha256(data).digest() + data)
            mux.finish(event.stream)
            answers[event.stream] = data
        elif isinstance(event, StreamReset):
            received.pop(event.stream, None)

    while session.turn(handle):
        pass
    assert session.end() == [STREAMS, 0, 0]
    assert len(answers) == STREAMS
    assert max(map(len, answers.values())) > Limits().window
    assert mux.streams == 0


def test_we_open(program: Path) -> None:
    """We open; a tenth of the streams is reset in the middle, and hashicorp/yamux sees that as broken."""
    chance = random.Random(7)
    session = Session(program, Role.CLIENT, "accept", STREAMS)
    mux = session.mux
    sent: dict[int, bytes] = {}
    received: dict[int, bytearray] = {}
    opened = whole = reset = 0

    def begin() -> None:
        nonlocal opened, reset
        size = 0 if chance.random() < 0.1 else chance.randrange(1 << (20 if chance.random() < 0.1 else 14))
        data = chance.randbytes(size)
        number = mux.open_stream()
        opened += 1
        mux.send(number, HEADER.pack(size, chance.randrange(50)) + data)
        if size > 100 and chance.random() < 0.1:
            resets.append(number)
            reset += 1
        else:
            mux.finish(number)
            sent[number], received[number] = data, bytearray()

    resets: list[int] = []

    def handle(event: object) -> None:
        nonlocal whole
        if isinstance(event, StreamData):
            received[event.stream] += event.data
            consume(mux, event.stream, len(event.data))
        elif isinstance(event, StreamFinished):
            data = sent.pop(event.stream)
            assert bytes(received.pop(event.stream)) == hashlib.sha256(data).digest() + data
            whole += 1
        else:
            assert not isinstance(event, StreamReset), event

    while whole + reset < STREAMS:
        while opened < STREAMS and len(sent) + len(resets) < AT_ONCE:
            begin()
        session.turn(handle)
        if session.idle:  # everything announced: the streams are known at the other end, and in the middle
            for number in resets:
                mux.reset(number)
            resets.clear()
    mux.go_away(GoAwayCode.NORMAL)
    while session.turn(handle):
        pass
    counted = session.end()
    assert counted[0] == whole
    assert counted[1] == reset
    assert counted[2] == 0
    assert reset > STREAMS // 20
    assert mux.streams == 0

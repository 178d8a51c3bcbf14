"""A lane: one byte stream with offsets, acknowledgements and a pulse, that outlives its carriers.

After the hellos a lane consists of records. Data records carry the mux's octets; each octet has an offset, and the receiver
acknowledges offsets, so that a lane goes on over another carrier: what is unacknowledged is kept, up to a cap, and sent again from where
the other end says that it is. Pings go end to end: the answer proves that the agent lives, not only that the API server does.

Not here: carriers, and when another one is tried (kt_net.drivers, shadow_image).
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import replace
from typing import Final

from kt_net.errors import TunnelProtocolError
from kt_net.tunnel.flight import PROMPT, Flight
from kt_net.tunnel.hello import Hello, parse_hello
from kt_net.tunnel.limits import Limits

#: Record types.
DATA: Final = 0
ACK: Final = 1
PING: Final = 2
PONG: Final = 3
#: In answer to the hello of a lane that goes on: how far the agent has come; or that it knows nothing of it.
RESUMED: Final = 4
FORGOTTEN: Final = 5

#: type, reserved (3 octets), length.
_RECORD = struct.Struct("!B3xI")
_OFFSET = struct.Struct("!Q")

#: In the report of a hello: the lane goes on.
RESUME: Final = "resume"

#: Octets of one data record; a record is one scheduling unit of the carrier.
MAX_RECORD_DATA: Final = 1 << 20
#: Received octets after which an acknowledgement goes out without waiting: the sender counts on it (flight.py).
ACK_EVERY: Final = PROMPT
#: A ping's body, echoed by the pong.
PING_OCTETS: Final = 8
#: Octets of the body of each kind but data.
_BODIES: Final = {ACK: _OFFSET.size, PING: PING_OCTETS, PONG: PING_OCTETS, RESUMED: _OFFSET.size, FORGOTTEN: 0}


class Lane:
    """One lane. Events are read from `received` (data), `peer` (the hello), `silent` and `forgotten`."""

    def __init__(self, *, hello: Hello, limits: Limits) -> None:
        self._limits = limits
        self._hello = hello
        #: The agent knows nothing of this lane any more.
        self.forgotten = False
        self._resuming = False  # it is unknown where the lane goes on
        self._greeting = True  # the next octets of a carrier are a hello
        self._out: deque[bytes | memoryview] = deque([hello.emit()])
        self._in = bytearray()  # start of a hello or of a record that is not whole
        self._left = 0  # octets of the current data record still to come
        #: The other end's hello.
        self.peer: Hello | None = None
        #: Data received and not yet taken.
        self.received: deque[memoryview | bytes] = deque()
        self.octets_sent = 0
        self.octets_received = 0
        self._acknowledged_by_peer = 0
        self._acknowledged_to_peer = 0
        self._replay: deque[bytes | memoryview] = deque()
        self._flight = Flight(cap=limits.replay)
        self._heard: float | None = None
        self._ping_at: float | None = None
        self._ping_sent: tuple[int, float] | None = None
        self._ping_count = 0
        self._probed: float | None = None  # when, as long as nothing has come since
        self._due_since: float | None = None  # so much is on its way that the peer has to acknowledge it
        #: Round trip of the last ping, seconds.
        self.rtt: float | None = None
        #: Nothing came for too long.
        self.silent = False

    # -- data of the mux

    @property
    def room(self) -> int:
        """Octets that may be given to `send` now: what the path needs, and never more than the replay buffer holds."""
        return self._flight.room()

    @property
    def ready(self) -> bool:
        """Whether data may go out: not before the peer's hello, nor while it is unknown where the lane goes on."""
        return not (self._greeting or self._resuming)

    @property
    def unacknowledged(self) -> int:
        """Octets sent of which the other end has not said that it has them."""
        return self.octets_sent - self._acknowledged_by_peer

    @property
    def round_trip(self) -> float:
        """Of the path, as far as it is known: the shortest of what pings and data say. Seconds."""
        return min((trip for trip in (self.rtt, self._flight.round_trip) if trip is not None), default=0.0)

    @property
    def queued(self) -> bool:
        """Whether something waits for the carrier."""
        return bool(self._out) or self._owes_acknowledgement

    @property
    def _owes_acknowledgement(self) -> bool:
        return self.octets_received - self._acknowledged_to_peer >= ACK_EVERY

    def send(self, buffers: list[bytes | memoryview], *, now: float) -> None:
        """One data record made of `buffers`."""
        length = sum(map(len, buffers))
        self._out.append(_RECORD.pack(DATA, length))
        self._out.extend(buffers)
        self._replay.extend(buffers)
        self.octets_sent += length
        self._flight.sent(length, now=now)
        if self._due_since is None and self.unacknowledged >= ACK_EVERY:
            self._due_since = now

    # -- the carrier

    def receive_data(self, data: bytes | memoryview, *, now: float) -> None:
        """Octets from the carrier.

        Raises:
            TunnelProtocolError: they break the protocol.
        """
        self._heard, self._probed = now, None
        view = memoryview(data)
        if self._greeting:
            self._in += view
            parsed = parse_hello(self._in, limits=self._limits)
            if parsed is None:
                return
            hello, used = parsed
            self.peer = self.peer or hello
            self._greeting = False
            view = memoryview(bytes(self._in[used:]))
            self._in.clear()
            self._ping_at = now
        while len(view):
            if self._left:
                piece = view[: self._left]
                self._left -= len(piece)
                self.octets_received += len(piece)
                self.received.append(piece)
                view = view[len(piece) :]
                continue
            view = self._record(view, now=now)

    def data_to_send(self, *, now: float) -> list[bytes | memoryview]:
        """Everything that waits for the carrier, in order."""
        if self._owes_acknowledgement and self.ready:
            self._acknowledge()
        if self._heard is None and self._out:
            self._heard = now  # from now on the peer may be silent
        buffers = list(self._out)
        self._out.clear()
        return buffers

    def carrier_lost(self) -> None:
        """The carrier is gone: what it had taken may have arrived or not; the next one begins with hellos."""
        self._out.clear()
        self._in.clear()
        self._left = 0
        self._greeting, self.silent = True, False
        self._heard = self._ping_at = self._ping_sent = self._probed = self._due_since = None

    def go_on(self) -> None:
        """The client has another carrier: say so, and wait for the agent's word. A lane that never began begins."""
        if self.peer is None:
            self._out = deque([self._hello.emit()])
            return
        report = {**self._hello.report, RESUME: True}
        self._resuming = True
        self._out.append(replace(self._hello, received=self.octets_received, report=report).emit())

    def going_on(self, peer: Hello, *, now: float) -> None:
        """The agent has another carrier, and the client's hello on it: answer, and send what the client has not received.

        Raises:
            TunnelProtocolError: no lane of ours can have come that far.
        """
        self._greeting = False
        self._heard = self._ping_at = now
        self._out.append(_RECORD.pack(RESUMED, _OFFSET.size) + _OFFSET.pack(self.octets_received))
        self._acknowledged_to_peer = self.octets_received
        self._send_again(peer.received, now=now)

    def _send_again(self, received: int, *, now: float) -> None:
        """Everything from the offset `received` on."""
        self._arrived(received, now=now)
        self._flight.restart(received, now=now)
        self._resuming = False
        batch: list[bytes | memoryview] = []
        octets = 0
        for buffer in self._replay:
            batch.append(buffer)
            octets += len(buffer)
            if octets > MAX_RECORD_DATA // 2:  # no buffer is larger than a frame
                self._out += [_RECORD.pack(DATA, octets), *batch]
                batch, octets = [], 0
        if octets:
            self._out += [_RECORD.pack(DATA, octets), *batch]

    def _arrived(self, offset: int, *, now: float) -> None:
        """The other end has everything up to `offset`."""
        if not self._acknowledged_by_peer <= offset <= self.octets_sent:
            raise TunnelProtocolError(f"offset {offset} acknowledged, {self.octets_sent} sent")
        self._forget(offset - self._acknowledged_by_peer)
        self._acknowledged_by_peer = offset
        self._due_since = now if self.unacknowledged >= ACK_EVERY else None

    def _record(self, view: memoryview, *, now: float) -> memoryview:
        """Take one record's head (and body, when it is not data) off `view`."""
        missing = _RECORD.size - len(self._in)
        if missing > 0:
            self._in += view[:missing]
            view = view[missing:]
            if len(self._in) < _RECORD.size:
                return view
        kind, length = _RECORD.unpack_from(self._in)
        if kind == DATA:
            if length > MAX_RECORD_DATA or self._resuming:
                raise TunnelProtocolError(f"a data record of {length} octets" + ", too early" * self._resuming)
            self._left = length
            self._in.clear()
            return view
        if length != _BODIES.get(kind) or (kind in (RESUMED, FORGOTTEN)) != self._resuming:
            raise TunnelProtocolError(f"a record of type {kind} with {length} octets")
        missing = _RECORD.size + length - len(self._in)
        self._in += view[:missing]
        view = view[missing:]
        if len(self._in) == _RECORD.size + length:
            body = bytes(self._in[_RECORD.size :])
            self._in.clear()
            self._control(kind, body, now=now)
        return view

    def _control(self, kind: int, body: bytes, *, now: float) -> None:
        if kind == ACK:
            (offset,) = _OFFSET.unpack(body)
            self._arrived(offset, now=now)
            self._flight.acknowledged(offset, now=now)
        elif kind == RESUMED:
            self._send_again(*_OFFSET.unpack(body), now=now)
        elif kind == FORGOTTEN:
            self.forgotten = True
        elif kind == PING:
            self._out.append(_RECORD.pack(PONG, PING_OCTETS) + body)
        elif self._ping_sent is not None and int.from_bytes(body, "big") == self._ping_sent[0]:
            self.rtt = now - self._ping_sent[1]
            self._ping_sent = None

    def _forget(self, octets: int) -> None:
        """Drop so many octets from the front of the replay buffer."""
        while octets:
            first = self._replay[0]
            if len(first) > octets:
                self._replay[0] = memoryview(first)[octets:]
                return
            octets -= len(first)
            self._replay.popleft()

    def _acknowledge(self) -> None:
        self._acknowledged_to_peer = self.octets_received
        self._out.append(_RECORD.pack(ACK, _OFFSET.size) + _OFFSET.pack(self.octets_received))

    # -- time

    def ping(self, *, now: float) -> None:
        """Ask for a sign of life now."""
        self._ping_count += 1
        self._ping_sent = (self._ping_count, now)
        self._ping_at = now + self._limits.ping_every
        self._out.append(_RECORD.pack(PING, PING_OCTETS) + self._ping_count.to_bytes(PING_OCTETS, "big"))

    def probe(self, *, now: float) -> None:
        """Something has changed on the way: ask for a sign of life, and wait for it less long. Without a carrier this does nothing."""
        if self.ready and self._heard is not None:
            self.ping(now=now)
            self._probed = now

    def _dead_at(self) -> float | None:
        if self._heard is None or self.silent:
            return None
        if self._probed is not None:
            return self._probed + self._limits.dead_after_probe
        if self._due_since is not None:
            # Silence counts from when an answer was due: the peer had no reason to speak before.
            return max(self._heard, self._due_since) + self._limits.dead_after_unacknowledged
        return self._heard + self._limits.dead_after

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        times = [time for time in (self._ping_at, self._dead_at()) if time is not None]
        return min(times) if times else None

    def handle_timer(self, *, now: float) -> None:
        """Ping when it is time; notice that nothing comes."""
        dead_at = self._dead_at()
        if dead_at is not None and now >= dead_at:
            self.silent = True
            self._ping_at = None
            return
        if self._ping_at is not None and now >= self._ping_at:
            if self.octets_received != self._acknowledged_to_peer:
                self._acknowledge()
            self.ping(now=now)


def forgotten() -> bytes:
    """What the agent says to a lane that wants to go on and that it does not know."""
    return _RECORD.pack(FORGOTTEN, 0)

"""Heads up: read the yamux spec's "Flow Control" first; window and room are the same number seen from two sides.

The mux: yamux frames in, events out; streams with credit of their own; frames out, fairly.

Order of what goes out: control frames (window updates, resets, go-away) first; then the streams that have something, in turn, a
bounded piece each. A stream's FIN follows its last data.

Not here: the lane's records, requests, what the payload is.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from kt_net.errors import LimitExceeded, StreamClosed, TunnelProtocolError
from kt_net.tunnel.events import (
    GoneAway,
    RoomGranted,
    StreamData,
    StreamFinished,
    StreamOpened,
    StreamReset,
    TunnelEvent,
)
from kt_net.tunnel.flight import QUEUE
from kt_net.tunnel.frames import HEADER, VERSION, Flag, FrameType, GoAwayCode
from kt_net.tunnel.limits import FAIR_FRAME_PAYLOAD, INITIAL_WINDOW, MAX_FRAME_PAYLOAD, SMALLEST_PIECE, Limits
from kt_net.tunnel.states import StateHolder, StreamInput


class Role(Enum):
    """Who opened the carrier. The client's streams have odd numbers, the agent's even ones (yamux spec, "StreamID Field")."""

    CLIENT = 1
    AGENT = 2


#: The largest stream number; a session that gets there opens no more.
MAX_STREAM: Final = 0xFFFFFFFF
#: Numbers that a peer has left out and may use later; beyond, the lowest count as used. Some never come: a stream that is reset before it
#: was announced is never told of.
MAX_SKIPPED: Final = 1024
_MAX_CREDIT: Final = 0xFFFFFFFF

_SYN: Final = int(Flag.SYN)
_ACK: Final = int(Flag.ACK)
_FIN: Final = int(Flag.FIN)
_RST: Final = int(Flag.RST)


class _Stream(StateHolder):
    __slots__ = (
        "flags",
        "given_at",
        "number",
        "out",
        "out_octets",
        "owed",
        "room",
        "scheduled",
        "size",
        "want_fin",
        "window",
    )

    def __init__(self, number: int, flags: int, window: int) -> None:
        super().__init__()
        self.number = number
        self.flags = flags  # SYN or ACK that the next frame of this stream carries
        self.room = INITIAL_WINDOW  # octets that the peer will take
        self.window = window  # octets that the peer may still send
        self.size = window  # what the window is when nothing is on its way
        self.given_at: float | None = None  # when credit was last given back
        self.owed = 0  # octets consumed and not yet given back as credit
        self.out: deque[bytes | memoryview] = deque()
        self.out_octets = 0
        self.want_fin = False
        self.scheduled = False


class Mux:
    """All streams of one lane. Frames are exchanged by `receive_data` and `frames_to_send`.

    Args:
        after: the mux in whose place this one comes: its numbers are not used again.
    """

    def __init__(self, *, role: Role, limits: Limits, after: Mux | None = None) -> None:
        self._limits = limits
        self._next_number: int = role.value if after is None else after._next_number
        self._our_parity = role.value & 1
        self._last_peer_number = 0
        self._skipped: dict[int, None] = {}  # numbers below that one which the peer has not used yet, ascending
        self._streams: dict[int, _Stream] = {}
        self._peers_open = 0
        self._events: deque[TunnelEvent] = deque()
        self._control: deque[bytes] = deque()
        self._ready: deque[_Stream] = deque()
        #: Payload octets queued and not yet framed, over all streams.
        self.backlog = 0
        self._head = bytearray()
        #: Octets that windows have grown beyond the initial one, over all streams.
        self.grown = 0
        self._payload_left = 0
        self._payload_stream: _Stream | None = None
        self._payload_fin = False
        self._peer_gone = False
        self._gone = False

    # -- for the one above

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def numbers(self) -> list[int]:
        """Of the streams that are open."""
        return list(self._streams)

    @property
    def busy(self) -> bool:
        """Whether `frames_to_send` would give something."""
        return bool(self._control) or bool(self._ready)

    def next_event(self) -> TunnelEvent | None:
        """What happened, in order."""
        return self._events.popleft() if self._events else None

    def has(self, number: int) -> bool:
        """Whether the stream is there."""
        return number in self._streams

    def open_stream(self) -> int:
        """A new stream.

        Raises:
            LimitExceeded: too many are open.
            StreamClosed: the session is going away, or its numbers are used up.
        """
        if self._peer_gone or self._gone or self._next_number > MAX_STREAM:
            raise StreamClosed("the tunnel opens no more streams")
        if len(self._streams) >= self._limits.streams:
            raise LimitExceeded(f"{self._limits.streams} streams are open")
        stream = _Stream(self._next_number, _SYN, self._limits.window)
        self._next_number += 2
        self._streams[stream.number] = stream
        # The stream is announced by its first data frame when there is one before the next sending, else by a window update.
        self._schedule(stream)
        return stream.number

    def send(self, number: int, data: bytes | memoryview) -> None:
        """Queue payload.

        Raises:
            StreamClosed: the stream is gone or was finished by us.
        """
        stream = self._stream(number)
        if stream.want_fin or not stream.allows(StreamInput.SEND_FIN):
            raise StreamClosed(f"stream {number} was finished")
        if len(data):
            stream.out.append(data)
            stream.out_octets += len(data)
            self.backlog += len(data)
            if stream.room > 0:
                self._schedule(stream)

    def send_room(self, number: int) -> int:
        """Octets that would go out without waiting for credit; 0 for a stream that is gone."""
        stream = self._streams.get(number)
        return 0 if stream is None else max(0, stream.room - stream.out_octets)

    def finish(self, number: int) -> None:
        """No more payload after what is queued.

        Raises:
            StreamClosed: the stream is gone.
        """
        stream = self._stream(number)
        if not stream.want_fin and stream.allows(StreamInput.SEND_FIN):
            stream.want_fin = True
            self._schedule(stream)

    def reset(self, number: int) -> None:
        """End both directions now; queued payload is dropped. A stream that is gone already is no error."""
        stream = self._streams.get(number)
        if stream is None:
            return
        unannounced = stream.flags & _SYN
        stream.move(StreamInput.SEND_RST)
        self._forget(stream)
        if not unannounced:
            self._control.append(HEADER.pack(VERSION, FrameType.WINDOW_UPDATE, _RST | stream.flags, number, 0))

    def consume(self, number: int, octets: int, *, now: float, round_trip: float) -> None:
        """Received payload was disposed of; `round_trip` of the path in seconds.

        Raises:
            StreamClosed: the stream is gone.
        """
        stream = self._stream(number)
        stream.owed += octets
        # Half a window, as yamux does: one update for many reads, and never a stall.
        if stream.owed >= stream.size // 2 and stream.allows(StreamInput.RECEIVE_FIN):
            credit = stream.owed + self._growth(stream, now=now, round_trip=round_trip)
            self._control.append(HEADER.pack(VERSION, FrameType.WINDOW_UPDATE, stream.flags, number, credit))
            stream.flags = 0
            stream.window += credit
            stream.owed = 0

    def _growth(self, stream: _Stream, *, now: float, round_trip: float) -> int:
        """How much larger the window becomes. Half of it disposed of within two round trips (with their queue): the sender has had to wait
        for credit, or will. A reader that is slow, or the network, never gets here."""
        before, stream.given_at = stream.given_at, now
        if before is None or now - before > 2 * (round_trip + QUEUE):
            return 0
        growth = min(stream.size, self._limits.largest_window - stream.size, self._limits.window_budget - self.grown)
        growth = max(0, growth)
        stream.size += growth
        self.grown += growth
        return growth

    def go_away(self, code: GoAwayCode) -> None:
        """Tell the peer that the session ends."""
        if not self._gone:
            self._gone = True
            self._control.append(HEADER.pack(VERSION, FrameType.GO_AWAY, 0, 0, code))

    # -- out

    def frames_to_send(self, limit: int) -> list[bytes | memoryview]:
        """Frames of about `limit` octets, in order."""
        frames: list[bytes | memoryview] = []
        octets = 0
        while self._control and octets < limit:
            frames.append(self._control.popleft())
            octets += HEADER.size
        while self._ready and octets < limit:
            stream = self._ready.popleft()
            stream.scheduled = False
            piece = min(FAIR_FRAME_PAYLOAD if self._ready else MAX_FRAME_PAYLOAD, max(limit - octets, SMALLEST_PIECE))
            octets += self._frame(stream, min(piece, stream.room, stream.out_octets), frames)
        return frames

    def _frame(self, stream: _Stream, octets: int, frames: list[bytes | memoryview]) -> int:
        """Append one frame of `stream` with `octets` of payload; give back how many octets were appended."""
        last = octets == stream.out_octets
        fin = _FIN if last and stream.want_fin else 0
        if octets or (stream.flags and not fin):
            kind = FrameType.DATA if octets else FrameType.WINDOW_UPDATE
            frames.append(HEADER.pack(VERSION, kind, stream.flags, stream.number, octets))
            stream.flags = 0
        elif not fin:
            return 0
        stream.room -= octets
        stream.out_octets -= octets
        self.backlog -= octets
        left = octets
        while left:
            first = stream.out[0]
            if len(first) > left:
                view = memoryview(first)
                frames.append(view[:left])
                stream.out[0] = view[left:]
                break
            frames.append(stream.out.popleft())
            left -= len(first)
        if fin:
            # In a frame of its own: hashicorp/yamux takes the flag before the same frame's payload, and a reader may see the end first.
            frames.append(HEADER.pack(VERSION, FrameType.WINDOW_UPDATE, stream.flags | _FIN, stream.number, 0))
            stream.flags = 0
            stream.want_fin = False
            stream.move(StreamInput.SEND_FIN)
            if stream.closed:
                self._forget(stream)
        elif stream.out_octets and stream.room > 0:
            self._schedule(stream)
        return HEADER.size + octets

    def _schedule(self, stream: _Stream) -> None:
        if not stream.scheduled:
            stream.scheduled = True
            self._ready.append(stream)

    # -- in

    def receive_data(self, data: bytes | memoryview) -> None:
        """Octets of frames, in whatever pieces.

        Raises:
            TunnelProtocolError: they break the protocol.
        """
        view = memoryview(data)
        while len(view):
            if self._payload_left:
                piece = view[: self._payload_left]
                self._payload_left -= len(piece)
                view = view[len(piece) :]
                self._payload(piece)
                continue
            missing = HEADER.size - len(self._head)
            self._head += view[:missing]
            view = view[missing:]
            if len(self._head) == HEADER.size:
                version, kind, flags, number, length = HEADER.unpack(self._head)
                self._head.clear()
                self._header(version, kind, flags, number, length)

    def _payload(self, piece: memoryview) -> None:
        stream = self._payload_stream
        if stream is not None and not stream.closed:
            self._events.append(StreamData(stream.number, piece))
        if not self._payload_left and self._payload_fin and stream is not None:
            self._peer_finished(stream)

    def _header(self, version: int, kind: int, flags: int, number: int, length: int) -> None:
        if version != VERSION:
            raise TunnelProtocolError(f"a frame of version {version}")
        if flags & ~0xF:
            raise TunnelProtocolError(f"a frame with flags {flags:#x}")
        if kind == FrameType.DATA or kind == FrameType.WINDOW_UPDATE:
            self._stream_frame(kind, flags, number, length)
        elif kind == FrameType.PING:
            if number or flags not in (_SYN, _ACK):
                raise TunnelProtocolError("a ping that belongs to a stream, or neither asks nor answers")
            if flags == _SYN:
                self._control.append(HEADER.pack(VERSION, FrameType.PING, _ACK, 0, length))
        elif kind == FrameType.GO_AWAY:
            self._peer_gone = True
            self._events.append(GoneAway(length))
        else:
            raise TunnelProtocolError(f"a frame of type {kind}")

    def _stream_frame(self, kind: int, flags: int, number: int, length: int) -> None:
        if not number:
            raise TunnelProtocolError("data on the session's own number")
        stream = self._opened(number) if flags & _SYN else self._streams.get(number)
        if stream is None and not self._was_open(number):
            raise TunnelProtocolError(f"a frame for stream {number}, which was never opened")
        if kind == FrameType.WINDOW_UPDATE:
            if stream is not None and length:
                self._credit(stream, length)
            if stream is not None and flags & _FIN:
                self._peer_finished(stream)
        else:
            self._data(stream, flags, length)
        if stream is not None and flags & _RST and not stream.closed:
            stream.move(StreamInput.RECEIVE_RST)
            self._forget(stream)
            self._events.append(StreamReset(number))

    def _data(self, stream: _Stream | None, flags: int, length: int) -> None:
        # A late frame of a stream that we have forgotten is read and dropped.
        if stream is not None:
            if not stream.allows(StreamInput.RECEIVE_FIN):
                raise TunnelProtocolError(f"data on stream {stream.number} after its end")
            if length > stream.window:
                raise TunnelProtocolError(
                    f"{length} octets on stream {stream.number}, which has credit for {stream.window}"
                )
            stream.window -= length
        self._payload_stream = stream
        self._payload_left = length
        self._payload_fin = bool(flags & _FIN)
        if not length and self._payload_fin and stream is not None:
            self._peer_finished(stream)

    def _opened(self, number: int) -> _Stream | None:
        if number & 1 == self._our_parity or self._was_open(number):
            raise TunnelProtocolError(f"the peer opened stream {number}, a number it may not use")
        self._note_number(number)
        if self._gone or self._peers_open >= self._limits.opened_by_peer:
            self._control.append(HEADER.pack(VERSION, FrameType.WINDOW_UPDATE, _RST, number, 0))
            return None
        stream = _Stream(number, _ACK, self._limits.window)
        self._streams[number] = stream
        self._peers_open += 1
        self._schedule(stream)
        self._events.append(StreamOpened(number))
        return stream

    def _note_number(self, number: int) -> None:
        """Numbers rise, but a peer with threads (hashicorp/yamux is one) may announce a stream before one of a lower number."""
        last = self._last_peer_number
        if number < last:
            del self._skipped[number]
            return
        first = last + 2 if last else number % 2 or 2
        self._skipped.update(dict.fromkeys(range(max(first, number - 2 * MAX_SKIPPED), number, 2)))
        while len(self._skipped) > MAX_SKIPPED:
            del self._skipped[next(iter(self._skipped))]
        self._last_peer_number = number

    def _was_open(self, number: int) -> bool:
        if number & 1 == self._our_parity:
            return number < self._next_number
        return number <= self._last_peer_number and number not in self._skipped

    def _credit(self, stream: _Stream, octets: int) -> None:
        if stream.room + octets > _MAX_CREDIT:
            raise TunnelProtocolError(f"credit beyond 4 GiB on stream {stream.number}")
        stream.room += octets
        if stream.out_octets:
            self._schedule(stream)
        self._events.append(RoomGranted(stream.number, octets))

    def _peer_finished(self, stream: _Stream) -> None:
        if stream.closed:
            return
        if not stream.allows(StreamInput.RECEIVE_FIN):
            raise TunnelProtocolError(f"stream {stream.number} ended twice")
        stream.move(StreamInput.RECEIVE_FIN)
        self._events.append(StreamFinished(stream.number))
        if stream.closed:
            self._forget(stream)

    def _stream(self, number: int) -> _Stream:
        stream = self._streams.get(number)
        if stream is None:
            raise StreamClosed(f"stream {number} is gone")
        return stream

    def _forget(self, stream: _Stream) -> None:
        if self._streams.pop(stream.number, None) is not None and stream.number & 1 != self._our_parity:
            self._peers_open -= 1
        self.grown -= stream.size - self._limits.window
        stream.size = self._limits.window
        self.backlog -= stream.out_octets
        stream.out.clear()
        stream.out_octets = 0
        if stream.scheduled:
            self._ready.remove(stream)
            stream.scheduled = False

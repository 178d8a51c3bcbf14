"""A TCP socket of this machine joined to a stream: octets pass both ways as far as the other end has room, and so do half-close and reset.

Not here: how the two have come to each other (forward.py, inbound.py).
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Final

from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.relay.streams import Stream

READ_OCTETS: Final = 256 * 1024
#: SO_LINGER on, 0 seconds: close sends RST.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class JoinedSocket:
    """The owner of a stream, once both ends have taken each other (`opened`). Until then nothing is read of the socket, and what the
    stream brings waits as far as its credit reaches.

    Attributes:
        socket, stream: None while there is none.
    """

    def __init__(self, loop: Loop) -> None:
        self.socket: socket.socket | None = None
        self.stream: Stream | None = None
        self._loop = loop
        self._unsent: deque[memoryview] = deque()
        self._uncredited = 0  # octets in front that the far side has not sent: no credit comes of them
        self._open = False
        self._near_finished = False
        self._far_finished = False
        self._shut = False
        self._watching = 0

    # -- for those who join them

    def opened(self) -> None:
        """Both ends are there."""
        self._open = True
        self._write()

    def put_first(self, octets: bytes) -> None:
        """Something for the socket in front of what the stream brings."""
        if octets:
            self._unsent.append(memoryview(octets))
            self._uncredited = len(octets)

    def watch(self, interest: int) -> None:
        """What is to be heard of the socket."""
        if self.socket is not None and interest != self._watching:
            self._watching = interest
            self._loop.watch(self.socket.fileno(), interest, self.ready)

    def left(self) -> None:
        """It is closed. May be called more than once."""

    # -- from the switchboard

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        """For the socket."""
        self._unsent.append(memoryview(data))
        if self._open:
            self._write()

    def stream_room(self, *, now: float) -> None:
        """The socket may be read again."""
        if self._open:
            self._regulate()

    def stream_finished(self, *, now: float) -> None:
        """The far side will send nothing more."""
        self._far_finished = True
        if self._open:
            self._write()

    def stream_reset(self, *, now: float) -> None:
        """The far side is gone, or the way to it."""
        self.abort()

    # -- the socket

    def ready(self, mask: int) -> None:
        """Something was heard of it."""
        if mask & WRITE:
            self._write()
        if mask & READ and self.socket is not None:
            self._read(self.socket)

    def _read(self, sock: socket.socket) -> None:
        stream = self.stream
        if stream is None:
            return
        try:
            data = sock.recv(min(READ_OCTETS, max(1, stream.room)))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost()
            return
        if data:
            stream.send(data, now=self._loop.now())
        else:
            self._near_finished = True
            stream.finish(now=self._loop.now())
        self._regulate()

    def _write(self) -> None:
        sock = self.socket
        if sock is None:
            return
        taken = 0
        try:
            while self._unsent:
                sent = sock.send(self._unsent[0])
                taken += sent
                if sent == len(self._unsent[0]):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = self._unsent[0][sent:]
            if self._far_finished and not self._shut:
                self._shut = True
                sock.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._lost()
            return
        uncredited = min(taken, self._uncredited)
        self._uncredited -= uncredited
        if self.stream is not None:
            self.stream.consume(taken - uncredited, now=self._loop.now())
        self._regulate()

    def _regulate(self) -> None:
        stream = self.stream
        if self.socket is None or stream is None:
            return
        if self._near_finished and self._shut:
            stream.forget()
            self.close()
            return
        reading = not self._near_finished and stream.room > 0
        self.watch((READ if reading else 0) | (WRITE if self._unsent else 0))

    # -- the end

    def _lost(self) -> None:
        """The socket's end broke: so does the other one."""
        if self.stream is not None:
            self.stream.reset(now=self._loop.now())
        self.abort()

    def abort(self) -> None:
        """RST to the program."""
        if self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close()

    def close(self) -> None:
        """Forget the socket; also when the loop has ended."""
        if self.socket is not None:
            if self._loop.running:
                self.watch(0)
            self.socket.close()
            self.socket = None
        self._unsent.clear()
        self.left()

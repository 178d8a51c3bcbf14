"""UDP sockets and ping sockets of the pod, each joined to one stream of datagrams.

Not here: requests and replies (session.py).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Protocol

from kt_net.addr import IPAddress
from kt_net.tunnel.datagrams import MAX_DATAGRAM, DatagramParser, frame_datagram
from shadow_image.streams import Streams

#: Datagrams taken from one socket before others get their turn.
_BURST = 32
_ECHO_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence (RFC 792, RFC 4443)
_SEQUENCE = struct.Struct("!H")


class Kind(Protocol):
    """What differs between UDP and echo."""

    def open(self, address: IPAddress, port: int) -> socket.socket:
        """A connected, non-blocking socket."""

    def outgoing(self, datagram: bytes) -> bytes | None:
        """What to send for a datagram of the stream."""

    def incoming(self, datagram: bytes) -> bytes | None:
        """What to put on the stream for a received datagram."""


class Udp:
    """User datagrams pass as they are."""

    def open(self, address: IPAddress, port: int) -> socket.socket:
        """See `Kind`."""
        return _connected(address, port, socket.SOCK_DGRAM, 0)

    def outgoing(self, datagram: bytes) -> bytes | None:
        """See `Kind`."""
        return datagram

    def incoming(self, datagram: bytes) -> bytes | None:
        """See `Kind`."""
        return datagram


class Echo:
    """Echo requests through a ping socket: the kernel sets identifier and checksum, and passes only replies to it."""

    def __init__(self) -> None:
        self._request = 8
        self._reply = 0

    def open(self, address: IPAddress, port: int) -> socket.socket:
        """See `Kind`."""
        if address.version == 6:
            self._request, self._reply = 128, 129
            return _connected(address, 0, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
        return _connected(address, 0, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)

    def outgoing(self, datagram: bytes) -> bytes | None:
        """See `Kind`: sequence and data become an echo request."""
        if len(datagram) < _SEQUENCE.size:
            return None
        (sequence,) = _SEQUENCE.unpack_from(datagram)
        return _ECHO_HEADER.pack(self._request, 0, 0, 0, sequence) + datagram[_SEQUENCE.size :]

    def incoming(self, datagram: bytes) -> bytes | None:
        """See `Kind`: an echo reply becomes sequence and data."""
        if len(datagram) < _ECHO_HEADER.size:
            return None
        kind, _, _, _, sequence = _ECHO_HEADER.unpack_from(datagram)
        if kind != self._reply:
            return None
        return _SEQUENCE.pack(sequence) + datagram[_ECHO_HEADER.size :]


class DatagramConnection:
    """The pod's end of a stream of datagrams."""

    def __init__(self, session: Streams, stream: int, kind: Kind, sock: socket.socket) -> None:
        self._session = session
        self._stream = stream
        self._kind = kind
        self._socket = sock
        self._parser = DatagramParser()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)
        #: Datagrams are sent or dropped: nothing waits.
        self.unwritten = 0
        #: Datagrams dropped because the stream had no room or the kernel none.
        self.dropped = 0

    def data(self, data: bytes | memoryview) -> None:
        """Datagrams from the client, in whatever pieces."""
        for datagram in self._parser.receive(data):
            packet = self._kind.outgoing(datagram)
            if packet is None:
                continue
            try:
                self._socket.send(packet)
            except ConnectionRefusedError:
                self._unreachable()
                return
            except OSError:
                self.dropped += 1  # no buffer, no route, too long: datagrams get lost
        self._session.consume(self._stream, len(data))

    def room(self) -> None:
        """Nothing waits here: a datagram without room was dropped."""

    def finished(self) -> None:
        """The client is done with the flow."""
        self._session.finish(self._stream)
        self.abort()

    def abort(self) -> None:
        """Forget the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._session.forget(self._stream, 0)

    def regulate(self) -> None:
        """Datagrams are dropped, not held back."""

    def _readable(self) -> None:
        for _ in range(_BURST):
            try:
                packet = self._socket.recv(MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionRefusedError:
                self._unreachable()
                return
            except OSError:
                return  # an ICMP error that says nothing final
            datagram = self._kind.incoming(packet)
            if datagram is None:
                continue
            framed = frame_datagram(datagram)
            if self._session.room(self._stream) >= len(framed):
                self._session.send(self._stream, framed)
            else:
                self.dropped += 1

    def _unreachable(self) -> None:
        """Port unreachable: the client's stack says so to the program."""
        self._session.reset(self._stream)
        self.abort()


def _connected(address: IPAddress, port: int, kind: int, protocol: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        sock.connect((str(address), port))
    except OSError:
        sock.close()
        raise
    return sock

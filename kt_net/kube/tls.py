"""TLS whose records are read and written many at a time.

A socket of the `ssl` module makes two system calls for each record that it reads and one for each that it writes; an API server's
records have about 5 KiB, and that is where the time goes. Here OpenSSL works between two buffers in memory, and the socket is read and
written in large pieces.

Not here: which certificates are believed (config.py makes the context).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

#: Octets of one read from the socket.
RAW_OCTETS: Final = 256 * 1024
#: The largest piece of TLS (RFC 8446 section 5.1).
RECORD_OCTETS: Final = 16 * 1024


class TlsConnection:
    """A TLS connection with the calls of a socket that its users need. One thread at a time.

    Args:
        connected: a TCP connection; with a timeout until `setblocking`.
        server_hostname: what the certificate has to name.

    Raises:
        ssl.SSLError, OSError: the handshake failed.
    """

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, server_hostname: str) -> None:
        self._socket = connected
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        # With a buffer it gives a number, which its type does not say.
        self._read = cast(Callable[[int, memoryview], int], self._tls.read)
        self._raw = memoryview(bytearray(RAW_OCTETS))
        self._unsent = memoryview(b"")
        self._drained = False  # the socket has given all it had
        self._emptied = False  # OpenSSL has, too: what it has now is no whole record
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self._more()
            except ssl.SSLError:
                self.flush()  # the alert says why
                raise
        self.flush()

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def gettimeout(self) -> float | None:
        """Of the socket, seconds."""
        return self._socket.gettimeout()

    def settimeout(self, seconds: float | None) -> None:
        """Of the socket."""
        self._socket.settimeout(seconds)

    def setblocking(self, blocking: bool) -> None:
        """Of the socket."""
        self._socket.setblocking(blocking)

    def recv(self, octets: int) -> bytes:
        """As `socket.recv`."""
        room = bytearray(octets)
        return bytes(room[: self.recv_into(memoryview(room))])

    def recv_into(self, room: memoryview) -> int:
        """As `socket.recv_into`; as many whole records as fit and are there. 0 at the end.

        Raises:
            BlockingIOError: nothing is there.
            OSError: the connection broke.
        """
        read, filled, left = self._read, 0, len(room)
        while not filled:
            if self._emptied:
                self._more()
                self._emptied = False
            try:
                while left >= RECORD_OCTETS or not filled:
                    taken = read(left, room[filled:])
                    if not taken:
                        return filled  # the other end's farewell; after what came before it, it is said once more
                    filled += taken
                    left -= taken
            except ssl.SSLWantReadError:
                self._emptied = True
                self.flush()  # an answer to a change of keys
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break  # likewise, without one
        return filled

    def _more(self) -> None:
        if self._drained:
            self._drained = False
            raise BlockingIOError  # the last read left nothing: asking once more would be a system call for nothing
        taken = self._socket.recv_into(self._raw)
        self._drained = taken < RAW_OCTETS and self._socket.gettimeout() == 0
        if taken:
            self._incoming.write(self._raw[:taken])
        else:
            self._incoming.write_eof()

    def send(self, data: bytes | memoryview) -> int:
        """As `socket.send`, except that what was taken may still wait here (`unsent`).

        Raises:
            BlockingIOError: nothing was taken.
            OSError: the connection broke.
        """
        if not self.flush():
            raise BlockingIOError
        taken = self._tls.write(data)
        self.flush()
        return taken

    @property
    def unsent(self) -> bool:
        """Whether octets wait for the socket."""
        return bool(self._unsent)

    def flush(self) -> bool:
        """Give the socket what it takes; True when nothing is left.

        Raises:
            OSError: the connection broke.
        """
        while True:
            if not self._unsent:
                if not self._outgoing.pending:
                    return True
                self._unsent = memoryview(self._outgoing.read())
            try:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except BlockingIOError:
                return False

    def shutdown(self, how: int) -> None:
        """Of the socket."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Of the socket, after TLS' farewell if it can be said."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, OSError):
            pass  # the other end's farewell is not waited for
        try:
            self.flush()
        except OSError:
            pass
        self._socket.close()

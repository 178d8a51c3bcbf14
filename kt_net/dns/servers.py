"""Which of several DNS servers is asked, and when the next one.

As in libc (resolv.conf(5)): in order; the next one when a server cannot be reached, is silent, or says that it cannot serve. Unlike it,
whoever answered last is asked first, and a server that was too slow may still answer.

Not here: asking; what a question is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from dnslib import RCODE

#: Seconds of silence after which the next server is asked as well; the resolver waits for `ASK_SECONDS` in all.
SERVER_SECONDS: Final = 1.0
#: How often one question goes out: the last time when the resolver is about to give it up.
MAX_TURNS: Final = 5
#: For so long one that was to be asked first, and was silent, is asked after the others.
SILENT_SECONDS: Final = 5.0
#: As many as libc takes (resolv.conf(5), MAXNS).
MAX_SERVERS: Final = 3
#: A server that says so cannot serve us; the next may (libc's res_send takes the same three).
_CANNOT: Final = frozenset({int(RCODE.SERVFAIL), int(RCODE.NOTIMP), int(RCODE.REFUSED)})
_HEADER_OCTETS: Final = 12


class Servers:
    """The servers of one resolv.conf.

    Args:
        first: one that knows more than the others: it is asked before them, again and again even while it is silent.
    """

    def __init__(self, addresses: Iterable[str], *, first: str = "") -> None:
        self._order = deque(list(dict.fromkeys(addresses))[:MAX_SERVERS])
        self._first = first
        if first:
            self._order.appendleft(first)
        self._silent_until = 0.0

    def __bool__(self) -> bool:
        return bool(self._order)

    def turns(self, *, again: bool, now: float) -> Turns:
        """For one question.

        Args:
            again: whether a server that is silent is asked a second time: over UDP the question may be lost.
        """
        if self._first and now >= self._silent_until:
            self._to_front(self._first)
        return Turns(self._order, again=again)

    def answered(self, address: str, *, now: float) -> None:
        """From now on it is asked first."""
        if address in self._order and self._order[0] != address:
            self._to_front(address)
            self._silent_until = now + SILENT_SECONDS

    def _to_front(self, address: str) -> None:
        self._order.remove(address)
        self._order.appendleft(address)


class Turns:
    """One question's way over the servers."""

    def __init__(self, order: Iterable[str], *, again: bool) -> None:
        self._left = deque(order)
        self._asked: set[str] = set()
        self._again = again
        self._count = 0
        #: When to call `take` again (monotonic seconds).
        self.due = 0.0
        #: The answer of a server that cannot serve: better than none.
        self.second_best: bytes | None = None

    @property
    def waiting(self) -> bool:
        """Whether somebody has been asked who may still answer."""
        return any(server in self._asked for server in self._left)

    def take(self, *, now: float) -> tuple[str, ...] | None:
        """The server to be asked now, none when there is only to wait; None when no answer will come."""
        self._count += 1
        self.due = now + SERVER_SECONDS
        if not self._left or self._count > MAX_TURNS:
            return None
        server = self._left[0]
        if server in self._asked:  # and so have been all the others
            if self.second_best is not None:
                return None
            if not self._again:
                return ()
        self._left.rotate(-1)
        self._asked.add(server)
        return (server,)

    def lost(self, server: str) -> None:
        """It cannot be reached."""
        if server in self._left:
            self._left.remove(server)

    def receive(self, server: str, answer: bytes) -> bool:
        """Whether this is the answer; a server that cannot serve is as good as lost."""
        if len(answer) >= _HEADER_OCTETS and answer[3] & 0x0F in _CANNOT:
            self.second_best = self.second_best or answer
            self.lost(server)
            return False
        return True

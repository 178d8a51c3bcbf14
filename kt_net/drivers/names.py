"""Asks this machine's own resolver what is not the cluster's business.

One UDP socket a question and server (its random port is part of the defence against forged answers, RFC 5452 section 4.5), or one TCP
connection. A server that is silent keeps its socket while the next one is asked: it may be slow only.

Not here: which question goes where and which server is next (kt_net.dns), parsing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import deque
from collections.abc import Callable

from kt_net.dns.messages import answers_to
from kt_net.dns.resolver import Transport
from kt_net.dns.servers import Servers, Turns
from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.relay.names import DNS_PORT, MessageSplitter, framed_message
from kt_net.relay.relay import MachineQuestion

#: Questions on their way at once; more are failed at once.
MAX_QUESTIONS = 512
#: Sockets at once; beyond them a question has one at a time (a process may have 1024 descriptors).
MAX_SOCKETS = 640
MAX_ANSWER_OCTETS = 65535

Outcome = Callable[[int, bytes | None], None]


class MachineNames:
    """A part of the loop.

    Args:
        servers: addresses of this machine's resolvers before we changed anything, in order.
        outcome: told `(ask, answer or None)` once for each question.
    """

    def __init__(self, loop: Loop, servers: tuple[str, ...], outcome: Outcome) -> None:
        self._loop = loop
        self._servers = Servers(servers)
        self._outcome = outcome
        self._questions: dict[int, _Question] = {}
        self._failed: deque[int] = deque()
        self._sockets = 0
        loop.add(self)

    def use(self, servers: tuple[str, ...], first: str = "") -> None:
        """Other servers from now on; on the loop's thread. `first`: see `Servers`."""
        self._servers = Servers(servers, first=first)

    def ask(self, question: MachineQuestion, *, now: float) -> None:
        """Ask one server; the others in turn while there is no answer."""
        if len(self._questions) >= MAX_QUESTIONS:
            self._failed.append(question.ask)
            return
        asked = _Question(question, self._servers.turns(again=question.transport is Transport.UDP, now=now))
        self._questions[question.ask] = asked
        self._next(asked, now=now)

    def pump(self, *, now: float) -> None:
        """See `Part`."""
        while self._failed:
            self._outcome(self._failed.popleft(), None)

    def next_timer(self) -> float | None:
        """See `Part`."""
        if self._failed:
            return 0.0
        return min((question.turns.due for question in self._questions.values()), default=None)

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        for question in [question for question in self._questions.values() if question.turns.due <= now]:
            self._next(question, now=now)

    def _next(self, asked: _Question, *, now: float) -> None:
        while (servers := asked.turns.take(now=now)) is not None:
            if not servers:
                return
            if self._sockets >= MAX_SOCKETS:
                self._drop_sockets(asked)  # rather than none at all
            try:
                self._send(asked, servers[0])
                return
            except (OSError, ValueError):
                self._lost(asked, servers[0])
        ask, second_best = asked.question.ask, asked.turns.second_best
        self._end(asked)
        if second_best is None:
            self._failed.append(ask)
        else:
            self._outcome(ask, second_best)

    def _send(self, asked: _Question, server: str) -> None:
        known = asked.attempts.get(server)
        if known is not None:
            known.send_again()
            return
        attempt = _Attempt(asked.question, server)
        asked.attempts[server] = attempt
        self._sockets += 1
        attempt.connect()
        interest = WRITE if attempt.unsent else READ
        self._loop.watch(attempt.fileno(), interest, lambda mask: self._ready(asked, attempt))

    def _ready(self, asked: _Question, attempt: _Attempt) -> None:
        try:
            answer = attempt.progress()
        except OSError:
            self._lost(asked, attempt.server)
            if not asked.turns.waiting:
                self._next(asked, now=self._loop.now())
            return
        if answer is None:
            if not attempt.unsent:
                self._loop.watch(attempt.fileno(), READ, lambda mask: self._ready(asked, attempt))
        elif not asked.turns.receive(attempt.server, answer):
            self._drop_socket(asked, attempt.server)
            self._next(asked, now=self._loop.now())
        else:
            self._servers.answered(attempt.server, now=self._loop.now())
            self._end(asked)
            self._outcome(asked.question.ask, answer)

    def _lost(self, asked: _Question, server: str) -> None:
        self._drop_socket(asked, server)
        asked.turns.lost(server)

    def _drop_socket(self, asked: _Question, server: str) -> None:
        attempt = asked.attempts.pop(server, None)
        if attempt is not None:
            self._sockets -= 1
            self._loop.watch(attempt.fileno(), 0, lambda mask: None)
            attempt.close()

    def _drop_sockets(self, asked: _Question) -> None:
        for server in list(asked.attempts):
            self._drop_socket(asked, server)

    def _end(self, asked: _Question) -> None:
        self._drop_sockets(asked)
        self._questions.pop(asked.question.ask, None)


class _Question:
    """One question on its way to one server after the other."""

    def __init__(self, question: MachineQuestion, turns: Turns) -> None:
        self.question = question
        self.turns = turns
        self.attempts: dict[str, _Attempt] = {}


class _Attempt:
    """One question to one server."""

    def __init__(self, question: MachineQuestion, server: str) -> None:
        self.server = server
        self.unsent = b""
        self._question = question
        self._splitter = MessageSplitter()
        family = socket.AF_INET6 if ipaddress.ip_address(server.partition("%")[0]).version == 6 else socket.AF_INET
        kind = socket.SOCK_STREAM if question.transport is Transport.TCP else socket.SOCK_DGRAM
        self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK)

    def fileno(self) -> int:
        return self._socket.fileno()

    def connect(self) -> None:
        """Begin; raises OSError when it is known at once that nobody is there."""
        try:
            self._socket.connect((self.server, DNS_PORT))
        except BlockingIOError:
            pass  # TCP: writable when connected
        if self._question.transport is Transport.TCP:
            self.unsent = framed_message(self._question.data)
        else:
            self._socket.send(self._question.data)

    def send_again(self) -> None:
        """Over UDP the question or its answer may have been lost."""
        if self._question.transport is Transport.UDP:
            self._socket.send(self._question.data)

    def progress(self) -> bytes | None:
        """The answer when it is whole.

        Raises:
            OSError: this server does not answer.
        """
        if self.unsent:
            sent = self._socket.send(self.unsent)
            self.unsent = self.unsent[sent:]
            return None
        try:
            data = self._socket.recv(MAX_ANSWER_OCTETS)
        except BlockingIOError:
            return None
        if self._question.transport is Transport.UDP:
            return data if answers_to(data, self._question.data) else None
        if not data:
            raise ConnectionResetError("closed before the answer")
        messages = self._splitter.receive(data)
        return messages[0] if messages else None

    def close(self) -> None:
        self._socket.close()

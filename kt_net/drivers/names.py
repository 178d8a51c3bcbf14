"""Asks this machine's own resolver what is not the cluster's business.

One UDP socket a question (its random port is part of the defence against forged answers, RFC 5452 section 4.5), or one TCP connection.

Not here: which question goes where (kt_net.dns), parsing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import deque
from collections.abc import Callable

from kt_net.dns.resolver import Transport
from kt_net.drivers.loop import READ, WRITE, Loop
from kt_net.relay.names import DNS_PORT, MessageSplitter, framed_message
from kt_net.relay.relay import MachineQuestion

#: Seconds for one server before the next is asked (resolv.conf(5) has 5; the first answers in time or is down).
SERVER_SECONDS = 2.0
#: Questions on their way at once; more are failed at once.
MAX_QUESTIONS = 512
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
        self._servers = servers
        self._outcome = outcome
        self._questions: dict[int, _Question] = {}
        self._failed: deque[int] = deque()
        loop.add(self)

    def use(self, servers: tuple[str, ...]) -> None:
        """Other servers from now on; on the loop's thread."""
        self._servers = servers

    def ask(self, question: MachineQuestion, *, now: float) -> None:
        """Ask the first server; the others in turn when it is silent."""
        if len(self._questions) >= MAX_QUESTIONS:
            self._failed.append(question.ask)
            return
        asked = _Question(question, deque(self._servers))
        self._questions[question.ask] = asked
        self._next_server(asked, now=now)

    def pump(self, *, now: float) -> None:
        """See `Part`."""
        while self._failed:
            self._outcome(self._failed.popleft(), None)

    def next_timer(self) -> float | None:
        """See `Part`."""
        if self._failed:
            return 0.0
        return min((question.deadline for question in self._questions.values()), default=None)

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        for question in [question for question in self._questions.values() if question.deadline <= now]:
            self._next_server(question, now=now)

    def _next_server(self, asked: _Question, *, now: float) -> None:
        self._drop_socket(asked)
        while asked.servers:
            server = asked.servers.popleft()
            try:
                asked.connect(server)
            except (OSError, ValueError):
                continue
            asked.deadline = now + SERVER_SECONDS
            interest = WRITE if asked.unsent else READ
            self._loop.watch(asked.fileno(), interest, lambda mask: self._ready(asked))
            return
        ask = asked.question.ask
        self._end(asked)
        self._failed.append(ask)

    def _ready(self, asked: _Question) -> None:
        try:
            answer = asked.progress()
        except OSError:
            self._next_server(asked, now=self._loop.now())
            return
        if answer is not None:
            ask = asked.question.ask
            self._end(asked)
            self._outcome(ask, answer)
        elif not asked.unsent:
            self._loop.watch(asked.fileno(), READ, lambda mask: self._ready(asked))

    def _drop_socket(self, asked: _Question) -> None:
        if asked.socket is not None:
            self._loop.watch(asked.fileno(), 0, lambda mask: None)
            asked.socket.close()
            asked.socket = None

    def _end(self, asked: _Question) -> None:
        self._drop_socket(asked)
        self._questions.pop(asked.question.ask, None)


class _Question:
    """One question on its way to one server after the other."""

    def __init__(self, question: MachineQuestion, servers: deque[str]) -> None:
        self.question = question
        self.servers = servers
        self.deadline = 0.0
        self.socket: socket.socket | None = None
        self.unsent = b""
        self._splitter = MessageSplitter()

    def fileno(self) -> int:
        return -1 if self.socket is None else self.socket.fileno()

    def connect(self, server: str) -> None:
        family = socket.AF_INET6 if ipaddress.ip_address(server.partition("%")[0]).version == 6 else socket.AF_INET
        kind = socket.SOCK_STREAM if self.question.transport is Transport.TCP else socket.SOCK_DGRAM
        self.socket = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            self.socket.connect((server, DNS_PORT))
        except BlockingIOError:
            pass  # TCP: writable when connected
        if kind == socket.SOCK_STREAM:
            self._splitter = MessageSplitter()
            self.unsent = framed_message(self.question.data)
        else:
            self.socket.send(self.question.data)

    def progress(self) -> bytes | None:
        """The answer when it is whole.

        Raises:
            OSError: this server does not answer.
        """
        if self.socket is None:
            return None
        if self.unsent:
            sent = self.socket.send(self.unsent)
            self.unsent = self.unsent[sent:]
            return None
        try:
            data = self.socket.recv(MAX_ANSWER_OCTETS)
        except BlockingIOError:
            return None
        if self.question.transport is Transport.UDP:
            return data
        if not data:
            raise ConnectionResetError("closed before the answer")
        messages = self._splitter.receive(data)
        return messages[0] if messages else None

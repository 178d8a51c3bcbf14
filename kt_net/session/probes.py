"""The first words after connecting: does the cluster answer the shadow pod at all? A NetworkPolicy may forbid it, and then nothing of what
`connect` has set up is of use: better said at once than found out by a program that hangs.

One question to the cluster's DNS and one dial to the Service of the API server, through the tunnel, side by side, while this machine is
set up; nobody waits longer than `ANSWER_SECONDS` for them.

Not here: what stands in the way (`ktctl doctor`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from kt_net.addr import Endpoint
from kt_net.dns.messages import question, records_of
from kt_net.drivers.loop import Loop
from kt_net.errors import KtError, MalformedMessage
from kt_net.kube.api import HttpKubeApi
from kt_net.relay.names import DNS_PORT
from kt_net.relay.probe import Probe
from kt_net.relay.streams import Switchboard
from kt_net.tunnel.requests import Network, ReplyCode, Request

#: What has not answered then counts as silent: more than a SYN that is sent again after a second needs.
ANSWER_SECONDS: Final = 2.0
#: Between two questions over UDP.
REPEAT_SECONDS: Final = 0.6
#: An answer that comes later than so is not waited for, not even in passing.
LATE_SECONDS: Final = 15.0

NAME: Final = "kubernetes.default.svc"
#: Of the Service that every cluster has; its control plane sets them.
_LABELS: Final = "component=apiserver,provider=kubernetes"
_API_PORT: Final = 443
_MESSAGE_ID: Final = 0x6B74
_REFUSED: Final = ReplyCode.CONNECTION_REFUSED
_NEXT: Final = "next: ktctl doctor"


@dataclass(frozen=True, slots=True)
class Tried:
    """One probe and what came of it.

    Attributes:
        what: that was tried, in words.
        code: None when nothing came within `seconds`.
        fault: what is wrong with an answer that came.
    """

    what: str
    code: ReplyCode | None
    seconds: float
    fault: str = ""

    @property
    def fine(self) -> bool:
        """Whether it answered as it should."""
        return self.code is ReplyCode.SUCCEEDED and not self.fault

    @property
    def words(self) -> str:
        """What came of it."""
        if self.code is None:
            return f"no answer from {self.what} within {self.seconds:g} s"
        if self.code is ReplyCode.SUCCEEDED:
            return f"{self.what} answers {self.fault}" if self.fault else f"{self.what} in {self.seconds * 1000:.0f} ms"
        if self.code is _REFUSED:
            return f"{self.what} refuses: nothing listens there"
        return f"{self.what} cannot be reached ({self.code.name.lower().replace('_', ' ')})"


def verdict(tried: Sequence[Tried]) -> str:
    """What users are told, in one line."""
    if all(one.fine for one in tried):
        return f"cluster answers: {', '.join(one.words for one in tried)}"
    wrong = "; ".join(one.words for one in tried if not one.fine)
    if all(one.code is None for one in tried):
        wrong = f"no answer from {' nor '.join(one.what for one in tried)} within {tried[0].seconds:g} s"
    if any(one.code is None for one in tried):
        wrong += "; a NetworkPolicy may keep the shadow pod from it"
    return f"the cluster does not answer the shadow pod as it should: {wrong}; {_NEXT}"


def kubernetes_service(api: HttpKubeApi) -> str:
    """The address of the API server's Service; "" where it may not be read."""
    try:
        for service in api.list("Service", "default", selector=_LABELS):
            address = service.get("spec", {}).get("clusterIP")
            return address if isinstance(address, str) else ""
    except KtError:
        pass
    return ""


@dataclass(frozen=True, slots=True)
class Target:
    """What is tried; `question` is a DNS message for UDP."""

    what: str
    request: Request
    question: bytes = b""


def targets(servers: Sequence[str], domain: str, service: str) -> list[Target]:
    """What to try.

    Args:
        servers: the cluster's DNS servers, as the pod has them.
        domain: the cluster's.
        service: address of the API server's Service; where it is not known, DNS is dialled instead.
    """
    found: list[Target] = []
    for server in servers[:1]:
        try:
            asked = question(f"{NAME}.{domain}", "A", _MESSAGE_ID)
        except MalformedMessage:
            continue  # a domain that is none; names will say so
        found.append(Target(f"DNS {server}", Request(Network.UDP, server, DNS_PORT), asked))
    dialled = Endpoint(service, _API_PORT) if service else Endpoint(servers[0], DNS_PORT) if servers else None
    if dialled is not None:
        found.append(Target(str(dialled), Request(Network.TCP, dialled.host, dialled.port)))
    return found


def fault_of(answer: bytes) -> str:
    """What is wrong with an answer of the DNS; "" when nothing is. No address is no fault: the Service may be IPv6 only."""
    try:
        code, _ = records_of(answer)
    except MalformedMessage:
        return "nonsense"
    return "" if code == "NOERROR" else f"{code} for {NAME}"


class FirstProbes:
    """All of them. A part of the loop, for as long as they last.

    Args:
        progress: told a line.
    """

    def __init__(self, loop: Loop, switchboard: Switchboard, progress: Callable[[str], None]) -> None:
        self._loop = loop
        self._switchboard = switchboard
        self._progress = progress
        self._probes: dict[str, Probe] = {}
        self._outcomes: dict[str, Tried] = {}
        self._answered = threading.Event()
        self._started = 0.0
        self._repeat_at = 0.0
        self._silent: frozenset[str] = frozenset()  # users were told so

    # -- for the session

    def start(self, wanted: Sequence[Target]) -> None:
        """Begin."""
        self._started = self._loop.now()
        for target in wanted:
            self._probes[target.what] = Probe(
                target.request, partial(self._outcome, target.what), question=target.question
            )
        self._loop.call_soon(self._start)

    def say(self) -> None:
        """What came of them, once all have answered or the time is over. Not on the loop's thread."""
        if not self._probes:
            return
        self._answered.wait(max(0.0, self._started + ANSWER_SECONDS - self._loop.now()))
        silent = frozenset(self._probes) - frozenset(self._outcomes)
        found = [self._outcomes.get(what, Tried(what, None, ANSWER_SECONDS)) for what in self._probes]
        self._silent = silent
        if self._loop.running:
            self._progress(verdict(found))

    # -- a part of the loop

    def pump(self, *, now: float) -> None:
        """See `Part`."""

    def next_timer(self) -> float | None:
        """See `Part`."""
        return self._repeat_at

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        if now >= self._started + LATE_SECONDS:
            for probe in self._probes.values():
                probe.give_up(now=now)
            self._loop.remove(self)
            return
        self._repeat_at = now + REPEAT_SECONDS
        for probe in self._probes.values():
            probe.repeat(now=now)

    def _start(self) -> None:
        now = self._started = self._loop.now()
        self._repeat_at = now + REPEAT_SECONDS
        self._loop.add(self)
        for probe in self._probes.values():
            probe.start(self._switchboard, now=now)

    def _outcome(self, what: str, code: ReplyCode, answer: bytes, now: float) -> None:
        tried = Tried(what, code, now - self._started, fault_of(answer) if answer else "")
        self._outcomes[what] = tried
        if what in self._silent and tried.fine:
            self._progress(f"the cluster answers later than it should: {tried.words}")
        elif what in self._silent and (tried.fault or code is _REFUSED):
            self._progress(verdict([tried]))
        if len(self._outcomes) == len(self._probes):
            self._loop.remove(self)
            self._answered.set()

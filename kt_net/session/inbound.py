"""The other direction of a session: the agent listens on ports of the shadow pod, and whoever comes there reaches a program here.

The agent is asked by one stream for each port (docs/tunnel-protocol.md, "Callers"), and asked again when there is another agent. That
a program does not answer is said once, and once that it answers again: callers come by the hundred.

Not here: what in the cluster leads to those ports (preview.py), sockets (kt_net.drivers.inbound).
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kt_net.choreography.expose import Expose
from kt_net.drivers.clock import monotonic
from kt_net.drivers.inbound import Programs, Target, allow_sockets
from kt_net.drivers.loop import Loop
from kt_net.errors import LimitExceeded, ShadowFailed, StreamClosed, UsageFault
from kt_net.relay.streams import Stream, Switchboard
from kt_net.tunnel.hello import LISTEN
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request

logger = logging.getLogger(__name__)

#: For the agent to listen on all ports.
LISTEN_SECONDS: Final = 15.0
#: Before the agent is asked again; doubled up to the longest.
AGAIN_SECONDS: Final = 0.2
LONGEST_AGAIN: Final = 5.0
_NETWORKS: Final = {"TCP": (Network.TCP, Network.LISTEN_TCP), "UDP": (Network.UDP, Network.LISTEN_UDP)}
_WHY: Final = {
    ReplyCode.CONNECTION_REFUSED: "something in the pod has the port",
    ReplyCode.NOT_ALLOWED: "the agent is not root",
    ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED: "the pod has no addresses",
}


def find_target(expose: Expose) -> Target:
    """Where callers of `expose` go; a name is looked up once.

    Raises:
        UsageFault: a name that is none.
    """
    try:
        return Target(expose.target, (ipaddress.ip_address(expose.host),), expose.local)
    except ValueError:
        pass
    try:
        infos = socket.getaddrinfo(expose.host, expose.local, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageFault(f"--expose: there is no host {expose.host}", why=str(error)) from None
    found = dict.fromkeys(ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos)
    return Target(expose.target, tuple(found), expose.local)


def check_listens(report: Mapping[str, Any], exposes: Iterable[Expose]) -> None:
    """Nothing, when the agent with this report can do what is wanted.

    Raises:
        ShadowFailed: it is too old for that.
    """
    can = report.get(LISTEN)
    lacking = {expose.protocol for expose in exposes} - {str(word).upper() for word in can or ()}
    if lacking:
        raise ShadowFailed(
            f"the agent in the shadow pod cannot listen for {' and '.join(sorted(lacking))}",
            why=f"it is of version {report.get('agent', '?')}",
            next_step="use an image with the agent of this ktctl",
        )


class Inbound:
    """All ports of one session. A part of the loop.

    Args:
        ports: each exposed port, and where the agent is to listen.
        targets: where callers of each go.
        progress: told what users should know, a line each.
    """

    def __init__(
        self,
        loop: Loop,
        switchboard: Switchboard,
        ports: Mapping[Expose, int],
        targets: Mapping[Expose, Target],
        *,
        proxy_protocol: bool,
        progress: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._switchboard = switchboard
        self._progress = progress
        self._listeners = [_Listener(self, expose, port) for expose, port in ports.items()]
        by_port = {(_NETWORKS[expose.protocol][0], port): targets[expose] for expose, port in ports.items()}
        self._programs = Programs(loop, by_port, proxy_protocol=proxy_protocol, outcome=self._outcome)
        self._silent: set[Target] = set()  # users were told that nobody answers there
        self._answered = threading.Event()

    @property
    def callers(self) -> int:
        """How many are here."""
        return self._programs.callers

    @property
    def ever(self) -> bool:
        """Whether somebody has come."""
        return self._programs.callers_total > 0

    def start(self) -> None:
        """Have the agent listen, as soon as the tunnel is there."""
        allow_sockets()
        self._loop.call_soon(self._begin)

    def wait_listening(self, alive: Callable[[], None]) -> None:
        """Until the agent listens on every port.

        Args:
            alive: called ten times a second; raises when the session is over.

        Raises:
            ShadowFailed: it cannot, or does not answer.
        """
        limit = monotonic() + LISTEN_SECONDS
        while not self._answered.wait(0.1):
            alive()
            if monotonic() > limit:
                raise ShadowFailed("the agent in the shadow pod does not say whether it listens")
        for listener in self._listeners:
            if listener.refused is not None:
                raise ShadowFailed(f"the shadow pod cannot listen on port {listener.port}", why=_why(listener.refused))

    def stop(self) -> None:
        """No more callers; those who are here stay."""

        def stop() -> None:
            for listener in self._listeners:
                listener.stop(now=self._loop.now())

        self._loop.call_soon(stop)

    def close(self) -> None:
        """Once the loop has ended."""
        self._programs.close()

    # -- on the loop

    def _begin(self) -> None:
        self._switchboard.acceptor = self._programs
        self._loop.add(self._programs)
        self._loop.add(self)
        for listener in self._listeners:
            listener.ask(self._switchboard, now=self._loop.now())

    def answered(self) -> None:
        """A listener has got an answer."""
        if all(listener.answered for listener in self._listeners):
            self._answered.set()

    def trouble(self, port: int, code: ReplyCode) -> None:
        """A port on which the agent has listened before."""
        self._progress(f"the shadow pod cannot listen on port {port} ({_why(code)}); it is asked again")

    def _outcome(self, target: Target, code: ReplyCode) -> None:
        if code is ReplyCode.SUCCEEDED:
            if target in self._silent:
                self._silent.discard(target)
                self._progress(f"{target.name} answers again")
        elif target not in self._silent:
            self._silent.add(target)
            why = (
                "nothing listens there" if code is ReplyCode.CONNECTION_REFUSED else code.name.lower().replace("_", " ")
            )
            self._progress(f"{target.name}: {why}; callers are turned away")

    def pump(self, *, now: float) -> None:
        """See `Part`."""

    def next_timer(self) -> float | None:
        """See `Part`."""
        return min((one.again_at for one in self._listeners if one.again_at is not None), default=None)

    def handle_timer(self, *, now: float) -> None:
        """Ask again where that is due."""
        for listener in self._listeners:
            if listener.again_at is not None and listener.again_at <= now:
                listener.ask(self._switchboard, now=now)


class _Listener:
    """The stream by which the agent listens on one port. Its owner."""

    def __init__(self, inbound: Inbound, expose: Expose, port: int) -> None:
        self._inbound = inbound
        self._request = Request(_NETWORKS[expose.protocol][1], "::", port)
        self._stream: Stream | None = None
        self._pause = AGAIN_SECONDS
        self._worked = False
        self._stopped = False
        self.port = port
        self.answered = False
        #: What the agent has said instead.
        self.refused: ReplyCode | None = None
        self.again_at: float | None = None

    def ask(self, switchboard: Switchboard, *, now: float) -> None:
        """Now."""
        self.again_at = None
        try:
            self._stream = switchboard.open(self._request, self, now=now)
        except (LimitExceeded, StreamClosed):
            self._later(now)

    def stop(self, *, now: float) -> None:
        """Ask no more, and have the agent listen no more."""
        self._stopped, self.again_at = True, None
        if self._stream is not None:
            self._stream.finish(now=now)

    def _later(self, now: float) -> None:
        if self._stopped:
            return
        self.again_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_AGAIN)

    def stream_opened(self, reply: Reply, *, now: float) -> None:
        """It listens."""
        self._pause = AGAIN_SECONDS
        self._worked = self.answered = True
        self.refused = None
        self._inbound.answered()

    def stream_refused(self, code: ReplyCode, *, now: float) -> None:
        """It cannot."""
        if self._worked:
            if self.refused is None and code is not ReplyCode.GENERAL_FAILURE:
                self.refused = code
                self._inbound.trouble(self.port, code)
            self._later(now)
        else:
            self.refused, self.answered = code, True
            self._inbound.answered()

    def stream_reset(self, *, now: float) -> None:
        """The agent is gone: the next one is asked, as soon as the tunnel leads there."""
        self._later(now)

    def stream_finished(self, *, now: float) -> None:
        """The agent listens no more."""
        if self._stream is not None:
            self._stream.reset(now=now)
        self._later(now)

    def stream_data(self, data: bytes | memoryview, *, now: float) -> None:
        """Nothing is said here."""
        if self._stream is not None:
            self._stream.consume(len(data), now=now)

    def stream_room(self, *, now: float) -> None:
        """Nothing is said here."""


def _why(code: ReplyCode) -> str:
    return _WHY.get(code, code.name.lower().replace("_", " "))

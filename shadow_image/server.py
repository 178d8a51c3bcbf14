"""Accepts carriers on loopback, and ends the agent when no client has been there for long.

When the agent ends, its Job is complete, and Kubernetes removes the Job with everything that belongs to it: no right in the cluster
is needed for that.

Not here: what a session does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from kt_net.tunnel.hello import REDIRECT, SESSION_OCTETS
from shadow_image.caps import LISTEN_HOST, Caps
from shadow_image.nft import Table
from shadow_image.policy import Policy
from shadow_image.redirect import EXPIRE_SECONDS, TABLE, Redirections
from shadow_image.report import nameservers
from shadow_image.restorer import LOOK_SECONDS, Restorer
from shadow_image.session import Session

logger = logging.getLogger("agent")


def policy_of(report: dict[str, Any], port: int, allowed: list[str]) -> Policy:
    """The pod's policy.

    Raises:
        ValueError: `allowed` names something that is no prefix.
    """
    return Policy(
        own=[ipaddress.ip_address(address) for address in report["pod_ips"]],
        listen_port=port,
        nameservers=nameservers(report["resolv_conf"]),
        allowed=[ipaddress.ip_network(prefix) for prefix in allowed],
    )


class Agent:
    """The listener and its sessions."""

    def __init__(
        self,
        *,
        report: dict[str, Any],
        policy: Policy,
        idle_exit: float,
        caps: Caps = Caps(),  # noqa: B008 - frozen
        redirections: Redirections | None = None,
    ) -> None:
        self._report = report
        self._policy = policy
        self._caps = caps
        self._idle_exit = idle_exit
        self.redirections = redirections
        self._sessions: set[Session] = set()
        self._by_identity: dict[bytes, Session] = {}
        self._ended = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def start(self, port: int, host: str = LISTEN_HOST) -> int:
        """Listen; the port that was taken."""
        self._server = await asyncio.get_running_loop().create_server(self._session, host, port, backlog=256)
        self._arm()
        return int(self._server.sockets[0].getsockname()[1])

    async def wait_ended(self) -> None:
        """Until `stop`, or until no client has been there for the idle time."""
        await self._ended.wait()
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.close()
        if self.redirections is not None:
            self.redirections.close()

    def stop(self) -> None:
        """End now."""
        self._ended.set()

    def _session(self) -> Session:
        return Session(report=self._report, policy=self._policy, caps=self._caps, home=self)

    # -- what sessions ask

    def started(self, session: Session) -> bool:
        """See `Home`."""
        if len(self._sessions) >= self._caps.sessions:
            logger.warning("a carrier was turned away: %d are there", len(self._sessions))
            return False
        self._sessions.add(session)
        return True

    def greeted(self, session: Session, identity: bytes) -> None:
        """See `Home`."""
        older = self._by_identity.get(identity)
        if older is not None:
            older.close()
        self._by_identity[identity] = session

    def find(self, identity: bytes) -> Session | None:
        """See `Home`."""
        return self._by_identity.get(identity)

    def lanes(self, client: bytes) -> list[Session]:
        """See `Home`."""
        return [session for identity, session in self._by_identity.items() if identity[:SESSION_OCTETS] == client]

    def carrier_lost(self, session: Session) -> None:
        """See `Home`. The clock starts again: whoever does not come again does not keep the agent alive, and when the time is over others
        may be there."""
        self._arm()

    def ended(self, session: Session) -> None:
        """See `Home`."""
        self._sessions.discard(session)
        for identity, known in list(self._by_identity.items()):
            if known is session:
                del self._by_identity[identity]
        if self.redirections is not None and session.greeted and not self._by_identity:
            self.stop()  # a guest does not stay without its host; a client that is only away is one still

    def _arm(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._idle_exit, self._idle_over)

    def _idle_over(self) -> None:
        if any(session.present for session in self._sessions):
            return
        logger.info("no client for %g s: done", self._idle_exit)
        self.stop()


async def keep_looking(restorer: Restorer, done: Callable[[], None]) -> None:
    """At the client's Lease, until what it has taken is given back. Requests take their time: on a thread."""
    while not await asyncio.to_thread(restorer.look):  # noqa: ASYNC110 - between two looks there is nothing to be told of
        await asyncio.sleep(LOOK_SECONDS)
    done()


async def serve(
    *,
    report: dict[str, Any],
    port: int,
    idle_exit: float,
    allowed: list[str],
    redirect: bool = False,
    untouched: list[str] | None = None,
    restorer: Restorer | None = None,
) -> None:
    """Run an agent until it has nothing more to do, or is told to end.

    Args:
        redirect: it is a guest in a pod: callers of the ports that it is to listen on are redirected to it, but those from `untouched`.
    """
    redirections = None
    if redirect:
        try:
            addresses = [ipaddress.ip_address(address) for address in untouched or ()]
            redirections = Redirections(Table(TABLE, seconds=EXPIRE_SECONDS, untouched=addresses))
            report[REDIRECT] = ""
        except OSError as error:
            report[REDIRECT] = os.strerror(error.errno or 0)  # the client says it
            logger.warning("no redirection: %s", error)
    agent = Agent(
        report=report, policy=policy_of(report, port, allowed), idle_exit=idle_exit, redirections=redirections
    )
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, agent.stop)
    await agent.start(port)
    logger.info("listening on %s:%d", LISTEN_HOST, port)
    looking = loop.create_task(keep_looking(restorer, agent.stop)) if restorer is not None else None
    await agent.wait_ended()
    if looking is not None:
        looking.cancel()
    await asyncio.sleep(0)

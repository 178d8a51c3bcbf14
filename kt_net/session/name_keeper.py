"""Keeps this machine's names coming to our resolver while it is connected: takes the resolver file back when somebody has written another
one, or when the other connection that had it has ended, notices when systemd-resolved asks other servers, and tells it or the hosts file
when the cluster has changed.

Not here: which way names go (kt_net.host.naming), what the helper does about it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from kt_net.drivers.clock import monotonic
from kt_net.errors import HostChanged, KtError
from kt_net.host.client import HostHelper
from kt_net.host.environment import look
from kt_net.host.helper import RESOLVER_MARK
from kt_net.host.naming import Environment, Hook, Naming, ResolverFile, Way, decide, digest, way_of
from kt_net.host.neighbours import Neighbours, asked_on, leader_of, neighbours_of, without_leader
from kt_net.host.resolvconf import parse_resolv_conf
from kt_net.host.routes import Route, read_routes

logger = logging.getLogger(__name__)

#: Between two looks at the file. What is new must be there twice: a program may be in the midst of writing, or the helper may have given
#: the machine its own file back while we were stopped.
LOOK_SECONDS: Final = 1.0
#: Changes of the cluster that come together are told together.
SETTLE_SECONDS: Final = 0.2
#: Taken back so often within so many seconds, the file is somebody else's.
FIGHT_TIMES: Final = 4
FIGHT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What names need: see `kt_net.host.naming.way_of`."""

    server: str
    search: tuple[str, ...]
    domains: tuple[str, ...] = ()
    everything: bool = False
    hosts: Mapping[str, tuple[str, ...]] | None = None


def begin(
    helper: HostHelper, neighbours: Neighbours, *, hosts: bool = False, ours: tuple[str, ...]
) -> tuple[Naming, str]:
    """How names come to us, and the device of the connection that has the resolver file; "" when none has.

    Args:
        hosts, ours: see `kt_net.host.naming.decide`.

    Raises:
        HostRefused: there is no way; `HostChanged` when there may be one a moment later.
    """
    found = look()
    leader = "" if hosts else leader_of(found.resolv_conf or "", neighbours)
    if leader:
        before = helper.before()
        if before is None:
            raise HostChanged(f"the connection of {leader}, by which names come, is ending or only beginning")
        found = without_leader(found, before)
    return decide(found, hosts=hosts, ours=ours), leader


@dataclass(frozen=True, slots=True)
class Resolvers:
    """Who answers what is not the cluster's.

    Attributes:
        own: this machine's servers.
        neighbour: another connection's resolver, to be asked before them; "" for none.
    """

    own: tuple[str, ...]
    neighbour: str = ""


class NameKeeper:
    """Works on a thread of its own from `start` until `close`.

    Args:
        naming: how names come to us; where another connection has the resolver file, how they would without it.
        interface: our device.
        leader: the device of the connection that has the resolver file; "" when it is not another one's.
        ours: see `kt_net.host.naming.decide`.
        resolvers: told when they are others than before; on the thread.
        progress: told what users should know, a line each; on the thread.
    """

    def __init__(
        self,
        helper: HostHelper,
        naming: Naming,
        wanted: Wanted,
        *,
        interface: str,
        leader: str = "",
        ours: tuple[str, ...],
        resolvers: Callable[[Resolvers], None],
        progress: Callable[[str], None],
        environment: Callable[[], Environment] = look,
        routes: Callable[[], list[Route]] = read_routes,
    ) -> None:
        self._helper = helper
        self.naming = naming
        self.leader = leader
        self._interface = interface
        self._routes = routes
        self._wanted = wanted
        self._ours = ours
        self._resolvers = resolvers
        self._progress = progress
        self._look = environment
        self._told = Resolvers(naming.own.nameservers)
        self._way: Way | None = self.way()
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._seen_once, self._seen_at = "", 0.0
        self._taken_back: deque[float] = deque(maxlen=FIGHT_TIMES)
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="ktctl-names", daemon=True)

    def way(self) -> Way | None:
        """What the helper is to do now; None when another connection has the resolver file."""
        return None if self.leader else self._own_way()

    def _own_way(self) -> Way:
        wanted = self._wanted
        return way_of(
            self.naming,
            server=wanted.server,
            search=wanted.search,
            domains=wanted.domains,
            everything=wanted.everything,
            hosts=wanted.hosts or {},
        )

    def start(self) -> None:
        """From now on; the way is in force already."""
        self._thread.start()

    def close(self) -> None:
        """Change nothing any more; to be called before the way is undone."""
        self._closed.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(LOOK_SECONDS)

    def want(
        self, *, domains: tuple[str, ...] | None = None, hosts: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """Something of the cluster has changed. From any thread."""
        with self._lock:
            before = self._wanted
            self._wanted = replace(
                before,
                domains=before.domains if domains is None else domains,
                hosts=before.hosts if hosts is None else hosts,
            )
        self._changed.set()

    def look(self) -> None:
        """Links or routes have changed: another connection may have come or ended. From any thread."""
        self._changed.set()

    def _run(self) -> None:
        watching = self.naming.hook in (Hook.FILE, Hook.RESOLVED)
        while not self._closed.is_set():
            changed = self._changed.wait(LOOK_SECONDS if watching else None)
            if self._closed.is_set():
                return
            try:
                if self.naming.hook is Hook.FILE:
                    self._changed.clear()
                    self._look_at_file()
                    continue
                if self.naming.hook is Hook.RESOLVED:
                    self._look_at_uplinks()
                if changed:
                    self._closed.wait(SETTLE_SECONDS)
                    self._changed.clear()
                    self._tell()
            except KtError as error:
                logger.debug("names of this machine: %s", error)
            except Exception:  # top frame of the thread: what it looks at is others', and it has to look again
                logger.exception("names of this machine")
                self._closed.wait(LOOK_SECONDS)

    def _tell(self) -> None:
        if (way := self.way()) is None or way == self._way:
            return
        try:
            self._helper.change_names(way)
            self._way = way
        except KtError:
            if not self._closed.wait(LOOK_SECONDS):
                self._changed.set()  # once more
            raise

    def _look_at_file(self) -> None:
        found, neighbours = self._look(), neighbours_of(self._routes(), self._interface)
        text = found.resolv_conf or ""
        leader = leader_of(text, {**neighbours, self._interface: self._wanted.server})
        self._resolvers_are(replace(self._told, neighbour=asked_on(self._interface, leader, neighbours)))
        if leader in neighbours:
            self._follow(leader, found)
        elif isinstance(self._way, ResolverFile) and text == self._way.content:
            self._seen_once = ""
        elif text != self._seen_once:
            self._seen_once, self._seen_at = text, monotonic()
        elif monotonic() - self._seen_at >= LOOK_SECONDS:
            self._take(found)

    def _resolvers_are(self, resolvers: Resolvers) -> None:
        if resolvers != self._told:
            self._told = resolvers
            self._resolvers(resolvers)

    def _follow(self, leader: str, found: Environment) -> None:
        """Another connection has the file: leave it, and go by what this machine's resolvers are without it."""
        before = self._helper.before()
        if before is None:
            return  # it has only just taken it, or is giving it back
        self.naming = decide(without_leader(found, before), ours=self._ours)
        if leader != self.leader:
            self.leader, self._way, self._seen_once = leader, None, ""
            self._progress(f"names come by the connection of {leader} now, which asks this one too")
        self._resolvers_are(replace(self._told, own=self.naming.own.nameservers))

    def _look_at_uplinks(self) -> None:
        """systemd-resolved keeps its own file; whom it asks itself may be others in another network."""
        now = decide(self._look(), ours=self._ours)
        if now.hook is Hook.RESOLVED and now.own.nameservers != self.naming.own.nameservers:
            self.naming = now
            self._resolvers_are(Resolvers(now.own.nameservers))

    def _take(self, found: Environment) -> None:
        """The file, from whoever has written it, or from the connection that had it and has ended."""
        now = monotonic()
        fight = len(self._taken_back) == FIGHT_TIMES and now - self._taken_back[0] < FIGHT_SECONDS
        if fight:
            if not self._lost:
                self._progress(
                    "something keeps writing /etc/resolv.conf: names of the cluster do not work until it rests; "
                    "find it, or take --dns-mode hosts"
                )
            self._lost = True
            return
        if (found.resolv_conf or "").startswith(RESOLVER_MARK):
            self._helper.replay()  # a connection that died may have left it
            found = self._look()
        text = found.resolv_conf or ""
        # Whatever it looks like now (systemd-resolved may have come into it): the file goes on as it was.
        self.naming = Naming(
            Hook.FILE, decide(found, ours=self._ours).own, text, "" if found.resolv_conf is None else digest(text)
        )
        way = self._own_way()
        self._taken_back.append(now)
        before = self._helper.change_names(way)
        named = parse_resolv_conf(before).nameservers if before else self.naming.own.nameservers  # "": there was none
        servers = tuple(server for server in named if server not in self._ours)
        led, self.leader, self._way = self.leader, "", way
        self._resolvers_are(replace(self._told, own=servers))
        self._seen_once, self._lost = "", False
        if led:
            self._progress(f"the connection of {led}, by which names came, has ended: they come to this one now")
            return
        self._progress(
            f"/etc/resolv.conf was written by somebody else, now naming {' '.join(servers) or 'no server'}; "
            "taken back, and it is what comes back at the end"
        )

"""Keeps this machine's names coming to our resolver while it is connected: takes the resolver file back when somebody has written another
one, notices when systemd-resolved asks other servers, and tells it or the hosts file when the cluster has changed.

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
from kt_net.errors import KtError
from kt_net.host.client import HostHelper
from kt_net.host.environment import look
from kt_net.host.naming import Environment, Hook, Naming, ResolverFile, Way, decide, digest, way_of
from kt_net.host.resolvconf import parse_resolv_conf

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


class NameKeeper:
    """Works on a thread of its own from `start` until `close`.

    Args:
        naming: how names come to us.
        ours: see `kt_net.host.naming.decide`.
        resolvers: told the machine's own servers when they are others than before; on the thread.
        progress: told what users should know, a line each; on the thread.
    """

    def __init__(
        self,
        helper: HostHelper,
        naming: Naming,
        wanted: Wanted,
        *,
        ours: tuple[str, ...],
        resolvers: Callable[[tuple[str, ...]], None],
        progress: Callable[[str], None],
        environment: Callable[[], Environment] = look,
    ) -> None:
        self._helper = helper
        self.naming = naming
        self._wanted = wanted
        self._ours = ours
        self._resolvers = resolvers
        self._progress = progress
        self._look = environment
        self._way = self.way()
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._seen_once = ""
        self._taken_back: deque[float] = deque(maxlen=FIGHT_TIMES)
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="ktctl-names", daemon=True)

    def way(self) -> Way:
        """What the helper is to do now."""
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

    def _run(self) -> None:
        watching = self.naming.hook in (Hook.FILE, Hook.RESOLVED)
        while not self._closed.is_set():
            self._changed.wait(LOOK_SECONDS if watching else None)
            if self._closed.is_set():
                return
            try:
                if self._changed.is_set():
                    self._closed.wait(SETTLE_SECONDS)
                    self._changed.clear()
                    self._tell()
                elif self.naming.hook is Hook.FILE:
                    self._look_at_file()
                elif watching:
                    self._look_at_uplinks()
            except KtError as error:
                logger.debug("names of this machine: %s", error)

    def _tell(self) -> None:
        if self.naming.hook is Hook.FILE or (way := self.way()) == self._way:
            return
        try:
            self._helper.change_names(way)
            self._way = way
        except KtError:
            if not self._closed.wait(LOOK_SECONDS):
                self._changed.set()  # once more
            raise

    def _look_at_file(self) -> None:
        found = self._look()
        text = found.resolv_conf or ""
        if isinstance(self._way, ResolverFile) and text == self._way.content:
            self._seen_once = ""
            return
        if text != self._seen_once:
            self._seen_once = text
            return
        self._take_back(found)

    def _look_at_uplinks(self) -> None:
        """systemd-resolved keeps its own file; whom it asks itself may be others in another network."""
        now = decide(self._look(), ours=self._ours)
        if now.hook is Hook.RESOLVED and now.own.nameservers != self.naming.own.nameservers:
            self.naming = now
            self._resolvers(now.own.nameservers)

    def _take_back(self, found: Environment) -> None:
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
        text = found.resolv_conf or ""
        # Whatever it looks like now (systemd-resolved may have come into it): the file goes on as it was.
        self.naming = Naming(
            Hook.FILE, decide(found, ours=self._ours).own, text, "" if found.resolv_conf is None else digest(text)
        )
        self._way = self.way()
        self._taken_back.append(now)
        before = parse_resolv_conf(self._helper.change_names(self._way)).nameservers
        servers = tuple(server for server in before if server not in self._ours)
        self._resolvers(servers)
        self._seen_once, self._lost = "", False
        self._progress(
            f"/etc/resolv.conf was written by somebody else, now naming {' '.join(servers) or 'no server'}; "
            "taken back, and it is what comes back at the end"
        )

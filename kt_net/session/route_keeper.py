"""Keeps this machine's routes right while a connection lasts: looks when links or routes have changed and when the cluster has grown, has
the helper do what is to be done, and says so in a line.

Not here: what is to be done (kt_net.host.reroute), what is new in the cluster (growth.py).
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Final

from kt_net.addr import IPAddress, IPPrefix
from kt_net.drivers.clock import monotonic
from kt_net.errors import HelperProtocolError, KtError
from kt_net.host.client import HostHelper
from kt_net.host.reroute import ChangeRoutes, Range, Say, Situation, in_the_way, what_changed
from kt_net.host.routes import Route, read_routes

logger = logging.getLogger(__name__)

#: Seconds between two looks when nothing tells of changes: a container may forbid netlink.
LOOK_SECONDS: Final = 30.0
#: At least between two looks: somebody may remove our routes as often as we make them.
PAUSE_SECONDS: Final = 0.5
#: The same line is not said again for so long.
SAID_SECONDS: Final = 60.0


class RouteKeeper:
    """A thread of its own.

    Args:
        situation: as the plan has made it; routes as they were before it.
        holes: what must stay reached as it is, by the routes that there are now.
        progress: told a line each.
    """

    def __init__(
        self,
        helper: HostHelper,
        situation: Situation,
        *,
        interface: str,
        holes: Callable[[list[Route]], list[IPAddress]],
        progress: Callable[[str], None],
    ) -> None:
        self._helper = helper
        self._interface = interface
        self._holes = holes
        self._progress = progress
        routes = read_routes()
        ours = tuple(route for route in routes if route.interface == interface)
        #: As it was when everything had been done. Others' routes are those that the plan knew: what came up since is news.
        self._known = dataclasses.replace(situation, routes=situation.routes + ours)
        self._grown: list[Range] = []
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ktctl-routes", daemon=True)

    def start(self) -> None:
        """Look now, and from now on."""
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """Change nothing any more; what is being changed is waited for."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self, why: str) -> None:
        """Something may be different. From any thread."""
        logger.debug("%s: looking at routes", why)
        self._wake.set()

    def grow(self, kind: str, prefixes: list[IPPrefix]) -> None:
        """The cluster has ranges that it had not. From any thread."""
        with self._lock:
            self._grown += [Range(kind, prefix) for prefix in prefixes]
        self._wake.set()

    def routed(self) -> tuple[IPPrefix, ...]:
        """What is to be routed to the device now."""
        return tuple(self._known.wanted())

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                self._look()
            except HelperProtocolError as error:
                self._say(f"routes stay as they are: {error.why or error}")
            except KtError as error:
                logger.debug("looking at routes: %s", error)  # the helper has ended, which others notice
            except Exception:  # top frame of the thread: what it looks at is others', and it has to look again
                logger.exception("looking at routes")
            self._closing.wait(PAUSE_SECONDS)

    def _look(self) -> None:
        before, routes = self._known, read_routes()
        after = dataclasses.replace(
            before,
            ranges=(*before.ranges, *self._accepted(routes)),
            holes=frozenset(self._holes(routes)),
            routes=tuple(routes),
        )
        trouble = changed = False
        for action in what_changed(before, after, interface=self._interface):
            if isinstance(action, Say):
                if not trouble:
                    self._say(action.text)
            elif isinstance(action, ChangeRoutes):
                said = self._helper.route(action.add, action.remove)
                changed, routes = True, read_routes()
                missing = set(action.add) - dataclasses.replace(after, routes=tuple(routes)).present(self._interface)
                if missing:
                    trouble = True
                    why = said.partition("\n")[0]
                    self._say(f"no route to {', '.join(map(str, sorted(missing, key=str)))}: {why}")
        self._known = dataclasses.replace(after, routes=tuple(routes)) if changed else after

    def _accepted(self, routes: list[Route]) -> list[Range]:
        """New ranges, but not those that would take addresses away from this machine."""
        with self._lock:
            grown, self._grown = self._grown, []
        accepted = []
        for one in grown:
            route = in_the_way(one.prefix, routes, self._interface)
            if route is None:
                accepted.append(one)
            else:
                self._say(f"{one.kind} {one.prefix} is new; not routed: {route.prefix} is {route.interface}'s already")
        return accepted

    def _say(self, text: str) -> None:
        now = monotonic()
        self._said = {line: when for line, when in self._said.items() if now - when < SAID_SECONDS}
        if text not in self._said:
            self._said[text] = now
            self._progress(text)

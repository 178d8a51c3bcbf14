"""Where a target is, kept current: what its listeners are told, and what users are.

Not here: what a target is (forward_target.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from kt_net.drivers.loop import Loop
from kt_net.errors import ApiUnreachable, PermissionMissing
from kt_net.forward.places import Part, Places, places
from kt_net.forward.ports import Forward
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.follow import Followed, Key
from kt_net.session.forward_target import Destination

#: For the first list.
FIRST_SECONDS: Final = 15.0

#: One for each `Forward`, in order.
Told = Callable[[Places], None]


class Follower:
    """Follows from the start; a Destination that does not change is told once.

    Args:
        told: called on the loop's thread, each with the places of its port.
        progress: a line for the user when nothing takes connections any more, and when something does again.
    """

    def __init__(
        self,
        api: HttpKubeApi,
        namespace: str,
        destination: Destination,
        forwards: Sequence[Forward],
        told: Sequence[Told],
        *,
        loop: Loop,
        progress: Callable[[str], None],
    ) -> None:
        self._destination = destination
        self._forwards = forwards
        self._told = told
        self._loop = loop
        self._progress = progress
        self._known = threading.Event()
        self._refused = False
        #: Whether the last word was that something takes connections.
        self._there = True
        self._followed: Followed[Part] | None = None
        watch = destination.watch
        if watch is None:
            self._changed({("", ""): destination.fixed})
            return
        self._followed = Followed(
            api,
            watch.kind,
            namespace,
            self._changed,
            keep=watch.keep,
            refused=self._not_allowed,
            selector=watch.selector,
            fields=watch.fields,
        )

    def wait_known(self) -> None:
        """Until it is known where the target is.

        Raises:
            PermissionMissing: it may not be read.
            ApiUnreachable: nobody said in time.
        """
        kind = self._destination.watch.kind if self._destination.watch is not None else ""
        if not self._known.wait(FIRST_SECONDS):
            raise ApiUnreachable(f"cannot list {kind}s", why=f"no answer in {FIRST_SECONDS:.0f} s")
        if self._refused:
            raise PermissionMissing(f"no permission to list and watch {kind}s, to follow {self._destination.target}")

    def close(self) -> None:
        """Follow no more."""
        if self._followed is not None:
            self._followed.close()

    def _not_allowed(self) -> None:
        if self._known.is_set():
            self._progress(f"{self._destination.target} is not followed any more: no permission")
        self._refused = True
        self._known.set()

    def _changed(self, kept: Mapping[Key, Part]) -> None:
        parts = list(kept.values())
        found = [places(parts, forward.wanted, forward.protocol) for forward in self._forwards]
        for tell, known in zip(self._told, found, strict=True):
            self._loop.call_soon(partial(tell, known))
        there = any(known.ready for known in found)
        if there is not self._there:
            self._there = there
            words = "takes connections again" if there else f"{self._destination.absent}; connections are reset"
            self._progress(f"{self._destination.target}: {words}")
        self._known.set()

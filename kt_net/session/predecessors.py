"""Shadow pods of a session that lead nowhere any more, and whose objects are still there.

They have to go: an agent that still runs would take the session for dead, for nobody renews its Lease, and everybody else would, too.

Not here: which one leads somewhere (engine.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kt_net.errors import KtError
from kt_net.kube.api import KubeApi
from kt_net.kube.run import undo_sequence
from kt_net.kube.shadow import Shadow


class Predecessors:
    """All of them, first come first. Any thread."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._left: list[Shadow] = []
        self._lock = threading.Lock()

    def add(self, shadow: Shadow) -> None:
        """It leads nowhere any more."""
        with self._lock:
            self._left.append(shadow)

    def remove(self, before: Callable[[], None] = lambda: None) -> list[KtError]:
        """Remove what belongs to them; what could not be. That one stays and comes again with the next call.

        Args:
            before: called before each; what it raises is raised, and nothing is removed.
        """
        failed: list[KtError] = []
        with self._lock:
            for shadow in list(self._left):
                before()
                refused = undo_sequence(self._api, shadow.sequence)
                failed += refused
                if not refused:
                    self._left.remove(shadow)
        return failed

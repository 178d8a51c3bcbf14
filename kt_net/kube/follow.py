"""The names of a kind's objects, or other words in them, kept current by a watch on a thread of its own (Kubernetes doc, "Efficient
detection of changes").

Not here: what they are used for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from kt_net.errors import KtError, ObjectMissing, PermissionMissing
from kt_net.kube.api import HttpKubeApi, Object, WatchEnd

logger = logging.getLogger(__name__)

#: Of one watch; the API server ends it sooner or later anyway.
WATCH_SECONDS: Final = 300.0
#: A watch that lasts so long has worked.
STEADY_SECONDS: Final = 5.0
#: Between two attempts, at first and at most.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0


def name_of(found: Object) -> tuple[str]:
    """The name of an object."""
    return (str(found["metadata"]["name"]),)


class Followed:
    """Follows until closed, or until it turns out that it may not.

    Args:
        namespace: of the objects; None for kinds that have none.
        changed: told all words of all objects, at the start and at each change; on the thread.
        words: those of one object; only they are kept.
        refused: told that it may not, or that there is no such kind, when it ends because of that; on the thread.
    """

    def __init__(
        self,
        api: HttpKubeApi,
        kind: str,
        namespace: str | None,
        changed: Callable[[frozenset[str]], None],
        *,
        words: Callable[[Object], Iterable[str]] = name_of,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._kind = kind
        self._namespace = namespace
        self._changed = changed
        self._words = words
        self._refused = refused
        self._closed = threading.Event()
        self._watch_end = WatchEnd()
        self.thread = threading.Thread(target=self._run, name=f"ktctl-{kind}", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End; the thread is not waited for."""
        self._closed.set()
        self._watch_end.end()

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                self._follow()
                if time.monotonic() - began > STEADY_SECONDS:
                    pause = FIRST_PAUSE
                    continue
            except (PermissionMissing, ObjectMissing) as error:
                logger.debug("not following %ss: %s", self._kind, error)
                self._refused()
                return
            except KtError as error:
                logger.debug("following %ss: %s", self._kind, error)
            except Exception as error:  # noqa: BLE001 - top frame of the thread; a response that is cut raises what it likes
                logger.debug("following %ss: %r", self._kind, error)
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _follow(self) -> None:
        """One list and one watch from there."""
        listed, version = self._api.list_at(self._kind, self._namespace, self._part)
        known = dict(listed)
        told = frozenset[str]().union(*known.values())
        self._changed(told)
        for event, found in self._api.watch(
            self._kind, self._namespace, since=version, seconds=WATCH_SECONDS, opened=self._watch_end.opened
        ):
            if event == "ERROR":
                return  # usually 410: what we know is too old; from the beginning
            name, words = self._part(found)
            before = known.pop(name, frozenset())
            if event != "DELETED":
                known[name] = words
                if words <= told and before <= words:
                    continue
            elif not before:
                continue
            now = frozenset[str]().union(*known.values())
            if now != told:
                told = now
                self._changed(told)

    def _part(self, found: Object) -> tuple[str, frozenset[str]]:
        return str(found["metadata"]["name"]), frozenset(self._words(found))

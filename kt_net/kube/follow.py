"""What is needed of a kind's objects, kept current by a watch on a thread of its own (Kubernetes doc, "Efficient detection of changes").

Not here: what they are used for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, TypeVar

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


Kept = TypeVar("Kept")
#: Namespace ("" for kinds that have none) and name of an object.
Key = tuple[str, str]


class Followed(Generic[Kept]):
    """Follows until closed, or until it turns out that it may not.

    Args:
        namespace: of the objects; None for all, and for kinds that have none.
        changed: told what is kept of each object, at the start and at each change; on the thread.
        keep: what is needed of an object.
        rather: the namespace to be content with where all may not be followed.
        refused: told when nothing may be followed; on the thread.
        selector: on labels; "" for all objects.
        fields: a selector on fields; "" for all objects.
    """

    def __init__(
        self,
        api: HttpKubeApi,
        kind: str,
        namespace: str | None,
        changed: Callable[[Mapping[Key, Kept]], None],
        *,
        keep: Callable[[Object], Kept],
        rather: str | None = None,
        refused: Callable[[], None] = lambda: None,
        selector: str = "",
        fields: str = "",
    ) -> None:
        self._api = api
        self._kind = kind
        self._namespace = namespace
        self._changed = changed
        self._keep = keep
        self._rather = rather
        self._refused = refused
        self._selector = selector
        self._fields = fields
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
                if self._namespace is None and self._rather is not None:
                    self._namespace = self._rather
                    continue
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
        listed, version = self._api.list_at(
            self._kind, self._namespace, self._part, selector=self._selector, fields=self._fields
        )
        kept = dict(listed)
        self._changed(dict(kept))
        for event, found in self._api.watch(
            self._kind,
            self._namespace,
            selector=self._selector,
            fields=self._fields,
            since=version,
            seconds=WATCH_SECONDS,
            opened=self._watch_end.opened,
        ):
            if event == "ERROR":
                return  # usually 410: what we know is too old; from the beginning
            key, now = self._part(found)
            if event in ("ADDED", "MODIFIED"):
                if key in kept and kept[key] == now:
                    continue
                kept[key] = now
            elif event == "DELETED" and key in kept:
                del kept[key]
            else:
                continue
            self._changed(dict(kept))

    def _part(self, found: Object) -> tuple[Key, Kept]:
        metadata = found["metadata"]
        return (str(metadata.get("namespace", "")), str(metadata["name"])), self._keep(found)


def name_of(found: Object) -> tuple[str]:
    """The name of an object."""
    return (str(found["metadata"]["name"]),)


class FollowedWords(Followed[frozenset[str]]):
    """Follows words in objects, names unless told otherwise, whichever object has them.

    Args:
        changed: told all words of all objects, at the start and when there are others; on the thread.
        words: those of one object.
        refused: see `Followed`.
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
        self._told: frozenset[str] | None = None
        self._tell = changed
        super().__init__(api, kind, namespace, self._union, keep=lambda found: frozenset(words(found)), refused=refused)

    def _union(self, kept: Mapping[Key, frozenset[str]]) -> None:
        words = frozenset[str]().union(*kept.values())
        if words != self._told:
            self._told = words
            self._tell(words)

"""Waits until something is seen on watches.

Not here: what is waited for (shadow.py, guest.py).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kt_net.errors import ApiUnreachable, KtError, RequestRefused, ShadowFailed
from kt_net.kube.api import HttpKubeApi, Object, WatchEnd

Found = TypeVar("Found")
#: Before a watch that ended is begun again.
AGAIN_SECONDS: Final = 0.5
#: After these it may answer again.
TRANSIENT: Final = (ApiUnreachable, RequestRefused)
#: How often it is looked whether anybody still wants it.
LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at.

    Attributes:
        needed: without the right to watch it nothing can be waited for; else we only explain less.
        gone: what its deletion means, where that ends the waiting.
    """

    kind: str
    selector: str = ""
    fields: str = ""
    needed: bool = True
    gone: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long.

    Attributes:
        seconds: at the most.
        clock: monotonic seconds.
        given_up: set: nobody wants it any more.
    """

    seconds: float
    clock: Callable[[], float]
    given_up: threading.Event = field(default_factory=threading.Event)


def watch_until(
    api: HttpKubeApi,
    namespace: str,
    watched: Sequence[Watched],
    judge: Callable[[str, Object], tuple[Found | None, str]],
    patience: Patience,
    *,
    late: str,
    last: str,
) -> Found:
    """What `judge` finds first.

    Args:
        judge: of a kind and an object: what was waited for, and what the object says of itself; what it raises is raised.
        late: what is said at the end.
        last: why, when nothing has said anything.

    Raises:
        ShadowFailed: nothing until the end, or it is gone.
        KtError: what is needed may not be watched.
    """
    seen: queue.Queue[_Seen] = queue.Queue()
    watches = [_Watch(api, one, namespace, patience, seen) for one in watched]
    end = patience.clock() + patience.seconds
    try:
        while (left := end - patience.clock()) > 0 and not patience.given_up.is_set():
            try:
                source, item = seen.get(timeout=min(left, LOOK_SECONDS))
            except queue.Empty:
                continue
            if isinstance(item, KtError):
                if source.needed and not isinstance(item, TRANSIENT):
                    raise item
                last = str(item) if source.needed else last
            else:
                found, said = judge(source.kind, item)
                if found is not None:
                    return found
                last = said or last
    finally:
        for watch in watches:
            watch.close()
    if patience.given_up.is_set():
        raise ShadowFailed(f"{late}, and is not waited for any more", why=last)
    raise ShadowFailed(f"{late} within {patience.seconds:g} s", why=last)


_Seen = tuple[Watched, Object | KtError]


class _Watch:
    """One, on a thread of its own; begun again when it ends, for it may be cut at any time."""

    def __init__(
        self, api: HttpKubeApi, watched: Watched, namespace: str, patience: Patience, seen: queue.Queue[_Seen]
    ) -> None:
        self._api = api
        self._watched = watched
        self._namespace = namespace
        self._seconds = patience.seconds
        self._seen = seen
        self._closed = threading.Event()
        self._end = WatchEnd()
        threading.Thread(target=self._run, name=f"watch-{watched.kind}", daemon=True).start()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._look()
            except TRANSIENT as error:
                self._seen.put((self._watched, error))
            except KtError as error:
                self._seen.put((self._watched, error))
                return
            except Exception as error:  # noqa: BLE001 - top frame of the thread; a response that is cut raises what it likes
                self._seen.put(
                    (self._watched, ApiUnreachable(f"the watch on {self._watched.kind}s broke", why=str(error)))
                )
            self._closed.wait(AGAIN_SECONDS)

    def _look(self) -> None:
        """One watch. Without a version to begin behind, what is there comes first."""
        one = self._watched
        for event, found in self._api.watch(
            one.kind,
            self._namespace,
            selector=one.selector,
            fields=one.fields,
            seconds=self._seconds,
            opened=self._end.opened,
        ):
            if event == "ERROR":
                return
            if event != "DELETED":
                self._seen.put((one, found))
            elif one.gone:
                self._seen.put((one, ShadowFailed(one.gone)))

    def close(self) -> None:
        """End it."""
        self._closed.set()
        self._end.end()

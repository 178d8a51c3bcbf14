"""Waits until something is seen on watches.

Not here: what is waited for (shadow.py, guest.py).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kt_net.errors import KtError, ShadowFailed
from kt_net.kube.api import HttpKubeApi, Object, WatchEnd

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at.

    Attributes:
        needed: without the right to watch it nothing can be waited for; else we only explain less.
    """

    kind: str
    selector: str = ""
    fields: str = ""
    needed: bool = True


def watch_until(
    api: HttpKubeApi,
    namespace: str,
    watched: Sequence[Watched],
    judge: Callable[[str, Object], tuple[Found | None, str]],
    *,
    deadline_s: float,
    clock: Callable[[], float],
    late: str,
    last: str,
) -> Found:
    """What `judge` finds first.

    Args:
        judge: of a kind and an object: what was waited for, and what the object says of itself; what it raises is raised.
        late: what is said at the deadline.
        last: why, when nothing has said anything.

    Raises:
        ShadowFailed: nothing until the deadline.
        KtError: a watch that is needed broke.
    """
    seen: queue.Queue[tuple[Watched, Object | KtError]] = queue.Queue()
    watches = [_Watch(api, one, namespace, deadline_s, seen) for one in watched]
    end = clock() + deadline_s
    try:
        while (left := end - clock()) > 0:
            try:
                source, item = seen.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(item, KtError):
                if source.needed:
                    raise item
                continue
            found, said = judge(source.kind, item)
            if found is not None:
                return found
            last = said or last
    finally:
        for watch in watches:
            watch.close()
    raise ShadowFailed(f"{late} within {deadline_s:g} s", why=last)


class _Watch:
    """One, on a thread of its own."""

    def __init__(
        self,
        api: HttpKubeApi,
        watched: Watched,
        namespace: str,
        seconds: float,
        seen: queue.Queue[tuple[Watched, Object | KtError]],
    ) -> None:
        self._end = WatchEnd()

        def run() -> None:
            try:
                for _, seen_object in api.watch(
                    watched.kind,
                    namespace,
                    selector=watched.selector,
                    fields=watched.fields,
                    seconds=seconds,
                    opened=self._end.opened,
                ):
                    seen.put((watched, seen_object))
            except KtError as error:
                seen.put((watched, error))
            except Exception as error:  # noqa: BLE001 - top frame of the thread; a closed response raises what it likes
                if not self._end.wanted:
                    seen.put((watched, ShadowFailed(f"the watch on {watched.kind}s broke", why=str(error))))

        threading.Thread(target=run, name=f"watch-{watched.kind}", daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._end.end()

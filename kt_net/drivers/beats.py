"""Something that is to be said again and again, by the thread of the loop: as long as it is said, the loop turns.

Not here: what is said.
"""

from __future__ import annotations

from collections.abc import Callable

from kt_net.drivers.loop import Loop


class Beats:
    """A part of the loop.

    Args:
        beat: called at once, and then every `seconds`; must not block.
    """

    def __init__(self, loop: Loop, beat: Callable[[], None], *, seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._next = loop.now()
        loop.add(self)

    def pump(self, *, now: float) -> None:
        """Nothing to move."""

    def next_timer(self) -> float | None:
        """See `Part`."""
        return self._next

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        if now >= self._next:
            self._next = now + self._seconds
            self._beat()

"""Which place a connection goes to: one with the fewest, in turn among equals.

Not here: connecting; what is ready (places.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

from kt_net.forward.places import Place, Places

#: Places that one connection is tried at.
MAX_TRIES: Final = 8


class Choice:
    """The places of one forwarded port, and how many connections each has."""

    def __init__(self, known: Places = Places()) -> None:  # noqa: B008 - frozen
        self._known = known
        self._open: Counter[Place] = Counter()
        #: When a place was last chosen, by counting choices.
        self._chosen: dict[Place, int] = {}
        self._choices = 0

    @property
    def ready(self) -> tuple[Place, ...]:
        """Where new connections may go."""
        return self._known.ready

    def replace(self, known: Places) -> None:
        """What is there has changed."""
        self._known = known
        self._chosen = {place: when for place, when in self._chosen.items() if place in known.present}

    def lost(self, place: Place) -> bool:
        """Whether it is not there any more."""
        return place not in self._known.present

    def choose(self, tried: Collection[Place] = ()) -> Place | None:
        """A ready place that was not tried; None when there is none, or enough were. `closed` gives it back."""
        left = [place for place in self._known.ready if place not in tried]
        if not left or len(tried) >= MAX_TRIES:
            return None
        place = min(left, key=lambda one: (self._open[one], self._chosen.get(one, 0)))
        self._choices += 1
        self._chosen[place] = self._choices
        self._open[place] += 1
        return place

    def closed(self, place: Place) -> None:
        """A connection to it has ended."""
        self._open[place] -= 1
        if self._open[place] <= 0:
            del self._open[place]

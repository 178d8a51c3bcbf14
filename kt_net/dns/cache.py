"""Answers that are kept as long as they say, under the octets of the question: what was asked with other flags, options or letters is
another question, so that nobody gets an answer that was meant for somebody else.

Not here: which answers are kept (resolver.py), how long one says (messages.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kt_net.dns.messages import aged, ttl_offsets

#: Octets of all answers together, with what holding one costs; the oldest go first.
MAX_OCTETS: Final = 4 * 1024 * 1024
ENTRY_OCTETS: Final = 600


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, its TTLs as old as it is.

    Attributes:
        data: under whatever id it came.
        udp_octets: how many the asker takes over UDP.
    """

    data: bytes
    udp_octets: int


@dataclass(slots=True)
class _Entry:
    data: bytes
    udp_octets: int
    ttls: tuple[int, ...]
    since: float
    until: float


class Cache:
    """See the module.

    Args:
        longest: seconds that an answer is kept at most; 0 keeps nothing.
    """

    def __init__(self, *, longest: float) -> None:
        self._longest = longest
        self._entries: dict[bytes, _Entry] = {}
        self._octets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, question: bytes, *, now: float) -> Kept | None:
        """The answer to `question` (a message without its id), if one is kept."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        if entry.until <= now:
            self._drop(question)
            return None
        return Kept(aged(entry.data, entry.ttls, int(now - entry.since)), entry.udp_octets)

    def keep(self, question: bytes, answer: bytes, *, udp_octets: int, seconds: float, now: float) -> None:
        """Keep `answer`, a whole message, for at most `seconds`.

        Raises:
            MalformedMessage: it is none.
        """
        seconds = min(seconds, self._longest)
        if seconds <= 0:
            return
        if question in self._entries:
            self._drop(question)
        ttls = tuple(ttl_offsets(answer))
        self._entries[question] = _Entry(answer, udp_octets, ttls, now, now + seconds)
        self._octets += len(question) + len(answer) + ENTRY_OCTETS
        while self._octets > MAX_OCTETS:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """What was true may be so no more."""
        self._entries.clear()
        self._octets = 0

    def _drop(self, question: bytes) -> None:
        entry = self._entries.pop(question)
        self._octets -= len(question) + len(entry.data) + ENTRY_OCTETS

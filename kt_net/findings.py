"""What a check found: the words in which `doctor`'s judgements speak, on whatever floor they are made. Quiet.

Not here: checks; printing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How it is.

    `skipped`: nobody could look, and `found` says why. That is not the same as fine.
    """

    ok = "ok"
    warning = "warning"
    problem = "problem"
    skipped = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of one check.

    Attributes:
        check: which one, a word that scripts may rely on.
        found: what was seen, without a final dot.
        next_step: what the user can do about it; "" when there is nothing to do.
    """

    check: str
    level: Level
    found: str
    next_step: str = ""


def ok(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check, Level.ok, found)


def warning(check: str, found: str, next_step: str) -> Finding:
    """It works, with less than there could be, or not for long."""
    return Finding(check, Level.warning, found, next_step)


def problem(check: str, found: str, next_step: str) -> Finding:
    """`connect` fails by it, or programs do."""
    return Finding(check, Level.problem, found, next_step)


def skipped(check: str, why: str, next_step: str = "") -> Finding:
    """Not looked at."""
    return Finding(check, Level.skipped, why, next_step)

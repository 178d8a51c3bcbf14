"""Kubernetes' quantities ("500m", "64Mi", "1e3") as exact numbers (Kubernetes doc, "Quantity"). Pure.

Not here: what is counted.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_QUANTITY: Final = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?\Z")
_MOST_LETTERS: Final = 64
_SUFFIXES: Final[dict[str, Fraction]] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{suffix: Fraction(10 ** (3 * power)) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}


def parse_quantity(text: str) -> Fraction | None:
    """The number; None when it is no quantity."""
    match = _QUANTITY.match(text) if len(text) <= _MOST_LETTERS else None
    if match is None:
        return None
    number, suffix, exponent = match.groups()
    return Fraction(number) * (_SUFFIXES[suffix] if suffix else Fraction(10) ** int(exponent or 0))

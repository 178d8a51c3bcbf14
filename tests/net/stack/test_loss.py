"""Losses and reordering of whole packets, between a real kernel and the stack: everything arrives, and is what was sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.net.namespaces import run_inside
from tests.net.stack.lossy import path, transfer


def both_ways(percent: float, octets: int) -> list[list[float | bool]]:
    with path("ours", percent, 0.001):
        return [list(transfer(upload, octets)) for upload in (True, False)]


@pytest.mark.parametrize(("percent", "octets"), [(1, 16 << 20), (3, 8 << 20), (10, 2 << 20)])
def test_transfers_through_a_broken_path(tmp_path: Path, percent: float, octets: int, long: bool) -> None:
    """`--long`: 64 MiB each way."""
    wanted = 64 << 20 if long else octets
    for moved, _, equal in run_inside(both_ways, tmp_path, percent, wanted, seconds=3600):
        assert (moved, equal) == (wanted, True)

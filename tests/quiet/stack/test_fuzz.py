"""Mutated packets against live conversations: nothing is raised, nothing is kept, nothing spins. 100,000; `--long`: 5,000,000."""

from __future__ import annotations

import gc
import sys

import pytest

from tests.quiet.stack.fuzz import Fuzz

SEEDS = 4
#: A round begins with an empty stack and ends with one.
ROUND = 2_500
#: Objects that may differ between two rounds: free lists, counters that grew beyond small integers.
SLACK = 200


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_mutated_packets(seed: int, offload: bool, long: bool) -> None:
    wanted = (5_000_000 if long else 100_000) // (2 * SEEDS)
    fuzz = Fuzz(seed, offload=offload)
    blocks = []
    while fuzz.mutated < wanted:
        until = fuzz.mutated + ROUND
        while fuzz.mutated < until:
            fuzz.step()
            if not fuzz.mutated % 64:
                fuzz.check()
        fuzz.settle()
        stats = fuzz.stack.stats(now=fuzz.now)
        assert (stats.tcp_flows, stats.datagram_flows, len(fuzz.stack._ingress._reassembly)) == (0, 0, 0)
        assert fuzz.stack.next_timer() is None
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    assert fuzz.emitted > wanted // 10  # the conversations were alive
    # The first rounds fill caches (virtio-net headers, compiled structures).
    assert blocks[-1] <= min(blocks[1:3]) + SLACK + len(blocks), blocks

"""The table is total, and says what yamux says."""

from __future__ import annotations

import pytest

from kt_net.errors import StreamClosed
from kt_net.tunnel.states import TRANSITIONS, StateHolder, StreamInput, StreamState


def test_every_state_has_a_row_and_is_reachable() -> None:
    assert set(TRANSITIONS) == set(StreamState)
    reached = {StreamState.OPEN} | {following for row in TRANSITIONS.values() for following in row.values()}
    assert reached == set(StreamState)


@pytest.mark.parametrize("state", StreamState)
@pytest.mark.parametrize("happened", StreamInput)
def test_a_move_follows_the_table_or_is_refused(state: StreamState, happened: StreamInput) -> None:
    holder = StateHolder()
    holder.state = state
    if happened in TRANSITIONS[state]:
        holder.move(happened)
        assert holder.state is TRANSITIONS[state][happened]
    else:
        with pytest.raises(StreamClosed):
            holder.move(happened)

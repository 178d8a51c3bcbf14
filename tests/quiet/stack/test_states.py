"""The table of a connection's states: total, every state reachable, and drawn in the documentation as it is.

`python -m tests.quiet.stack.test_states` draws it anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kt_net.errors import StreamClosed
from kt_net.stack.tcp.states import TRANSITIONS, Input, State, StateHolder

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "tcp-states.md"


def drawn() -> str:
    """The page."""
    lines = [
        "# States of a TCP connection",
        "",
        "Drawn from `kt_net/stack/tcp/states.py` by `tests/quiet/stack/test_states.py`, which fails when the two differ.",
        "PENDING is ours: the program's SYN waits until the far side has connected (or our own `open` is about to be sent).",
        "LISTEN is missing: every address in the captured ranges listens.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> PENDING: SYN received, or open",
    ]
    for state, moves in TRANSITIONS.items():
        for happened, following in moves.items():
            lines.append(f"    {_name(state)} --> {_name(following)}: {happened.value}")
    lines += ["    CLOSED --> [*]", "```", "", "| in | happens | then |", "|---|---|---|"]
    for state, moves in TRANSITIONS.items():
        lines += [f"| {state.value} | {happened.value} | {following.value} |" for happened, following in moves.items()]
    return "\n".join(lines) + "\n"


def _name(state: State) -> str:
    return state.value.replace("-", "_")


def test_the_page_is_still_true() -> None:
    assert PAGE.read_text() == drawn()


def test_the_table_is_total_and_every_state_is_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {State.PENDING}
    while more := {following for state in reached for following in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(State)
    assert TRANSITIONS[State.CLOSED] == {}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("happened", Input)
def test_moves_follow_the_table(state: State, happened: Input) -> None:
    holder = StateHolder()
    holder.state = state
    following = TRANSITIONS[state].get(happened)
    if following is None:
        with pytest.raises(StreamClosed):
            holder.move(happened)
        assert holder.state is state
    else:
        holder.move(happened)
        assert holder.state is following


def test_nobody_else_assigns_a_state() -> None:
    for file in (ROOT / "kt_net" / "stack").rglob("*.py"):
        if file.name != "states.py":
            assert not re.search(r"\.state = ", file.read_text()), file


if __name__ == "__main__":
    PAGE.write_text(drawn())

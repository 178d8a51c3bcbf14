"""Which place a connection goes to."""

from __future__ import annotations

from collections import Counter

import pytest

from kt_net.forward.choice import MAX_TRIES, Choice
from kt_net.forward.places import Place, Places

A, B, C = (Place(f"10.0.0.{number}", 80, f"u{number}") for number in range(3))


def known(*ready: Place, gone: tuple[Place, ...] = ()) -> Places:
    return Places(ready, frozenset((*ready, *gone)))


@pytest.mark.parametrize(
    ("ready", "steps", "wanted"),
    [
        ((), "c", [None]),
        ((A,), "ccc", [A, A, A]),
        ((A, B, C), "cccccc", [A, B, C, A, B, C]),  # in turn
        ((A, B, C), "cccbc", [A, B, C, B]),  # the one with fewer
        ((A, B, C), "cacaca", [A, B, C]),  # in turn as well when each is over before the next
    ],
)
def test_table(ready: tuple[Place, ...], steps: str, wanted: list[Place | None]) -> None:
    """c: choose; a, b: a connection to that place (a: the last chosen) ends."""
    choice, chosen = Choice(known(*ready)), list[Place | None]()
    for step in steps:
        if step == "c":
            chosen.append(choice.choose())
        elif step == "b":
            choice.closed(B)
        elif (last := chosen[-1]) is not None:
            choice.closed(last)
    assert chosen == wanted


def test_another_one_for_each_try_and_then_no_more() -> None:
    many = [Place("10.0.1.1", number, "") for number in range(MAX_TRIES + 5)]
    for ready, most in (((A, B, C), 3), (tuple(many), MAX_TRIES)):
        choice, tried = Choice(known(*ready)), set[Place]()
        while (place := choice.choose(tried)) is not None:
            choice.closed(place)
            assert place not in tried
            tried.add(place)
        assert len(tried) == most


def test_what_comes_and_goes() -> None:
    choice = Choice(known(A, B))
    assert [choice.choose() for _ in range(4)] == [A, B, A, B]
    choice.replace(known(B, C, gone=(A,)))  # A drains
    assert not choice.lost(A)
    assert [choice.choose() for _ in range(2)] == [C, C]
    choice.replace(known(B, C))
    assert choice.lost(A)
    choice.closed(A)
    choice.closed(A)
    assert Counter(choice.choose() for _ in range(4)) == {B: 2, C: 2}
    choice.replace(known())
    assert choice.choose() is None
    assert choice.ready == ()


def test_an_address_that_came_back_is_another_place() -> None:
    again = Place(A.address, A.port, "later")
    choice = Choice(known(A))
    assert choice.choose() == A
    choice.replace(known(again))
    assert choice.lost(A)
    assert choice.choose() == again

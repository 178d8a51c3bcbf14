"""Shadow pods that were replaced: their objects go, at the second attempt when the first one fails."""

from __future__ import annotations

import pytest

from kt_net.choreography.shadow import ShadowOptions, shadow_steps
from kt_net.choreography.steps import Sequence
from kt_net.errors import KtError, RequestRefused, ShadowFailed
from kt_net.kube.run import run_sequence
from kt_net.kube.shadow import Shadow
from kt_net.session.predecessors import Predecessors
from tests.conformance.fake_api import FakeApi


def shadow(api: FakeApi, name: str) -> Shadow:
    options = ShadowOptions(name, "shop", "image", b"agent", "ann", "a" * 20, "2026-01-02T03:04:05Z", 0)
    sequence = Sequence(shadow_steps(options))
    run_sequence(api, sequence)
    return Shadow(f"{name}-pod", options, sequence)


def jobs(api: FakeApi) -> list[str]:
    return [name for kind, _, name in api.objects() if kind == "Job"]


def test_what_cannot_be_removed_comes_again() -> None:
    api = FakeApi()
    found = Predecessors(api)
    for name in ("first", "second"):
        found.add(shadow(api, name))

    def refuse(verb: str, kind: str, name: str) -> None:
        if (verb, kind, name) == ("delete", "Job", "first"):
            raise RequestRefused("not now", why="429")

    api.before = refuse
    told: list[int] = []
    (failed,) = found.remove(lambda: told.append(1))
    assert isinstance(failed, RequestRefused)
    assert (jobs(api), len(told)) == (["first"], 2)
    api.before = lambda verb, kind, name: None
    assert found.remove(lambda: told.append(1)) == []
    assert (api.objects(), len(told)) == ([], 3)
    assert found.remove(lambda: told.append(1)) == []
    assert len(told) == 3


def test_nothing_goes_before_the_next_one_has_what_it_needs() -> None:
    api = FakeApi()
    found = Predecessors(api)
    found.add(shadow(api, "first"))

    def refuse() -> None:
        raise ShadowFailed("it has no labels yet")

    with pytest.raises(KtError, match="no labels yet"):
        found.remove(refuse)
    assert jobs(api) == ["first"]

"""Each missing permission is named, with the rule that would give it; and that rule is in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kt_net.findings import Level
from kt_net.kube.permissions import EXEC_NEEDS, PORT_FORWARD_NEEDS, SESSION_NEEDS, WISHES, Need, Wish
from kt_net.kube.reach import judge_clock
from kt_net.kube.rights import judge_needs, judge_wishes

MANIFEST = Path(__file__).parents[3] / "deploy" / "developer-role.yaml"


def rules(kind: str) -> set[tuple[str, str, str]]:
    """(verb, group, resource with its subresource) of the file."""
    (one,) = (part for part in yaml.safe_load_all(MANIFEST.read_text()) if part["kind"] == kind)
    return {
        (verb, group, resource)
        for rule in one["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def rule(need: Need) -> tuple[str, str, str]:
    return need.verb, need.group, need.resource + f"/{need.subresource}" * bool(need.subresource)


def test_needs_and_wishes_are_the_file() -> None:
    own = {rule(need) for need in SESSION_NEEDS + PORT_FORWARD_NEEDS}
    assert own | {rule(wish.need) for wish in WISHES if not wish.everywhere} == rules("Role")
    assert {rule(wish.need) for wish in WISHES if wish.everywhere} == rules("ClusterRole")


@pytest.mark.parametrize("need", SESSION_NEEDS + PORT_FORWARD_NEEDS, ids=str)
def test_each_need_is_named(need: Need) -> None:
    found = judge_needs([need, *EXEC_NEEDS], "shop")
    assert [(one.level, one.found) for one in found] == [
        (Level.problem, f"no permission to {need} in namespace shop"),
    ]
    assert "deploy/developer-role.yaml" in found[0].next_step
    assert found[0].next_step.endswith(rule(need)[2])


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: f"{wish.need} {wish.everywhere}")
def test_each_wish_is_named_with_what_is_lost(wish: Wish) -> None:
    (found,) = judge_wishes([wish], "shop")
    assert found.level is Level.warning
    assert f"{wish.need} in {'the whole cluster' if wish.everywhere else 'namespace shop'}: {wish.lost}" in found.found
    assert ("ClusterRole" in found.next_step) == wish.everywhere


def test_all_there() -> None:
    assert [one.level for one in judge_needs([], "shop")] == [Level.ok]
    assert [one.level for one in judge_needs(EXEC_NEEDS, "shop")] == [Level.ok]
    assert [one.level for one in judge_wishes([], "shop")] == [Level.ok]


def test_exec_will_do() -> None:
    (found,) = judge_needs(PORT_FORWARD_NEEDS, "shop")
    assert found.level is Level.warning
    assert "pods/exec" in found.found


def test_neither_way_to_the_pod() -> None:
    found = judge_needs(PORT_FORWARD_NEEDS + EXEC_NEEDS, "shop")
    assert [one.level for one in found] == [Level.problem] * 2


def test_what_is_lost_together_is_said_once() -> None:
    found = judge_wishes(WISHES, "shop")
    assert len(found) == len({wish.lost for wish in WISHES}) < len(WISHES)


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        (0.0, Level.ok, "as the API server's"),
        (-1.3, Level.ok, "as the API server's"),
        (20.0, Level.ok, "20 s behind"),
        (-29.0, Level.ok, "29 s ahead of"),
        (31.0, Level.warning, "31 s behind"),
        (-3600.0, Level.warning, "3600 s ahead of"),
    ],
)
def test_clock(ahead: float, level: Level, words: str) -> None:
    found = judge_clock(ahead)
    assert (found.level, words in found.found) == (level, True), found

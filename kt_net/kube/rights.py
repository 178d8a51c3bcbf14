"""What missing permissions mean, one by one, and which rule of deploy/developer-role.yaml would give them. Pure.

Not here: asking (kt_net.kube.permissions).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kt_net.findings import Finding, ok, problem, warning
from kt_net.kube.permissions import EXEC_NEEDS, PORT_FORWARD_NEEDS, SESSION_NEEDS, WISHES, Need, Wish, in_the_way

CHECK: Final = "permissions"
WISH_CHECK: Final = "optional-permissions"
FILE: Final = "deploy/developer-role.yaml"
ROLE: Final = "Role ktctl-developer"
CLUSTER_ROLE: Final = "ClusterRole ktctl-developer-reads"


def judge_needs(refused: Iterable[Need], namespace: str) -> list[Finding]:
    """What a session cannot do without; one finding for each that is missing, or one for all."""
    missing = list(refused)
    lacking = in_the_way(missing)
    found = [problem(CHECK, f"no permission to {need} in namespace {namespace}", _next(ROLE, need)) for need in lacking]
    by_exec = [need for need in missing if need in PORT_FORWARD_NEEDS and need not in lacking]
    if by_exec:
        words = " and ".join(map(str, by_exec))
        found.append(
            warning(
                CHECK,
                f"no permission to {words} in namespace {namespace}: the tunnel goes through pods/exec, which carries less",
                _next(ROLE, by_exec[0]),
            )
        )
    if not found:
        has = [*SESSION_NEEDS, *(EXEC_NEEDS if by_exec else PORT_FORWARD_NEEDS)]
        found.append(ok(CHECK, f"all that is needed in namespace {namespace}: {', '.join(map(str, has))}"))
    return found


def judge_wishes(refused: Iterable[Wish], namespace: str) -> list[Finding]:
    """What a session does without; one finding for each thing that is lost."""
    lost: dict[str, list[Wish]] = {}
    for wish in refused:
        lost.setdefault(wish.lost, []).append(wish)
    if not lost:
        return [ok(WISH_CHECK, f"all {len(WISHES)}")]
    return [
        warning(
            WISH_CHECK,
            f"no permission to {', '.join(_said(wish, namespace) for wish in wishes)}: {words}",
            _next(CLUSTER_ROLE if wishes[0].everywhere else ROLE, *(wish.need for wish in wishes)),
        )
        for words, wishes in lost.items()
    ]


def _said(wish: Wish, namespace: str) -> str:
    return f"{wish.need} in the whole cluster" if wish.everywhere else f"{wish.need} in namespace {namespace}"


def _next(role: str, *needs: Need) -> str:
    resources = " and ".join(
        dict.fromkeys(need.resource + f"/{need.subresource}" * bool(need.subresource) for need in needs)
    )
    return f"ask an administrator for the {role} of {FILE}: its rule for {resources}"

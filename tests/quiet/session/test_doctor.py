"""What a running connection's answer means, and what errors of checks mean."""

from __future__ import annotations

from typing import Any

import pytest

from kt_net.errors import ApiUnreachable, KtError, NotConnected, PermissionMissing
from kt_net.findings import Level
from kt_net.session.doctor import connected, failed, unconnected

STATS = {"device": "kt0", "cluster": "lab", "pod": "shadow"}


@pytest.mark.parametrize(
    ("answer", "devices", "level", "words"),
    [
        ({"pid": 7, "stats": None}, (), Level.ok, "process 7 is bringing one up"),
        ({}, (), Level.ok, "bringing one up"),
        (
            {"pid": 7, "stats": {**STATS, "agent": {"ping": ["ipv4"]}}},
            ("kt0",),
            Level.ok,
            "process 7, kt0, to cluster lab, pod shadow; ping sockets: ipv4",
        ),
        ({"pid": 7, "stats": {**STATS, "agent": {"ping": []}}}, ("kt0",), Level.warning, "ping"),
        ({"pid": 7, "stats": STATS}, ("kt0",), Level.ok, "ping sockets: unknown"),
        ({"pid": 7, "stats": STATS}, ("kt0", "kt1"), Level.warning, "another connection is there, too: kt1"),
    ],
)  # fmt: skip
def test_connected(answer: dict[str, Any], devices: tuple[str, ...], level: Level, words: str) -> None:
    found = connected(answer, devices)
    assert (found.level, words in found.found) == (level, True), found


def refusal(cause: BaseException) -> NotConnected:
    error = NotConnected("nothing is connected")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "devices", "level", "words"),
    [
        (FileNotFoundError(), (), Level.ok, "none"),
        (ConnectionRefusedError(), (), Level.ok, "none"),
        (ConnectionRefusedError(), ("kt0",), Level.warning, "kt0"),
        (TimeoutError(), ("kt0",), Level.problem, "does not answer"),
    ],
)
def test_unconnected(cause: BaseException, devices: tuple[str, ...], level: Level, words: str) -> None:
    found = unconnected(refusal(cause), devices)
    assert (found.level, words in found.found) == (level, True), found


@pytest.mark.parametrize(
    ("error", "level"),
    [(PermissionMissing("no permission to list leases", why="RBAC"), Level.skipped), (ApiUnreachable("gone"), Level.problem)],
)  # fmt: skip
def test_failed(error: KtError, level: Level) -> None:
    found = failed("quota", error)
    assert (found.check, found.level) == ("quota", level)
    assert error.what in found.found

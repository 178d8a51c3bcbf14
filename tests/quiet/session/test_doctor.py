"""What a running connection's answer means, and what errors of checks mean."""

from __future__ import annotations

from typing import Any

import pytest

from kt_net.errors import ApiUnreachable, KtError, NotConnected, PermissionMissing
from kt_net.findings import Level
from kt_net.session.doctor import connected, failed, strangers, unconnected

STATS = {"device": "kt0", "cluster": "lab", "pod": "shadow"}


@pytest.mark.parametrize(
    ("answer", "name", "level", "words"),
    [
        ({"pid": 7, "stats": None}, "default", Level.ok, "process 7 is bringing one up"),
        ({}, "default", Level.ok, "bringing one up"),
        (
            {"pid": 7, "stats": {**STATS, "agent": {"ping": ["ipv4"]}}},
            "default",
            Level.ok,
            "process 7, kt0, to cluster lab, pod shadow; ping sockets: ipv4",
        ),
        ({"pid": 7, "stats": {**STATS, "agent": {"ping": []}}}, "default", Level.warning, "ping"),
        ({"pid": 7, "stats": STATS}, "stage", Level.ok, "stage: process 7, kt0, to cluster lab"),
    ],
)
def test_connected(answer: dict[str, Any], name: str, level: Level, words: str) -> None:
    found = connected(answer, name)
    assert (found.level, words in found.found) == (level, True), found


def refusal(cause: BaseException) -> NotConnected:
    error = NotConnected("nothing is connected")
    error.__cause__ = cause
    return error


def test_unconnected() -> None:
    for cause in (FileNotFoundError(), ConnectionRefusedError()):
        assert unconnected(refusal(cause)) is None
    silent = unconnected(refusal(TimeoutError()), "stage")
    assert silent is not None
    assert (silent.level, "(stage) runs and does not answer" in silent.found) == (Level.problem, True)


def test_devices_of_somebody_else() -> None:
    found = strangers(("kt1", "kt3"))
    assert (found.level, found.found.startswith("kt1, kt3 are there")) == (Level.warning, True)


@pytest.mark.parametrize(
    ("error", "level"),
    [(PermissionMissing("no permission to list leases", why="RBAC"), Level.skipped), (ApiUnreachable("gone"), Level.problem)],
)  # fmt: skip
def test_failed(error: KtError, level: Level) -> None:
    found = failed("quota", error)
    assert (found.check, found.level) == ("quota", level)
    assert error.what in found.found

"""Tiers as markers, the guard of the quiet tier, and the option that chooses a cluster.

Not here: clusters (tests/cluster/conftest.py).
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

# The same examples each time: a property that fails, fails for everybody.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")

TIERS = ("quiet", "net", "cluster")
HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """--cluster and --long."""
    parser.addoption(
        "--cluster",
        choices=("lab", "kind", "kubeconfig"),
        default="lab",
        help="what the cluster tier runs on (default: lab)",
    )
    parser.addoption("--long", action="store_true", help="the same tests at full size and duration")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder is its tier."""
    for item in items:
        tier = item.path.relative_to(HERE).parts[0]
        if tier in TIERS:
            item.add_marker(getattr(pytest.mark, tier))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many of each tier passed."""
    passed = terminalreporter.stats.get("passed", [])
    counts = {tier: sum(report.nodeid.startswith(f"tests/{tier}/") for report in passed) for tier in TIERS}
    if passed:
        terminalreporter.write_line("passed by tier: " + ", ".join(f"{tier} {count}" for tier, count in counts.items()))


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the full size is wanted (`make test-long`)."""
    return bool(request.config.getoption("--long"))


def _forbidden(*args: object, **kwargs: object) -> NoReturn:
    raise AssertionError("quiet tests open no sockets, start no processes and do not sleep")


@pytest.fixture(autouse=True)
def _guard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = request.node.path.relative_to(HERE).parts[0]
    if tier == "quiet":
        monkeypatch.setattr(socket, "socket", _forbidden)
        monkeypatch.setattr(subprocess, "Popen", _forbidden)
        monkeypatch.setattr(time, "sleep", _forbidden)
    elif tier == "net" and os.geteuid() != 0:
        pytest.fail("the net tier needs root (network namespaces); `make test-quick` runs without", pytrace=False)

"""`ktctl dns` as tests use it.

Not here: what it should say.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.backend import Backend
from tests.cluster.ktctl import ktctl

#: A change in the cluster, or another connection's end, is known so many seconds later, on a busy machine.
SOON = 10.0


def asked(backend: Backend, name: str, kind: str = "A") -> list[tuple[str, str]]:
    """Who was asked for what until `name` was found, or was not."""
    code, answer = ktctl(backend, "dns", name, kind)
    assert code in (0, 20), answer
    if code:
        return []
    return [(step["who"], step["name"]) for candidate in answer["steps"] for step in candidate["trail"]]


def found(backend: Backend, name: str, kind: str = "A") -> list[str]:
    """The records of `name`, by `ktctl dns`."""
    code, answer = ktctl(backend, "dns", name, kind)
    return answer["steps"][-1]["records"] if code == 0 else []


def soon(condition: Callable[[], object]) -> bool:
    """Whether it comes true."""
    limit = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.1)
    return True


def trail(backend: Backend, name: str) -> list[str]:
    """Who is asked for a name that is not there: the text says it, the error object does not."""
    program = [str(Path(sys.executable).with_name("ktctl")), "dns", name]
    said = subprocess.run(backend.laptop_argv(program), capture_output=True, text=True, check=False).stdout
    return [line.split()[0] for line in said.splitlines() if " asked for " in line]

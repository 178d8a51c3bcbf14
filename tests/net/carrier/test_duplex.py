"""TLS read and written at once, at full speed: what has crashed and dead-locked others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.net.namespaces import run_inside

ROOT = Path(__file__).parents[3]


def interpreters() -> list[str]:
    """This one, and the newest that this machine has, on the path or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = {_version(sys.executable): sys.executable}
    for candidate in [shutil.which(f"python3.{minor}") for minor in range(12, 20)] + sorted(
        map(str, pyenv.glob("3.*/bin/python3"))
    ):
        if candidate is not None and (version := _version(candidate)) >= (3, 12):
            found.setdefault(version, candidate)
    return [sys.executable] if len(found) == 1 else [sys.executable, found[max(found)]]


def _version(python: str) -> tuple[int, ...]:
    """Of an interpreter that works and has TLS; () of another."""
    code = "import ssl, sys; print(*sys.version_info[:2])"
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return tuple(map(int, result.stdout.split())) if result.returncode == 0 else ()


def duplex(python: str, folder: str, seconds: float) -> Any:
    """In namespaces of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, "-W", "error", "-m", "tests.net.carrier.duplex", folder, str(seconds)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("python", interpreters())
def test_reading_and_writing_at_once(python: str, tmp_path: Path, long: bool) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    seconds = 600 if long else 5
    found = run_inside(duplex, tmp_path, python, str(tmp_path), seconds, seconds=seconds + 60)
    print(found)
    assert found["up"] > 0
    assert found["down"] > 0
    assert found["stall"] < 2

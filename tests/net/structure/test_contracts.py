"""The import contracts hold, and an upward import breaks them. In the net tier because it starts a process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def lint(folder: Path) -> int:
    program = str(Path(sys.executable).with_name("lint-imports"))
    return subprocess.run([program, "--no-cache"], cwd=folder, capture_output=True, check=False).returncode


def test_an_upward_import_breaks_the_contracts(tmp_path: Path) -> None:
    for folder in ("kt_net", "kt_cli", "kt_dashboard", "shadow_image"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint(tmp_path) == 0
    with open(tmp_path / "kt_net" / "wire" / "checksum.py", "a") as file:
        file.write("\nfrom kt_net.relay import relay\n")
    assert lint(tmp_path) == 1


def test_a_room_without_a_floor_breaks_the_contracts(tmp_path: Path) -> None:
    for folder in ("kt_net", "kt_cli", "kt_dashboard", "shadow_image"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "kt_net" / "misc.py").write_text("")
    assert lint(tmp_path) == 1

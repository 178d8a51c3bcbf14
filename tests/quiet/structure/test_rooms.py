"""The house rules: signs on the doors, floors that hold, licences of what is shipped."""

from __future__ import annotations

import ast
import re
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = sorted(
    path.parent
    for path in ROOT.glob("*/**/__init__.py")
    if path.parts[len(ROOT.parts)] in ("kt_net", "kt_cli", "shadow_image", "kt_dashboard")
)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.relative_to(ROOT)))
def test_every_package_has_its_sign(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert text
    assert "Not here:" in text


#: GPL and friends may judge in tests; what users get is permissive.
PERMISSIVE = re.compile(r"apache|mit|bsd|psf|python software|mpl|isc", re.IGNORECASE)


def test_licences_of_what_is_shipped() -> None:
    names = [
        re.split(r"[<>=; \[]", requirement)[0]
        for requirement in metadata.requires("ktnet") or ()
        if "extra ==" not in requirement
    ]
    assert names
    for name in names:
        info = metadata.metadata(name)
        fields = ("License-Expression", "License", "Classifier")
        said = " ".join(str(line) for field in fields for line in info.get_all(field, []))
        assert PERMISSIVE.search(said), f"{name}: {said[:200]}"


def test_scapy_is_nowhere_in_the_product() -> None:
    for folder in ("kt_net", "kt_cli", "shadow_image", "kt_dashboard"):
        for file in (ROOT / folder).rglob("*.py"):
            assert "scapy" not in file.read_text(), file


def conformance_rows() -> list[list[str]]:
    """Cells of every row of docs/conformance.md, heads left out."""
    lines = (ROOT / "docs" / "conformance.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return [row for row in rows if row[2] not in ("state", "---")]


@pytest.mark.parametrize("row", conformance_rows(), ids=lambda row: f"{row[0]} {row[1]}"[:60])
def test_conformance_rows_name_tests_that_exist(row: list[str]) -> None:
    _, _, state, tests = row
    assert re.match(r"supported|deviation: \w|not supported", state), state
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert len(named) == tests.count("`") // 2
    assert named or state.startswith("not supported")
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"

"""Connections of one user: their names, what is known of them, and that each name is one's at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kt_net.errors import AlreadyConnected, UsageFault
from kt_net.session.control import ControlServer, ask
from kt_net.session.home import Claim, check_name, connections, devices, home, is_claimed, log_file, meant


@pytest.fixture(autouse=True)
def ones_own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KT_HOME", str(tmp_path / "home"))


def test_nothing_runs() -> None:
    assert connections() == []
    assert devices() == {}
    assert meant(None) == "default"
    assert not home().exists(), "looking makes nothing"


def test_several() -> None:
    one, other = Claim(), Claim("stage")
    other.tell("kt1")
    assert connections() == ["default", "stage"]
    assert devices() == {"kt1": "stage"}
    with pytest.raises(UsageFault, match="several") as several:
        meant(None)
    assert several.value.why == "default, stage"
    assert meant("stage") == "stage"
    with pytest.raises(AlreadyConnected, match="as stage") as taken:
        Claim("stage")
    assert taken.value.why == f"by process {os.getpid()}"
    one.release()
    assert meant(None) == "stage"
    other.release()
    assert (connections(), devices(), is_claimed("stage")) == ([], {}, False)


def test_each_answers_for_itself() -> None:
    claims = [Claim(name) for name in ("default", "stage")]
    servers = [ControlServer({"who": lambda request, name=name: {"name": name}}, name) for name in ("default", "stage")]  # type: ignore[misc]
    assert [ask("who")["name"], ask("who", "stage")["name"]] == ["default", "stage"]
    for part in servers:
        part.close()
    for claim in claims:
        claim.release()


@pytest.mark.parametrize("name", ["stage", "a", "7", "a-b", "a" * 32])
def test_names(name: str) -> None:
    assert check_name(name) == name
    assert log_file(name).parent == home()


@pytest.mark.parametrize("name", ["", "A", "a.b", "../a", "-a", "a-", "a" * 33, "a/b", "a\n", "ä"])
def test_no_names(name: str) -> None:
    with pytest.raises(UsageFault):
        check_name(name)

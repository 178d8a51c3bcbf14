"""A program that is run for as long as a session lasts: its end, ours, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_net.errors import GivenBack, HostRefused, ProgramMissing, ProgramRefused
from kt_net.kube.environment import Environment
from kt_net.session.program import ProgramSession, write_files


class Around:
    """A session that lasts until it is told, or ends by itself."""

    def __init__(self, ends: Callable[[threading.Event], None] = lambda stop: None) -> None:
        self._ends = ends
        self.closed = False

    def start(self) -> None:
        pass

    def wait(self, stop: threading.Event) -> None:
        self._ends(stop)
        stop.wait()

    def close(self) -> list[str]:
        self.closed = True
        return []


def run(command: list[str], stop: threading.Event | None = None, around: Around | None = None) -> ProgramSession:
    session = ProgramSession(around or Around(), command, lambda: {"FROM_POD": "yes"})
    session.start()
    session.wait(stop or threading.Event())
    return session


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_its_end_is_the_sessions_and_its_code_too(script: str, code: int) -> None:
    assert run(["sh", "-c", script]).code == code


def test_it_has_the_environment_and_our_own(tmp_path: Path) -> None:
    file = tmp_path / "out"
    run(["sh", "-c", f'printf %s "$FROM_POD $PATH" > {file}'])
    assert file.read_text() == f"yes {os.environ['PATH']}"


def pid_of(file: Path) -> int:
    while not (file.exists() and file.read_text().strip()):
        time.sleep(0.01)
    return int(file.read_text())


def test_stopped_it_is_asked_to_end(tmp_path: Path) -> None:
    stop, file = threading.Event(), tmp_path / "pid"
    script = f"trap 'exit 3' TERM; echo $$ > {file}; while :; do sleep 0.05; done"
    threading.Timer(0.5, stop.set).start()
    session = run(["sh", "-c", script], stop)
    assert session.code == 3
    assert not Path(f"/proc/{pid_of(file)}").exists()


def test_a_session_that_ends_takes_it_along(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def given_back(stop: threading.Event) -> None:
        pid_of(file)
        raise GivenBack("taken")

    session = ProgramSession(Around(given_back), ["sh", "-c", f"echo $$ > {file}; exec sleep 100"], dict)
    with pytest.raises(GivenBack):
        session.wait(threading.Event())
    assert session.code == 128 + signal.SIGTERM
    assert not Path(f"/proc/{pid_of(file)}").exists()


def test_none_and_one_that_cannot_be_run(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_text("no program")
    with pytest.raises(ProgramMissing):
        ProgramSession(Around(), ["no-such-program"], dict)
    with pytest.raises(ProgramRefused):
        ProgramSession(Around(), [str(file)], dict)
    file.chmod(0o755)
    with pytest.raises(ProgramRefused):
        run([str(file)])


def test_files_of_the_environment(tmp_path: Path) -> None:
    plain, as_json = tmp_path / "plain", tmp_path / "json"
    environment = Environment({"A": "1", "B": "x\ny"})
    said = write_files(environment, plain=str(plain), as_json=str(as_json))
    assert len(said) == 1
    assert "B has several lines" in said[0]
    assert plain.read_text() == "A=1\n"
    assert json.loads(as_json.read_text()) == environment.values
    assert plain.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HostRefused):
        write_files(environment, plain=str(tmp_path / "none" / "file"), as_json=None)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["json", "plain"]

"""A connection in the background: the command ends, the connection does not; what it says is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.backend import LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import ktctl


def test_connected_in_the_background(
    lab: LabBackend, laptop: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    home = {"KT_HOME": str(tmp_path)}
    code, ready = ktctl(lab, "connect", "--image", lab.python_image, "--background", env=home)
    assert (code, ready["state"]) == (0, "connected")
    try:
        code, status = ktctl(lab, "status", env=home)
        assert (code, status["state"], status["pod"]) == (0, "connected", ready["pod"])
        pid = status["pid"]
        assert os.getsid(pid) == pid, "it has a session of its own: no terminal ends it"
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in (1, 2)} == {str(tmp_path / "connect.log")}
        assert laptop("getent", "hosts", "echo.default").returncode == 0
        lab.kubectl("delete", "pod", ready["pod"], "--wait=false")
        limit = time.monotonic() + 30
        assert "shadow pod" in (tmp_path / "connect.log").read_text(), "what was said before it went to the background"
        while "starting another one" not in (tmp_path / "connect.log").read_text():
            assert time.monotonic() < limit
            time.sleep(0.2)
    finally:
        code, answer = ktctl(lab, "disconnect", env=home)
    assert (code, answer["ended"]) == (0, True)
    code, answer = ktctl(lab, "logs", env=home)
    assert code == 0
    assert "starting another one" in "\n".join(answer["lines"])
    assert '"disconnected"' in answer["lines"][-1]
    wait_nothing_of_ours(lab)


def test_errors_before_it_is_there_are_seen(lab: LabBackend, tmp_path: Path) -> None:
    home = {"KT_HOME": str(tmp_path)}
    code, answer = ktctl(lab, "connect", "--background", "--context", "no-such", env=home)
    assert (code, answer["error"]["class"]) == (10, "NoKubeconfig")
    code, answer = ktctl(lab, "logs", env=home)
    assert (code, answer["error"]["class"]) == (36, "NotConnected")


def test_interrupted_while_it_is_brought_up(lab: LabBackend, tmp_path: Path) -> None:
    """Who ends the command means the connection."""
    program = str(Path(sys.executable).with_name("ktctl"))
    words = ["env", f"KT_HOME={tmp_path}", program, "connect", "--image", lab.python_image, "--background"]
    with subprocess.Popen(
        lab.laptop_argv(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert ktctl(lab, "status", env={"KT_HOME": str(tmp_path)})[0] == 36
    wait_nothing_of_ours(lab)

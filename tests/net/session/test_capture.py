"""A capture over the control socket: what is asked for comes, what makes no sense is refused, and the end is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kt_net.errors import KtError, LimitExceeded, NotConnected, UsageFault
from kt_net.session.capture import Capture, Captures
from kt_net.session.control import ControlServer, ask
from kt_net.tun.captured import Captured, CaptureEnd
from kt_net.tun.dissect import in_line
from tests.net.drivers.test_tap import World
from tests.net.namespaces import run_inside


def received(capture: Capture) -> Captured | CaptureEnd:
    """The next one."""
    while True:
        records = capture.receive(10)
        assert records, "nothing more, or nothing within ten seconds"
        return records[0]


def served(folder: str) -> tuple[World, Captures, ControlServer]:
    os.environ["KT_HOME"] = folder
    Path(folder, "run").mkdir()
    world = World()
    captures = Captures(world.loop, world.taps)
    return world, captures, ControlServer({"capture": captures.ask, "status": lambda request: {"pid": 1}})


def raised(**words: str) -> str:
    try:
        Capture(**words)
    except KtError as error:
        return type(error).__name__
    return ""


def captures(folder: str) -> dict[str, Any]:
    world, captures, server = served(folder)
    capture = Capture(host="10.199.0.2", port="7", protocol="udp")
    meanwhile = ask("status")
    world.send(9)
    world.send(7, 3)  # nothing else is under way: the device has room
    packet = received(capture)
    assert isinstance(packet, Captured)
    capture.finish()
    end = received(capture)
    nothing = capture.receive(10)
    refused = ask("capture", port="http")
    others = [Capture(port="1") for _ in range(8)]
    ask("status")  # the server's thread has handed the last one over,
    world.on_loop(lambda: None)  # and the loop has it
    full = raised(port="1")
    captures.close()
    ends = [other.receive(10) for other in others]
    server.close()
    return {
        "line": in_line(packet.data, offload=packet.offload).partition(":")[2].partition(" ")[2],
        "direction": packet.direction.value,
        "meanwhile": meanwhile,
        "end": end == CaptureEnd(0),
        "nothing": nothing,
        "refused": refused,
        "full": full,
        "ends": ends == [None] * 8,
        "afterwards": raised(),
        "untouched": world.untouched(),
    }


def test_from_the_question_to_the_end(tmp_path: Path) -> None:
    assert run_inside(captures, tmp_path, str(tmp_path)) == {
        "line": "> 10.199.0.2:7 UDP len=3",
        "direction": "out",
        "meanwhile": {"pid": 1},
        "end": True,
        "nothing": None,
        "refused": {"refused": "--port: http is no port"},
        "full": "LimitExceeded",
        "ends": True,
        "afterwards": "NotConnected",
        "untouched": True,
    }


def killed(folder: str) -> list[bool]:
    """Capturing programs are killed one after the other; the server and the others do not notice."""
    world, _, server = served(folder)
    program = (
        "import sys, time\nfrom kt_net.session.capture import Capture\n"
        "capture = Capture()\nprint('there', flush=True)\ntime.sleep(60)\n"
    )
    came = []
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            world.wait_looked_on()  # the answer comes before the tap is on
            world.send(7)
            child.kill()
        world.wait_alone()
        came.append(world.untouched())
    came.append(ask("status") == {"pid": 1})
    server.close()
    return came


def test_killed_programs(tmp_path: Path) -> None:
    assert run_inside(killed, tmp_path, str(tmp_path)) == [True] * 4


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ({"state": "starting"}, NotConnected, "the connection is only being brought up"),
        ({"error": "unknown request"}, NotConnected, "the running connection captures nothing"),
        ({"refused": "--port: x"}, NotConnected, "the running connection captures nothing"),
        ({"full": 8}, LimitExceeded, "8 captures of this connection run already"),
    ],
)
def test_what_is_no_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], error: type[KtError], said: str
) -> None:
    monkeypatch.setenv("KT_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    server = ControlServer({"capture": lambda request: answer})
    try:
        with pytest.raises(error) as caught:
            Capture()
    finally:
        server.close()
    assert (caught.value.what, bool(caught.value.next_step)) == (said, True)


def test_words_are_judged_before_anybody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KT_HOME", str(tmp_path))
    with pytest.raises(UsageFault):
        Capture(port="http")
    with pytest.raises(NotConnected):
        Capture(port="80")

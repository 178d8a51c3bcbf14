"""The helper is killed (-9) before and after each single step of a plan: its guard undoes what was done, and so does the next start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kt_net.host.client import channel_pair, replay_leftovers
from tests.net.host.test_helper import picture, plan
from tests.net.host.test_ways import etc_of_ones_own, seen, way
from tests.net.namespaces import run_inside

#: A helper whose steps are counted: it kills itself at the one that is asked for. A step is a journal entry, a device, a run of `ip`, a
#: file half written, a file written.
HELPER = """
import os, signal, socket, sys
from kt_net.host import helper
at, guarded = int(sys.argv[2]), sys.argv[3] == "guarded"
steps, me = 0, os.getpid()

def step():
    global steps
    if os.getpid() != me: return  # the guard, which is not to be killed
    if steps == at: os.kill(os.getpid(), signal.SIGKILL)
    steps += 1

def counted(call):
    def wrapped(*arguments, **more):
        step()
        result = call(*arguments, **more)
        step()
        return result
    return wrapped

def write_in_place(file, data):
    file.seek(0)
    file.write(data[: len(data) // 2])
    file.truncate()
    file.flush()
    step()
    original(file, data)

original = helper.write_in_place
helper.write_in_place = counted(write_in_place)
helper.Journal._write = counted(helper.Journal._write)
helper.make_tun = counted(helper.make_tun)
helper.run_ip = counted(helper.run_ip)
if not guarded: helper.start_guard = lambda folder: 1000
helper.Service(socket.socket(fileno=os.dup(0)), sys.argv[1]).run()
"""


def killed_at(at: int, guarded: bool, kind: str, state: str) -> dict[str, Any]:
    before = (picture(), seen())
    ours, theirs = channel_pair()
    arguments = [sys.executable, "-c", HELPER, state, str(at), "guarded" if guarded else "alone"]
    with subprocess.Popen(arguments, stdin=theirs.fileno()) as process:
        theirs.close()
        ours.sendall(json.dumps({"do": "apply", "plan": plan(names=way(kind)).request()}).encode() + b"\n")
        try:
            answer, rights, _, _ = socket.recv_fds(ours, 65536, 1)
        except ConnectionError:
            answer, rights = b"", []
        for descriptor in rights:
            os.close(descriptor)
        if answer:
            process.kill()  # all steps were done
        code = process.wait(10)
    if not guarded:
        replay_leftovers(state)
    limit = time.monotonic() + 1.0
    while not (same := (picture(), seen()) == before) and time.monotonic() < limit:
        time.sleep(0.01)
    ours.close()
    limit = time.monotonic() + 5
    while left := [entry.name for entry in Path(state).iterdir()]:
        if time.monotonic() > limit:
            break
        time.sleep(0.01)
    return {"done": bool(answer), "code": code, "same": same, "left": left}


def at_every_step(guarded: bool, layout: str, kind: str, folder: str) -> dict[str, Any]:
    """All in one namespace: what one leaves would be seen by the next."""
    etc_of_ones_own(layout, folder)
    wrong, at = [], 0
    while True:
        found = killed_at(at, guarded, kind, f"{folder}/state-{at}")
        if not found["same"] or found["left"] or found["code"] != -signal.SIGKILL:
            wrong.append((at, found))
        if found["done"]:
            return {"wrong": wrong, "steps": at}
        at += 1


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize(
    ("layout", "kind"), [("plain", "file"), ("missing", "file"), ("plain", "hosts"), ("plain", "folder")]
)
def test_killed_at_every_step(tmp_path: Path, guarded: bool, layout: str, kind: str) -> None:
    result = run_inside(at_every_step, tmp_path, guarded, layout, kind, str(tmp_path))
    assert result["wrong"] == []
    assert result["steps"] > 10

"""Somebody hostile at the helper's socket, at its arguments, and in its place: refused or bounded, everything undone, nothing kept."""

from __future__ import annotations

import array
import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kt_net.errors import HelperProtocolError, HostRefused
from kt_net.host.client import HELPER, HostHelper, channel_pair, replay_leftovers
from kt_net.host.helper import MAX_REQUEST, name_senders
from tests.net.host.test_helper import picture, plan, wait_same
from tests.net.namespaces import run_inside

SECONDS = 20.0
OTHER = 65534


class Raw:
    """A helper with a plan in force, and its socket."""

    def __init__(self, state: str, *arguments: str, program: str = "") -> None:
        self.state = state
        self.before = picture()
        self.channel, theirs = channel_pair()
        first = [sys.executable, "-c", program] if program else [sys.executable, "-I", str(HELPER), "--state-dir"]
        self.process = subprocess.Popen([*first, state, *arguments], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        self.channel.settimeout(SECONDS)
        self.theirs = theirs
        self.say({"do": "apply", "plan": plan().request()})
        answer, rights, _, _ = socket.recv_fds(self.channel, 65536, 1)
        assert json.loads(answer)["ok"], answer
        for descriptor in rights:
            os.close(descriptor)
        # With the device go the routes; the file is what shows that the plan is in force.
        assert "198.19.255.253" in picture()[3]

    def say(self, request: Any) -> None:
        self.channel.sendall(json.dumps(request).encode() + b"\n")

    def answers(self, data: bytes) -> dict[str, Any]:
        self.channel.sendall(data)
        answer = b""
        while not answer.endswith(b"\n"):
            piece = self.channel.recv(65536)
            assert piece, "it has ended"
            answer += piece
        return dict(json.loads(answer))

    def ended_and_undone(self) -> dict[str, Any]:
        """By itself: our end of the socket is open. And what it has said until then."""
        self.process.wait(SECONDS)
        self.theirs.close()
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while self.channel.fileno() >= 0 and (piece := self.channel.recv(65536)):
                said += piece
        return {"said": said.decode(), "undone": wait_same(self.before), "left": os.listdir(self.state)}


GOOD_END = {"said": "", "undone": True, "left": []}


def another_user_speaks(state: str) -> dict[str, Any]:
    raw = Raw(state)
    if not os.fork():
        os.setresuid(OTHER, OTHER, OTHER)
        raw.channel.sendall(b'{"do": "hello"}\n')
        os._exit(0)
    os.wait()
    return raw.ended_and_undone()


def another_user_ends_a_line(state: str) -> dict[str, Any]:
    """Its beginning is ours."""
    raw = Raw(state)
    raw.channel.sendall(b'{"do": ')
    if not os.fork():
        os.setresuid(OTHER, OTHER, OTHER)
        raw.channel.sendall(b'"hello"}\n')
        os._exit(0)
    os.wait()
    return raw.ended_and_undone()


def nobody_is_named(state: str) -> dict[str, Any]:
    """The client has switched it off: the socket is his as well."""
    raw = Raw(state)
    for end in (raw.channel, raw.theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    raw.channel.sendall(b'{"do": "hello"}\n')
    return raw.ended_and_undone()


def descriptors_come_in(count: int, state: str) -> dict[str, Any]:
    raw = Raw(state)
    reads, writes = os.pipe()
    rights = array.array("i", [writes] * 100)
    raw.theirs.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(count):
            raw.channel.sendmsg([b'{"do": "beat"}\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    os.close(writes)
    end = raw.ended_and_undone()
    raw.channel.close()
    # End of file: nobody holds a copy, neither the helper nor its guard.
    readable = select.select([reads], [], [], SECONDS)[0]
    return end | ({} if readable and not os.read(reads, 1) else {"said": "somebody holds it"})


def a_giant_line(state: str) -> dict[str, Any]:
    raw = Raw(state)
    raw.theirs.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(MAX_REQUEST // 65536 + 20):
            raw.channel.sendall(b"x" * 65536)
    return raw.ended_and_undone()


def half_a_message(state: str) -> dict[str, Any]:
    raw = Raw(state)
    raw.channel.sendall(b'{"do": "he')
    raw.theirs.close()
    raw.channel.close()
    return raw.ended_and_undone()


def descriptors(state: str) -> dict[str, Any]:
    return descriptors_come_in(1, state)


def a_flood_of_descriptors(state: str) -> dict[str, Any]:
    return descriptors_come_in(300, state)


#: A helper that waits for its reader less long.
HURRIED = """
import os, socket, sys
from kt_net.host import helper
helper.SEND_SECONDS = 1
helper.Service(socket.socket(fileno=os.dup(0)), sys.argv[1]).run()
"""


def nobody_reads_its_answers(state: str) -> dict[str, Any]:
    raw = Raw(state, program=HURRIED)
    raw.channel.setblocking(False)
    limit = time.monotonic() + SECONDS
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while raw.process.poll() is None and time.monotonic() < limit:
            with contextlib.suppress(BlockingIOError):
                raw.channel.send(b'{"do": "hello"}\n' * 1000)
            time.sleep(0.01)
    return raw.ended_and_undone() | {"said": ""}  # what was said is what nobody has read


@pytest.mark.parametrize(
    "story",
    [
        another_user_speaks,
        another_user_ends_a_line,
        nobody_is_named,
        descriptors,
        a_flood_of_descriptors,
        a_giant_line,
        half_a_message,
        nobody_reads_its_answers,
    ],
    ids=lambda story: story.__name__,
)
def test_it_ends_with_its_undo_done(story: Callable[..., Any], tmp_path: Path) -> None:
    assert run_inside(story, tmp_path, str(tmp_path / "state")) == GOOD_END


NONSENSE = (
    b"\n", b"null\n", b"[]\n", b"{\n", b"\xff\xfe\n", b"\xed\xa0\x80\n", b"[" * 100_000 + b"\n", b'{"a":' * 100_000 + b"\n",
    b'{"do": "hello", "do": "hello"}\n', '{"do": "hello"}'.encode("utf-16-le") + b"\n", b'{"do": "' + b"x" * 500_000 + b'"}\n',
    b'{"do": ["hello"]}\n', b'{"do": "apply", "plan": ' + b"9" * 5000 + b"}\n", b'{"do": "apply", "plan": {"\\ud800": NaN}}\n',
    b'{"do": "apply"}\n', b'{"do": "apply", "plan": ' + b"[" * 900 + b"]" * 900 + b"}\n", b'{"do": "beat", "more": 1}\n',
)  # fmt: skip


def nonsense(state: str) -> dict[str, Any]:
    raw = Raw(state)
    said = [raw.answers(data) for data in NONSENSE]
    dripped = b'{"do": "hello"}\n'
    for octet in dripped[:-1]:
        raw.channel.sendall(bytes([octet]))
    lives = raw.answers(dripped[-1:])["ok"]
    for _ in range(200):
        raw.channel.sendall(b'{"do": "beat"}\n' * 100)
    lives = lives and raw.answers(b'{"do": "hello"}\n')["ok"]
    open_files = len(os.listdir(f"/proc/{raw.process.pid}/fd"))
    raw.theirs.close()
    raw.channel.close()
    return {
        "refused": [not answer["ok"] for answer in said],
        "longest": max(len(json.dumps(answer)) for answer in said),
        "lives": lives,
        "few files": open_files < 10,
        **raw.ended_and_undone(),
    }


def test_nonsense_is_answered_in_few_words_and_a_flood_or_a_drip_does_no_harm(tmp_path: Path) -> None:
    result = run_inside(nonsense, tmp_path, str(tmp_path / "state"))
    assert result.pop("longest") < 400
    assert result == {"refused": [True] * len(NONSENSE), "lives": True, "few files": True, **GOOD_END}


def started_for_a_user(speaker: int, state: str) -> dict[str, Any]:
    """By root, for user 4711."""
    ours, theirs = channel_pair()
    command = [sys.executable, "-I", str(HELPER), "--state-dir", state, "--user", "4711"]
    process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    theirs.close()
    if not os.fork():
        os.setresuid(speaker, speaker, speaker)
        ours.sendall(b'{"do": "hello"}\n')
        os._exit(0)
    os.wait()
    ours.settimeout(SECONDS)
    heard = bool(ours.recv(65536))
    environment = Path(f"/proc/{process.pid}/environ") if heard else None
    ours.close()
    return {"heard": heard, "code": process.wait(SECONDS), "environment": environment is not None}


@pytest.mark.parametrize(("speaker", "heard"), [(0, True), (4711, True), (OTHER, False), (4710, False)])
def test_root_and_one_user_are_heard(speaker: int, heard: bool, tmp_path: Path) -> None:
    result = run_inside(started_for_a_user, tmp_path, speaker, str(tmp_path / "state"))
    assert (result["heard"], result["code"]) == (heard, 0)


# -- its arguments and surroundings, when sudo has started it for somebody


def with_arguments(arguments: list[str], state: str) -> list[Any]:
    folder = Path(state)
    folder.mkdir(mode=0o700)
    forged = {"schema": 1, "pid": 1, "started": 1, "undo": [{"kind": "interface", "name": "kt7"}]}
    (folder / "journal-kt7.json").write_text(json.dumps(forged))
    env = {**os.environ, "SUDO_UID": "4711"}
    ours, theirs = channel_pair()
    with theirs:
        result = subprocess.run(
            [sys.executable, "-I", str(HELPER), *(word.replace("STATE", state) for word in arguments)],
            stdin=theirs.fileno(), capture_output=True, text=True, env=env, check=False, timeout=SECONDS,
        )  # fmt: skip
    ours.close()
    return [result.returncode, (folder / "journal-kt7.json").exists(), result.stdout]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--state-dir", "STATE", "--replay"], 1),
        (["--state-dir=STATE"], 1),
        (["--state-dir", "/var/lib/ktctl/../../../STATE", "--replay"], 1),
        (["--state", "STATE", "--replay"], 2),
        (["--user", "4712"], 1),
        (["--user", "x"], 2),
        (["--help-me"], 2),
        (["STATE"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_somebody_else_chooses_no_folder_and_no_user(arguments: list[str], code: int, tmp_path: Path) -> None:
    returned, untouched, said = run_inside(with_arguments, tmp_path, arguments, str(tmp_path / "state"))
    assert (returned, untouched) == (code, True)
    assert code == 2 or "only root" in said


def hostile_surroundings(hard: int, folder: str) -> dict[str, Any]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib"], check=True)
    before = picture()
    evil = Path(folder) / "evil"
    evil.mkdir()
    program = evil / "ip"
    program.write_text(f"#!/bin/sh\ntouch {evil}/was-run\n")
    program.chmod(0o755)

    def surround() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, 4096))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
        os.umask(0)
        os.chdir(evil)
        os.close(1)
        os.close(2)

    ours, theirs = channel_pair()
    process = subprocess.Popen(
        [sys.executable, "-I", str(HELPER)],
        stdin=theirs.fileno(),
        preexec_fn=surround,
        env={"PATH": str(evil), "SUDO_UID": "4711", "LD_LIBRARY_PATH": str(evil), "PYTHONPATH": str(evil)},
    )
    theirs.close()
    helper = HostHelper(process, ours)
    try:
        applied = helper.apply(plan())
    except HostRefused:  # it has not even begun
        return {"code": process.wait(SECONDS), "same": picture() == before, "left": os.listdir("/var/lib")}
    during = picture()
    os.close(applied.descriptor)
    modes = [oct(entry.stat().st_mode & 0o777) for entry in Path("/var/lib/ktctl").iterdir()]
    process.send_signal(signal.SIGTERM)
    process.wait(SECONDS)
    ours.close()
    return {
        "routed": "10.245.0.0/16 dev kt7" in during[0],
        "names": "198.19.255.253" in during[3],
        "evil": sorted(entry.name for entry in evil.iterdir()),
        "modes": modes,
        "undone": wait_same(before),
        "left": os.listdir("/var/lib/ktctl"),
    }


def test_surroundings_of_somebody_elses_choice_change_nothing(tmp_path: Path) -> None:
    assert run_inside(hostile_surroundings, tmp_path, resource.RLIM_INFINITY, str(tmp_path)) == {
        "routed": True,
        "names": True,
        "evil": ["ip"],
        "modes": ["0o600"],
        "undone": True,
        "left": [],
    }


def test_a_limit_that_root_cannot_lift_is_lifted_or_nothing_begins(tmp_path: Path) -> None:
    """Which of the two depends on CAP_SYS_RESOURCE, which containers do not have."""
    result = run_inside(hostile_surroundings, tmp_path, 10, str(tmp_path))
    assert result in (
        {"code": 1, "same": True, "left": []},
        {"routed": True, "names": True, "evil": ["ip"], "modes": ["0o600"], "undone": True, "left": []},
    )


# -- somebody else in its place


def a_false_helper(uid: int) -> list[Any]:
    ours, theirs = channel_pair()
    reads, writes = os.pipe()
    rights = array.array("i", [writes])
    child = subprocess.Popen(["sleep", "60"])
    if not os.fork():
        os.setresuid(uid, uid, uid)
        theirs.recv(100)
        theirs.sendmsg([b'{"ok": true}\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os._exit(0)
    os.close(writes)
    helper, words = HostHelper(child, ours), ""
    try:
        os.close(helper.apply(plan()).descriptor)
    except HelperProtocolError as error:
        words = error.what
    os.wait()
    theirs.close()
    kept = not select.select([reads], [], [], 5)[0]
    child.kill()
    helper.close()
    return [words, kept]


@pytest.mark.parametrize(("uid", "believed"), [(0, True), (OTHER, False)])
def test_the_client_believes_root_alone(uid: int, believed: bool, tmp_path: Path) -> None:
    words, kept = run_inside(a_false_helper, tmp_path, uid)
    assert bool(words) is not believed
    assert not kept, "a descriptor that came from it is still open"


def too_many_descriptors() -> list[Any]:
    ours, theirs = channel_pair()
    before = len(os.listdir("/proc/self/fd"))
    rights = array.array("i", [0] * 50)
    theirs.sendmsg([b'{"ok": true}\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    child = subprocess.Popen(["true"])
    os.close(HostHelper(child, ours).apply(plan()).descriptor)
    return [len(os.listdir("/proc/self/fd")) - before]


def test_one_descriptor_is_taken_and_no_more(tmp_path: Path) -> None:
    assert run_inside(too_many_descriptors, tmp_path) == [0]


def test_both_ends_name_their_senders() -> None:
    for end in channel_pair():
        with end:
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1
    alone, other = socket.socketpair()
    with alone, other:
        name_senders(alone)
        assert alone.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1


def replay_of_a_forged_journal(state: str) -> list[Any]:
    """In root's own folder there is none; should there be one all the same, it names nothing but ours."""
    folder = Path(state)
    folder.mkdir(mode=0o700)
    secret = folder / "secret"
    secret.write_text("mine")
    undo = [
        {"kind": "file", "path": str(secret), "before": "", "after": "", "ours": ""},
        {"kind": "interface", "name": "lo"},
        {"kind": "interface", "name": "kt7; reboot"},
        {"kind": "shell", "command": "true"},
        {"kind": ["file"]},
        {},
    ]
    record = {"schema": 1, "pid": 1, "started": 1, "undo": undo}
    (folder / "journal-kt7.json").write_text(json.dumps(record))
    before = picture()
    said = replay_leftovers(state)
    return [len(said), secret.read_text(), picture() == before, sorted(entry.name for entry in folder.iterdir())]


def test_a_forged_journal_undoes_nothing_of_somebody_elses(tmp_path: Path) -> None:
    assert run_inside(replay_of_a_forged_journal, tmp_path, str(tmp_path / "state")) == [6, "mine", True, ["secret"]]

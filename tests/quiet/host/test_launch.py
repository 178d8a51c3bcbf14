"""How the helper is started, by whom, and what a sudoers rule says: decisions over described machines."""

from __future__ import annotations

import dataclasses
import socket
import stat
import struct
import sys

import pytest

from kt_net.errors import HostRefused, PrivilegeMissing, UsageFault
from kt_net.host import sudoers
from kt_net.host.helper import PROTOCOL, UCRED, Fault, foreign_caller, maker, sender
from kt_net.host.installed import Installed, Owned, State, helper_path, judge, rendered, unsafe
from kt_net.host.launch import Launch, Machine, choose
from kt_net.host.privilege import Invoker, environment_of

PATH = f"/usr/local/libexec/ktctl-helper-{PROTOCOL}"
USER = Machine(
    root=False,
    invoker=0,
    sudo=True,
    python="/venv/bin/python",
    helper="/venv/helper.py",
    installed=Installed(PATH, State.ABSENT),
)
OWN = ("/venv/bin/python", "-I", "/venv/helper.py")


def user_with(state: State, why: str = "") -> Machine:
    return dataclasses.replace(USER, installed=Installed(PATH, state, why))


@pytest.mark.parametrize(
    ("machine", "replay", "arguments"),
    [
        (dataclasses.replace(USER, root=True), False, [(*OWN, "--state-dir", "/var/lib/ktctl")]),
        (dataclasses.replace(USER, root=True, sudo=False), True, [(*OWN, "--state-dir", "/var/lib/ktctl", "--replay")]),
        (
            dataclasses.replace(user_with(State.CURRENT), root=True, invoker=1000),
            False,
            [(*OWN, "--state-dir", "/var/lib/ktctl", "--user", "1000")],
        ),
        (USER, False, [("sudo", "-n", "--", *OWN), ("sudo", "--", *OWN)]),
        (USER, True, [("sudo", "-n", "--", *OWN, "--replay"), ("sudo", "--", *OWN, "--replay")]),
        (user_with(State.CURRENT), False, [("sudo", "-n", "--", PATH), ("sudo", "--", PATH)]),
        (user_with(State.CURRENT), True, [("sudo", "-n", "--", PATH, "--replay"), ("sudo", "--", PATH, "--replay")]),
        (user_with(State.STALE), False, [("sudo", "-n", "--", *OWN), ("sudo", "--", *OWN)]),
        (user_with(State.UNSAFE), False, [("sudo", "-n", "--", *OWN), ("sudo", "--", *OWN)]),
    ],
)
def test_how_it_is_started(machine: Machine, replay: bool, arguments: list[tuple[str, ...]]) -> None:
    choice = choose(machine, replay=replay)
    assert [launch.arguments for launch in choice.launches] == arguments
    assert [launch.asks for launch in choice.launches] == [False, True][: len(arguments)]


@pytest.mark.parametrize("state", [State.STALE, State.UNSAFE])
def test_an_installed_one_that_is_not_used_is_named(state: State) -> None:
    choice = choose(user_with(state, f"{PATH} is of another version"))
    assert PATH in choice.note
    assert "ktctl helper install" in choice.note


@pytest.mark.parametrize("machine", [USER, user_with(State.CURRENT), dataclasses.replace(USER, root=True)])
def test_otherwise_there_is_nothing_to_say(machine: Machine) -> None:
    assert choose(machine).note == ""


def test_neither_root_nor_sudo() -> None:
    with pytest.raises(PrivilegeMissing):
        choose(dataclasses.replace(USER, sudo=False))


def test_only_root_chooses_the_state_folder() -> None:
    with pytest.raises(PrivilegeMissing, match="/tmp/mine"):
        choose(user_with(State.CURRENT), state_folder="/tmp/mine")
    root = choose(dataclasses.replace(USER, root=True), state_folder="/tmp/mine")
    assert root.launches == (Launch((*OWN, "--state-dir", "/tmp/mine")),)


# -- who calls


@pytest.mark.parametrize(
    ("environment", "uid"),
    [
        ({}, None),
        ({"SUDO_UID": "0"}, None),
        ({"SUDO_UID": "1000"}, 1000),
        ({"PKEXEC_UID": "1000"}, 1000),
        ({"DOAS_USER": "root"}, None),
        ({"DOAS_USER": "nobody"}, 65534),
    ],
)
def test_who_had_it_started(environment: dict[str, str], uid: int | None) -> None:
    assert foreign_caller(environment) == uid


@pytest.mark.parametrize(
    "environment",
    [{"SUDO_UID": text} for text in ("", "-1", "+1", "1000 ", "x", "١", "1" * 20)]
    + [{"PKEXEC_UID": "root"}, {"DOAS_USER": "nobody at all"}, {"DOAS_USER": ""}],
)
def test_when_that_cannot_be_known_nothing_starts(environment: dict[str, str]) -> None:
    with pytest.raises(Fault):
        foreign_caller(environment)


def credentials(pid: int, uid: int, *, size: int = UCRED.size) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_CREDENTIALS, UCRED.pack(pid, uid, uid)[:size]


@pytest.mark.parametrize(
    ("ancillary", "uid"),
    [
        ([], None),
        ([credentials(7, 1000)], 1000),
        ([credentials(7, 0)], 0),
        ([credentials(0, 65534)], None),  # sent before the kernel was to name senders
        ([credentials(7, 1000, size=8)], None),
        ([(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\3\0\0\0")], None),
        ([(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\3\0\0\0"), credentials(7, 1000)], 1000),
    ],
)
def test_the_sender_on_linux(ancillary: list[tuple[int, int, bytes]], uid: int | None) -> None:
    assert sys.platform == "linux"
    assert sender(ancillary) == uid


@pytest.mark.parametrize(
    ("xucred", "uid"),
    [
        (struct.pack("=IIh16I", 0, 501, 2, *range(16)), 501),
        (struct.pack("=II", 0, 0), 0),
        (struct.pack("=II", 1, 0), None),
        (b"\0" * 7, None),
        (b"", None),
    ],
)
def test_the_maker_on_macos(xucred: bytes, uid: int | None) -> None:
    assert maker(xucred) == uid


# -- what is installed


def folder(path: str, *, uid: int = 0, gid: int = 0, mode: int = 0o755) -> Owned:
    return Owned(path, uid, gid, stat.S_IFDIR | mode)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (folder("/usr"), ""),
        (folder("/usr", gid=50), ""),
        (folder("/usr/local", mode=0o775), ""),  # of the group root
        (folder("/usr/local", gid=50, mode=0o2775), "others"),  # staff, on older Debians
        (folder("/tmp", mode=0o1777), "others"),
        (folder("/home/me", uid=1000), "user 1000"),
        (Owned("/link", 0, 0, stat.S_IFLNK | 0o777), ""),
        (Owned("/link", 1000, 0, stat.S_IFLNK | 0o777), "user 1000"),
    ],
)
def test_who_could_put_another_program_there(one: Owned, said: str) -> None:
    reason = unsafe([folder("/"), one])
    assert bool(reason) == bool(said)
    assert said in reason


SOURCE = b'"""The helper."""\n'


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (rendered("/usr/bin/python3", SOURCE), State.CURRENT),
        (rendered("/opt/python/bin/python3.13", SOURCE), State.CURRENT),
        (rendered("/usr/bin/python3", SOURCE + b"\n"), State.STALE),
        (b"#!/usr/bin/python3\n" + SOURCE, State.STALE),
        (b"#!python3 -I\n" + SOURCE, State.STALE),
        (b"#!/usr/bin/env python3 -I\n" + SOURCE, State.STALE),
        (SOURCE, State.STALE),
        (b"", State.STALE),
    ],
)
def test_what_an_installed_file_is_good_for(content: bytes, state: State) -> None:
    assert judge(PATH, [folder("/")], content, SOURCE).state is state
    assert judge(PATH, [folder("/", uid=1)], content, SOURCE).state is State.UNSAFE


@pytest.mark.parametrize(
    "prefix",
    ["", "usr", "/", "/usr/", "/a b", "/a/../b", "/a,b", "/a:b", "/a\\b", "/a*", "/a\n", "/a=b", "/a//b", "/é"],
)
def test_a_prefix_that_no_rule_can_name(prefix: str) -> None:
    with pytest.raises(UsageFault):
        helper_path(prefix)


# -- the rule


def test_the_rule() -> None:
    text = sudoers.rule(sudoers.subject("jane"), helper_path("/usr/local"))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [f'jane ALL=(root) NOPASSWD: {PATH} "", {PATH} --replay']


@pytest.mark.parametrize(
    ("user", "group", "who"),
    [
        ("jane", "", "jane"),
        ("jane-doe_2", "", "jane-doe_2"),
        ("#1000", "", "#1000"),
        ("", "dev", "%dev"),
        ("", "#20", "%#20"),
    ],
)
def test_whom_it_is_for(user: str, group: str, who: str) -> None:
    assert sudoers.subject(user, group) == who


@pytest.mark.parametrize(
    ("user", "group"),
    [("", ""), ("jane", "dev"), ("", "ALL")]
    + [(name, "") for name in ("ALL", "ADMINS", "%wheel", "jane,joe", "a b", "x=y", "jane\n", "#", "#x", "!jane", "a\\b", "+net", "é")],
)  # fmt: skip
def test_names_that_mean_more_than_themselves(user: str, group: str) -> None:
    with pytest.raises(UsageFault):
        sudoers.subject(user, group)


def test_without_visudo_no_rule_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sudoers, "check", lambda text: False)
    with pytest.raises(HostRefused, match="not written"):
        sudoers.write("anything", "/nonexistent/file")


# -- the user behind sudo

AS_SUDO_LEAVES_IT = {
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "MAIL": "/var/mail/root",
    "PATH": "/usr/bin",
    "XDG_RUNTIME_DIR": "/run/user/0",
    "SUDO_UID": "1000",
    "SUDO_GID": "1000",
    "SUDO_USER": "jane",
    "SUDO_COMMAND": "ktctl connect",
    "KUBECONFIG": "/home/jane/config",
}


def owner(path: str) -> int | None:
    return {"/root": 0, "/run/user/0": 0, "/run/user/1000": 1000, "/data": 4711}.get(path)


def test_the_environment_is_the_users() -> None:
    jane = Invoker(1000, 1000, "jane", "/home/jane", "/bin/bash", (1000,))
    assert environment_of(jane, AS_SUDO_LEAVES_IT, owner) == {
        "HOME": "/home/jane",
        "USER": "jane",
        "LOGNAME": "jane",
        "SHELL": "/bin/bash",
        "PATH": "/usr/bin",
        "KUBECONFIG": "/home/jane/config",
    }
    kept = environment_of(jane, AS_SUDO_LEAVES_IT | {"XDG_RUNTIME_DIR": "/run/user/1000"}, owner)
    assert kept["XDG_RUNTIME_DIR"] == "/run/user/1000"


@pytest.mark.parametrize(("given", "home"), [("/data", "/data"), ("/root", "/"), ("/nowhere", "/")])
def test_a_user_without_an_entry(given: str, home: str) -> None:
    somebody = Invoker(4711, 4711, "4711", "", "", (4711,))
    kept = environment_of(somebody, AS_SUDO_LEAVES_IT | {"HOME": given}, owner)
    assert (kept["HOME"], kept["USER"]) == (home, "4711")

"""The host helper as one file of root's, that a sudoers rule can name: putting it there, looking at it, taking it away.

It is the helper's source with a first line that names an interpreter of root's. A rule is as safe as the path that it names: whoever
may write to one of the folders on the way could put another program there, so all of them have to be root's alone.

Not here: the rule (sudoers.py); who starts it (launch.py).
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kt_net.errors import HostRefused, PrivilegeMissing, UsageFault
from kt_net.host.helper import PROTOCOL

HELPER = Path(__file__).with_name("helper.py")
DEFAULT_PREFIX = "/usr/local"
#: For those whose /usr/local is not root's alone.
ENVIRONMENT = "KT_HELPER_PREFIX"
DEFAULT_PYTHON = "/usr/bin/python3"
#: What the helper is written for.
PYTHON_VERSION = (3, 11)
#: Nothing that means something in sudoers or in a first line, and no step upwards.
_PATH = re.compile(r"(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)+\Z")
_FIRST_LINE = re.compile(rb"#!(/[A-Za-z0-9._+/-]+) -I\n")


class State(StrEnum):
    """Of the installed helper."""

    ABSENT = "absent"
    CURRENT = "current"
    STALE = "stale"
    UNSAFE = "unsafe"


@dataclass(frozen=True, slots=True)
class Installed:
    """What is found at the path.

    Attributes:
        why: what is wrong with it, or "".
    """

    path: str
    state: State
    why: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    """Who owns a file or a folder, and who may write to it."""

    path: str
    uid: int
    gid: int
    mode: int


def default_prefix() -> str:
    """Where the helper is, unless a flag says otherwise."""
    return os.environ.get(ENVIRONMENT) or DEFAULT_PREFIX


def helper_path(prefix: str) -> str:
    """Its name has the protocol's number, so that a rule that names it does not start another one.

    Raises:
        UsageFault: a prefix that no sudoers rule can name.
    """
    if not _PATH.match(prefix):
        raise UsageFault(f"not a prefix for the helper: {prefix!r}", why="an absolute path of plain letters is needed")
    return f"{prefix}/libexec/ktctl-helper-{PROTOCOL}"


def rendered(python: str, source: bytes) -> bytes:
    """The file's content: an isolated interpreter, and the helper."""
    return b"#!" + python.encode() + b" -I\n" + source


def judge(path: str, way: list[Owned], content: bytes, source: bytes) -> Installed:
    """What the file at `path` is good for. Pure.

    Args:
        way: the file, its interpreter, and every folder on the way to them.
        content: of the file.
        source: of this installation's helper.
    """
    if reason := unsafe(way):
        return Installed(path, State.UNSAFE, reason)
    first = _FIRST_LINE.match(content)
    if first is None or content[first.end() :] != source:
        return Installed(path, State.STALE, f"{path} is of another version")
    return Installed(path, State.CURRENT)


def unsafe(way: list[Owned]) -> str:
    """Why somebody else than root could put another program there; "" when nobody can."""
    for one in way:
        if one.uid:
            return f"{one.path} belongs to user {one.uid}"
        if stat.S_ISLNK(one.mode):
            continue  # nobody looks at a link's own permissions
        if one.mode & stat.S_IWOTH or (one.mode & stat.S_IWGRP and one.gid):
            return f"{one.path} can be written to by others"
    return ""


def on_the_way(path: str) -> list[Owned]:
    """The file and every folder above it, as named, as it really is, and by way of which links.

    Raises:
        OSError: one is not there.
    """
    found: dict[str, Owned] = {}
    ends = [os.path.realpath(path), path]
    while ends:
        end = Path(ends.pop())
        for name in (*reversed(end.parents), end):
            if str(name) in found:
                continue
            seen = os.lstat(name)
            found[str(name)] = Owned(str(name), seen.st_uid, seen.st_gid, seen.st_mode)
            if stat.S_ISLNK(seen.st_mode):
                ends.append(os.path.normpath(name.parent / os.readlink(name)))
    return list(found.values())


def look(prefix: str) -> Installed:
    """What is installed under `prefix`.

    Raises:
        UsageFault: see `helper_path`.
    """
    path = helper_path(prefix)
    try:
        way = on_the_way(path)
        if reason := unsafe(way):
            return Installed(path, State.UNSAFE, reason)  # not even to be opened: it may be a pipe
        content = Path(path).read_bytes()
        first = _FIRST_LINE.match(content)
        if first is not None:
            way += on_the_way(os.fsdecode(first[1]))
    except FileNotFoundError:
        if not os.path.lexists(path):
            return Installed(path, State.ABSENT)
        return Installed(path, State.UNSAFE, f"{path}, or the interpreter that it names, leads nowhere")
    except OSError as error:
        return Installed(path, State.UNSAFE, f"{path}: {error.strerror}")
    return judge(path, way, content, HELPER.read_bytes())


def install(prefix: str, python: str = DEFAULT_PYTHON) -> str:
    """Put the helper there; its path.

    Raises:
        PrivilegeMissing: not root.
        UsageFault: a prefix or an interpreter that cannot be named.
        HostRefused: somebody else could write to a part of the way, the interpreter is too old, or the file cannot be written.
    """
    path = helper_path(prefix)
    _need_root()
    _check_python(python)
    folder = os.path.dirname(path)
    try:
        made = folder
        while not os.path.lexists(made):
            made = os.path.dirname(made)
        _check_way(made)  # before anything is made in it
        os.makedirs(folder, mode=0o755, exist_ok=True)
        _check_way(folder)
        _write(path, rendered(python, HELPER.read_bytes()))
    except OSError as error:
        raise HostRefused(f"the helper cannot be written to {path}", why=error.strerror or str(error)) from error
    return path


def uninstall(prefix: str) -> bool:
    """Take it away; whether it was there. Its folder stays, others may use it.

    Raises:
        PrivilegeMissing: not root.
        HostRefused: it cannot be removed.
    """
    path = helper_path(prefix)
    _need_root()
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostRefused(f"{path} cannot be removed", why=error.strerror or str(error)) from error
    return True


def _need_root() -> None:
    if os.geteuid() != 0:
        raise PrivilegeMissing("the helper is root's file", next_step="run it with sudo")


def _check_way(path: str) -> None:
    if reason := unsafe(on_the_way(path)):
        raise HostRefused(
            f"the helper would not be safe in {path}",
            why=reason,
            next_step=f"make that root's alone, or choose another place: --prefix /opt/ktctl and {ENVIRONMENT}=/opt/ktctl",
        )


def _check_python(python: str) -> None:
    if not _PATH.match(python):
        raise UsageFault(f"not an interpreter: {python!r}", why="an absolute path of plain letters is needed")
    try:
        way = on_the_way(python)
        probe = "import sys; print(*sys.version_info[:2])"
        if reason := unsafe(way):  # before it is run as root
            raise HostRefused(f"{python} would not be safe as the helper's interpreter", why=reason, next_step=_PYTHON)
        said = subprocess.run([python, "-I", "-c", probe], capture_output=True, text=True, check=True, timeout=30)
        version = tuple(int(part) for part in said.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise HostRefused(f"{python} cannot be the helper's interpreter", why=str(error), next_step=_PYTHON) from error
    if version < PYTHON_VERSION:
        raise HostRefused(
            f"{python} is too old for the helper",
            why=f"it is {'.'.join(map(str, version))}, {'.'.join(map(str, PYTHON_VERSION))} is needed",
            next_step=_PYTHON,
        )


_PYTHON = "name a Python 3.11 or newer that only root can change: --python FILE"


def _write(path: str, content: bytes) -> None:
    """In one step, so that nobody starts half of it."""
    beside = f"{path}.{os.getpid()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o700)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(file.fileno(), 0, 0)
            os.fchmod(file.fileno(), 0o755)
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise

"""Who the user is, and being no more than that user.

`sudo ktctl connect` is common: then the helper is started as root, and everything that parses foreign octets or runs credential plugins
goes on as the user who called sudo.

The flag "no new privileges" is not set, nor is the bounding set emptied: a login plugin may be a program of a snap or open a browser
with a sandbox of its own, and both start with a program that gains root by itself. The user could call it without us as well.

Not here: the helper.
"""

from __future__ import annotations

import getpass
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kt_net.errors import PrivilegeMissing

#: What sudo drops by default, and what credential plugins and proxies may need.
WANTED = ("KUBECONFIG", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS")


@dataclass(frozen=True, slots=True)
class Invoker:
    """The user who called sudo.

    Attributes:
        home: "" when nobody knows.
    """

    uid: int
    gid: int
    name: str
    home: str
    shell: str
    groups: tuple[int, ...]


def user_name() -> str:
    """Login name of the person, also behind sudo."""
    name = os.environ.get("SUDO_USER")
    if name:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def become_invoker() -> list[str]:
    """Behind sudo: become the user who called it, for good. Which of the variables that may be needed sudo did not pass on.

    Before anything of the user's is read, and before there are other threads.

    Raises:
        PrivilegeMissing: who called sudo cannot be known, or root cannot be left.
    """
    number = os.environ.get("SUDO_UID", "0")
    if os.geteuid() != 0 or number == "0":
        return []
    if not (number.isascii() and number.isdecimal() and 0 < int(number) < 2**32 - 1):
        raise PrivilegeMissing(f"SUDO_UID is {number[:40]!r}", why="it says who is to run everything but the helper")
    invoker = _invoker(int(number), os.environ)
    environment = environment_of(invoker, os.environ, _owner)
    try:
        os.setgroups(invoker.groups)
        os.setresgid(invoker.gid, invoker.gid, invoker.gid)
        os.setresuid(invoker.uid, invoker.uid, invoker.uid)
    except OSError as error:
        raise PrivilegeMissing(f"cannot become user {invoker.uid}", why=str(error)) from error
    if _root_again():
        raise PrivilegeMissing(f"user {invoker.uid} can still become root in this process")
    os.environ.clear()
    os.environ.update(environment)
    return [name for name in WANTED if name not in os.environ]


def environment_of(
    invoker: Invoker, environment: Mapping[str, str], owner: Callable[[str], int | None]
) -> dict[str, str]:
    """`environment` without what is root's, and without what says that sudo was called. Pure.

    Args:
        owner: the owner of a path; None when it is not there.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith("SUDO_")}
    home = invoker.home
    if not home:  # no entry for this user: a folder of his, or nobody's
        home = kept.get("HOME", "") if owner(kept.get("HOME", "")) == invoker.uid else "/"
    kept |= {"HOME": home, "USER": invoker.name, "LOGNAME": invoker.name}
    if invoker.shell:
        kept["SHELL"] = invoker.shell
    kept.pop("MAIL", None)
    runtime = kept.get("XDG_RUNTIME_DIR")
    if runtime is not None and owner(runtime) != invoker.uid:
        del kept["XDG_RUNTIME_DIR"]
    return kept


def _invoker(uid: int, environment: Mapping[str, str]) -> Invoker:
    """As the machine knows the user; one without an entry has the group that sudo names, and no home."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        number = environment.get("SUDO_GID", "")
        gid = int(number) if number.isascii() and number.isdecimal() and 0 < int(number) < 2**32 - 1 else uid
        return Invoker(uid, gid, environment.get("SUDO_USER") or str(uid), "", "", (gid,))
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Invoker(uid, entry.pw_gid, entry.pw_name, entry.pw_dir, entry.pw_shell, groups)


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except (OSError, ValueError):
        return None


def _root_again() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True

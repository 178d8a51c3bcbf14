"""The sudoers rule that lets somebody start the installed helper without a password, and nothing else (sudoers(5)).

Not here: the helper's file (installed.py).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from kt_net.errors import HostRefused, UsageFault

#: sudo reads no file there whose name has a dot in it.
FILE = "/etc/sudoers.d/ktctl-helper"
_MARK = "# written by: ktctl helper install"
#: Names that mean themselves. Those in capitals are aliases (ALL is everybody); others would need escapes.
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,63}\Z")
_NUMBER = re.compile(r"#[0-9]{1,10}\Z")


def subject(user: str = "", group: str = "") -> str:
    """Whom a rule is for, in sudoers' words: a user or a group, by name or by `#` and number.

    Raises:
        UsageFault: none or both, or a name that sudoers would read as something else.
    """
    name = user or group
    if bool(user) == bool(group):
        raise UsageFault("a rule is for one user or one group", next_step="give --user NAME or --group NAME")
    if not (_NAME.match(name) or _NUMBER.match(name)):
        raise UsageFault(
            f"sudoers would not read {name!r} as a name",
            next_step="give the number instead: --user '#1000' (id -u NAME), --group '#1000' (getent group NAME)",
        )
    return f"%{name}" if group else name


def rule(who: str, path: str) -> str:
    """The rule's text. The helper takes no arguments in it but the one that undoes leftovers: `""` says so.

    Args:
        who: see `subject`.
        path: see `installed.helper_path`.
    """
    return (
        f"{_MARK}\n"
        "# Whoever is named here may route networks into ktctl's device and choose this machine's name servers.\n"
        f'{who} ALL=(root) NOPASSWD: {path} "", {path} --replay\n'
    )


def check(text: str) -> bool:
    """Have visudo read it; False when there is no visudo here.

    Raises:
        HostRefused: it found a fault.
    """
    visudo = shutil.which("visudo", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if visudo is None:
        return False
    with tempfile.NamedTemporaryFile("w", prefix="ktctl-sudoers-") as file:
        file.write(text)
        file.flush()
        result = subprocess.run([visudo, "-c", "-f", file.name], capture_output=True, text=True, check=False)
    if result.returncode:
        raise HostRefused("visudo does not accept the rule", why=(result.stderr or result.stdout).strip())
    return True


def write(text: str, file: str = FILE) -> None:
    """Put a checked rule in its place.

    Raises:
        HostRefused: there is another file of that name, no visudo to check it first, or it cannot be written.
    """
    if not check(text):
        raise HostRefused("the rule is not written", why="there is no visudo here", next_step="is sudo installed?")
    if os.path.lexists(file) and not _ours(file):
        raise HostRefused(f"{file} is not ours", next_step="look at it; write the rule by hand with visudo")
    # A dot in its name: sudo does not read it before it is whole.
    beside = f"{file}.{os.getpid()}"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o440)
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
            os.fchmod(out.fileno(), 0o440)
        os.replace(beside, file)
    except OSError as error:
        raise HostRefused(f"{file} cannot be written", why=error.strerror or str(error)) from error


def remove(file: str = FILE) -> bool:
    """Take the rule away if it is ours; whether it was there.

    Raises:
        HostRefused: it cannot be removed.
    """
    if not _ours(file):
        return False
    try:
        os.unlink(file)
    except OSError as error:
        raise HostRefused(f"{file} cannot be removed", why=error.strerror or str(error)) from error
    return True


def _ours(file: str) -> bool:
    try:
        return Path(file).read_text(errors="replace").startswith(_MARK)
    except OSError:
        return False

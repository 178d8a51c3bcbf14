"""A user of the test's own, in a mount namespace of the test's own: known to the machine and to sudo, with programs that he can reach.

Not here: making the namespace (namespaces.py, or `unshare`); a network of his own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

NAME, UID = "ktjane", 4711
#: A user whom nothing on the machine knows.
NOBODY_KNOWS = 4712
ROOT = Path(__file__).parents[2]

#: As Debian 12 ships it, and nobody but root in it.
_SUDOERS = """Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Defaults use_pty
root ALL=(ALL:ALL) ALL
@includedir /etc/sudoers.d
"""


def move_in(folder: Path, *more: Path) -> Path:
    """Make the machine of this mount namespace one with a user; his home. /usr/local, /var/lib and /etc/sudoers.d are empty.

    Args:
        folder: for what it needs; the user's home is made in it.
        more: what he has to reach besides Python, this project and his home.
    """
    home = folder / "home"
    home.mkdir(parents=True)
    os.chown(home, UID, UID)
    _reachable([Path(sys.base_prefix), Path(sys.prefix), ROOT, folder, *more])
    _lay_over(folder, "/etc/passwd", Path("/etc/passwd").read_text() + f"{NAME}:x:{UID}:{UID}::{home}:/bin/sh\n")
    _lay_over(folder, "/etc/group", Path("/etc/group").read_text() + f"{NAME}:x:{UID}:\n")
    # Without a password, and not expired: sudo's account check wants to know.
    shadow = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in ("root", NAME))
    _lay_over(folder, "/etc/shadow", shadow, mode=0o600)
    _lay_over(folder, "/etc/sudoers", _SUDOERS, mode=0o440)
    for path in ("/usr/local", "/var/lib", "/etc/sudoers.d"):
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    return home


def as_user(*command: str, uid: int = UID) -> list[str]:
    """`command` as run by the user, without anything of root's but the environment."""
    setpriv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    return [*setpriv, "env", "-u", "SUDO_UID", *command]


def ktctl() -> str:
    """The program."""
    return str(Path(sysconfig.get_path("scripts")) / "ktctl")


def _lay_over(folder: Path, path: str, content: str, mode: int = 0o644) -> None:
    copy = folder / path.replace("/", "_")
    copy.write_text(content)
    copy.chmod(mode)
    _mount("--bind", str(copy), path)


def _reachable(paths: list[Path]) -> None:
    """Folders that others may not enter (/root) are replaced by ones that have nothing but `paths` in them."""
    closed = {parent for path in paths for parent in path.parents if not parent.stat().st_mode & 0o001}
    for cover in closed:
        if any(parent in closed for parent in cover.parents):
            continue
        inside = sorted({path for path in paths if cover in path.parents})
        held = Path("/mnt")
        _mount("-t", "tmpfs", "tmpfs", str(held))
        for number, path in enumerate(inside):
            (held / str(number)).mkdir()
            _mount("--bind", str(path), str(held / str(number)))
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(cover))
        for number, path in enumerate(inside):
            path.mkdir(parents=True, exist_ok=True)
            _mount("--bind", str(held / str(number)), str(path))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)

"""ktctl's folder of this user: who is connected, and where to reach it.

Not here: what is said over the socket (control.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
from pathlib import Path

from kt_net.errors import AlreadyConnected, HostRefused

#: For tests, and for those who want it elsewhere.
ENVIRONMENT = "KT_HOME"
_CARRIERS = "carriers.json"


def home() -> Path:
    """~/.kt, as KT Connect has it."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given)
    invoker = os.environ.get("SUDO_UID", "")
    try:
        if os.geteuid() == 0 and invoker.isascii() and invoker.isdecimal() and invoker != "0":
            # The connection of `sudo ktctl connect` is that user's: it becomes the user again.
            return Path(pwd.getpwuid(int(invoker)).pw_dir) / ".kt"
    except (KeyError, OverflowError):
        pass
    try:
        return Path.home() / ".kt"
    except RuntimeError:  # neither HOME nor an entry for this user, as in a container
        return Path("/.kt")


def control_socket() -> Path:
    """Where a running connection listens for `status` and `disconnect`."""
    return home() / "run" / "connect.sock"


def log_file() -> Path:
    """What a connection in the background says."""
    return home() / "connect.log"


def open_log() -> int:
    """A new log, in place of the last one's; its descriptor.

    Raises:
        HostRefused: it cannot be written.
    """
    file = log_file()
    try:
        file.unlink(missing_ok=True)
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostRefused(f"cannot write to {file}", why=error.strerror or str(error)) from error


class Claim:
    """The right to be the one connection of this user: a lock that ends with the process, however it ends."""

    def __init__(self) -> None:
        folder = home() / "run"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(folder / "connect.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostRefused(
                f"cannot write to {folder}",
                why=error.strerror or str(error),
                next_step=f"set {ENVIRONMENT} to a folder that this user may write to",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise AlreadyConnected("this machine is connected already", why=f"by process {holder}") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let another one be it."""
        os.close(self._file)


def is_claimed() -> bool:
    """Whether a connection of this user runs. Makes nothing: root may be asking, in the user's folder."""
    if not (home() / "run" / "connect.lock").exists():
        return False
    try:
        Claim().release()
    except AlreadyConnected:
        return True
    except HostRefused:
        return False
    return False


def remembered_carrier(server: str) -> str:
    """The form of carrier that worked with this API server the last time; "" when nobody knows."""
    try:
        found = json.loads((home() / _CARRIERS).read_text())
    except (OSError, ValueError):
        return ""
    form = found.get(server) if isinstance(found, dict) else None
    return form if isinstance(form, str) else ""


def remember_carrier(server: str, form: str) -> None:
    """Write it down; where that cannot be, it is found out again the next time."""
    file = home() / _CARRIERS
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    known = {**(known if isinstance(known, dict) else {}), server: form}
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(known, indent=1) + "\n")
        beside.replace(file)
    except OSError:
        pass

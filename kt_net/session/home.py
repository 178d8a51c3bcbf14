"""ktctl's folder of this user: who is connected, under which names, and where to reach each connection.

Not here: what is said over the socket (control.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import time
from pathlib import Path
from typing import Final

from kt_net.errors import AlreadyConnected, HostRefused, UsageFault

#: For tests, and for those who want it elsewhere.
ENVIRONMENT = "KT_HOME"
_CARRIERS = "carriers.json"
#: How often a lock is tried, and seconds between two tries.
LOOKS: Final = 5
LOOK_SECONDS: Final = 0.01
#: Of a connection that was given none.
DEFAULT_NAME: Final = "default"
#: A label (RFC 1123 section 2.1), short enough for the path of a socket (unix(7): 108 octets).
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z")


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


def check_name(name: str) -> str:
    """`name` when a connection can be called so.

    Raises:
        UsageFault: it cannot.
    """
    if not _NAME.match(name):
        raise UsageFault(f"--name: {name!r} is none", why="lower-case letters, digits and -, at most 32")
    return name


def control_socket(name: str = DEFAULT_NAME) -> Path:
    """Where a running connection listens for `status` and `disconnect`."""
    return home() / "run" / f"{_stem(name)}.sock"


def _stem(name: str) -> str:
    return "connect" if name == DEFAULT_NAME else f"connect-{name}"


def _lock(name: str) -> Path:
    return home() / "run" / f"{_stem(name)}.lock"


def log_file(name: str = DEFAULT_NAME) -> Path:
    """What a connection in the background says."""
    return home() / f"{_stem(name)}.log"


def open_log(name: str) -> int:
    """A new log, in place of the last one's; its descriptor.

    Raises:
        HostRefused: it cannot be written.
    """
    file = log_file(name)
    try:
        file.unlink(missing_ok=True)
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostRefused(f"cannot write to {file}", why=error.strerror or str(error)) from error


class Claim:
    """The right to be the one connection of this user with this name: a lock that ends with the process, however it ends."""

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        lock = _lock(name)
        folder = lock.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostRefused(
                f"cannot write to {folder}",
                why=error.strerror or str(error),
                next_step=f"set {ENVIRONMENT} to a folder that this user may write to",
            ) from error
        try:
            _lock_file(self._file)
        except BlockingIOError:
            holder = _words(self._file)[0]
            os.close(self._file)
            named = "" if name == DEFAULT_NAME else f" as {name}"
            raise AlreadyConnected(f"this machine is connected already{named}", why=f"by process {holder}") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def tell(self, interface: str) -> None:
        """Which device the connection has, for others of this user to read."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()} {interface}".encode(), 0)

    def release(self) -> None:
        """Let another one be it."""
        os.close(self._file)


def _lock_file(lock: int) -> None:
    """Whoever only looks holds it for a moment, too.

    Raises:
        BlockingIOError: somebody keeps it.
    """
    for look in range(LOOKS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if look == LOOKS - 1:
                raise
            time.sleep(LOOK_SECONDS)


def _words(lock: int) -> list[str]:
    """What stands in a lock's file: a process, and perhaps its device."""
    return os.pread(lock, 64, 0).decode(errors="replace").split() or [""]


def devices() -> dict[str, str]:
    """Devices of this user's connections that run, and the names of those."""
    found = {}
    for name in connections():
        try:
            lock = os.open(_lock(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # it has just ended
        words = _words(lock)
        os.close(lock)
        found.update(dict.fromkeys(words[1:], name))
    return found


def connections() -> list[str]:
    """Names of this user's connections that run."""
    stems = sorted(path.stem for path in (home() / "run").glob("connect*.lock"))
    names = [DEFAULT_NAME if stem == "connect" else stem.removeprefix("connect-") for stem in stems]
    return [name for name in names if is_claimed(name)]


def meant(name: str | None) -> str:
    """The connection that a command is about: the one that it names, or the only one there is.

    Raises:
        UsageFault: it could be several, or this is no name.
    """
    if name is not None:
        return check_name(name)
    running = connections()
    if len(running) > 1:
        raise UsageFault("several connections run", why=", ".join(running), next_step="say which one: --name NAME")
    return running[0] if running else DEFAULT_NAME


def is_claimed(name: str = DEFAULT_NAME) -> bool:
    """Whether a connection of this user runs under this name. Makes nothing: root may be asking, in the user's folder."""
    try:
        lock = os.open(_lock(name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
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

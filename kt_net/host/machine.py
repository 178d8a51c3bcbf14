"""This machine as `connect` needs it, described: looked at once, then only judged (health.py).

Not here: judgements, changes. Nothing in here waits for anybody.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kt_net.host.environment import look
from kt_net.host.helper import INTERFACE, start_time
from kt_net.host.naming import Environment
from kt_net.host.routes import Route, read_routes

TUN: Final = "/dev/net/tun"
#: Where sudo and the helper find programs besides.
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_CAP_NET_ADMIN: Final = 12  # linux/capability.h
_SIOCGIFMTU: Final = 0x8921  # linux/sockios.h
_MAX_JOURNAL: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class JournalSeen:
    """A helper's undo journal. `undo` names what it would put back; `trouble` says why it cannot be read."""

    path: str
    pid: int = 0
    alive: bool = False
    undo: tuple[str, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What was seen.

    Attributes:
        tun_error: number of the error that opening the device gives; 0 for none.
        may_administer: whether root may have CAP_NET_ADMIN here; None where nobody knows.
        locked: no program gets more rights than its caller here (no_new_privs), so sudo does not work.
        devices: network interfaces of ours.
        journals: None when only root may look.
        mtus: of the interfaces of default routes.
    """

    root: bool
    sudo: bool
    locked: bool
    may_administer: bool | None
    tun_error: int
    ip: bool
    devices: tuple[str, ...]
    journals: tuple[JournalSeen, ...] | None
    routes: tuple[Route, ...]
    mtus: tuple[tuple[str, int], ...]
    resolver: Environment


def look_at_machine(state_folder: str) -> Machine:
    """The machine as it is, with the rights that this process has now."""
    status = _status()
    routes = read_routes()
    defaults = {route.interface for route in routes if not route.prefix.prefixlen}
    return Machine(
        root=os.geteuid() == 0,
        sudo=shutil.which("sudo") is not None,
        locked=status.get("NoNewPrivs") == "1",
        may_administer=_bit(status.get("CapBnd"), _CAP_NET_ADMIN),
        tun_error=_tun_error(),
        ip=shutil.which("ip", path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}") is not None,
        devices=_devices(),
        journals=look_at_journals(state_folder),
        routes=tuple(routes),
        mtus=tuple((name, mtu) for name in sorted(defaults) if (mtu := _mtu(name))),
        resolver=look(),
    )


def look_at_journals(state_folder: str) -> tuple[JournalSeen, ...] | None:
    """The journals there; None when only root may look."""
    try:
        names = sorted(os.listdir(state_folder))
    except PermissionError:
        return None
    except OSError:
        return ()
    paths = [os.path.join(state_folder, name) for name in names if name.startswith("journal-")]
    return tuple(_journal(path) for path in paths if path.endswith(".json"))


def _journal(path: str) -> JournalSeen:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            record = json.loads(file.read(_MAX_JOURNAL))
        pid, started, steps = int(record["pid"]), record["started"], record["undo"]
        undo = tuple(str(step.get("path") or step.get("name")) for step in steps)
        if record["schema"] != 1:
            raise ValueError("of another version")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return JournalSeen(path, trouble=str(error) or type(error).__name__)
    return JournalSeen(path, pid, started is not None and start_time(pid) == started, undo)


def _status() -> dict[str, str]:
    """/proc/self/status (proc_pid_status(5)); empty where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _bit(mask: str | None, number: int) -> bool | None:
    try:
        return None if mask is None else bool(int(mask, 16) >> number & 1)
    except ValueError:
        return None


def _tun_error() -> int:
    """As who opens it to make a device would get it. Opening alone makes none."""
    try:
        descriptor = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        return 0 if stat.S_ISCHR(os.fstat(descriptor).st_mode) and _is_tun(descriptor) else errno.ENODEV
    finally:
        os.close(descriptor)


def _is_tun(descriptor: int) -> bool:
    """Whether the driver behind it is the one (TUNGETFEATURES, linux/if_tun.h): /dev/null is a character device, too."""
    try:
        fcntl.ioctl(descriptor, 0x800454CF, bytes(4))
    except OSError:
        return False
    return True


def _devices() -> tuple[str, ...]:
    try:
        return tuple(sorted(name for _, name in socket.if_nameindex() if INTERFACE.match(name)))
    except OSError:
        return ()


def _mtu(interface: str) -> int:
    """By ioctl, as /sys may show another network namespace; 0 when it cannot be had."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            answer = fcntl.ioctl(asker, _SIOCGIFMTU, struct.pack("16si20x", interface.encode(), 0))
    except OSError:
        return 0
    return int(struct.unpack_from("i", answer, 16)[0])

"""What this machine's names look like, read from its files.

Not here: what is made of it (naming.py).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from kt_net.host.helper import RESOLVER_FILE
from kt_net.host.naming import Environment

#: systemd-resolved writes here which servers it asks itself (systemd-resolved.service(8)).
UPLINKS: Final = "/run/systemd/resolve/resolv.conf"
BUS: Final = "/run/dbus/system_bus_socket"


def look() -> Environment:
    """As it is now."""
    mounted, read_only = _mount(RESOLVER_FILE)
    return Environment(
        system=sys.platform,
        resolv_conf=_text(RESOLVER_FILE),
        link=os.path.realpath(RESOLVER_FILE) if os.path.islink(RESOLVER_FILE) else "",
        mounted=mounted,
        read_only=read_only,
        resolved=os.path.exists(BUS) and os.path.exists(UPLINKS) and shutil.which("resolvectl") is not None,
        uplinks=_text(UPLINKS) or "",
    )


def _text(path: str) -> str | None:
    try:
        return Path(path).read_bytes().decode(errors="surrogateescape")
    except OSError:
        return None


def _mount(path: str) -> tuple[bool, bool]:
    """Whether a file is a mount of its own, and whether what it is on is read-only (proc_pid_mountinfo(5))."""
    target, found, options = os.path.realpath(path), "", ""
    try:
        # Any octets but the end of a line: whoever may mount something says its name.
        lines = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape").split("\n")
    except OSError:
        return False, False
    for line in lines:
        words = line.split(" ")
        if len(words) < 6:
            continue
        point = words[4].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found):  # later mounts lie over earlier ones
            found, options = point, words[5]
    return found == target, "ro" in options.split(",")

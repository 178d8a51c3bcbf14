"""Machines under test whose names are set up in another way than the lab's laptop: a mount namespace each, inside the laptop's network.

    plain      /etc/resolv.conf is a file like any other
    resolved   systemd-resolved, started by hand with a D-Bus of its own
    hosts      like plain; what makes it another one is --dns-mode hosts

The lab's laptop itself has resolv.conf as a bind mount, as containers have.

Not here: what should work there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.backend import Backend, LabBackend
from tests.lab.packages import unpacked

#: Kept for systemd-resolved, which runs as it (any number that nobody has).
RESOLVE_USER = 64994

_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""
#: An /etc of its own over the machine's; nothing of /run.
_PLAIN = """
mount -t tmpfs tmpfs {folder}
mkdir {folder}/upper {folder}/work {folder}/kt
umount /etc/resolv.conf /etc/hosts
mount -t overlay -o lowerdir=/etc,upperdir={folder}/upper,workdir={folder}/work overlay /etc
mount -t tmpfs -o mode=0700 tmpfs /var/lib/ktctl
mount -t tmpfs tmpfs /run
rm -f /etc/resolv.conf
printf 'nameserver {world}\\nsearch corp.test\\noptions timeout:2\\n' > /etc/resolv.conf
printf '127.0.0.1 localhost\\n::1 localhost\\n' > /etc/hosts
"""
_RESOLVED = """
mkdir -p /run/systemd/resolve /run/dbus /etc/systemd
echo 'systemd-resolve:x:{user}:{user}::/:/usr/sbin/nologin' >> /etc/passwd
echo 'systemd-resolve:x:{user}:' >> /etc/group
chown {user}:{user} /run/systemd/resolve
printf '[Resolve]\\nDNS={world}\\nDomains=corp.test\\nLLMNR=no\\nMulticastDNS=no\\nDNSSEC=no\\n' > /etc/systemd/resolved.conf
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
mount -t overlay -o lowerdir={binaries}:/usr/bin overlay /usr/bin
dbus-daemon --config-file={bus} --nofork --nopidfile &
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.02; done
LD_LIBRARY_PATH={library} {programs}/lib/systemd/systemd-resolved &
while [ ! -e /run/systemd/resolve/stub-resolv.conf ]; do sleep 0.02; done
"""
_HOLD = "touch {folder}/ready\nexec sleep 2147483647\n"


class LayoutBackend(LabBackend):
    """The lab's cluster, seen from a machine with another layout."""

    def __init__(self, lab: LabBackend, pid: int) -> None:
        self.lab = lab.lab
        self.kubeconfig = lab.kubeconfig
        self.python_image = lab.python_image
        self.pid = pid

    def laptop_argv(self, command: list[str]) -> list[str]:
        """See `Backend`."""
        inside = super().laptop_argv(command)
        return [f"--target={self.pid}" if word.startswith("--target=") else word for word in inside]

    def read(self, path: str) -> bytes:
        """A file as this machine sees it."""
        return Path(f"/proc/{self.pid}/root{path}").read_bytes()


@contextlib.contextmanager
def layout(lab: LabBackend, kind: str, folder: Path) -> Iterator[LayoutBackend]:
    """A machine, as long as the block lasts. Its processes and mounts go with it."""
    folder.mkdir()
    values = {"folder": folder, "world": lab.lab.instance.world4, "user": RESOLVE_USER}
    script, binaries, log = "set -e" + _PLAIN, folder.with_suffix(".bin"), folder.with_suffix(".log")
    if kind == "resolved":
        programs = unpacked("systemd-resolved", "libsystemd-shared")
        (library,) = programs.glob("usr/lib/*/systemd")
        bus = folder.with_suffix(".bus")
        bus.write_text(_BUS)
        binaries.mkdir()
        command = binaries / "resolvectl"
        command.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={library} exec {programs}/usr/bin/resolvectl "$@"\n')
        command.chmod(0o755)
        values |= {"programs": programs, "library": library, "bus": bus, "binaries": binaries}
        script += _RESOLVED
    laptop = lab.laptop_argv(["unshare", "--mount", "--propagation", "private", "sh", "-c"])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*laptop, (script + _HOLD).format(**values)], stdout=output, stderr=output, start_new_session=True
        )
    try:
        ready, limit = Path(f"/proc/{process.pid}/root{folder}/ready"), time.monotonic() + 10
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.02)
        yield LayoutBackend(lab, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(backend: Backend, *command: str) -> list[str]:
    """What a program says on the machine, in lines."""
    return subprocess.run(
        backend.laptop_argv(list(command)), capture_output=True, text=True, check=False, timeout=60
    ).stdout.splitlines()

"""Long-running processes of a lab: started detached, remembered by pid and start time, ended only when they are still the same.

Not here: which ones there are.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

from tests.lab.errors import LabError


def start_time(pid: int) -> int | None:
    """In ticks since boot; None when there is no such process (or only its corpse).

    A corpse whose other threads still end holds its sockets, and counts.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") and threads <= 1 else int(fields[19])


class Processes:
    """Those of one lab, in a file."""

    def __init__(self, state: Path) -> None:
        self._file = state / "processes.json"
        self._logs = state / "log"
        self._known: dict[str, tuple[int, int]] = {}
        if self._file.exists():
            self._known = {name: (pid, ticks) for name, (pid, ticks) in json.loads(self._file.read_text()).items()}

    def start(self, name: str, *command: str | Path, namespace: str = "") -> int:
        """Start one, in a network namespace or this one. nsenter, not `ip netns exec`: that one remounts /sys, and kubelets need it."""
        self._logs.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        if namespace:
            words = ["nsenter", f"--net=/run/netns/{namespace}", *words]
        with open(self._logs / f"{name}.log", "ab") as log, open(os.devnull) as nothing:
            # Not Popen: it outlives us on purpose, and Popen warns of that, which fails a test that starts the lab.
            pid = os.posix_spawnp(
                "env",
                ["env", "--chdir=/", *words],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
            )
        ticks = start_time(pid)
        if ticks is None:
            raise LabError(f"{name} ended at once: {self.log(name)}")
        self._known[name] = (pid, ticks)
        self._file.write_text(json.dumps(self._known))
        return pid

    def pid(self, name: str) -> int | None:
        """Of a living one."""
        pid, ticks = self._known.get(name, (0, 0))
        return pid if pid and start_time(pid) == ticks else None

    def dead(self) -> list[str]:
        """Names of those that should live and do not."""
        return [name for name in self._known if self.pid(name) is None]

    def alive(self) -> list[str]:
        """Names of those that live."""
        return [name for name in self._known if self.pid(name) is not None]

    def log(self, name: str, octets: int = 1500) -> str:
        """The end of what it wrote."""
        try:
            return (self._logs / f"{name}.log").read_text(errors="replace")[-octets:]
        except OSError:
            return ""

    def stop(self, name: str, *, number: signal.Signals = signal.SIGTERM, seconds: float = 5.0) -> None:
        """End one, by force when it does not want to."""
        if name not in self._known:
            return
        pid = self.pid(name)
        if pid is not None:
            end(pid, self._known[name][1], number, seconds)
        del self._known[name]
        self._file.write_text(json.dumps(self._known))


def end(pid: int, ticks: int, number: signal.Signals, seconds: float) -> None:
    """Signal a process and wait; kill it when it stays."""
    for signal_number, patience in ((number, seconds), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_number)
        limit = time.monotonic() + patience
        while time.monotonic() < limit:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if start_time(pid) != ticks:
                return
            time.sleep(0.02)

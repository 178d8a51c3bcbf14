"""However the client ends, on machines of every layout: the files about names and what systemd-resolved was told are what they were."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.backend import LabBackend
from tests.cluster.ktctl import Ktctl
from tests.cluster.layouts import LayoutBackend, layout, run

#: What the machine's network is back after, however the client ends.
RESTORED_SECONDS = 1.0


def files(machine: LayoutBackend) -> dict[str, object]:
    """The files about names, and what systemd-resolved has been told."""
    return {
        "resolv.conf": machine.read("/etc/resolv.conf"),
        "hosts": machine.read("/etc/hosts"),
        "link": run(machine, "readlink", "/etc/resolv.conf"),
        "resolved": run(machine, "sh", "-c", "command -v resolvectl >/dev/null && resolvectl --no-pager dns"),
        "routes": run(machine, "ip", "route", "show", "table", "all"),
    }


@pytest.mark.parametrize("kind", ["plain", "resolved", "hosts"])
@pytest.mark.parametrize("killed", ["client", "client, helper", "client, helper, guard", "none"])
def test_killed(lab: LabBackend, kind: str, killed: str, tmp_path: Path) -> None:
    """The machine's names are what they were, at once or by `ktctl disconnect`; names outside work all the time."""
    flags = ("--dns-mode", "hosts") if kind == "hosts" else ()
    with layout(lab, kind, tmp_path / "etc") as machine:
        before = files(machine)
        with Ktctl(machine, "connect", "--image", lab.python_image, "--idle-exit", "3", *flags) as running:
            running.wait_ready()
            assert files(machine) != before
            guard, helper = running.guard_pid(), running.helper_pid()
            for name, pid in (("guard", guard), ("helper", helper), ("client", running.process.pid)):
                if name in killed:
                    os.kill(pid, signal.SIGKILL)
            if killed == "none":
                running.process.terminate()
            running.wait_ended()
        if "guard" in killed:
            subprocess.run(machine.laptop_argv(["ktctl", "disconnect"]), check=True, capture_output=True, timeout=60)
        limit = time.monotonic() + RESTORED_SECONDS
        while (now := files(machine)) != before:
            assert time.monotonic() < limit, (now, before)
        assert run(machine, "getent", "hosts", "www.world.test")


def test_stopped_with_systemd_resolved(lab: LabBackend, tmp_path: Path) -> None:
    """Names outside never come to us; those of the cluster are given back to nobody after three seconds, and taken again."""
    with (
        layout(lab, "resolved", tmp_path / "etc") as machine,
        Ktctl(machine, "connect", "--image", lab.python_image, "--idle-exit", "3") as running,
    ):
        running.wait_ready()
        running.signal(signal.SIGSTOP)
        limit = time.monotonic() + 5
        assert run(machine, "dig", "+short", "+tries=1", "+time=1", "www.world.test"), "at once"
        while any("kt0" in line and "198.19" in line for line in run(machine, "resolvectl", "--no-pager", "dns")):
            assert time.monotonic() < limit
            time.sleep(0.1)
        assert run(machine, "timeout", "1", "getent", "hosts", "www.world.test"), (
            "which looks for it in the search list, too"
        )
        running.signal(signal.SIGCONT)
        limit = time.monotonic() + 5
        while not run(machine, "timeout", "1", "getent", "hosts", "web"):
            assert time.monotonic() < limit

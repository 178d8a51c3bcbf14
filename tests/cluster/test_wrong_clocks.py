"""Ten minutes wrong, either way, here and in the pod: no living session is taken for dead, and dead ones are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.backend import HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl, ktctl
from tests.cluster.local import Hello, program
from tests.cluster.test_exchange import as_it_was, wait_says
from tests.cluster.test_guards import AGENT_SECONDS, COLLECTOR_SECONDS, kill, watchdog_pid
from tests.lab.images import reference
from tests.lab.wrong_clock import FILE, SECONDS, off_by

#: Longer than a Lease holds.
WATCHED = 35.0


def test_ten_minutes_wrong(lab: LabBackend, tmp_path: Path) -> None:
    """Two sessions, one of the past and one of the future, with agents ten minutes fast; cleaned by their contrary all the time."""
    here, config = HereBackend(lab), ("--kubeconfig", str(lab.kubeconfig))
    clocks = {}
    for wrong in (-SECONDS, SECONDS):
        folder = tmp_path / f"{wrong}"
        folder.mkdir()
        (folder / FILE).write_text(off_by(wrong))
        clocks[wrong] = {"PYTHONPATH": str(folder)}

    def clean(wrong: int) -> dict[str, Any]:
        code, found = ktctl(here, "clean", *config, env=clocks[wrong])
        assert code == 0, found
        return found

    before = {name: as_it_was(lab, name) for name in ("web", "bytes")}
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(program(Hello))
        running = {}
        for name, remote, wrong in (("web", 80, -SECONDS), ("bytes", 9000, SECONDS)):
            words = ("exchange", name, "--expose", f"{port}:{remote}", "--image", reference("late"))
            running[name] = stack.enter_context(Ktctl(here, *words, *config, env=clocks[wrong]))
        for one in running.values():
            one.wait_ready()
        _check_the_clocks_are_wrong(lab, clocks)
        limit = time.monotonic() + WATCHED
        while time.monotonic() < limit:
            for wrong in clocks:
                found = clean(wrong)
                assert (found["cleaned"], len(found["live"])) == ([], 4), found  # a Service and a Job each
        wait_says(lab, "from the laptop", "web")
        wait_says(lab, "from the laptop", "bytes", 9000)

        for one in running.values():
            kill(watchdog_pid(one), one.process.pid)
        lab.kubectl("delete", "job", "-l", f"kt-target={_session(lab, 'bytes')}", "--wait=true")
        killed = time.monotonic()
        found = clean(-SECONDS)
        assert [one["object"] for one in found["cleaned"]] == ["service/bytes"]
        assert as_it_was(lab, "bytes") == before["bytes"]
        while as_it_was(lab, "web") != before["web"]:
            assert time.monotonic() - killed < AGENT_SECONDS
            time.sleep(0.2)
        print(f"given back by an agent ten minutes fast {time.monotonic() - killed:.1f} s after its client was killed")
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)


def _check_the_clocks_are_wrong(lab: LabBackend, clocks: dict[int, dict[str, str]]) -> None:
    ask = ("-c", "import time; print(time.time())")
    pods = lab.kubectl("get", "pods", "-l", "kt-role=shadow-exchange", "-o", "name").split()
    assert len(pods) == 2
    for pod in pods:
        assert float(lab.kubectl("exec", pod, "--", "python3", *ask)) - time.time() > SECONDS - 60
    for wrong, env in clocks.items():
        said = subprocess.run([sys.executable, *ask], env={**os.environ, **env}, capture_output=True, check=True)
        assert abs(float(said.stdout) - time.time() - wrong) < 60


def _session(lab: LabBackend, service: str) -> str:
    return lab.kubectl("get", "service", service, "-o", "jsonpath={.spec.selector.kt-target}")

"""A seeded sample of what the quiet tier does exhaustively: in each mode, at any moment, whoever is stopped; then all is what it was."""

from __future__ import annotations

import contextlib
import json
import random
import time

from kt_net.choreography.lease import LEASE_SECONDS
from tests.cluster.backend import LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl
from tests.cluster.test_clean import clean, recover
from tests.cluster.test_exchange import as_it_was, exchange
from tests.cluster.test_guards import COLLECTOR_SECONDS, kill, watchdog_pid
from tests.lab.cluster import Lab
from tests.lab.errors import LabError

SEED = 20261125
VICTIMS = (
    "client",
    "client and watchdog",
    "client, watchdog and agent",
    "agent",
    "API server",
    "API server and client",
)
MODES = ("selector", "selector", "scale", "ephemeral")
#: A way up takes two seconds (selector), or five (scale, with its pods' end).
LONGEST = {"selector": 4.0, "scale": 7.0, "ephemeral": 4.0}
#: For the nets that are left, before `recover` is asked.
NETS_SECONDS = 5.0


def test_a_sample_of_stops(lab: LabBackend, restarts: Lab, long: bool) -> None:
    dice = random.Random(SEED)
    wanted = (as_it_was(lab, "web"), as_it_was(lab, "web", "deployment"))
    for number in range(200 if long else 20):
        mode, victims = dice.choice(MODES), dice.choice(VICTIMS)
        if victims.startswith("API server") and number % 20 != 5:
            victims = "client"  # an API server's controllers take minutes to come back: one in twenty is enough
        delay = dice.uniform(0.3, LONGEST[mode])
        print(f"{number}: {mode}, {victims} after {delay:.1f} s", flush=True)
        with exchange(lab, "web", "--expose", "8080:80", "--mode", mode, "--drain", "0", "--idle-exit", "5") as running:
            time.sleep(delay)
            _stop(lab, restarts, running, victims)
            if "client" not in victims:
                time.sleep(1)
        _wait_or_recover(lab, wanted, (number, mode, victims, delay))
        if victims.startswith("API server"):
            restarts.wait_controllers()
        lab.kubectl("rollout", "status", "deploy/web", "--timeout=90s")
    time.sleep(LEASE_SECONDS)  # before that the last ones' are somebody's
    code, found = clean(lab)
    assert code == 0, found
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)
    lab.kubectl("rollout", "restart", "deploy/web")  # guests stay in the list of a pod's containers
    lab.kubectl("rollout", "status", "deploy/web", "--timeout=90s")


def _stop(lab: LabBackend, restarts: Lab, running: Ktctl, victims: str) -> None:
    if "API server" in victims:
        restarts.kill_apiserver()
    if "watchdog" in victims:
        with contextlib.suppress(ValueError, FileNotFoundError, ProcessLookupError):
            kill(watchdog_pid(running))
    if "client" in victims:
        with contextlib.suppress(ProcessLookupError):
            kill(running.process.pid)
    if "agent" in victims:
        lab.kubectl("delete", "job", "-l", "kt-role=shadow-exchange", "--wait=false")
    if "API server" in victims:
        time.sleep(1)
        restarts.start_apiserver()


def _wait_or_recover(lab: LabBackend, wanted: tuple[object, object], where: object) -> None:
    """By whoever is left, else by hand."""
    limit = time.monotonic() + NETS_SECONDS
    while (now := _now(lab)) != wanted and time.monotonic() < limit:
        time.sleep(0.2)
    if now != wanted:
        for target in ("web", "deployment/web"):
            code, found = recover(lab, target)
            assert code == 0, (where, found)
    assert _now(lab) == wanted, (where, json.dumps(_now(lab)), json.dumps(wanted))


def _now(lab: LabBackend) -> tuple[object, object]:
    with contextlib.suppress(LabError):
        return as_it_was(lab, "web"), as_it_was(lab, "web", "deployment")
    return None, None

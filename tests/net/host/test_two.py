"""Several connections on one machine: whatever becomes of one, names go on by another, and in the end everything is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kt_net.errors import HostChanged
from kt_net.host.client import HostHelper
from kt_net.host.helper import SILENCE_SECONDS
from kt_net.host.neighbours import neighbours_of
from kt_net.host.plan import RESOLVER_CANDIDATES, HostPlan, free_address, plan_host
from kt_net.host.resolvconf import parse_resolv_conf
from kt_net.host.routes import read_routes
from kt_net.session import name_keeper
from kt_net.session.name_keeper import NameKeeper, Resolvers, Wanted, begin
from tests.net.host.test_ways import HOSTS, OWN, RESOLV, etc_of_ones_own, seen, until
from tests.net.namespaces import run_inside

OURS = tuple(map(str, RESOLVER_CANDIDATES))


class Connection:
    """The part of one that is about this machine."""

    def __init__(self, folder: str, interface: str, *, hosts: str = "") -> None:
        self.helper = HostHelper.start(f"{folder}/state")
        self.helper.replay()
        self.said: list[str] = []
        self.resolvers = Resolvers(())
        routes = read_routes()
        resolver = free_address(RESOLVER_CANDIDATES, [], routes)
        self.address = str(resolver)
        naming, leader = begin(self.helper, neighbours_of(routes, interface), hosts=bool(hosts), ours=OURS)
        self.resolvers = Resolvers(naming.own.nameservers)
        self.keeper = NameKeeper(
            self.helper,
            naming,
            Wanted(self.address, (f"{interface}.svc.cluster.local",), hosts={hosts: ("10.245.0.7",)}),
            interface=interface,
            leader=leader,
            ours=OURS,
            resolvers=self._resolvers_are,
            progress=self.said.append,
        )
        self.plan: HostPlan = plan_host(
            interface=interface,
            mtu=1500,
            offload=True,
            prefixes=[],
            holes=[],
            routes=routes,
            resolver=resolver,
            names=self.keeper.way(),
        )
        self.descriptor = -1

    def begin(self) -> Connection:
        self.descriptor = self.helper.apply(self.plan).descriptor
        self.keeper.start()
        return self

    def _resolvers_are(self, resolvers: Resolvers) -> None:
        self.resolvers = resolvers

    def end(self) -> None:
        self.keeper.close()
        self.helper.undo()
        os.close(self.descriptor)
        self.helper.close()

    @property
    def leads(self) -> bool:
        """Whether the file names it."""
        return self.address in servers()


def servers() -> tuple[str, ...]:
    return parse_resolv_conf(RESOLV.read_text() if RESOLV.exists() else "").nameservers


def one_after_the_other(layout: str, ends_first: str, folder: str) -> dict[str, Any]:
    etc_of_ones_own(layout, folder)
    before = seen()
    own = servers() or ("127.0.0.1",)
    first = Connection(folder, "kt0").begin()
    second = Connection(folder, "kt1").begin()
    found: dict[str, Any] = {
        "led by the first": first.leads and not second.leads,
        "joined": until(lambda: first.resolvers.neighbour == second.address),
        "own servers known": second.resolvers.own == own == first.resolvers.own,
        "the last asks the machine": second.resolvers.neighbour == "",
        "addresses differ": not {*first.plan.addresses} & {*second.plan.addresses},
    }
    one, other = (first, second) if ends_first == "first" else (second, first)
    one.end()
    found["the other goes on"] = until(lambda: other.leads and other.resolvers == Resolvers(own))
    other.end()
    return {**found, "as it was": seen() == before, "nothing left": os.listdir(f"{folder}/state") == []}


@pytest.mark.parametrize("ends_first", ["first", "second"])
@pytest.mark.parametrize("layout", ["plain", "symlink", "bind mount", "missing"])
def test_one_after_the_other(tmp_path: Path, layout: str, ends_first: str) -> None:
    found = run_inside(one_after_the_other, tmp_path, layout, ends_first, str(tmp_path))
    assert [what for what, true in found.items() if not true] == []


def three(folder: str) -> dict[str, Any]:
    etc_of_ones_own("plain", folder)
    before = seen()
    made = [Connection(folder, f"kt{number}").begin() for number in range(3)]

    def chain() -> list[int]:
        """Who is asked in turn, from the file on."""
        asked, server = list[int](), servers()[0]
        while server and len(asked) <= len(made):
            asked += [number for number, one in enumerate(made) if one.address == server]
            server = made[asked[-1]].resolvers.neighbour
        return asked

    found: dict[str, Any] = {"all are asked": until(lambda: chain() == [0, 1, 2])}
    made[0].end()
    found["one of the others took it"] = until(lambda: made[1].leads or made[2].leads)
    found["both are asked"] = until(lambda: sorted(chain()) == [1, 2])
    made[0] = Connection(folder, "kt0").begin()
    found["one more is asked, too"] = until(lambda: sorted(chain()) == [0, 1, 2]) and not made[0].leads
    for one in made:
        one.end()
    return {**found, "as it was": seen() == before}


def test_three(tmp_path: Path) -> None:
    found = run_inside(three, tmp_path, str(tmp_path))
    assert [what for what, true in found.items() if not true] == []


KILLED = """
import os, signal, sys
from tests.net.host.test_helper import guard_of
from tests.net.host.test_two import Connection
first = Connection(sys.argv[1], "kt0").begin()
print(first.address, flush=True)
sys.stdin.readline()
process = first.helper._process.pid
for pid in ((guard_of(process), process) if sys.argv[2] == "all" else ()):
    os.kill(pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(which: str, folder: str) -> dict[str, Any]:
    etc_of_ones_own("plain", folder)
    before = seen()
    first = subprocess.Popen(
        [sys.executable, "-c", KILLED, folder, which], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdin is not None
    assert first.stdout is not None
    address = first.stdout.readline().strip()
    second = Connection(folder, "kt1").begin()
    found: dict[str, Any] = {"led": servers() == (address,)}
    first.stdin.write("\n")
    first.stdin.flush()
    first.wait()
    found["taken over"] = until(lambda: second.leads)
    found["own servers known"] = second.resolvers == Resolvers(("192.0.2.53",))
    second.end()
    return {**found, "as it was": seen() == before, "nothing left": os.listdir(f"{folder}/state") == []}


@pytest.mark.parametrize("which", ["the client", "all"])
def test_the_one_that_has_the_file_is_killed(tmp_path: Path, which: str) -> None:
    """With its helper and its guard, its text stays in the file: the other one's helper replays its journal first."""
    found = run_inside(killed, tmp_path, which, str(tmp_path))
    assert [what for what, true in found.items() if not true] == []


def silent(ends_first: str, folder: str) -> dict[str, Any]:
    """The first one is stopped, and goes on."""
    etc_of_ones_own("plain", folder)
    before = seen()
    first = Connection(folder, "kt0").begin()
    second = Connection(folder, "kt1").begin()
    first.helper.beat()
    time.sleep(SILENCE_SECONDS)
    found: dict[str, Any] = {"taken over": until(lambda: second.leads)}
    first.helper.beat()
    found["followed"] = until(lambda: first.keeper.leader == "kt1")
    found["asked on"] = until(lambda: second.resolvers.neighbour == first.address)
    found["not written"] = second.leads
    one, other = (first, second) if ends_first == "first" else (second, first)
    one.end()
    beats = [time.sleep(1) or other.helper.beat() for _ in range(3)]  # type: ignore[func-returns-value]
    found["the other goes on"] = until(lambda: other.leads) and len(beats) == 3
    other.end()
    return {**found, "as it was": seen() == before, "said": first.said and "connection of kt1" in first.said[0]}


@pytest.mark.parametrize("ends_first", ["first", "second"])
def test_one_that_was_silent_leaves_the_file_to_the_other(tmp_path: Path, ends_first: str) -> None:
    found = run_inside(silent, tmp_path, ends_first, str(tmp_path))
    assert [what for what, true in found.items() if not true] == []


def rewritten(folder: str) -> dict[str, Any]:
    etc_of_ones_own("plain", folder)
    first = Connection(folder, "kt0").begin()
    second = Connection(folder, "kt1").begin()
    others = "nameserver 192.0.2.99\noptions timeout:1\n"
    RESOLV.write_text(others)
    found: dict[str, Any] = {
        "taken back by somebody": until(lambda: first.leads or second.leads),
        "known to both": until(lambda: first.resolvers.own == second.resolvers.own == ("192.0.2.99",)),
    }
    first.end()
    found["the other goes on"] = until(lambda: second.leads)
    second.end()
    return {**found, "theirs is what comes back": RESOLV.read_text() == others}


def test_rewritten_by_somebody_else(tmp_path: Path) -> None:
    found = run_inside(rewritten, tmp_path, str(tmp_path))
    assert [what for what, true in found.items() if not true] == []


def at_the_same_moment(folder: str) -> dict[str, Any]:
    etc_of_ones_own("plain", folder)
    before, said = seen(), list[str]()
    first, second, third = (Connection(folder, interface) for interface in ("kt0", "kt1", "kt0"))
    first.begin()
    for late in (second, third):  # both saw a machine without the first one
        try:
            late.begin()
        except HostChanged as error:
            said.append(error.why)
        late.helper.close()
    again = Connection(folder, "kt1").begin()
    follows = not again.leads
    first.end()
    again.end()
    return {"said": said, "follows": follows, "as it was": seen() == before}


def test_at_the_same_moment(tmp_path: Path) -> None:
    """Who comes second is told so, and nothing of his plan is left; at his second look he finds the first one."""
    found = run_inside(at_the_same_moment, tmp_path, str(tmp_path))
    assert "a route of the plan is there already" in found["said"][0]
    assert "another helper holds kt0" in found["said"][1]
    assert found["follows"]
    assert found["as it was"]


def hosts(ends_first: str, folder: str) -> dict[str, Any]:
    etc_of_ones_own("plain", folder)
    before = HOSTS.read_text()
    first = Connection(folder, "kt0", hosts="web").begin()
    second = Connection(folder, "kt1", hosts="cart").begin()
    both = HOSTS.read_text()
    first.keeper.want(hosts={"shop": ("10.245.0.9",)})
    told = until(lambda: "10.245.0.9 shop\n" in HOSTS.read_text())
    kept = "10.245.0.7 cart\n" in HOSTS.read_text()
    one, other = (first, second) if ends_first == "first" else (second, first)
    one.end()
    between = HOSTS.read_text()
    other.end()
    return {
        "both": "web" in both and "cart" in both,
        "told": told and kept,
        "one": ("cart" in between) == (ends_first == "first") and ("shop" in between) == (ends_first == "second"),
        "as it was": HOSTS.read_text() == before and not before.endswith("\n"),
        "resolver file left alone": RESOLV.read_text() == OWN,
    }


@pytest.mark.parametrize("ends_first", ["first", "second"])
def test_hosts_files(tmp_path: Path, ends_first: str) -> None:
    found = run_inside(hosts, tmp_path, ends_first, str(tmp_path))
    assert [what for what, true in found.items() if not true] == []


def told_of_the_end(folder: str) -> dict[str, Any]:
    etc_of_ones_own("plain", folder)
    first = Connection(folder, "kt0").begin()
    second = Connection(folder, "kt1").begin()
    joined = until(lambda: first.resolvers.neighbour == second.address)
    usual, name_keeper.LOOK_SECONDS = name_keeper.LOOK_SECONDS, 3600.0  # type: ignore[misc]
    time.sleep(2 * usual)  # from its next look on it waits to be told
    second.end()
    first.keeper.look()
    known = until(lambda: first.resolvers.neighbour == "")
    first.end()
    return {"joined": joined, "known": known}


def test_who_is_told_of_a_change_looks_at_once(tmp_path: Path) -> None:
    """The kernel tells when a device has gone: nobody's questions go there for a second more."""
    assert run_inside(told_of_the_end, tmp_path, str(tmp_path)) == {"joined": True, "known": True}

"""The host helper does a plan and undoes it, however its client ends."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kt_net.errors import HelperProtocolError, HostRefused, KtError
from kt_net.host.client import HELPER, HostHelper, channel_pair, leftovers, replay_leftovers
from kt_net.host.helper import RESOLVER_MARK, SILENCE_SECONDS
from kt_net.host.naming import ResolverFile, Way, digest
from kt_net.host.plan import HostPlan
from kt_net.host.routes import read_routes
from tests.net.namespaces import run_inside

FILE = Path("/etc/resolv.conf")


def plan(
    interface: str = "kt7", routes: tuple[str, ...] = ("10.245.0.0/16", "fd00:245::/64"), names: Way | None = None
) -> HostPlan:
    return HostPlan(
        interface=interface,
        mtu=1500,
        offload=True,
        addresses=("198.18.255.253/32", "fd6b:746e:6574::1/128"),
        routes=tuple(ipaddress.ip_network(route) for route in routes),
        names=names or ResolverFile(f"{RESOLVER_MARK}\nnameserver 198.19.255.253\n", digest(FILE.read_text())),
    )


def picture() -> list[str]:
    commands = (["ip", "-4", "route"], ["ip", "-6", "route"], ["ip", "-o", "link"])
    return [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands] + [
        FILE.read_text() if FILE.exists() else "",
        str(FILE.stat().st_ino) if FILE.exists() else "",
    ]


def wait_same(before: list[str], seconds: float = 1.0) -> bool:
    limit = time.monotonic() + seconds
    while picture() != before:
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def applied_and_undone(how: str, state: str) -> dict[str, Any]:
    before = picture()
    helper = HostHelper.start(state)
    applied = helper.apply(plan())
    during = picture()
    journal = [entry.name for entry in Path(state).iterdir()]
    if how == "undo":
        helper.undo()
        os.close(applied.descriptor)
    elif how == "end of file":
        os.close(applied.descriptor)
        helper.close()
    else:
        os.close(applied.descriptor)
        helper._process.send_signal(getattr(signal, how))
    same = wait_same(before)
    with contextlib.suppress(KtError):
        helper.close()
    return {
        "routed": "10.245.0.0/16 dev kt7" in during[0] and "fd00:245::/64 dev kt7" in during[1],
        "names": "198.19.255.253" in during[3],
        "inode": during[4] == before[4],
        "journal": journal,
        "same": same,
        "left": [entry.name for entry in Path(state).iterdir()],
    }


@pytest.mark.parametrize("how", ["undo", "end of file", "SIGTERM", "SIGINT", "SIGHUP"])
def test_undone(tmp_path: Path, how: str) -> None:
    result = run_inside(applied_and_undone, tmp_path, how, str(tmp_path / "state"))
    assert result == {
        "routed": True,
        "names": True,
        "inode": True,
        "journal": ["journal-kt7.json"],
        "same": True,
        "left": [],
    }


CLIENT = """
import os, sys, time
from kt_net.host.client import HostHelper
from tests.net.host.test_helper import plan
helper = HostHelper.start(sys.argv[1])
helper.apply(plan())
helper.beat()
print(helper._process.pid, flush=True)
time.sleep(60)
"""


def guard_of(helper: int) -> int:
    """The helper's only child that stays."""
    (guard,) = Path(f"/proc/{helper}/task/{helper}/children").read_text().split()
    return int(guard)


def client_killed(also: list[str], state: str) -> dict[str, Any]:
    before = picture()
    client = subprocess.Popen([sys.executable, "-c", CLIENT, state], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    helper = int(client.stdout.readline())
    others = {"helper": helper, "guard": guard_of(helper)}
    changed = picture() != before
    for name in also:
        os.kill(others[name], signal.SIGKILL)
    client.kill()
    client.wait()
    result: dict[str, Any] = {"changed": changed, "by itself": wait_same(before)}
    if also == ["guard", "helper"]:
        result["left"] = leftovers(state)
        result["said"] = replay_leftovers(state)
        result["again"] = replay_leftovers(state)
        result["same"] = wait_same(before)
    else:
        limit = time.monotonic() + 5
        while leftovers(state) and time.monotonic() < limit:
            time.sleep(0.01)
        result["left"] = leftovers(state)
    return result


@pytest.mark.parametrize("also", [[], ["helper"], ["guard"]], ids=" ".join)
def test_client_killed(tmp_path: Path, also: list[str]) -> None:
    """Helper or guard undo, whichever is left."""
    assert run_inside(client_killed, tmp_path, also, str(tmp_path / "state")) == {
        "changed": True,
        "left": False,
        "by itself": True,
    }


def test_all_three_killed(tmp_path: Path) -> None:
    result = run_inside(client_killed, tmp_path, ["guard", "helper"], str(tmp_path / "state"))
    assert result["changed"]
    assert not result["by itself"], "nobody was there to undo: this test shows nothing"
    assert result["left"]
    assert result["same"]
    assert "/etc/resolv.conf restored" in result["said"]
    assert result["again"] == []


def silent_client(edit: bool, state: str) -> dict[str, Any]:
    before = FILE.read_text()
    helper = HostHelper.start(state)
    applied = helper.apply(plan())
    ours = FILE.read_text()

    def becomes(wanted: str, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        while FILE.read_text() != wanted:
            if time.monotonic() > limit:
                return False
            time.sleep(0.01)
        return True

    helper.beat()
    quick = becomes(before, SILENCE_SECONDS - 1)
    helper.beat()
    late = becomes(before, SILENCE_SECONDS + 1)
    if edit:
        FILE.write_text("nameserver 192.0.2.1\n")
    routed = "10.245.0.0/16 dev kt7" in picture()[0]
    helper.beat()
    again = becomes(ours, 1)
    said = helper.undo()
    os.close(applied.descriptor)
    helper.close()
    return {
        "quick": quick,
        "late": late,
        "routed": routed,
        "again": again,
        "said": said[0],
        "at last": FILE.read_text() == ("nameserver 192.0.2.1\n" if edit else before),
    }


def test_a_silent_client_gives_this_machine_its_names_back(tmp_path: Path) -> None:
    assert run_inside(silent_client, tmp_path, False, str(tmp_path / "state")) == {
        "quick": False,
        "late": True,
        "routed": True,
        "again": True,
        "said": "/etc/resolv.conf restored",
        "at last": True,
    }


def test_and_what_somebody_writes_meanwhile_is_kept(tmp_path: Path) -> None:
    result = run_inside(silent_client, tmp_path, True, str(tmp_path / "state"))
    assert not result["again"]
    assert result["at last"]
    assert "left as it is" in result["said"]


def client_killed_while_silent(state: str) -> bool:
    before = picture()
    client = subprocess.Popen([sys.executable, "-c", CLIENT, state], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    client.stdout.readline()
    own = before[3]
    limit = time.monotonic() + SILENCE_SECONDS + 2
    while FILE.read_text() != own and time.monotonic() < limit:
        time.sleep(0.01)
    silent = FILE.read_text() == own
    client.kill()
    client.wait()
    return silent and wait_same(before)


def test_a_client_that_is_killed_while_it_is_silent(tmp_path: Path) -> None:
    assert run_inside(client_killed_while_silent, tmp_path, str(tmp_path / "state"))


def living_helper_is_left_alone(state: str) -> list[Any]:
    helper = HostHelper.start(state)
    applied = helper.apply(plan())
    during = picture()
    said = replay_leftovers(state)
    same = picture() == during
    os.close(applied.descriptor)
    helper.close()
    return [said, same]


def test_replay_leaves_a_living_helper_alone(tmp_path: Path) -> None:
    assert run_inside(living_helper_is_left_alone, tmp_path, str(tmp_path / "state")) == [[], True]


def changed_by_somebody_else(state: str) -> list[Any]:
    helper = HostHelper.start(state)
    applied = helper.apply(plan())
    FILE.write_text("nameserver 192.0.2.99\n")
    said = helper.undo()
    os.close(applied.descriptor)
    helper.close()
    return [said, FILE.read_text()]


def test_a_file_that_somebody_else_has_changed_is_left_as_it_is(tmp_path: Path) -> None:
    said, text = run_inside(changed_by_somebody_else, tmp_path, str(tmp_path / "state"))
    assert text == "nameserver 192.0.2.99\n"
    assert any("somebody else" in line for line in said)


def failing_step(state: str) -> list[Any]:
    before = picture()
    helper = HostHelper.start(state)
    error = ""
    try:
        # A route that is there already: the kernel refuses the plan half-way.
        helper.apply(plan(routes=("10.245.0.0/16", "198.18.255.253/32", "198.18.255.253/32")))
    except HostRefused as refused:
        error = refused.why
    same = wait_same(before)
    helper.close()
    return [error, same, [entry.name for entry in Path(state).iterdir()]]


def test_a_step_that_fails_undoes_the_ones_before(tmp_path: Path) -> None:
    error, same, left = run_inside(failing_step, tmp_path, str(tmp_path / "state"))
    assert "ip:" in error
    assert same
    assert left == []


def without_ipv6(state: str) -> list[str]:
    for name in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    helper = HostHelper.start(state)
    applied = helper.apply(plan())
    os.close(applied.descriptor)
    helper.close()
    return list(applied.skipped)


def test_ipv6_switched_off_leaves_its_routes_out(tmp_path: Path) -> None:
    assert run_inside(without_ipv6, tmp_path, str(tmp_path / "state")) == ["fd00:245::/64"]


def foreign_octets(state: str) -> list[Any]:
    answers = []
    for data in (
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"do": "apply", "plan": {"x": 1}}\n',
        b"\xff\xfe\n",
        b"[" * 5000 + b"\n",
    ):
        ours, theirs = channel_pair()
        process = subprocess.Popen([sys.executable, "-I", str(HELPER), "--state-dir", state], stdin=theirs.fileno())
        theirs.close()
        ours.sendall(data)
        answers.append(json.loads(ours.recv(65536))["ok"])
        ours.close()
        answers.append(process.wait(10))
    return answers


def test_foreign_octets_are_refused_in_words(tmp_path: Path) -> None:
    assert run_inside(foreign_octets, tmp_path, str(tmp_path / "state")) == [False, 0] * 6


def unsafe_state_folder(state: str) -> list[str]:
    folder = Path(state)
    folder.mkdir()
    folder.chmod(0o777)
    helper = HostHelper.start(state)
    try:
        helper.apply(plan())
    except HostRefused as refused:
        return [refused.why]
    finally:
        helper.close()
    return []


def test_a_state_folder_that_others_write_to_is_refused(tmp_path: Path) -> None:
    (why,) = run_inside(unsafe_state_folder, tmp_path, str(tmp_path / "state"))
    assert "only root" in why


def second_plan(state: str) -> str:
    helper = HostHelper.start(state)
    applied = helper.apply(plan())
    try:
        helper.apply(plan("kt8"))
    except HelperProtocolError as error:
        return error.why
    finally:
        os.close(applied.descriptor)
        helper.close()
    return ""


def test_one_plan_at_a_time(tmp_path: Path) -> None:
    assert "in force" in run_inside(second_plan, tmp_path, str(tmp_path / "state"))


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def routed(state: str) -> dict[str, Any]:
    """Routes made and removed while a plan is in force."""
    helper = HostHelper.start(state)

    def asked(add: Any, remove: Any) -> str:
        """What the helper says, also to what `HostHelper.route` would not send."""
        try:
            answer, _ = helper._ask({"do": "route", "add": add, "remove": remove})
        except KtError as error:
            return f"refused: {error.why}"
        return str(answer["trouble"])

    def ours() -> list[str]:
        return sorted(str(route.prefix) for route in read_routes() if route.interface == "kt7")

    result: dict[str, Any] = {"no plan": asked(["10.9.0.0/16"], [])}
    applied = helper.apply(plan())
    first, journal = ours(), (Path(state) / "journal-kt7.json").read_bytes()
    result["added"] = [helper.route((ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("fd00:9::/64")), ())]
    result["added"] += sorted(set(ours()) - set(first))
    result["hostile"] = [
        asked(add, remove)
        for add, remove in (
            (["0.0.0.0/0"], []),
            (["127.0.0.0/8"], []),
            (["10.9.0.0/16 via 192.0.2.1"], []),
            (["fd00::%x\nlink set lo down/64"], []),
            ([7], []),
            ("10.9.0.0/16", []),
            ([], None),
            ([], ["192.0.2.0/24"]),
            ([], [["10.245.0.0/16"]]),
            ([f"10.7.{number}.0/24" for number in range(256)] * 5, []),
        )
    ]
    result["unchanged"] = sorted(set(ours()) - set(first))
    many = [f"11.{number // 250}.{number % 250}.0/24" for number in range(1021)]
    result["too many in all"] = asked(many, [])
    # One that somebody has is left to them, and the others are made.
    ip("link add d0 type veth peer name d1")
    ip("link set d0 up")
    ip("route add 10.8.0.0/16 dev d0")
    result["theirs"] = [asked(["10.8.0.0/16", "10.7.0.0/16"], []) != "", "10.7.0.0/16" in ours()]
    result["still theirs"] = [route.interface for route in read_routes() if str(route.prefix) == "10.8.0.0/16"]
    # One that is gone already does not keep the others from going.
    ip("route del 10.9.0.0/16 dev kt7")
    result["removed"] = [asked([], ["10.9.0.0/16", "10.7.0.0/16", "fd00:9::/64"]) != "", ours() == first]
    result["journal"] = (Path(state) / "journal-kt7.json").read_bytes() == journal
    helper.undo()
    result["afterwards"] = asked(["10.9.0.0/16"], [])
    os.close(applied.descriptor)
    helper.close()
    return result


def test_routes_while_a_plan_is_in_force(tmp_path: Path) -> None:
    result = run_inside(routed, tmp_path, str(tmp_path / "state"))
    assert "no plan" in result["no plan"]
    assert "no plan" in result["afterwards"]
    assert result["added"] == ["", "10.9.0.0/16", "fd00:9::/64"]
    assert all(said.startswith("refused: ") for said in result["hostile"]), result["hostile"]
    assert result["unchanged"] == ["10.9.0.0/16", "fd00:9::/64"]
    assert "more than 1024" in result["too many in all"]
    assert result["theirs"] == [True, True]
    assert result["still theirs"] == ["d0"]
    assert result["removed"] == [True, True]
    assert result["journal"], "routes go with their device: nothing to be undone"


def beating_and_routing(state: str) -> list[int]:
    """Two threads speak to the helper at once, as the loop and the one that keeps routes do."""
    helper, stop = HostHelper.start(state), threading.Event()
    applied = helper.apply(plan())

    def beat() -> None:
        while not stop.is_set():
            helper.beat()

    beating = threading.Thread(target=beat)
    beating.start()
    more = tuple(ipaddress.ip_network(f"11.{number // 250}.{number % 250}.0/24") for number in range(1000))
    for _ in range(5):
        helper.route(more, ())
        helper.route((), more)
    stop.set()
    beating.join()
    helper.undo()
    os.close(applied.descriptor)
    helper.close()
    return [helper._process.returncode]


def test_beats_beside_long_requests(tmp_path: Path) -> None:
    assert run_inside(beating_and_routing, tmp_path, str(tmp_path / "state")) == [0]

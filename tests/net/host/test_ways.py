"""The ways of names on a real machine: files as they may lie there, and what others make of them while we are connected."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kt_net.errors import KtError
from kt_net.host.client import HostHelper, replay_leftovers
from kt_net.host.environment import look
from kt_net.host.helper import RESOLVER_MARK, start_time
from kt_net.host.naming import ResolverDomains, Way, decide
from kt_net.session.name_keeper import LOOK_SECONDS, NameKeeper, Wanted
from tests.net.host.test_helper import plan
from tests.net.namespaces import run_inside

RESOLV, HOSTS, FOLDER = Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/resolver")
OWN = "nameserver 192.0.2.53\nsearch corp.test\n"
OURS = ("198.19.255.253",)
WANTED = Wanted(
    OURS[0], ("default.svc.cluster.local",), domains=("cluster.local", "svc"), hosts={"web": ("10.245.0.7",)}
)
#: Taken back after two looks and perhaps a replay, on a busy machine.
SOON = 15 * LOOK_SECONDS


def etc_of_ones_own(layout: str, folder: str) -> None:
    """A folder /etc for this process alone, laid out so."""
    for command in (
        ["mount", "-t", "tmpfs", "tmpfs", folder],
        ["mkdir", f"{folder}/upper", f"{folder}/work"],
        ["umount", "/etc/resolv.conf"],
        [
            "mount",
            "-t",
            "overlay",
            "-o",
            f"lowerdir=/etc,upperdir={folder}/upper,workdir={folder}/work",
            "overlay",
            "/etc",
        ],
    ):
        subprocess.run(command, check=True)
    RESOLV.unlink()
    HOSTS.write_text("127.0.0.1 localhost")  # without an end of line
    if layout == "symlink":
        (Path(folder) / "made.conf").write_text(OWN)
        RESOLV.symlink_to(f"{folder}/made.conf")
    elif layout in ("bind mount", "read-only"):
        (Path(folder) / "made.conf").write_text(OWN)
        RESOLV.touch()
        subprocess.run(["mount", "--bind", f"{folder}/made.conf", RESOLV], check=True)
        if layout == "read-only":
            subprocess.run(["mount", "-o", "remount,bind,ro", RESOLV], check=True)
    elif layout == "dangling":
        RESOLV.symlink_to("/run/nowhere/resolv.conf")
    elif layout != "missing":
        RESOLV.write_text(OWN)


def seen() -> dict[str, Any]:
    """What the files are, down to their inodes."""
    return {
        "resolv": RESOLV.read_text() if RESOLV.exists() else None,
        "link": os.readlink(RESOLV) if RESOLV.is_symlink() else "",
        "inodes": [path.stat().st_ino if path.exists() else 0 for path in (RESOLV, HOSTS)],
        "hosts": HOSTS.read_text(),
        "folder": sorted(entry.name for entry in FOLDER.iterdir()) if FOLDER.is_dir() else None,
    }


def way(kind: str) -> Way:
    """The way of a kind here and now."""
    if kind == "folder":
        return ResolverDomains("folder", OURS[0], WANTED.search, WANTED.domains, everything=False)
    found = keeper(None, "hosts" in kind, []).way()
    assert found is not None
    return found


def keeper(helper: HostHelper | None, hosts: bool, said: list[Any]) -> NameKeeper:
    naming = decide(look(), hosts=hosts, ours=OURS)
    return NameKeeper(
        helper,  # type: ignore[arg-type]
        naming,
        WANTED,
        interface="kt0",
        ours=OURS,
        resolvers=lambda resolvers: said.append(resolvers.own),
        progress=said.append,
    )


def until(condition: Any) -> bool:
    limit = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def done_and_undone(layout: str, kind: str, folder: str) -> dict[str, Any]:
    etc_of_ones_own(layout, folder)
    before = seen()
    helper = HostHelper.start(f"{folder}/state")
    try:
        applied = helper.apply(plan(names=way(kind)))
    except KtError as error:
        helper.close()
        return {"refused": str(error), "same": seen() == before}
    during = seen()
    os.close(applied.descriptor)
    helper.close()
    return {"during": during, "before": before, "same": seen() == before, "left": os.listdir(f"{folder}/state")}


@pytest.mark.parametrize("kind", ["file", "hosts", "folder"])
@pytest.mark.parametrize("layout", ["plain", "symlink", "bind mount", "missing"])
def test_done_and_undone(tmp_path: Path, layout: str, kind: str) -> None:
    if layout == "missing" and kind != "file":
        layout = "plain"
    result = run_inside(done_and_undone, tmp_path, layout, kind, str(tmp_path))
    during, before = result["during"], result["before"]
    assert result["same"]
    assert result["left"] == []
    assert during["link"] == before["link"]
    if kind == "file":
        assert during["resolv"].startswith(RESOLVER_MARK)
        assert during["inodes"] == before["inodes"] or layout == "missing"
    else:
        assert during["resolv"] == before["resolv"]
        assert during["hosts"].startswith(before["hosts"])
        assert ("10.245.0.7 web\n" in during["hosts"]) == (kind == "hosts")
        assert (during["folder"] or []) == (
            ["cluster.local", "default.svc.cluster.local", "ktctl.kt7.search", "svc"] if kind == "folder" else []
        )


@pytest.mark.parametrize(
    ("layout", "words"), [("read-only", "cannot be written (a mount)"), ("dangling", "which is not there")]
)
def test_no_way(tmp_path: Path, layout: str, words: str) -> None:
    """Said before anything is done; the hosts file is still a way."""
    result = run_inside(refused, tmp_path, layout, str(tmp_path))
    assert words in result["said"]
    assert result["hosts"]["same"]


def refused(layout: str, folder: str) -> dict[str, Any]:
    etc_of_ones_own(layout, folder)
    try:
        way("file")
        said = ""
    except KtError as error:
        said = str(error)
    before = seen()
    helper = HostHelper.start(f"{folder}/state")
    os.close(helper.apply(plan(names=way("hosts"))).descriptor)
    helper.close()
    return {"said": said, "hosts": {"same": seen() == before}}


def rewritten(how: str, layout: str, folder: str) -> dict[str, Any]:
    """Somebody else writes resolv.conf while we are connected."""
    etc_of_ones_own(layout, folder)
    helper = HostHelper.start(f"{folder}/state")
    said: list[Any] = []
    kept = keeper(helper, False, said)
    applied = helper.apply(plan(names=kept.way()))
    kept.start()
    target = Path(os.path.realpath(RESOLV))
    others = "nameserver 192.0.2.99\noptions timeout:1\n"
    if how == "replaced":
        new = target.with_name("new.conf")
        new.write_text(others)
        new.replace(target)
    elif how == "as it was":
        target.write_text(OWN)
    elif how == "removed":
        RESOLV.unlink()
    elif how == "a line more":
        with target.open("a") as file:
            file.write("options timeout:1\n")
    else:
        target.write_text(others)
    back = until(lambda: any("taken back" in str(line) for line in said))
    during = seen()["resolv"]
    kept.close()
    os.close(applied.descriptor)
    helper.close()
    own = [one for one in said if not isinstance(one, str)]
    return {"back": back, "during": during, "own": own[-1] if own else ["192.0.2.53"], "after": seen()["resolv"]}


@pytest.mark.parametrize(
    ("how", "layout", "servers", "after"),
    [
        ("written", "plain", ["192.0.2.99"], "nameserver 192.0.2.99\noptions timeout:1\n"),
        ("written", "bind mount", ["192.0.2.99"], "nameserver 192.0.2.99\noptions timeout:1\n"),
        ("written", "symlink", ["192.0.2.99"], "nameserver 192.0.2.99\noptions timeout:1\n"),
        ("replaced", "plain", ["192.0.2.99"], "nameserver 192.0.2.99\noptions timeout:1\n"),
        ("as it was", "plain", ["192.0.2.53"], OWN),
        ("a line more", "plain", ["192.0.2.53"], f"{OWN}options timeout:1\n"),
        ("removed", "plain", ["127.0.0.1"], None),
    ],
)
def test_taken_back(tmp_path: Path, how: str, layout: str, servers: list[str], after: str | None) -> None:
    """And what somebody else wrote is what comes back at the end, and whom other names go to meanwhile."""
    result = run_inside(rewritten, tmp_path, how, layout, str(tmp_path))
    assert result["back"], result
    assert result["during"].startswith(f"{RESOLVER_MARK}\nnameserver {OURS[0]}\n")
    assert result["own"] == servers
    assert result["after"] == after


def fought_for(folder: str) -> dict[str, Any]:
    """Somebody writes it again and again."""
    etc_of_ones_own("plain", folder)
    helper = HostHelper.start(f"{folder}/state")
    said: list[str] = []
    kept = keeper(helper, False, said)
    applied = helper.apply(plan(names=kept.way()))
    kept.start()
    number = 0
    while not any("keeps writing" in str(line) for line in said) and number < 10 * SOON:
        if RESOLV.read_text().startswith(RESOLVER_MARK):
            number += 1
            RESOLV.write_text(f"nameserver 192.0.2.{number}\n")
        time.sleep(0.1)
    last = RESOLV.read_text()
    kept.close()
    os.close(applied.descriptor)
    helper.close()
    return {"said": [line for line in said if isinstance(line, str)], "kept": RESOLV.read_text() == last}


def test_not_taken_back_for_ever(tmp_path: Path) -> None:
    result = run_inside(fought_for, tmp_path, str(tmp_path))
    assert sum("taken back" in line for line in result["said"]) == 4
    assert "keeps writing /etc/resolv.conf" in result["said"][-1]
    assert result["kept"], "it is theirs"


def hosts_follow(folder: str) -> dict[str, Any]:
    etc_of_ones_own("plain", folder)
    before = seen()
    helper = HostHelper.start(f"{folder}/state")
    kept = keeper(helper, True, [])
    applied = helper.apply(plan(names=kept.way()))
    kept.start()
    with HOSTS.open("a") as file:
        file.write("192.0.2.1 mine\n")
    kept.want(hosts={"cart": ("10.245.0.8",)})
    told = until(lambda: "10.245.0.8 cart\n" in HOSTS.read_text())
    during = HOSTS.read_text()
    kept.close()
    os.close(applied.descriptor)
    helper.close()
    return {"told": told, "during": during, "after": HOSTS.read_text(), "before": before["hosts"]}


def test_hosts_follow_the_cluster(tmp_path: Path) -> None:
    """And what somebody else has written into the file stays."""
    result = run_inside(hosts_follow, tmp_path, str(tmp_path))
    assert result["told"]
    assert "web" not in result["during"]
    assert "192.0.2.1 mine\n" in result["during"]
    assert result["after"] == "127.0.0.1 localhost\n192.0.2.1 mine\n"


KILLED = """
import os, sys, signal
from kt_net.host.client import HostHelper
from tests.net.host.test_helper import guard_of, plan
from tests.net.host.test_ways import way
helper = HostHelper.start(sys.argv[1])
helper.apply(plan(names=way(sys.argv[2])))
os.kill(guard_of(helper._process.pid), signal.SIGKILL)
os.kill(helper._process.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def all_killed(layout: str, kind: str, folder: str) -> dict[str, Any]:
    etc_of_ones_own(layout, folder)
    before = seen()
    subprocess.run([sys.executable, "-c", KILLED, f"{folder}/state", kind], check=False)
    during = seen()
    if kind == "hosts":
        with HOSTS.open("a") as file:
            file.write("192.0.2.1 mine\n")
    said = replay_leftovers(f"{folder}/state")
    with contextlib.suppress(OSError):
        HOSTS.write_text(HOSTS.read_text().replace("\n192.0.2.1 mine\n", ""))
    return {"changed": during != before, "said": said, "same": seen() == before}


@pytest.mark.parametrize(
    ("layout", "kind"),
    [("plain", "file"), ("missing", "file"), ("symlink", "file"), ("plain", "hosts"), ("plain", "folder")],
)
def test_replayed(tmp_path: Path, layout: str, kind: str) -> None:
    """Client, helper and guard are dead."""
    result = run_inside(all_killed, tmp_path, layout, kind, str(tmp_path))
    assert result["changed"]
    assert result["same"], result
    assert len(result["said"]) == 2


def rebooted(layout: str, folder: str) -> dict[str, Any]:
    """Everybody is dead, and the journal is on disk; the helper's number is somebody else's now."""
    etc_of_ones_own(layout, folder)
    before = seen()
    subprocess.run([sys.executable, "-c", KILLED, f"{folder}/state", "file"], check=False)
    journal = Path(folder, "state", "journal-kt7.json")
    record = json.loads(journal.read_text())
    boot, ticks = start_time(os.getpid()).split()  # type: ignore[union-attr]
    record |= {"pid": os.getpid(), "started": f"{'0' + boot[1:] if boot[0] != '0' else '1' + boot[1:]} {ticks}"}
    journal.write_text(json.dumps(record))
    if layout == "symlink":
        Path(os.path.realpath(RESOLV)).unlink()  # it was below /run
    said = replay_leftovers(f"{folder}/state")
    if layout == "symlink":
        Path(os.path.realpath(RESOLV)).write_text(OWN)  # whose writer writes it again
        before["inodes"] = seen()["inodes"]
    return {"said": said, "same": seen() == before, "left": journal.exists()}


@pytest.mark.parametrize("layout", ["plain", "symlink"])
def test_rebooted(tmp_path: Path, layout: str) -> None:
    result = run_inside(rebooted, tmp_path, layout, str(tmp_path))
    assert result["same"], result
    assert not result["left"]
    assert result["said"][0] == ("/etc/resolv.conf restored" if layout == "plain" else "/etc/resolv.conf is gone")

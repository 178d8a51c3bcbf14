"""The installed helper: root's file, a rule that names it, and a user who connects with nothing else; with a real sudo and visudo."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kt_net.host.helper import PROTOCOL
from tests.net.host.test_helper import picture, wait_same
from tests.net.namespaces import run_inside
from tests.net.people import NAME, NOBODY_KNOWS, UID, as_user, ktctl, move_in

PATH = f"/usr/local/libexec/ktctl-helper-{PROTOCOL}"
RULE = "/etc/sudoers.d/ktctl-helper"


def said(*command: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code, and the object that ktctl says."""
    result = subprocess.run(
        [*command, "--output", "json"], capture_output=True, text=True, check=False, timeout=60, cwd="/", env=env
    )
    assert result.stdout, f"{command} said nothing: {result.returncode} {result.stderr}"
    return result.returncode, dict(json.loads(result.stdout.splitlines()[-1]))


def helper(*words: str) -> tuple[int, dict[str, Any]]:
    """As root."""
    return said(ktctl(), "helper", *words)


def picked(answer: tuple[int, dict[str, Any]], *names: str) -> list[Any]:
    return [answer[0], *(answer[1].get(name) for name in names)]


# -- putting it there


def installed_and_removed(folder: str) -> dict[str, Any]:
    move_in(Path(folder))
    result: dict[str, Any] = {"before": picked(helper("status"), "state", "path")}
    code, answer = helper("install", "--user", NAME)
    seen = os.stat(PATH)
    result["installed"] = [code, answer["path"], answer["checked"], answer["written"], os.listdir("/etc/sudoers.d")]
    result["file"] = [seen.st_uid, seen.st_gid, oct(stat.S_IMODE(seen.st_mode)), os.listdir("/usr/local/libexec")]
    result["first line"] = Path(PATH).read_bytes().splitlines()[0].decode()
    result["rule"] = answer["rule"].splitlines()[-1]
    result["status"] = picked(helper("status"), "state")
    result["with rule"] = picked(helper("install", "--group", NAME, "--sudoers"), "written")
    result["written"] = [Path(RULE).read_text().splitlines()[-1].split()[0], oct(os.stat(RULE).st_mode & 0o777)]
    result["sudo reads it"] = subprocess.run(["visudo", "-c"], capture_output=True, check=False).returncode
    result["removed"] = picked(helper("uninstall"), "removed", "rule_removed")
    result["left"] = [os.listdir("/usr/local/libexec"), os.listdir("/etc/sudoers.d")]
    result["again"] = picked(helper("uninstall"), "removed", "rule_removed")
    return result


def test_installed_and_removed(tmp_path: Path) -> None:
    assert run_inside(installed_and_removed, tmp_path, str(tmp_path / "people")) == {
        "before": [0, "absent", PATH],
        "installed": [0, PATH, True, None, []],
        "file": [0, 0, "0o755", [f"ktctl-helper-{PROTOCOL}"]],
        "first line": "#!/usr/bin/python3 -I",
        "rule": f'{NAME} ALL=(root) NOPASSWD: {PATH} "", {PATH} --replay',
        "status": [0, "current"],
        "with rule": [0, RULE],
        "written": [f"%{NAME}", "0o440"],
        "sudo reads it": 0,
        "removed": [0, True, True],
        "left": [[], []],
        "again": [0, False, False],
    }


def refusals(folder: str) -> dict[str, Any]:
    home = move_in(Path(folder))
    result: dict[str, Any] = {}

    def refused(name: str, *words: str) -> None:
        code, answer = helper("install", *words)
        result[name] = [code, answer["ok"], bool(answer["error"]["next"])]

    refused("nobody named")
    refused("everybody", "--user", "ALL")
    refused("a prefix with a space", "--user", NAME, "--prefix", "/opt/a b")
    refused("the user's own prefix", "--user", NAME, "--prefix", str(home / "here"))
    shared = Path("/usr/local/shared")
    shared.mkdir()
    shared.chmod(0o1777)
    refused("a prefix for all", "--user", NAME, "--prefix", "/usr/local/shared/ktctl")
    os.symlink("/usr/local/shared", "/usr/local/link")
    refused("a link to it", "--user", NAME, "--prefix", "/usr/local/link")
    mine = home / "python"
    mine.symlink_to("/usr/bin/python3")
    refused("the user's interpreter", "--user", NAME, "--python", str(mine))
    refused("no interpreter", "--user", NAME, "--python", "/usr/local/python3")
    old = Path("/usr/local/old")
    old.write_text("#!/bin/sh\necho 3 9\n")
    old.chmod(0o755)
    refused("an old one", "--user", NAME, "--python", str(old))
    result["left"] = sorted(entry.name for entry in Path("/usr/local").iterdir()), os.listdir("/etc/sudoers.d")
    Path(RULE).write_text("# an administrator's\n")
    refused("somebody else's rule", "--user", NAME, "--sudoers")
    helper("uninstall")
    result["kept"] = Path(RULE).read_text()
    result["not root"] = picked(said(*as_user(ktctl(), "helper", "install", "--user", NAME)), "ok")
    return result


def test_where_it_would_not_be_safe_it_is_not_put(tmp_path: Path) -> None:
    result = run_inside(refusals, tmp_path, str(tmp_path / "people"))
    assert result.pop("left") == [["link", "old", "shared"], []]
    assert result.pop("kept") == "# an administrator's\n"
    assert result.pop("not root") == [30, False]
    codes = {name: answer.pop(0) for name, answer in result.items()}
    assert set(codes.values()) == {2, 33}
    assert all(answer == [False, True] for answer in result.values()), result


def not_used(folder: str) -> dict[str, Any]:
    """What a user is told of a helper that is there and is not to be used."""
    move_in(Path(folder))
    helper("install", "--user", NAME)

    def state() -> list[Any]:
        code, answer = said(*as_user(ktctl(), "helper", "status"))
        return [code, answer["state"], answer["without_password"], bool(answer["why"])]

    result = {"no rule": state()}
    content = Path(PATH).read_bytes()
    Path(PATH).write_bytes(content + b"# older\n")
    result["stale"] = state()
    Path(PATH).write_bytes(content)
    os.chmod(PATH, 0o777)
    result["writable"] = state()
    os.chmod(PATH, 0o755)
    os.chown("/usr/local/libexec", UID, 0)
    result["folder"] = state()
    os.unlink(PATH)
    os.mkfifo(PATH)
    result["pipe"] = state()
    return result


def test_one_that_is_not_to_be_used_is_named(tmp_path: Path) -> None:
    assert run_inside(not_used, tmp_path, str(tmp_path / "people")) == {
        "no rule": [0, "current", False, False],
        "stale": [0, "stale", False, True],
        "writable": [0, "unsafe", False, True],
        "folder": [0, "unsafe", False, True],
        "pipe": [0, "unsafe", False, True],
    }


# -- connecting with it

CLIENT = """
import os, sys
from kt_net.host.client import HostHelper
from tests.net.host.test_helper import plan
told = []
helper = HostHelper.start(tell=told.append)
applied = helper.apply(plan())
helper.beat()
with open(f"/proc/{helper._process.pid}/cmdline") as file:
    command = file.read().split(chr(0))
print(os.getpid(), applied.descriptor, command, told, flush=True)
sys.stdin.read()
"""


def connected(how: str, folder: str) -> dict[str, Any]:
    """As the user, who has the rule and no password."""
    home = move_in(Path(folder))
    helper("install", "--user", NAME, "--sudoers")
    before = picture()
    env = {**os.environ, "HOME": str(home)}
    result: dict[str, Any] = {"status": said(*as_user(ktctl(), "helper", "status"), env=env)[1]["without_password"]}
    command = as_user(sys.executable, "-c", CLIENT)
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=os.getcwd(), env=env
    )
    assert client.stdin is not None
    assert client.stdout is not None
    line = client.stdout.readline()
    assert line, "the client has ended"
    during = picture()
    result["through"] = f"'sudo', '-n', '--', '{PATH}'" in line
    result["told"] = "[]" in line
    result["routed"] = "10.245.0.0/16 dev kt7" in during[0] and "198.19.255.253" in during[3]
    ours = privileges(client.pid)
    result["root"] = [ours["Uid"], ours["Gid"], ours["Groups"], ours["CapPrm"], ours["CapEff"], ours["CapAmb"]]
    if how == "killed":
        client.send_signal(signal.SIGKILL)
    else:
        client.stdin.close()
    client.wait(20)
    client.stdout.close()
    result["undone"] = wait_same(before, 5)
    limit = time.monotonic() + 5
    while os.listdir("/var/lib/ktctl") and time.monotonic() < limit:
        time.sleep(0.01)
    result["left"] = os.listdir("/var/lib/ktctl")
    return result


def privileges(pid: int) -> dict[str, str]:
    """Of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def test_a_user_with_the_rule_alone(tmp_path: Path) -> None:
    for how in ("killed", "ended"):
        folder = tmp_path / how
        assert run_inside(connected, tmp_path, how, str(folder)) == {
            "status": True,
            "through": True,
            "told": True,
            "routed": True,
            "root": [" ".join([str(UID)] * 4)] * 2 + [""] + ["0000000000000000"] * 3,
            "undone": True,
            "left": [],
        }


def sudo_refuses(folder: str) -> dict[str, Any]:
    move_in(Path(folder))
    helper("install", "--user", NAME, "--sudoers")

    def tried(*words: str, uid: int = UID) -> list[Any]:
        command = as_user("sudo", "-n", *words, uid=uid)
        result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd="/")
        return [result.returncode, result.stdout[:40]]

    return {
        "replay": tried(PATH, "--replay"),
        "no socket": tried(PATH),
        "folder": tried(PATH, "--state-dir", "/tmp"),
        "both": tried(PATH, "--replay", "--state-dir", "/tmp"),
        "user": tried(PATH, "--user", "0"),
        "python": tried("/usr/bin/python3", "-I", PATH),
        "environment": tried("PATH=/tmp", PATH),
        "another program": tried("true"),
        "another user": tried(PATH, "--replay", uid=NOBODY_KNOWS),
    }


def test_the_rule_allows_nothing_else(tmp_path: Path) -> None:
    result = run_inside(sudo_refuses, tmp_path, str(tmp_path / "people"))
    assert result.pop("replay") == [0, '{"ok": true, "done": []}\n']
    assert result.pop("no socket") == [1, '{"ok": false, "kind": "protocol", "error'[:40]]
    assert set(map(tuple, result.values())) == {(1, "")}, result


def unknown_to_the_machine(folder: str) -> dict[str, Any]:
    """A user without an entry in passwd, with and without a home."""
    move_in(Path(folder))
    mine = Path(folder) / "mine"
    mine.mkdir()
    os.chown(mine, NOBODY_KNOWS, NOBODY_KNOWS)
    result = {}
    for name, env in (("with a home", {"HOME": str(mine)}), ("without", {})):
        for words in (["status"], ["helper", "status"], ["disconnect"], ["connect"], ["version"]):
            code, answer = said(
                *as_user(ktctl(), *words, uid=NOBODY_KNOWS), env={"PATH": "/usr/bin:/bin:/usr/sbin", **env}
            )
            result[f"{words[0]} {name}"] = answer.get("error", {}).get("class", code)
    return result


def test_somebody_whom_the_machine_does_not_know(tmp_path: Path) -> None:
    """sudo refuses him; everything says so, and nothing breaks."""
    expected = {"status": "NotConnected", "helper": 0, "disconnect": "NotConnected", "connect": "PrivilegeMissing"}
    result = run_inside(unknown_to_the_machine, tmp_path, str(tmp_path / "people"))
    for name in ("with a home", "without"):
        assert {words: result[f"{words} {name}"] for words in expected} == expected
        assert result[f"version {name}"] == 0


BECOMES = """
import os, sys, threading
from pathlib import Path
from kt_net.host.privilege import become_invoker
resting = threading.Event()
threading.Thread(target=resting.wait, daemon=True).start()
become_invoker()
for thread in Path("/proc/self/task").iterdir():
    lines = (thread / "status").read_text().splitlines()
    print([line.split()[1:] for line in lines if line.startswith(("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapAmb"))])
try:
    os.setresuid(0, 0, 0)
    print("root again")
except PermissionError:
    print(sorted(name for name in os.environ if name.startswith("SUDO")), os.environ["HOME"], os.environ["USER"])
"""


def becomes(uid: str, folder: str) -> list[str]:
    move_in(Path(folder))
    env = {**os.environ, "SUDO_UID": uid, "SUDO_GID": uid, "HOME": "/root", "USER": "root"}
    result = subprocess.run([sys.executable, "-c", BECOMES], capture_output=True, text=True, check=False, env=env)
    return [*result.stdout.splitlines(), *result.stderr.splitlines()[-1:]]


@pytest.mark.parametrize("uid", [UID, NOBODY_KNOWS])
def test_root_is_left_for_good_and_by_every_thread(uid: int, tmp_path: Path) -> None:
    *threads, last = run_inside(becomes, tmp_path, str(uid), str(tmp_path / "people"))
    none = ["0" * 16]
    assert len(threads) == 2
    assert set(threads) == {str([[str(uid)] * 4, [str(uid)] * 4, [str(uid)], none, none, none])}
    known = uid == UID
    assert last == f"[] {tmp_path / 'people' / 'home' if known else '/'} {NAME if known else uid}"


@pytest.mark.parametrize("number", ["-1", "x", "", "4294967295", "99999999999999999999"])
def test_who_is_to_be_become_cannot_be_known(number: str, tmp_path: Path) -> None:
    """And nothing goes on as root."""
    (last,) = run_inside(becomes, tmp_path, number, str(tmp_path / "people"))
    assert last.startswith("kt_net.errors.PrivilegeMissing")

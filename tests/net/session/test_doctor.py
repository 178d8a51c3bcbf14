"""`doctor` without a cluster, with one that never answers, beside connections that are stopped or dead, and as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kt_net.findings import Finding, Level
from kt_net.host.client import replay_leftovers
from kt_net.host.health import judge_machine
from kt_net.host.machine import look_at_journals, look_at_machine
from kt_net.session.doctor import Asked, examine
from kt_net.session.home import control_socket
from tests.net.host.test_helper import CLIENT, guard_of, picture
from tests.net.namespaces import run_inside

#: For one check here.
SECONDS = 0.5
#: Of what has to end by deadlines of half a second, three of them one after the other, on a busy machine.
MOST = 10.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for ktctl."""
    monkeypatch.setenv("KT_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "run").mkdir(parents=True)
    return tmp_path / "home"


def kubeconfig(folder: Path, server: str) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "far",
        "contexts": [{"name": "far", "context": {"cluster": "far", "user": "me"}}],
        "clusters": [{"name": "far", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "x"}}],
    }
    file = folder / "config"
    file.write_text(json.dumps(body))
    return str(file)


def found(config: str, state: Path) -> dict[str, Finding]:
    machine = look_at_machine(str(state))
    return {one.check: one for one in examine(Asked(config, None, None), machine, seconds=SECONDS)}


def test_no_kubeconfig(tmp_path: Path) -> None:
    seen = found(str(tmp_path / "none"), tmp_path / "state")
    assert seen["kubeconfig"].level is Level.problem
    for check in ("api-server", "permissions", "network-policies", "routes", "cluster-leftovers"):
        assert (seen[check].level, seen[check].found) == (Level.skipped, "no cluster to ask")


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    seen = found(kubeconfig(tmp_path, f"http://127.0.0.1:{port}"), tmp_path / "state")
    assert seen["kubeconfig"].level is Level.ok
    assert (seen["api-server"].level, seen["permissions"].level) == (Level.problem, Level.skipped)


def test_a_server_that_takes_connections_and_never_answers(tmp_path: Path) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen = found(kubeconfig(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}"), tmp_path / "state")
    assert "no answer within 0.5 s" in seen["api-server"].found
    assert seen["permissions"].level is Level.skipped
    assert time.monotonic() - started < MOST


@contextlib.contextmanager
def answering(body: bytes) -> Iterator[int]:
    """An HTTP server that answers everything with `body`; its port."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    server = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve() -> None:
        while True:
            try:
                connected, _ = server.accept()
            except OSError:
                return
            with connected, contextlib.suppress(OSError):
                connected.settimeout(SECONDS)
                connected.recv(65536)
                connected.sendall(head % len(body) + body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b"{}",
        b'{"status": 7, "items": 7, "metadata": 7, "spec": 7}',
        b'{"items": [7, null, [], {"spec": 7}, {"metadata": [], "spec": {"egress": 7}}]}',
        b'{"status": {"allowed": true, "userInfo": 7}, "items": [{"spec": {"renewTime": {}}, "metadata": {"labels": 1}}]}',
    ],
)
def test_a_server_that_talks_nonsense(tmp_path: Path, body: bytes) -> None:
    """Each check says something; none of it is a traceback."""
    with answering(body) as port:
        seen = found(kubeconfig(tmp_path, f"http://127.0.0.1:{port}"), tmp_path / "state")
    checks = {"api-server", "credentials", "permissions", "quota", "network-policies", "routes", "cluster-leftovers"}
    assert checks <= seen.keys()
    assert all(one.found for one in seen.values())


def test_a_connection_that_is_stopped(tmp_path: Path) -> None:
    """Its socket takes us and says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(control_socket()))
        silent.listen(1)
        started = time.monotonic()
        machine = look_at_machine(str(tmp_path / "state"))
        seen = {one.check: one for one in examine(Asked("/none", None, None), machine)}
    assert seen["connection"].level is Level.problem
    assert "does not answer" in seen["connection"].found
    assert time.monotonic() - started < MOST


def left_and_restored(state: str) -> dict[str, Any]:
    """Client, helper and guard are killed; what doctor's checks say before, between and after `disconnect`'s replay."""
    subprocess.run(["ip", "link", "add", "far0", "type", "veth", "peer", "name", "far1"], check=True)
    subprocess.run(["ip", "link", "set", "far0", "up", "mtu", "1200"], check=True)
    subprocess.run(["ip", "addr", "add", "192.0.2.1/24", "dev", "far0"], check=True)
    subprocess.run(["ip", "route", "add", "default", "via", "192.0.2.2"], check=True)

    def said() -> dict[str, tuple[str, str, str]]:
        checks = judge_machine(look_at_machine(state))
        return {one.check: (one.level, one.found, one.next_step) for one in checks}

    before, seen = picture(), {"before": said()}
    client = subprocess.Popen([sys.executable, "-c", CLIENT, state], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    helper = int(client.stdout.readline())
    seen["connected"] = said()
    for pid in (guard_of(helper), helper, client.pid):
        os.kill(pid, signal.SIGKILL)
    client.wait()
    while look_at_machine(state).devices:  # it goes with its last descriptor, a moment after
        time.sleep(0.01)
    seen["killed"] = said()
    replay_leftovers(state)
    seen["after"] = said()
    return {**seen, "same": picture() == before}


def test_what_killed_ones_left_is_named_until_it_is_undone(tmp_path: Path) -> None:
    seen = run_inside(left_and_restored, tmp_path, str(tmp_path / "state"))
    for when in ("before", "connected", "after"):
        assert seen[when]["leftovers"][0] == "ok", when
        assert seen[when]["resolver"][0] == "ok", when
        assert seen[when]["mtu"][:2] == ["warning", seen["before"]["mtu"][1]], when
    assert "ktctl's while it is connected" in seen["connected"]["resolver"][1]
    for check in ("leftovers", "resolver"):
        level, _, next_step = seen["killed"][check]
        assert (level, "ktctl disconnect" in next_step) == ("problem", True), check
    assert "kt7, /etc/resolv.conf by process" in seen["killed"]["leftovers"][1]
    assert "far0 1200" in seen["before"]["mtu"][1]
    assert seen["same"]


def hidden_tun() -> dict[str, str]:
    """/dev/net/tun is something else, in this mount namespace."""
    subprocess.run(["mount", "--bind", "/dev/null", "/dev/net/tun"], check=True)
    return {one.check: one.level for one in judge_machine(look_at_machine("/nonexistent"))}


def test_no_tun_device(tmp_path: Path) -> None:
    assert run_inside(hidden_tun, tmp_path)["tun"] == "problem"


@pytest.mark.parametrize(
    ("text", "trouble", "alive"),
    [
        ("", True, False),
        ("[]", True, False),
        ('{"pid": 1, "started": 5, "undo": 7, "schema": 1}', True, False),
        ('{"pid": 1, "started": 5, "undo": [7], "schema": 1}', True, False),
        ('{"pid": 1, "started": 5, "undo": [], "schema": 9}', True, False),
        ('{"pid": 1, "started": 5, "undo": [{"kind": "file", "path": "/x"}], "schema": 1}', False, False),
    ],
)
def test_journals(tmp_path: Path, text: str, trouble: bool, alive: bool) -> None:
    (tmp_path / "journal-kt0.json").write_text(text)
    (tmp_path / "journal-kt0.json.77").write_text("half")
    journals = look_at_journals(str(tmp_path))
    assert journals is not None
    assert [(bool(one.trouble), one.alive) for one in journals] == [(trouble, alive)]


def test_an_ordinary_user_cannot_look_into_the_journals(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    code = (
        "import os, sys; from kt_net.host.machine import look_at_journals, look_at_machine;"
        "import kt_net.host.health as health; os.setgid(65534); os.setuid(65534);"
        "print(look_at_journals(sys.argv[1]), len(health.judge_machine(look_at_machine(sys.argv[1]))))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(state)], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["None", "6"]

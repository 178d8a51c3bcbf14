"""`ktctl exchange SVC -- PROGRAM`: with the original container's environment, for as long as both last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.backend import LabBackend, wait_nothing_of_ours
from tests.cluster.local import Hello, program
from tests.cluster.test_exchange import exchange, flags, restored, wait_says

SERVER = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["GREETING"].encode())
http.server.HTTPServer(("127.0.0.1", int(os.environ["LISTEN"])), Answer).serve_forever()
"""


@pytest.fixture
def configured(lab: LabBackend) -> Iterator[None]:
    """The web sample with an environment from a ConfigMap and a Secret."""
    lab.kubectl("create", "configmap", "greetings", "--from-literal=GREETING=hello of the pod's")
    lab.kubectl("create", "secret", "generic", "keys", "--from-literal=KEY=s3cret")
    env = [
        {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "greetings", "key": "GREETING"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "KEY"}}},
        {"name": "MY_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "env": env}]}}}}
    lab.kubectl("patch", "deploy", "web", "--type=strategic", "-p", json.dumps(patch))
    lab.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    yield
    lab.kubectl("rollout", "undo", "deploy/web")
    lab.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    lab.kubectl("delete", "configmap/greetings", "secret/keys")


def start(lab: LabBackend, *words: str, behind: list[str], **environment: str) -> subprocess.Popen[str]:
    ktctl = [str(Path(sys.executable).with_name("ktctl")), "exchange", *words, *flags(lab), "--", *behind]
    return subprocess.Popen(ktctl, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}, cwd="/")


def free_port() -> int:
    with program(Hello) as port:
        return port


def test_a_server_with_the_pods_environment(lab: LabBackend, configured: None) -> None:
    port = free_port()
    with restored(lab, "web"):
        words = ("web", "--expose", f"{port}:80")
        running = start(lab, *words, behind=[sys.executable, "-c", SERVER], LISTEN=str(port))
        with running:
            wait_says(lab, "hello of the pod's", "web", seconds=30)
            running.send_signal(signal.SIGINT)
            assert running.wait(30) == 128 + signal.SIGTERM


def test_its_end_ends_the_exchange_with_its_code(lab: LabBackend, configured: None) -> None:
    with (
        restored(lab, "web"),
        start(lab, "web", "--expose", "8080:80", behind=["sh", "-c", 'test "$KEY" = s3cret && exit 5']) as running,
    ):
        assert running.wait(60) == 5


def test_files_of_the_environment(lab: LabBackend, configured: None, tmp_path: Path) -> None:
    plain, as_json = tmp_path / "plain", tmp_path / "json"
    words = ("web", "--expose", "8080:http", "--env-file", str(plain), "--env-json", str(as_json))
    with restored(lab, "web"), exchange(lab, *words) as running:
        running.wait_ready()
        found = json.loads(as_json.read_text())
        assert (found["GREETING"], found["KEY"]) == ("hello of the pod's", "s3cret")
        assert found["MY_POD"].startswith("web-")
        assert "KEY=s3cret\n" in plain.read_text()


def test_killed_with_everything_around_it(lab: LabBackend, configured: None) -> None:
    """ktctl dies: its watchdog gives back; the program is not its to end, and sees its parent gone."""
    with restored(lab, "web"), start(lab, "web", "--expose", "8080:80", behind=["sleep", "60"]) as running:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        limit = time.monotonic() + 30
        while not (mine := [pid for pid in children.read_text().split() if b"sleep" in _words(pid)]):
            assert time.monotonic() < limit
            time.sleep(0.1)
        running.kill()
        running.wait(10)
        wait_says(lab, "hello from web", "web")
        os.kill(int(mine[0]), signal.SIGKILL)


def _words(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_what_cannot_be_run_changes_nothing(lab: LabBackend) -> None:
    with restored(lab, "web"):
        for behind, code in ((["no-such-program"], 127), (["/etc/passwd"], 126), ([], 2)):
            with start(lab, "web", "--expose", "8080:80", behind=behind) as running:
                assert running.wait(30) == code
    wait_nothing_of_ours(lab)

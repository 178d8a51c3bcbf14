"""The ways through the API server: every form carries, the right one is found, and who authenticates is asked again."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.cluster.backend import HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl, ktctl
from tests.cluster.test_forward import exchange
from tests.lab.cluster import Lab

SIZE = 3_000_000


def forward(lab: LabBackend, pod: str, kubeconfig: str, home: Path, *more: str) -> Ktctl:
    """`ktctl forward` of the echo port, from this machine, with a folder of its own."""
    arguments = ("--kubeconfig", kubeconfig, "--image", lab.python_image, *more)
    return Ktctl(HereBackend(lab), "forward", pod, "0:7000", *arguments, env={"KT_HOME": str(home)})


@pytest.mark.parametrize("form", ["spdy", "websocket", "exec"])
def test_every_form_carries(lab: LabBackend, echo_pod: str, tmp_path: Path, form: str) -> None:
    with forward(lab, echo_pod, str(lab.kubeconfig), tmp_path, "--carrier", form) as running:
        port = running.wait_ready()["port"]
        for size in (1, SIZE):
            assert exchange(port, b"x" * size) == b"x" * size
    wait_nothing_of_ours(lab)
    assert not (tmp_path / "carriers.json").exists(), "a form that was forced is none that was found"


def test_the_best_form_is_found_and_remembered(lab: LabBackend, echo_pod: str, tmp_path: Path) -> None:
    with forward(lab, echo_pod, str(lab.kubeconfig), tmp_path) as running:
        running.wait_ready()
    (form,) = json.loads((tmp_path / "carriers.json").read_text()).values()
    assert form == "spdy"


@pytest.fixture
def older_api_server(restarts: Lab) -> Iterator[None]:
    """One that cannot do kubectl's newer form, as before Kubernetes 1.31."""
    restarts.kill_apiserver()
    restarts.start_apiserver("--feature-gates=PortForwardWebsockets=false")
    yield
    restarts.kill_apiserver()
    restarts.start_apiserver()


def test_an_older_api_server(older_api_server: None, lab: LabBackend, echo_pod: str, tmp_path: Path) -> None:
    with forward(lab, echo_pod, str(lab.kubeconfig), tmp_path) as running:
        assert exchange(running.wait_ready()["port"], b"x" * SIZE) == b"x" * SIZE
    assert list(json.loads((tmp_path / "carriers.json").read_text()).values()) == ["websocket"]
    wait_nothing_of_ours(lab)


@pytest.mark.parametrize("noted", ["websocket", "no-such-form", None])
def test_what_is_remembered_is_tried_first(lab: LabBackend, echo_pod: str, tmp_path: Path, noted: str | None) -> None:
    """Also by somebody else, or damaged."""
    server = yaml.safe_load(lab.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    (tmp_path / "carriers.json").write_text(json.dumps({server: noted}) if noted else "{")
    with forward(lab, echo_pod, str(lab.kubeconfig), tmp_path) as running:
        assert exchange(running.wait_ready()["port"], b"x") == b"x"
    found = json.loads((tmp_path / "carriers.json").read_text())
    assert found == {server: "websocket" if noted == "websocket" else "spdy"}


def person(lab: LabBackend, name: str, *resources: str) -> dict[str, str]:
    """A user who may have a shadow pod and `resources` of pods."""
    rules = [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "delete"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": [f"pods/{resource}" for resource in resources], "verbs": ["get", "create"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules}
    lab.kubectl("apply", "-n", "default", "-f", "-", given=json.dumps(role))
    lab.kubectl("delete", "rolebinding", name, "-n", "default", "--ignore-not-found")
    lab.kubectl("create", "rolebinding", name, f"--role={name}", f"--user={name}", "-n", "default")
    return lab.credentials(name)


def test_exec_for_those_who_may_not_port_forward(
    lab: LabBackend, echo_pod: str, variant: Callable[..., str], tmp_path: Path
) -> None:
    config = variant(user=person(lab, "execer", "exec"))
    with forward(lab, echo_pod, config, tmp_path) as running:
        assert exchange(running.wait_ready()["port"], b"x" * SIZE) == b"x" * SIZE
    assert list(json.loads((tmp_path / "carriers.json").read_text()).values()) == ["exec"]
    wait_nothing_of_ours(lab)


@pytest.mark.parametrize("form", ["auto", "spdy", "exec"])
def test_neither_is_said(lab: LabBackend, echo_pod: str, variant: Callable[..., str], form: str) -> None:
    config = variant(user=person(lab, "nobody", "log"))
    arguments = ("--kubeconfig", config, "--image", lab.python_image, "--carrier", form)
    code, answer = ktctl(HereBackend(lab), "forward", echo_pod, "0:7000", *arguments)
    assert (code, answer["error"]["class"]) == (14, "PermissionMissing")
    assert ("pods/exec" if form == "exec" else "pods/portforward") in answer["error"]["what"]


def test_unknown_form(lab: LabBackend) -> None:
    program = [str(Path(sys.executable).with_name("ktctl")), "forward", "pod", "80", "--carrier", "pigeon"]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert all(word in result.stderr for word in ("pigeon", "spdy", "websocket", "exec"))


class Proxy:
    """An HTTP proxy that knows CONNECT and wants a password (RFC 9110 section 9.3.6)."""

    def __init__(self, credentials: str) -> None:
        self._wanted = "basic " + base64.b64encode(credentials.encode()).decode()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        #: Where it was asked to connect to.
        self.asked: list[str] = []
        self.refused = 0

    def run(self) -> None:
        """Until closed."""
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        try:
            self._serve(client)
        except OSError:
            pass  # one end has reset it: the connection is over

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096) or b"\r\n\r\n"
        if not head.strip():
            return  # opened and closed without a word
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        if headers.get("proxy-authorization", "") != self._wanted.lower():
            self.refused += 1
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        target = lines[0].split()[1]
        self.asked.append(target)
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port))) as far, client:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                for ready in select.select([client, far], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (far if ready is client else client).sendall(data)

    def close(self) -> None:
        """Accept no more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@contextmanager
def proxy(credentials: str) -> Iterator[Proxy]:
    """A running one."""
    running = Proxy(credentials)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.close()
        thread.join()


@pytest.mark.parametrize("form", ["spdy", "websocket", "exec"])
def test_proxy_of_the_kubeconfig(
    lab: LabBackend, echo_pod: str, variant: Callable[..., str], tmp_path: Path, form: str
) -> None:
    with proxy("me:a%b") as running_proxy:
        config = variant(cluster={"proxy-url": f"http://me:a%25b@127.0.0.1:{running_proxy.port}"})
        with forward(lab, echo_pod, config, tmp_path, "--carrier", form) as running:
            assert exchange(running.wait_ready()["port"], b"x" * SIZE) == b"x" * SIZE
        assert set(running_proxy.asked) == {f"{lab.lab.instance.api4}:6443"}
        assert not running_proxy.refused


def test_credential_plugin_is_asked_again_when_its_token_is_old(
    lab: LabBackend, restarts: Lab, echo_pod: str, variant: Callable[..., str], tmp_path: Path
) -> None:
    """Tokens are good for some seconds; then the API server is killed, and the lanes have to be dialled with another one."""
    lab.kubectl("create", "serviceaccount", "plugin", "-n", "default", check=False)
    lab.kubectl(
        "create",
        "clusterrolebinding",
        "plugin",
        "--clusterrole=cluster-admin",
        "--serviceaccount=default:plugin",
        check=False,
    )
    token = lab.kubectl("create", "token", "plugin", "-n", "default").strip()
    asked = tmp_path / "asked"
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\n"
        "import datetime, json\n"
        f"with open({str(asked)!r}, 'a') as file: file.write('x')\n"
        "until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)\n"
        "status = {'token': %r, 'expirationTimestamp': until.strftime('%%Y-%%m-%%dT%%H:%%M:%%SZ')}\n"
        % token
        + "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential', 'status': status}))\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    }
    with forward(lab, echo_pod, variant(user=user), tmp_path) as running:
        port = running.wait_ready()["port"]
        with socket.create_connection(("127.0.0.1", port), timeout=30) as held:
            held.sendall(b"before")
            assert held.recv(100) == b"before"
            time.sleep(3)
            before = asked.stat().st_size
            restarts.kill_apiserver()
            restarts.start_apiserver()
            held.sendall(b"after")
            assert held.recv(100) == b"after"
        assert asked.stat().st_size > before
    lab.kubectl("delete", "clusterrolebinding", "plugin")
    lab.kubectl("delete", "serviceaccount", "plugin", "-n", "default")
    assert os.path.getsize(asked) >= 2
    restarts.wait_controllers()
    wait_nothing_of_ours(lab)

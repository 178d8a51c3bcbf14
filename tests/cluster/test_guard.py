"""The cluster keeps its guard up: a restricted namespace, a listener that only port-forward reaches, an agent that refuses."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable

import pytest

from kt_net.errors import TunnelLost
from kt_net.kube.carrier import WebsocketCarrier
from kt_net.kube.config import load_cluster
from kt_net.kube.dial import open_carrier
from kt_net.tunnel.events import StreamData
from kt_net.tunnel.hello import Hello
from kt_net.tunnel.mux import Role
from kt_net.tunnel.requests import Network, ReplyCode, Request, parse_reply
from kt_net.tunnel.session import Tunnel
from tests.cluster.backend import Backend
from tests.cluster.ktctl import Ktctl
from tests.cluster.probes import Probe, pod_addresses, run_probes


def test_connects_in_a_restricted_namespace(backend: Backend, namespace: Callable[..., str]) -> None:
    name = namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
    with Ktctl(backend, "connect", "--namespace", name, "--image", backend.python_image) as running:
        running.wait_ready()
        pod4, _ = pod_addresses(backend, "app=web")
        rows = [Probe("name", "http", "web.default", 80), Probe("ping", "ping", pod4)]
        assert [(row["title"], row["ok"]) for row in run_probes(backend, rows)] == [("name", True), ("ping", True)]
        body = json.loads(backend.kubectl("get", "pod", "-n", name, running.ready["pod"], "-o", "json"))
    container = body["spec"]["containers"][0]["securityContext"]
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert container["readOnlyRootFilesystem"] is True
    assert body["spec"]["securityContext"]["runAsUser"] == 65532


def test_other_pods_cannot_reach_the_agent(backend: Backend, connection: Ktctl) -> None:
    agent = json.loads(backend.kubectl("get", "pod", connection.ready["pod"], "-o", "json"))["status"]["podIP"]
    code = (
        f"import socket\ntry:\n  socket.create_connection(({agent!r}, 7777), 3)\n  print('reached')\n"
        "except ConnectionRefusedError:\n  print('refused')"
    )
    assert backend.kubectl("exec", "deploy/echo", "--", "python3", "-c", code).strip() == "refused"


def test_agent_runs_without_an_account_in_the_cluster(backend: Backend, connection: Ktctl) -> None:
    found = backend.kubectl("exec", connection.ready["pod"], "--", "ls", "/var/run", check=False)
    assert "secrets" not in found
    assert backend.kubectl("exec", connection.ready["pod"], "--", "id", "-u").strip() == "65532"


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1", 7777),
        ("::1", 7777),
        ("::ffff:127.0.0.1", 7777),
        ("localhost", 7777),
        ("0.0.0.0", 7777),
        ("169.254.169.254", 80),
        ("fe80::1", 80),
        ("own address", 7777),
    ],
)
def test_agent_refuses_a_hostile_client(backend: Backend, connection: Ktctl, host: str, port: int) -> None:
    if host == "own address":
        host = json.loads(backend.kubectl("get", "pod", connection.ready["pod"], "-o", "json"))["status"]["podIP"]
    assert ask_agent(backend, connection, Request(Network.TCP, host, port)) is ReplyCode.NOT_ALLOWED


def test_agent_ends_a_session_of_nonsense(backend: Backend, connection: Ktctl) -> None:
    carrier = open_carrier(load_cluster(kubeconfig=str(backend.kubeconfig)), "default", connection.ready["pod"], 7777)
    carrier.send([b"GET / HTTP/1.1\r\n\r\n"])
    carrier.flush()
    with pytest.raises(TunnelLost):
        _read_for(carrier, 10)
    carrier.close()
    assert connection.process.poll() is None


def _read_for(carrier: WebsocketCarrier, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        select.select([carrier.fileno()], [], [], 1)
        carrier.receive()


def ask_agent(backend: Backend, connection: Ktctl, request: Request) -> ReplyCode:
    """Speak to the agent as a client of one's own making would."""
    carrier = open_carrier(load_cluster(kubeconfig=str(backend.kubeconfig)), "default", connection.ready["pod"], 7777)
    tunnel = Tunnel(role=Role.CLIENT, hello=Hello(session=os.urandom(16)))
    now = time.monotonic
    stream = tunnel.open_stream(now=now())
    tunnel.send(stream, request.emit(), now=now())
    limit = now() + 10
    try:
        while now() < limit:
            carrier.send(tunnel.data_to_send(now=now()))
            carrier.flush()
            if not carrier.pending:
                select.select([carrier.fileno()], [], [], 0.5)
            for piece in carrier.receive():
                tunnel.receive_data(piece, now=now())
            while (event := tunnel.next_event()) is not None:
                if isinstance(event, StreamData):
                    parsed = parse_reply(event.data)
                    assert parsed is not None
                    return parsed[0].code
    finally:
        carrier.close()
    raise AssertionError("the agent did not reply")

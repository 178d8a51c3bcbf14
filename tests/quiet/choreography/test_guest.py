"""An agent as a guest in a pod: the container, how it is added, and who is there already."""

from __future__ import annotations

import base64
import io
import zipfile
from typing import Any

import pytest

from kt_net.choreography.guest import AddGuest, guest_container, guest_steps, guests, probers
from kt_net.choreography.shadow import ShadowOptions
from kt_net.choreography.steps import Sequence
from kt_net.errors import UsageFault
from kt_net.kube.run import run_sequence, undo_sequence
from tests.conformance.fake_api import FakeApi

PROBE = {"readinessProbe": {"tcpSocket": {"port": 1}}}


def options(agent: bytes = b"agent") -> ShadowOptions:
    return ShadowOptions(
        "kt-exchange-abcde", "shop", "image", agent, "ann", "a" * 20, "2026-01-02T03:04:05Z", 0, agent_port=40001
    )


def pod(**status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": "web", "uid": "u", "resourceVersion": "1"},
        "spec": {},
        "status": status,
    }


def test_added_once_beside_others() -> None:
    edit = AddGuest(guest_container(options(), ("10.0.0.1",)))
    live = {**pod(), "spec": {"ephemeralContainers": [{"name": "debugger"}]}}
    request = edit.request(live)
    assert request is not None
    assert request.subresource == "ephemeralcontainers"
    assert [one["name"] for one in request.body["spec"]["ephemeralContainers"]] == ["debugger", "kt-exchange-abcde"]
    live["spec"] = request.body["spec"]
    assert edit.request(live) is None


def test_no_privilege_but_one() -> None:
    container = guest_container(options(), ())
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert security["allowPrivilegeEscalation"] is False
    assert "--untouched" not in container["command"]


def test_the_program_on_the_command_line_runs() -> None:
    """As the container would: a zip file that is in memory only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", "import sys; print(sys.argv[1:])")
    command = guest_container(options(buffer.getvalue()), ("::1",))["command"]
    assert base64.b64decode(command[4]) == buffer.getvalue()
    assert command[5:] == ["--port", "40001", "--idle-exit", "20", "--redirect", "--untouched", "::1"]


def test_too_big_for_a_command_line() -> None:
    with pytest.raises(UsageFault):
        guest_container(options(bytes(100_000)), ())


def test_the_lease_is_the_pods_and_is_taken_back() -> None:
    api = FakeApi()
    made = api.create("Pod", "shop", {"metadata": {"name": "web"}, "spec": {"other": 1}})
    sequence = Sequence(guest_steps(options(), made, guest_container(options(), ())))
    run_sequence(api, sequence)
    lease = api.get("Lease", "shop", "kt-exchange-abcde")
    assert lease["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    assert api.get("Pod", "shop", "web")["spec"]["ephemeralContainers"][0]["name"] == "kt-exchange-abcde"
    assert undo_sequence(api, sequence) == []
    assert api.objects() == [("Pod", "shop", "web")]


def test_who_is_there() -> None:
    running: dict[str, Any] = {"state": {"running": {}}}
    statuses = [
        {"name": "debugger", **running},
        {"name": "kt-exchange-a", **running},
        {"name": "kt-exchange-b", "state": {"terminated": {}}},
    ]
    assert guests(pod(ephemeralContainerStatuses=statuses)) == ["kt-exchange-a"]
    assert guests({}) == []


@pytest.mark.parametrize(
    ("containers", "status", "found"),
    [
        ([PROBE], {"hostIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}, ("10.0.0.1", "fd00::1")),
        ([{}, PROBE], {"hostIP": "10.0.0.1"}, ("10.0.0.1",)),
        ([{"livenessProbe": {"exec": {}}}], {"hostIP": "10.0.0.1"}, ()),
        ([{}], {"hostIP": "10.0.0.1"}, ()),
        ([PROBE], {}, ()),
    ],
)
def test_probers(containers: list[Any], status: dict[str, Any], found: tuple[str, ...]) -> None:
    assert probers({**pod(**status), "spec": {"containers": containers}}) == found


def test_python_understands_the_boot() -> None:
    compile(guest_container(options(), ())["command"][3], "boot", "exec")

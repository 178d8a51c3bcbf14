"""An agent as a guest in a pod: the container, how it is added, and who is there already."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kt_net.choreography.guest import (
    AddGuest,
    guest_container,
    guest_steps,
    guests,
    probers,
    refuse_host_network,
    takes_config_maps,
)
from kt_net.choreography.shadow import ShadowOptions
from kt_net.choreography.steps import Sequence
from kt_net.errors import Exchanged, UsageFault
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


def test_the_program_comes_from_a_config_map() -> None:
    """What stays in the pod's list for as long as the pod lives is small: of the agent there is nothing but where it is."""
    container = guest_container(options(bytes(50_000)), ("::1",))
    assert container["command"][:3] == ["python3", "-I", "-c"]
    assert container["command"][4:] == ["--port", "40001", "--idle-exit", "20", "--redirect", "--untouched", "::1"]
    (variable,) = container["env"]
    assert variable["valueFrom"]["configMapKeyRef"] == {"name": "kt-exchange-abcde", "key": variable["name"]}
    assert len(json.dumps(container)) < 2000


def test_before_config_maps_it_stands_in_the_pod() -> None:
    container = guest_container(options(), (), inline=True)
    (variable,) = container["env"]
    assert base64.b64decode(variable["value"]) == b"agent"
    assert [step.kind for step in guest_steps(options(), pod(), inline=True)] == ["Lease", "Pod"]


@pytest.mark.parametrize(
    ("major", "minor", "takes"),
    [("1", "34", True), ("1", "33+", True), ("1", "32", False), ("1", "25+", False), ("2", "0", True), ("", "", True)],
)
def test_which_versions_take_config_maps(major: str, minor: str, takes: bool) -> None:
    assert takes_config_maps({"major": major, "minor": minor}) is takes


@pytest.mark.parametrize("inline", [False, True])
def test_too_big_for_a_variable(inline: bool) -> None:
    big = options(bytes(100_000))
    with pytest.raises(UsageFault):
        guest_steps(big, pod(), inline=inline)


def test_the_lease_is_the_pods_and_is_taken_back() -> None:
    api = FakeApi()
    made = api.create("Pod", "shop", {"metadata": {"name": "web"}, "spec": {"other": 1}})
    sequence = Sequence(guest_steps(options(), made))
    run_sequence(api, sequence)
    lease = api.get("Lease", "shop", "kt-exchange-abcde")
    assert lease["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    source = api.get("ConfigMap", "shop", "kt-exchange-abcde")
    assert source["metadata"]["ownerReferences"][0]["uid"] == lease["metadata"]["uid"]
    assert [base64.b64decode(word) for word in source["data"].values()] == [b"agent"]
    assert api.get("Pod", "shop", "web")["spec"]["ephemeralContainers"][0]["name"] == "kt-exchange-abcde"
    assert undo_sequence(api, sequence) == []
    assert api.objects() == [("Pod", "shop", "web")]


def inhabited(**states: str) -> dict[str, Any]:
    """A pod with these ephemeral containers; one that is "added" has no status yet."""
    statuses = [{"name": name, "state": {state: {}}} for name, state in states.items() if state != "added"]
    containers = [{"name": name} for name in states]
    return {**pod(ephemeralContainerStatuses=statuses), "spec": {"ephemeralContainers": containers}}


def test_who_is_there() -> None:
    names = {"debugger": "running", "kt-exchange-a": "running", "kt-exchange-b": "terminated"}
    found = inhabited(**names, **{"kt-exchange-c": "waiting", "kt-exchange-d": "added"})
    assert guests(found) == ["kt-exchange-a", "kt-exchange-c", "kt-exchange-d"]
    assert guests(found, running=True) == ["kt-exchange-a"]
    assert guests({}) == []


@pytest.mark.parametrize("state", ["added", "waiting", "running"])
def test_of_two_who_add_one_at_the_same_time_the_second_is_told(state: str) -> None:
    """It has looked before the first one's was there; its request has not held, and it looks again."""
    edit = AddGuest(guest_container(options(), ()))
    with pytest.raises(Exchanged, match="pod/web is exchanged"):
        edit.request(inhabited(**{"kt-exchange-first": state}))
    assert edit.request(inhabited(**{"kt-exchange-first": "terminated"})) is not None
    known = AddGuest(guest_container(options(), ()), frozenset({"kt-exchange-first"}))
    assert known.request(inhabited(**{"kt-exchange-first": state})) is not None


def test_the_nodes_network_is_everybodys() -> None:
    refuse_host_network(pod())
    with pytest.raises(UsageFault, match="its node's network"):
        refuse_host_network({**pod(), "spec": {"hostNetwork": True}})


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

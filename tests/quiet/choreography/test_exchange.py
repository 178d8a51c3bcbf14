"""What an exchange is made of: ports by number, name and target; shapes of Services; what is said and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from kt_net.choreography.exchange import matching, plan, pooled, ports_of
from kt_net.choreography.expose import Expose
from kt_net.choreography.shadow import ContainerPort
from kt_net.errors import UsageFault

HTTP = {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}
ADMIN = {"name": "admin", "port": 8081, "targetPort": 9090, "protocol": "TCP"}
DNS_TCP = {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"}
DNS_UDP = {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"}


def service(*ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    whole = {"selector": {"app": "shop"}, "clusterIP": "10.0.0.1", "ports": list(ports) or [HTTP], **spec}
    return {"kind": "Service", "metadata": {"name": "shop", "namespace": "default"}, "spec": whole}


@pytest.mark.parametrize(
    ("text", "remote", "protocol"),
    [
        ("8080:80", 80, "TCP"),
        ("8080:http", 80, "TCP"),
        ("8080:web", 80, "TCP"),
        ("8080:8081", 8081, "TCP"),
        ("8080:9090", 8081, "TCP"),
        ("9090", 8081, "TCP"),
        ("80", 80, "TCP"),
        ("5353:53", 53, "TCP"),
        ("5353:53/udp", 53, "UDP"),
        ("5353:dns", 53, "UDP"),
    ],
)
def test_a_port_by_number_target_or_name(text: str, remote: int, protocol: str) -> None:
    planned = plan(service(HTTP, ADMIN, DNS_TCP, DNS_UDP), [text], numbers={"web": 3000})
    (expose,) = planned.ports
    assert (expose.remote, expose.protocol, expose.host) == (remote, protocol, "127.0.0.1")


def test_the_only_port_needs_no_name() -> None:
    assert list(plan(service(), ["8080"]).ports) == [Expose("127.0.0.1", 8080, 80)]


def test_where_the_agent_listens() -> None:
    """A number cannot be moved; a name gets the originals' number where that needs no root."""
    planned = plan(service(HTTP, ADMIN), ["1:http", "10.0.0.9:2:admin"], numbers={"web": 3000})
    assert planned.ports == {Expose("127.0.0.1", 1, 80): 3000, Expose("10.0.0.9", 2, 8081): 9090}
    assert planned.named == (ContainerPort("web", 3000, "TCP"),)
    assert not planned.low
    assert plan(service(HTTP), ["1"], numbers={"web": 80}).ports == {Expose("127.0.0.1", 1, 80): 20080}
    assert plan(service(DNS_TCP), ["1"]).low


def test_names_of_one_number_are_listened_on_once_and_do_not_meet_a_number() -> None:
    second = {"name": "second", "port": 81, "targetPort": "web"}
    planned = plan(service(HTTP, second, ADMIN), ["1:80", "1:81", "1:8081"], numbers={"web": 9090})
    assert sorted(planned.ports.values()) == [9090, 9091, 9091]
    assert planned.named == (ContainerPort("web", 9091, "TCP"),)


def test_the_agents_own_port_gives_way() -> None:
    planned = plan(service({"port": 80, "targetPort": 7777}, {"port": 81, "targetPort": 7778}), ["1:80", "1:81"])
    assert planned.agent_port == 7779


def test_headless_callers_come_by_the_targets_number_and_by_the_services() -> None:
    planned = plan(service(HTTP, clusterIP="None"), ["1"], numbers={"web": 3000})
    assert planned.ports == {Expose("127.0.0.1", 1, 3000): 3000, Expose("127.0.0.1", 1, 80): 80}
    assert planned.low
    assert any("headless" in note for note in planned.notes)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"sessionAffinity": "ClientIP"}, "affinity"),
        ({"internalTrafficPolicy": "Local"}, "internalTrafficPolicy Local"),
        ({"externalTrafficPolicy": "Local"}, "externalTrafficPolicy Local"),
        ({"publishNotReadyAddresses": True}, "not ready"),
    ],
)
def test_what_is_said(spec: dict[str, Any], word: str) -> None:
    assert any(word in note for note in plan(service(**spec), ["8080"]).notes)


def test_ports_that_are_not_exposed_are_said() -> None:
    assert plan(service(HTTP, ADMIN), ["1:80"]).notes == (
        "not exposed, refused from now on: port 8081 (admin) to 9090",
    )


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"type": "ExternalName", "externalName": "db.example.com", "selector": None}, "db.example.com"),
        ({"selector": {}}, "selector"),
    ],
)
def test_refused_shapes(spec: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageFault) as refused:
        plan(service(**spec), ["8080"])
    assert word in refused.value.why
    assert refused.value.next_step


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["x"],
        ["8080:"],
        ["8080:-"],
        ["0"],
        ["70000"],
        ["1:70000"],
        ["8080:82"],
        ["8080:other"],
        ["8080"],
        ["1:80/udp"],
        ["1:80", "2:http"],
        ["1:same"],
        [f"{number}:80" for number in range(1, 66)],
    ],
)
def test_what_makes_no_sense(texts: list[str]) -> None:
    same = [{"name": name, "port": port, "targetPort": "same"} for name, port in (("a", 90), ("b", 91))]
    with pytest.raises(UsageFault):
        plan(service(HTTP, ADMIN, *same), texts)


def test_services_of_a_workload() -> None:
    both = [service(), {**service(), "spec": {"selector": {"app": "shop", "tier": "x"}}}, {"spec": {}}]
    assert matching(both, {"app": "shop", "version": "1"}) == both[:1]


def test_connections_that_callers_keep() -> None:
    grpc = {"name": "api", "port": 1, "appProtocol": "kubernetes.io/h2c"}
    found = pooled(ports_of(service(HTTP, grpc, {"name": "redis", "port": 6379}, {"port": 132, "protocol": "SCTP"})))
    assert found == ["1 (api)", "6379 (redis)"]

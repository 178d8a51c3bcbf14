"""What a target is, by what the cluster has of it."""

from __future__ import annotations

from typing import Any

import pytest

from kt_net.errors import KtError, ObjectMissing, PermissionMissing, RequestRefused, UsageFault
from kt_net.forward.places import Address, Part
from kt_net.forward.ports import Port, Protocol
from kt_net.forward.targets import parse_target
from kt_net.kube.api import Object
from kt_net.session.forward_target import Destination, find
from tests.conformance.fake_api import FakeApi

HTTP = Port("http", 80, Protocol.TCP)
SHOP = "shop"


class NoServices(FakeApi):
    """For one who may read pods only."""

    def get(self, kind: str, namespace: str, name: str) -> Object:
        if kind == "Service":
            raise PermissionMissing("cannot get Service")
        return super().get(kind, namespace, name)


def cluster(api: FakeApi) -> FakeApi:
    """One of each shape."""

    def add(kind: str, name: str, **spec: Any) -> None:
        api.create(kind, SHOP, {"metadata": {"name": name}, "spec": spec})

    ports = [{"name": "http", "port": 80}]
    add("Service", "web", clusterIP="10.97.0.9", ipFamilies=["IPv4"], ports=ports)
    add("Service", "six", clusterIP="fd00::9", ipFamilies=["IPv6"], ports=ports)
    add("Service", "bare", clusterIP="None", ipFamilies=["IPv4"])
    add("Service", "away", type="ExternalName", externalName="db.internal")
    add("Pod", "alone", containers=[{"ports": [{"name": "http", "containerPort": 80}]}])
    template = {"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 80}]}]}}
    for kind in ("Deployment", "StatefulSet"):
        add(kind, "work", selector={"matchLabels": {"app": "work"}}, template=template)
    add("Deployment", "lost", template=template)
    return api


def found(text: str, *, balance: bool = False, api: FakeApi | None = None) -> Destination:
    return find(api or cluster(FakeApi()), SHOP, parse_target(text), balance=balance)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "balance", "title", "watched", "unlisted", "by_name"),
    [
        ("web", False, "service/web", ("Service", "", "metadata.name=web"), False, False),
        ("svc/web", True, "service/web", ("EndpointSlice", "kubernetes.io/service-name=web", ""), False, True),
        ("svc/bare", False, "service/bare", ("EndpointSlice", "kubernetes.io/service-name=bare", ""), True, True),
        ("alone", False, "pod/alone", ("Pod", "", "metadata.name=alone"), True, False),
        ("pod/alone", False, "pod/alone", ("Pod", "", "metadata.name=alone"), True, False),
        ("deploy/work", False, "deployment/work", ("Pod", "app=work", ""), True, False),
        ("sts/work", True, "statefulset/work", ("Pod", "app=work", ""), True, False),
    ],
)
def test_what_is_followed(
    text: str, balance: bool, title: str, watched: tuple[str, str, str], unlisted: bool, by_name: bool
) -> None:
    one = found(text, balance=balance)
    assert one.watch is not None
    assert (one.watch.kind, one.watch.selector, one.watch.fields) == watched
    assert (str(one.target), one.unlisted, one.by_name) == (title, unlisted, by_name)
    assert one.offered == (() if "bare" in text else (HTTP,))
    assert one.how
    assert one.absent


@pytest.mark.parametrize(("text", "name"), [("db.internal", "db.internal"), ("host/db", "db"), ("away", "db.internal")])
def test_hosts_are_fixed(text: str, name: str) -> None:
    one = found(text)
    assert one.watch is None
    assert one.fixed == Part((Address(name, "", True),))


def test_the_family_is_the_services_first() -> None:
    for name, family in (("web", "IPv4"), ("six", "IPv6")):
        watch = found(f"svc/{name}", balance=True).watch
        assert watch is not None
        ends = {"addressType": family, "endpoints": [{"addresses": ["10.0.0.1"]}]}
        assert watch.keep(ends).addresses
        assert not watch.keep(ends | {"addressType": "FQDN"}).addresses


@pytest.mark.parametrize(
    ("text", "balance", "error"),
    [
        ("svc/alone", False, ObjectMissing),
        ("pod/web", False, ObjectMissing),
        ("nobody", False, ObjectMissing),
        ("deploy/nobody", False, ObjectMissing),
        ("deploy/lost", False, UsageFault),
        ("pod/alone", True, UsageFault),
        ("alone", True, UsageFault),
        ("10.0.0.1", True, UsageFault),
        ("svc/away", True, UsageFault),
    ],
)
def test_refused(text: str, balance: bool, error: type[KtError]) -> None:
    with pytest.raises(error) as refused:
        found(text, balance=balance)
    assert refused.value.next_step


def test_who_may_not_read_services_can_name_a_pod() -> None:
    api = cluster(NoServices())
    assert str(found("alone", api=api).target) == "pod/alone"
    with pytest.raises(PermissionMissing):
        found("nobody", api=api)


@pytest.mark.parametrize("spec", [{"ports": 7}, {"ports": [7]}, {"ports": [{"port": "x"}]}, {"ports": [{"port": [7]}]}])
def test_an_answer_that_makes_no_sense(spec: dict[str, Any]) -> None:
    api = FakeApi()
    api.create("Service", SHOP, {"metadata": {"name": "web"}, "spec": {"clusterIP": "10.97.0.9", **spec}})
    with pytest.raises(RequestRefused, match="service/web makes no sense"):
        found("svc/web", api=api)

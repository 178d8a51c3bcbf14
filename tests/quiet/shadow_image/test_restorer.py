"""The agent gives back when the Lease has not changed for as long as it holds, by the agent's own clock and nobody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kt_net.choreography.edits import Request, TakeSelector
from kt_net.choreography.restorer import Account, restore_text, rules
from kt_net.errors import ApiUnreachable, ObjectMissing, UsageFault
from kt_net.kube.run import run_edit
from shadow_image.restorer import Charge, Restorer, parse_charge
from tests.conformance.fake_api import FakeApi

CHARGE = Charge("lease", "a", (("Service", "web"),))


class Pod:
    """The agent's clock, its Lease and its cluster."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.away = False
        self.api = FakeApi()
        self.api.create("Service", "shop", {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}})
        self.api.create("Lease", "shop", {"metadata": {"name": "lease"}, "spec": {"leaseDurationSeconds": 30}})
        self.renew("2026-01-01T00:00:00Z")
        run_edit(self.api, "Service", "shop", "web", TakeSelector("a", "ann", "2026-01-02T03:04:05Z"))
        self.restorer = Restorer(CHARGE, self, lambda: self.now)

    def read(self, kind: str, name: str) -> dict[str, Any]:
        if self.away:
            raise ApiUnreachable("away")
        return self.api.get(kind, "shop", name)

    def write(self, kind: str, name: str, request: Request) -> dict[str, Any]:
        if self.away:
            raise ApiUnreachable("away")
        return self.api.patch(kind, "shop", name, request.body, subresource=request.subresource)

    def renew(self, stamp: str) -> None:
        self.api.patch("Lease", "shop", "lease", {"spec": {"renewTime": stamp}})

    def after(self, seconds: float) -> bool:
        """Looks every two seconds for so long; whether it has given back."""
        for _ in range(int(seconds / 2)):
            self.now += 2
            if self.restorer.look():
                return True
        return False

    @property
    def selector(self) -> object:
        return self.api.get("Service", "shop", "web")["spec"]["selector"]


@pytest.mark.parametrize("stamp", ["2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z", "2025-12-31T23:50:00Z", "nonsense"])
def test_the_time_without_a_change_counts_and_no_stamp(stamp: str) -> None:
    pod = Pod()
    pod.renew(stamp)
    assert not pod.after(30)
    assert pod.after(4)
    assert pod.selector == {"app": "web"}


def test_a_lease_that_is_renewed_lives_for_ever() -> None:
    pod = Pod()
    for turn in range(50):
        pod.renew(f"2026-01-01T00:{turn:02}:00Z")
        assert not pod.after(20)
    assert pod.selector != {"app": "web"}


def test_while_nobody_can_renew_no_time_passes() -> None:
    pod = Pod()
    assert not pod.after(20)
    pod.away = True
    assert not pod.after(600)
    pod.away = False
    assert not pod.after(28)
    assert pod.after(6)


def test_a_lease_that_is_deleted_is_not_renewed() -> None:
    pod = Pod()
    assert not pod.after(20)
    pod.api.delete("Lease", "shop", "lease")
    assert not pod.after(30)
    assert pod.after(4)


def test_what_cannot_be_given_back_yet_is_tried_again() -> None:
    pod = Pod()
    assert not pod.after(30)
    real, pod.write = pod.write, lambda kind, name, request: (_ for _ in ()).throw(ApiUnreachable("away"))  # type: ignore[method-assign]
    assert not pod.after(10)
    pod.write = real  # type: ignore[method-assign]
    assert pod.after(2)


def test_a_service_that_is_gone_is_given_back() -> None:
    pod = Pod()
    pod.api.delete("Service", "shop", "web")
    assert pod.after(34)
    with pytest.raises(ObjectMissing):
        pod.api.get("Service", "shop", "web")


def test_what_it_is_told() -> None:
    account = Account((("Service", "web"), ("Deployment", "app")), own=True)
    assert parse_charge(restore_text(account, "lease", "a")) == Charge("lease", "a", account.objects)
    assert rules(account, "lease") == [
        {"apiGroups": [group], "resources": resources, "resourceNames": [name], "verbs": verbs}
        for group, resources, name, verbs in (
            ("coordination.k8s.io", ["leases"], "lease", ["get"]),
            ("", ["services"], "web", ["get", "patch"]),
            ("apps", ["deployments"], "app", ["get", "patch"]),
            ("apps", ["deployments/scale"], "app", ["patch"]),
        )
    ]


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", "[" * 5000, json.dumps({"lease": "l", "session": "a", "objects": [["Secret", "x"]]}),
     json.dumps({"lease": "l", "session": "a", "objects": [["Service"]]}),
     json.dumps({"lease": "l", "session": "a", "objects": [["Service", "x"]] * 65})],
)  # fmt: skip
def test_what_it_cannot_be_told(text: str) -> None:
    with pytest.raises(UsageFault):
        parse_charge(text)

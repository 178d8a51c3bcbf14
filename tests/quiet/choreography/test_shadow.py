"""The sequence of a shadow pod, walked to every point and back against the fake API."""

from __future__ import annotations

import json

import pytest

from kt_net.choreography.lease import renewal
from kt_net.choreography.names import annotation_safe, check_namespace, shadow_name
from kt_net.choreography.shadow import ShadowOptions, shadow_steps
from kt_net.choreography.steps import Reference, Sequence, Step
from kt_net.errors import RequestRefused, UsageFault
from kt_net.kube.run import run_sequence, run_step, undo_sequence
from tests.conformance.fake_api import FakeApi

OPTIONS = ShadowOptions(
    name="kt-connect-shadow-abcde",
    namespace="default",
    image="python:3",
    agent=b"zip",
    user="ada",
    target="t" * 20,
    now_rfc3339="2026-01-01T00:00:00.000000Z",
    now_unix=1767225600,
)


def test_everything_is_owned_by_the_job() -> None:
    api = FakeApi()
    run_sequence(api, Sequence(shadow_steps(OPTIONS)))
    job = api.get("Job", "default", OPTIONS.name)
    for kind in ("ConfigMap", "Lease"):
        (owner,) = api.get(kind, "default", OPTIONS.name)["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("Job", job["metadata"]["uid"])
        assert api.get(kind, "default", OPTIONS.name)["metadata"]["labels"]["control-by"] == "kt"


@pytest.mark.parametrize("stop", range(4))
@pytest.mark.parametrize("answered", [True, False], ids=["told", "not told"])
def test_stopped_after_every_step_nothing_is_left(stop: int, answered: bool) -> None:
    """Also when the answer to the last request never came: it may have been carried out."""
    api, sequence = FakeApi(), Sequence(shadow_steps(OPTIONS))
    for number in range(stop):
        step = sequence.due()
        assert step is not None
        answer = run_step(api, step)
        if answered or number < stop - 1:
            sequence.done(answer)
    undo_sequence(api, sequence)
    assert api.objects() == []


@pytest.mark.parametrize("kind", ["Job", "ConfigMap", "Lease"])
def test_a_step_that_is_refused_takes_the_others_back(kind: str) -> None:
    api = FakeApi(refuse_create={kind})
    with pytest.raises(RequestRefused):
        run_sequence(api, Sequence(shadow_steps(OPTIONS)))
    assert api.objects() == []


def test_pod_passes_restricted() -> None:
    """Kubernetes doc, "Pod Security Standards", restricted."""
    job = shadow_steps(OPTIONS)[0].body
    assert job is not None
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]) == {"requests", "limits"}
    assert not any(key.startswith("host") for key in pod)
    assert job["spec"]["ttlSecondsAfterFinished"] == 20


def test_less_where_admission_wants_less() -> None:
    plain = ShadowOptions(
        **{**{name: getattr(OPTIONS, name) for name in OPTIONS.__slots__}, "sysctls": False, "uid": None}
    )
    job = shadow_steps(plain)[0].body
    assert job is not None
    assert set(job["spec"]["template"]["spec"]["securityContext"]) == {"runAsNonRoot", "seccompProfile"}


def test_steps_of_one_title_and_early_references_are_mistakes() -> None:
    step = Step("a", "create", "Job", "x", "y", {})
    with pytest.raises(UsageFault):
        Sequence([step, step])
    with pytest.raises(UsageFault):
        Sequence([Step("b", "create", "Job", "x", "y", {"uid": Reference("a")})]).due()


def test_names() -> None:
    assert shadow_name(bytes([0, 1, 25, 26, 255])) == "kt-connect-shadow-abzav"
    assert check_namespace("my-ns") == "my-ns"
    for bad in ("", "Ns", "a_b", "-a", "x" * 64):
        with pytest.raises(UsageFault):
            check_namespace(bad)
    assert annotation_safe("ada\n\x00!" + "x" * 500, 6) == "ada!xx"


def test_renewal_is_bounded() -> None:
    body = renewal(renew_time="t", unix_seconds=7, summary={"flows": 3})
    assert json.loads(body["metadata"]["annotations"]["kt-summary"]) == {"flows": 3}
    assert (
        "kt-summary"
        not in renewal(renew_time="t", unix_seconds=7, summary={"x": "y" * 2000})["metadata"]["annotations"]
    )

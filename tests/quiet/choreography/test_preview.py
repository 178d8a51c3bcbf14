"""The Service of a preview against the fake API: stopped anywhere, moved, and in the way of somebody else's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_net.choreography.expose import parse_exposes, pod_ports
from kt_net.choreography.names import preview_prefix, shadow_name
from kt_net.choreography.preview import (
    SERVICE,
    PreviewOptions,
    beat_step,
    check_service_name,
    external_address,
    move_step,
    preview_steps,
    whose,
)
from kt_net.choreography.shadow import JOB, shadow_steps
from kt_net.choreography.steps import Sequence, Step
from kt_net.errors import AlreadyThere, ObjectMissing, RequestRefused, UsageFault
from kt_net.kube.run import run_sequence, run_step, undo_sequence
from tests.conformance.fake_api import FakeApi
from tests.quiet.choreography.test_shadow import OPTIONS

SHADOW = replace(OPTIONS, name="web-kt-abcde", role="shadow-preview")
THEIRS = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": {}}


def preview_options(job_uid: str, shadow: str = SHADOW.name) -> PreviewOptions:
    ports = pod_ports(parse_exposes(["8080:80", "5353:53/udp"]))
    return PreviewOptions("web", "default", ports, "ada", SHADOW.target, shadow, job_uid, 1767225600)


def begun() -> tuple[FakeApi, Sequence, PreviewOptions]:
    """The shadow pod's objects are there."""
    api, shadow = FakeApi(), Sequence(shadow_steps(SHADOW))
    run_sequence(api, shadow)
    return api, shadow, preview_options(shadow.uid(JOB))


def test_service() -> None:
    api, shadow, options = begun()
    sequence = Sequence(preview_steps(options))
    run_sequence(api, sequence)
    service = api.get("Service", "default", "web")
    job = api.get("Job", "default", SHADOW.name)
    pods = job["spec"]["template"]["metadata"]["labels"] | {"job-name": SHADOW.name}
    assert service["spec"]["selector"].items() <= pods.items()
    assert service["metadata"]["labels"]["kt-role"] == pods["kt-role"] == "shadow-preview"
    assert service["metadata"]["annotations"]["kt-user"] == "ada"
    assert (service["spec"]["type"], service["spec"]["ipFamilyPolicy"]) == ("ClusterIP", "PreferDualStack")
    assert [
        (port["name"], port["protocol"], port["port"], port["targetPort"]) for port in service["spec"]["ports"]
    ] == [
        ("kt-80", "TCP", 80, 20080),
        ("kt-53-udp", "UDP", 53, 20053),
    ]
    assert preview_steps(replace(options, external=True))[0].body is not None
    undo_sequence(api, shadow)  # and nothing else: the Job owns it
    assert api.objects() == []


@pytest.mark.parametrize("stop", range(3))
@pytest.mark.parametrize("answered", [True, False], ids=["told", "not told"])
@pytest.mark.parametrize("theirs", [True, False], ids=["somebody's", "free"])
def test_stopped_anywhere(stop: int, answered: bool, theirs: bool) -> None:
    """Nothing of ours is left, and what is somebody else's is as it was."""
    api, shadow, options = begun()
    before = api.create("Service", "default", THEIRS) if theirs else None
    sequence = Sequence(preview_steps(options))
    if stop:
        step = sequence.due()
        assert step is not None
        try:
            if stop == 2:
                made = run_step(api, step)
                if answered:
                    sequence.done(made)
        except AlreadyThere:
            assert theirs
    undo_sequence(api, sequence)
    undo_sequence(api, shadow)
    assert api.objects() == ([("Service", "default", "web")] if theirs else [])
    if before is not None:
        assert api.get("Service", "default", "web") == before


def test_existing_is_refused_and_not_touched() -> None:
    api, _, options = begun()
    before = api.create("Service", "default", THEIRS)
    with pytest.raises(AlreadyThere):
        run_sequence(api, Sequence(preview_steps(options)))
    assert api.get("Service", "default", "web") == before


def test_moved_to_another_shadow_pod_it_stays_when_the_last_ones_objects_go() -> None:
    api, shadow, options = begun()
    sequence = Sequence(preview_steps(options))
    run_sequence(api, sequence)
    later = Sequence(shadow_steps(replace(SHADOW, name="web-kt-vwxyz")))
    run_sequence(api, later)
    moved = preview_options(later.uid(JOB), "web-kt-vwxyz")
    run_step(api, move_step(moved, sequence.uid(SERVICE)))
    undo_sequence(api, shadow)
    service = api.get("Service", "default", "web")
    assert service["spec"]["selector"]["job-name"] == "web-kt-vwxyz"
    assert [owner["uid"] for owner in service["metadata"]["ownerReferences"]] == [later.uid(JOB)]
    assert service["spec"]["ports"]
    undo_sequence(api, sequence)
    assert "Service" not in {kind for kind, _, _ in api.objects()}


@pytest.mark.parametrize("step", [move_step, lambda options, uid: beat_step(options, uid, 7)], ids=["move", "beat"])
def test_somebody_elses_of_the_same_name_is_not_changed(step: object) -> None:
    api, _, options = begun()
    sequence = Sequence(preview_steps(options))
    run_sequence(api, sequence)
    api.delete("Service", "default", "web")
    made = step(options, sequence.uid(SERVICE))  # type: ignore[operator]
    assert isinstance(made, Step)
    with pytest.raises(ObjectMissing):
        run_step(api, made)
    before = api.create("Service", "default", THEIRS)
    with pytest.raises(RequestRefused):
        run_step(api, made)
    undo_sequence(api, sequence)
    assert api.get("Service", "default", "web") == before


def test_a_step_that_is_not_done_has_no_uid() -> None:
    with pytest.raises(UsageFault):
        Sequence(preview_steps(preview_options("u"))).uid(SERVICE)


def test_words_about_a_service() -> None:
    metadata = {"creationTimestamp": "T", "labels": {"control-by": "kt"}, "annotations": {"kt-user": "ada\n"}}
    assert whose({"metadata": metadata}) == "ada previews it since T"
    assert whose({"metadata": {"creationTimestamp": "T"}}) == "it is there since T, and not a preview"
    assert whose({}) == "it is there since ?, and not a preview"
    ingress = [{"ip": "192.0.2.1"}, {"hostname": "lb.test"}, {}]
    assert external_address({"status": {"loadBalancer": {"ingress": ingress}}}) == "192.0.2.1, lb.test"
    assert external_address({"status": {"loadBalancer": {}}}) == ""


def test_names() -> None:
    assert check_service_name("web-2") == "web-2"
    for bad in ("", "Web", "2web", "web.shop", "web-", "w" * 64):
        with pytest.raises(UsageFault):
            check_service_name(bad)
    assert shadow_name(bytes(5), preview_prefix("web")) == "web-kt-aaaaa"
    long = shadow_name(bytes(5), preview_prefix("w" * 49 + "-" + "x" * 13))
    assert long == "w" * 49 + "-kt-aaaaa"
    assert len(preview_prefix("w" * 63) + "aaaaa" + "ab") <= 63
